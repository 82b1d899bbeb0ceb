"""A distillation run: students that learn from one :class:`~kd_env.types.Decision` per update. It knows nothing of rewards.

In: an encoded task, settings, seeds, decisions. Out: students. ``observe()`` forwards the next mini-batch with gradients, and
``apply(decision)`` backpropagates the loss through that same forward pass, so that looking at the student costs nothing extra.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env.distillation import snapshot
from kd_env.distillation.data import EncodedTask
from kd_env.distillation.dropout import DropoutGenerator
from kd_env.distillation.loss import Loss
from kd_env.distillation.order import make_order
from kd_env.distillation.reward_split import RewardSplit
from kd_env.distillation.settings import DistillationSettings, student_config
from kd_env.distillation.state import RunState
from kd_env.knowledge import label
from kd_env.knowledge.terms import Term
from kd_env.models.encode import take
from kd_env.serialization import from_bytes, to_bytes
from kd_env.student.build import build_network, build_students
from kd_env.types import Batch, Decision, Inputs, ModelOutput, Outcome


class Distillation:
    """S students that are being taught (S is 1 by default), each as it would be alone.

    Rows of a batch are those of student 0's mini-batch, then of student 1's and so on; values per student have shape ``[S]``. On CPU a run
    is deterministic in its seeds, whatever else draws from torch's global generator.
    """

    def __init__(
        self, data: EncodedTask, settings: DistillationSettings, seed: int | Sequence[int], reward_split: RewardSplit | None = None
    ) -> None:
        """Initialise students and data orders.

        Args:
            seed: student s begins from ``seed + s``, or from ``seed[s]``.
            reward_split: the labelled reward examples, which ``reward_ce`` trains on; by default all of them.

        Raises:
            InputError: fewer training examples than one mini-batch, or a knowledge type that does not fit the setting or the student.
        """
        num_students = settings.num_students
        seeds = [int(seed) + s for s in range(num_students)] if isinstance(seed, int | np.integer) else [int(value) for value in seed]
        self.data, self.settings = data, settings
        self._next_rows = make_order(data, settings)
        self.loss = Loss(settings, data.task)
        self.reward_split = reward_split or RewardSplit(data, 0, [0] * num_students)
        self._config = student_config(settings, self.loss.terms, data.bank.shapes)
        self.student = build_students(data.task, self._config, data.example(), seeds)
        self.state = RunState.start(num_students)
        self.state.seed[:] = seeds
        self.batch: Batch | None = None  # the observed mini-batches, until they are taught
        self._output: ModelOutput | None = None  # of the forward pass that apply() differentiates
        self._inputs: Inputs = {}
        self.dropout = DropoutGenerator(seeds[0], self.student.device, self.student.has_dropout)

    @property
    def num_students(self) -> int:
        """Number of students S."""
        return self.settings.num_students

    @property
    def num_teachers(self) -> int:
        """Number of teachers K."""
        return self.data.bank.num_teachers

    @property
    def update(self) -> np.ndarray:
        """Updates so far ``[S]``."""
        return self.state.update

    @property
    def seeds(self) -> np.ndarray:
        """Seeds of the students ``[S]``."""
        return self.state.seed

    @property
    def diverged(self) -> np.ndarray:
        """Students whose loss is no longer finite ``[S]``; whoever finds one on other examples sets it too."""
        return self.state.diverged

    @property
    def done(self) -> np.ndarray:
        """Students that have spent their budget or have diverged, ``[S]``."""
        return self.state.diverged | (self.state.update >= self.settings.updates)

    @property
    def terms(self) -> dict[str, Term]:
        """The knowledge types of the setting, by name."""
        return self.loss.terms

    def observe(self) -> Batch:
        """Forward the next mini-batches (cached until :meth:`apply`) and return them with the outputs of teachers and students."""
        if self.batch is None:
            seeds = np.full_like(self.seeds, self.seeds[0]) if self.loss.asks_peers else self.seeds  # peers see the same examples
            rows = np.concatenate([self._next_rows(int(seed), int(update)) for seed, update in zip(seeds, self.update, strict=True)])
            self._inputs = take(self.data.inputs["train"], rows, self.student.device)
            self.dropout.before_batch = self.dropout.states
            with self.dropout.draw():
                self._output = self.student.forward(self._inputs, self.loss.extra_outputs)
            update, progress = self.state.update.copy(), self.state.update / self.settings.updates
            self.batch = self.data.batch("train", rows, self._output, update, progress, self.loss.extra_outputs)
            self.state.forward_examples += self.settings.batch_size
        return self.batch

    def student_output(self) -> ModelOutput:
        """Return the students' outputs for the observed mini-batches, differentiable."""
        self.observe()
        assert self._output is not None
        return self._output

    def batch_inputs(self) -> Inputs:
        """Return the students' inputs of the observed mini-batches."""
        self.observe()
        return self._inputs

    def per_teacher_loss(self, name: str, temperature: float | Tensor, output: ModelOutput | None = None) -> Tensor:
        """Return the loss of every observed example against every teacher, ``[rows, K]``, of ``label`` ``[rows, 1]``.

        By default it is that of :meth:`student_output`, and differentiable.
        """
        return self.loss.per_teacher(name, temperature, self.student_output() if output is None else output, self.observe())

    def per_example_loss(self, decision: Decision) -> Tensor:
        """Return the loss of each observed example ``[rows]``, differentiable."""
        return self.loss.per_example(decision, self.student_output(), self.observe())

    def apply(self, decision: Decision, active: np.ndarray | None = None) -> Outcome:
        """Teach the observed mini-batches as ``decision`` says: one optimizer step.

        Args:
            active: students to teach ``[S]``; by default, and at most, those that are not done.
        """
        active = ~self.done if active is None else active & ~self.done
        assert active.any(), "the budget is spent"
        batch = self.observe()
        student_ce = label.ce(batch.student.logits, batch.labels)
        loss = self.per_example_loss(decision).view(self.num_students, -1).mean(1)  # [S]
        if self.settings.reward_ce > 0.0:
            loss = loss + self.settings.reward_ce * self._reward_ce()
        value = loss.detach().double().cpu().numpy()
        self.state.diverged |= active & ~np.isfinite(value)
        learns = active & ~self.state.diverged
        if learns.any() and loss.requires_grad:
            chosen = loss if learns.all() else loss[torch.from_numpy(learns).to(loss.device)]
            self.student.step(chosen.sum(), batch.progress, learns)
        self.skip(active)
        return Outcome(value, student_ce, self.state.diverged.copy())

    def skip(self, active: np.ndarray | None = None) -> None:
        """Go on to the next mini-batches without learning from the observed ones."""
        self.state.update += np.ones_like(self.state.diverged) if active is None else active
        self.forget_batch()

    def logits_after_update(self) -> Tensor:
        """Return logits ``[rows, C]`` for the mini-batches last taught, after their update; one more pass, which is counted."""
        self.state.forward_examples += self.settings.batch_size
        return self.student.predict(self._inputs)

    def validate(self) -> tuple[np.ndarray, np.ndarray]:
        """Return loss and metric ``[S]`` on the validation split."""
        return self.student.evaluate(self.data.inputs["validation"], self.data.labels["validation"], shared=True)

    def reset_student(self, student: int, seed: int) -> None:
        """Begin again with one student of a population; the other students are not affected."""
        self.student.reset_student(student, build_network(self.data.task, self._config, self.data.example(), seed))
        self.state.reset(student)
        self.state.seed[student] = seed
        if self.batch is not None:  # it will be forwarded again
            self.forget_batch()
            self.dropout.states = self.dropout.before_batch
            self.state.forward_examples -= self.settings.batch_size * (np.arange(self.num_students) != student)

    def snapshot(self) -> bytes:
        """Return the whole state of the run as self-contained bytes without pickle; bit-exact on CPU, in another process too."""
        return to_bytes(self.tensors(), {"identity": self.identity(), **self.info()})

    def restore(self, snapshot: bytes) -> None:
        """Continue from a snapshot of a run of the same task, pool and settings.

        Raises:
            InputError: not a snapshot, or one of another task, pool or settings.
        """
        self.load(*from_bytes(snapshot, self.identity()))

    def identity(self) -> dict[str, object]:
        """Return what a run and its snapshots have in common: task, teachers and settings."""
        return {"task": self.data.task.fingerprint, "bank": self.data.bank.fingerprint, **asdict(self.settings)}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors, by name; the observed mini-batch is left out, since it follows from the rest."""
        return snapshot.tensors_of(self.student, self._state_before_batch(self.state), self.dropout.before(self.batch is not None))

    def info(self) -> dict[str, Any]:
        """Return the rest of the state, as JSON can hold it."""
        return {"observed": self.batch is not None}

    def load(self, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Load what :meth:`tensors` and :meth:`info` returned."""
        self.state, self.dropout.states = snapshot.load(self.student, tensors)
        self.forget_batch()
        if info["observed"]:
            self.observe()

    def fork(self) -> Distillation:
        """Return an independent run in the same state; task and bank are shared."""
        twin = Distillation(self.data, self.settings, self.seeds.tolist(), self.reward_split)
        twin.load(self.tensors(), self.info())  # students copy what they load
        return twin

    def member(self, student: int) -> Distillation:
        """Return one student of a population as a run of its own, in the same state; of a lone student, the run itself."""
        if self.num_students == 1:
            return self
        settings, split = replace(self.settings, num_students=1), self.reward_split.of_student(student)
        alone = Distillation(self.data, settings, [int(self.seeds[student])], split)
        alone.student.load_state(self.student.state_of(student))
        alone.state = self._state_before_batch(self.state.of_student(student))
        alone.dropout.states = self.dropout.before(self.batch is not None)
        return alone

    def forget_batch(self) -> None:
        """Forget the observed mini-batches, as if not forwarded yet."""
        self.batch, self._output = None, None

    def _state_before_batch(self, state: RunState) -> RunState:
        observed = 0 if self.batch is None else self.settings.batch_size  # it will be forwarded again
        return replace(state, forward_examples=state.forward_examples - observed)

    def _reward_ce(self) -> Tensor:
        count = min(self.settings.batch_size, self.reward_split.num_labels)
        self.state.forward_examples += count
        rows = self.reward_split.draw(self.state.seed, "reward_ce", self.state.update, count)
        inputs, labels = self.reward_split.at(rows, self.student.device)
        with self.dropout.draw():
            logits = self.student.forward(inputs).logits
        return cross_entropy(logits, labels, reduction="none").view(self.num_students, -1).mean(1)
