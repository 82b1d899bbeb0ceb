"""Run a distillation: students learn from one :class:`~kd_env.types.Decision` per update. A run does not know rewards.

In: an encoded task, settings, seeds, decisions. Out: students. ``observe()`` forwards the next mini-batch with gradients.
``apply(decision)`` backpropagates the loss through that same forward pass, so an observation costs no extra pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_env.distillation import snapshot
from kd_env.distillation.block_swap import BlockSwap
from kd_env.distillation.data import EncodedTask
from kd_env.distillation.dropout import DropoutGenerator
from kd_env.distillation.loss import Loss
from kd_env.distillation.order import make_order
from kd_env.distillation.reward_ce import reward_ce
from kd_env.distillation.reward_split import RewardSplit
from kd_env.distillation.settings import DistillationSettings, student_config
from kd_env.distillation.state import RunState
from kd_env.distillation.teacher_answers import TeacherAnswers
from kd_env.errors import InputError
from kd_env.knowledge import label
from kd_env.serialization import from_bytes, to_bytes
from kd_env.student.build import build_network, build_students
from kd_env.types import Batch, Decision, Inputs, ModelOutput, Outcome


class Distillation:
    """A training run of S students (1 by default), which do not affect each other, unless a knowledge type compares them.

    The rows of a batch hold student 0's mini-batch, then student 1's, and so on. Values per student have shape ``[S]``. On CPU a run is
    deterministic given its seeds, even if other code draws from torch's global generator.
    """

    def __init__(
        self, data: EncodedTask, settings: DistillationSettings, seed: int | Sequence[int], reward_split: RewardSplit | None = None
    ) -> None:
        """Initialise the students and their data orders.

        Args:
            seed: seed of student 0 (student s uses ``seed + s``), or one seed per student.
            reward_split: labelled reward examples, for ``calibrate_teachers`` and ``reward_ce``. Default: all of them.

        Raises:
            InputError: fewer training examples than one mini-batch, or a knowledge type that does not fit the setting or the student.
        """
        seeds = [int(seed) + s for s in range(settings.num_students)] if isinstance(seed, int | np.integer) else list(map(int, seed))
        self.data, self.settings = data, settings
        self._next_positions = make_order(data, settings)
        self.loss = Loss(settings, data.task)
        self.reward_split = reward_split or RewardSplit(data, 0, [0] * settings.num_students)
        self._config = student_config(settings, self.loss.terms, data.bank.shapes)
        self.student = build_students(data.task, self._config, data.example(), seeds)
        self.state = RunState.start(settings.num_students)
        self.state.seed[:] = seeds
        self.batch: Batch | None = None  # the observed mini-batches, until apply() or skip()
        self._output: ModelOutput | None = None  # output of the forward pass that apply() differentiates
        self._inputs: Inputs = {}
        self.answers = TeacherAnswers(data, settings, self.student.device, self.student.dtype)
        self.swap = BlockSwap(data, settings, self.student, self.loss.extra_outputs)
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
    def teacher_temperatures(self) -> np.ndarray | None:
        """What the teachers' logits are divided by, ``[S, K]``; ``None`` if the setting does not calibrate them."""
        return self.reward_split.teacher_temperatures if self.settings.calibrate_teachers else None

    @property
    def update(self) -> np.ndarray:
        """Number of updates so far, ``[S]``."""
        return self.state.update

    @property
    def seeds(self) -> np.ndarray:
        """Seeds of the students, ``[S]``."""
        return self.state.seed

    @property
    def diverged(self) -> np.ndarray:
        """Students with a loss that is no longer finite, ``[S]``."""
        return self.state.diverged

    def mark_diverged(self, students: np.ndarray) -> None:
        """Mark ``students``, a mask ``[S]``, as diverged. For callers that measure other losses, such as the held-out loss."""
        self.state.diverged |= students

    @property
    def done(self) -> np.ndarray:
        """Students that have spent their budget or have diverged, ``[S]``."""
        return self.state.diverged | (self.state.update >= self.settings.updates)

    def observe(self) -> Batch:
        """Forward the next mini-batches (cached until :meth:`apply`) and return them with the outputs of teachers and students."""
        if self.batch is None:
            seeds = np.full_like(self.seeds, self.seeds[0]) if self.loss.uses_peers else self.seeds  # peers learn from the same examples
            extra, progress, update = self.loss.extra_outputs, self.update / self.settings.updates, self.update.copy()
            examples = np.concatenate([self._next_positions(*each) for each in zip(seeds.tolist(), update.tolist(), strict=True)])
            self._inputs, live = self.answers.ask(examples, seeds, self.update, self.student.device, extra)
            self.dropout.before_batch = self.dropout.states
            mixed = self.swap.mixed(self.student, int(self.seeds[0]), int(self.update[0]), float(progress[0]))
            with self.dropout.draw(), mixed:
                self._output = self.student.forward(self._inputs, extra)
            self.batch = self.data.batch("train", examples, self._output, update, progress, extra, self.teacher_temperatures, live)
            self.state.forward_examples += self.settings.batch_size
        return self.batch

    def student_output(self) -> ModelOutput:
        """Return the students' outputs for the observed mini-batches, differentiable."""
        self.observe()
        assert self._output is not None
        return self._output

    def batch_inputs(self) -> Inputs:
        """Return the inputs of the observed mini-batches."""
        self.observe()
        return self._inputs

    def per_teacher_loss(self, name: str, temperature: float | Tensor, output: ModelOutput | None = None) -> Tensor:
        """Return the loss of ``output`` (default: :meth:`student_output`) against each teacher, ``[rows, K]``; ``label``: ``[rows, 1]``."""
        return self.loss.per_teacher(name, temperature, self.student_output() if output is None else output, self.observe())

    def per_example_loss(self, decision: Decision) -> Tensor:
        """Return the loss of each observed example, ``[rows]``, differentiable."""
        return self.loss.per_example(decision, self.student_output(), self.observe())

    def apply(self, decision: Decision, active: np.ndarray | None = None) -> Outcome:
        """Take one optimizer step on the observed mini-batches with the loss of ``decision``, whose tensors may be on any device.

        Args:
            active: students to teach, ``[S]``; students that are done are never taught. Default: all that are not done.

        Raises:
            InputError: no student is left to teach.
        """
        active = ~self.done if active is None else active & ~self.done
        if not active.any():
            raise InputError("apply: no student is left to teach, since the budget is spent or all have diverged; begin with a new one")
        batch, decision = self.observe(), decision.to(self.student.device)
        self.answers.learn(self.student, self.loss, self.student_output(), batch, decision, self.reward_split, self.state)
        loss = self.per_example_loss(decision).view(self.num_students, -1).mean(1)  # [S]
        if self.settings.reward_ce > 0.0:
            with self.dropout.draw():
                loss = loss + reward_ce(self.student, self.reward_split, self.state, self.settings, decision)
        value = loss.detach().double().cpu().numpy()
        self.mark_diverged(active & ~np.isfinite(value))
        learns = active & ~self.state.diverged
        if learns.any() and loss.requires_grad:
            learning = loss if learns.all() else loss[torch.from_numpy(learns).to(loss.device)]
            self.student.step(learning.sum(), batch.progress, learns)
        self.skip(active)
        return Outcome(value, label.ce(batch.student.logits, batch.labels), self.state.diverged.copy())

    def skip(self, active: np.ndarray | None = None) -> None:
        """Go on to the next mini-batches without learning from the observed ones."""
        self.state.update += 1 if active is None else active
        self.forget_batch()

    def logits_after_update(self) -> Tensor:
        """Return the logits for the last taught mini-batches after their update, ``[rows, C]``. This is an extra pass, which is counted."""
        self.state.forward_examples += self.settings.batch_size
        return self.student.predict(self._inputs)

    def validate(self) -> tuple[np.ndarray, np.ndarray]:
        """Return loss and metric on the validation split, each ``[S]``."""
        return self.student.evaluate(self.data.inputs["validation"], self.data.labels["validation"], shared=True)

    def reset_student(self, student: int, seed: int) -> None:
        """Replace one student by a new one that starts from ``seed``; the other students are not affected."""
        self.student.reset_student(student, build_network(self.data.task, self._config, self.data.example(), seed))
        self.answers = TeacherAnswers(self.data, self.settings, self.student.device, self.student.dtype)  # teachers that learn start again
        self.state.reset(student)
        self.state.seed[student] = seed
        if self.batch is not None:  # it will be forwarded again
            self.forget_batch()
            self.dropout.states = self.dropout.before_batch
            self.state.forward_examples -= self.settings.batch_size * (np.arange(self.num_students) != student)

    def snapshot(self) -> bytes:
        """Return the state of the run as self-contained bytes without pickle; on CPU, :meth:`restore` continues from it bit-exactly."""
        return to_bytes(self.tensors(), {"identity": self.identity(), **self.info()})

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot of a run with the same task, pool and settings.

        Raises:
            InputError: ``state`` is not a snapshot, or its task, pool or settings are different.
        """
        self.load(*from_bytes(state, self.identity()))

    def identity(self) -> dict[str, object]:
        """Return task, teachers and settings of the run. A run can restore a snapshot only if they are equal."""
        return {"task": self.data.task.fingerprint, "bank": self.data.bank.fingerprint, **asdict(self.settings)}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors by name, without the observed mini-batch, which follows from the rest."""
        state, dropout = self._state_before_batch(self.state), self.dropout.states_to_save(self.batch is not None)
        return {**snapshot.tensors_of(self.student, state, dropout), **self.answers.tensors()}

    def info(self) -> dict[str, Any]:
        """Return the part of the state that is not tensors, as values for JSON."""
        return {"observed": self.batch is not None}

    def load(self, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Load the state that :meth:`tensors` and :meth:`info` returned."""
        self.state, self.dropout.states = snapshot.load(self.student, tensors)
        self.answers.load(tensors)
        self.forget_batch()
        if info["observed"]:
            self.observe()

    def fork(self) -> Distillation:
        """Return an independent run in the same state; task and bank are shared."""
        fork = Distillation(self.data, self.settings, self.seeds.tolist(), self.reward_split)
        fork.load(self.tensors(), self.info())  # students copy what they load
        return fork

    def of_student(self, student: int) -> Distillation:
        """Return one student of a population as a separate run in the same state; with one student, return this run."""
        if self.num_students == 1:
            return self
        settings, split = replace(self.settings, num_students=1), self.reward_split.of_student(student)
        run = Distillation(self.data, settings, [int(self.seeds[student])], split)
        run.student.load_state(self.student.state_of(student))
        run.state = self._state_before_batch(self.state.of_student(student))
        run.dropout.states = self.dropout.states_to_save(self.batch is not None)
        return run

    def forget_batch(self) -> None:
        """Drop the cached mini-batches, so that :meth:`observe` forwards them again."""
        self.batch, self._output = None, None

    def _state_before_batch(self, state: RunState) -> RunState:  # the observed batch will be forwarded again
        return replace(state, forward_examples=state.forward_examples - (self.settings.batch_size if self.batch is not None else 0))
