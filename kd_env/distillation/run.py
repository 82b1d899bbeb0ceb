"""The heart: one distillation run, which knows nothing of Gymnasium.

In: a task without test, a bank, settings, a seed, and one :class:`~kd_env.types.Decision` an update. Out: a student.
``observe()`` runs the student on the next mini-batch with gradients; ``apply(decision)`` backpropagates the loss through that same forward
pass, so that seeing costs nothing extra.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env import randomness
from kd_env.distillation.data import EncodedTask
from kd_env.distillation.loss import Loss
from kd_env.distillation.order import epoch_order, length_order
from kd_env.distillation.reward_meter import RewardMeter, labelled_rows
from kd_env.distillation.settings import Settings
from kd_env.errors import InputError
from kd_env.knowledge import label
from kd_env.knowledge.terms import Term
from kd_env.models.encode import take, text_lengths
from kd_env.serialization import from_bytes, part, to_bytes
from kd_env.student.build import StudentConfig, build_network, build_students
from kd_env.types import Batch, Decision, Inputs, ModelOutput, Outcome

__all__ = ["Distillation", "EncodedTask"]


class Distillation:
    """S students being taught (S is 1 unless ``num_students`` says otherwise), each as it would be alone.

    Rows are those of student 0's mini-batch, then of student 1's and so on; numbers a student come as ``[S]``. Deterministic in ``seed``
    on CPU, whatever else draws from torch's global generator.
    """

    def __init__(self, data: EncodedTask, settings: Settings, seed: int | Sequence[int], label_seeds: Sequence[int] | None = None) -> None:
        """Initialise students and data orders: student s from ``seed + s``, or from ``seed[s]``.

        Args:
            label_seeds: a student each, which reward labels there are; by default ``settings.label_seed`` for all.

        Raises:
            InputError: fewer training examples than one mini-batch, more reward labels asked for than there are, or a knowledge type
                that the setting or the student has no use for.
        """
        num_students = settings.num_students
        seeds = [int(seed) + s for s in range(num_students)] if isinstance(seed, int | np.integer) else [int(one) for one in seed]
        self.data, self.settings = data, settings
        size = len(data.labels["train"])
        if size < settings.batch_size:
            raise InputError(f"batch_size={settings.batch_size} is more than the {size} training examples of task {data.task.name!r}")
        lengths = text_lengths(data.inputs["train"])
        order = (
            partial(epoch_order, size=size) if lengths is None else partial(length_order, batch_size=settings.batch_size, lengths=lengths)
        )
        self._order = lru_cache(maxsize=2 * num_students)(order)  # this epoch and the next of each student
        self.loss = Loss(settings, data.task)
        self.label_seeds = [int(one) for one in (label_seeds or [settings.label_seed] * num_students)]
        reward_labels = data.labels["reward"].numpy()
        rows = np.stack([labelled_rows(reward_labels, settings.reward_labels, one) for one in self.label_seeds])  # [S, n]
        self.meter = RewardMeter(data.inputs["reward"], data.labels["reward"], rows, settings.reward_examples, settings.measure)
        self.student = build_students(data.task, self._student_config(), self._example(), seeds)
        self.seeds = np.zeros(num_students, dtype=np.int64)
        self.update = np.zeros(num_students, dtype=np.int64)
        self.diverged = np.zeros(num_students, dtype=np.bool_)
        self.student_forward_examples = np.zeros(num_students, dtype=np.int64)
        self.memory: list[dict[str, Any]] = [{} for _ in range(num_students)]  # what an environment remembers of each, in JSON's types
        for s, one in enumerate(seeds):
            self._begin(s, one)
        self.features: Batch | None = None
        self._student_output: ModelOutput | None = None
        self._inputs: Inputs = {}
        self._rng = randomness.fresh_states(seeds[0], self.student.device)
        self._rng_before = self._rng

    @property
    def num_students(self) -> int:
        """S."""
        return self.settings.num_students

    @property
    def num_teachers(self) -> int:
        """K."""
        return self.data.bank.num_teachers

    @property
    def done(self) -> np.ndarray:
        """``[S]``: the budget is spent, or the student has diverged."""
        return self.diverged | (self.update >= self.settings.updates)

    @property
    def terms(self) -> dict[str, Term]:
        """The knowledge types that teachers are asked for, by name."""
        return self.loss.terms

    @property
    def reads_labels(self) -> bool:
        """Whether training labels are part of the setting."""
        return self.loss.reads_labels

    def observe(self) -> Batch:
        """Run the students on their next mini-batches, once however often it is asked, and say what can be seen."""
        if self.features is None:
            rows = np.concatenate([self._next_rows(s) for s in range(self.num_students)])
            device, dtype = self.student.device, self.student.dtype
            self._inputs = take(self.data.inputs["train"], rows, device)
            self._rng_before = self._rng
            with self.rng():
                self._student_output = self.student.forward(self._inputs, self.loss.parts)
            self.student_forward_examples += self.settings.batch_size
            said = self.data.bank.gather("train", rows, self.loss.parts)
            self.features = Batch(
                update=self.update.copy(),
                progress=self.update / self.settings.updates,
                example_ids=rows,
                labels=self.data.labels["train"][rows].to(device),
                teacher_logits=torch.from_numpy(said.logits).to(device, dtype),
                teacher_features=tuple(torch.from_numpy(feature).to(device, dtype) for feature in said.features),
                teacher_layers=tuple(torch.from_numpy(one).to(device, dtype) for one in said.layers),
                teacher_attention=tuple(torch.from_numpy(one).to(device, dtype) for one in said.attention),
                student=ModelOutput(self._student_output.logits.detach(), self._student_output.features.detach()),
            )
        return self.features

    def student_output(self) -> ModelOutput:
        """What the students say of the observed mini-batches, differentiable."""
        self.observe()
        assert self._student_output is not None
        return self._student_output

    def per_teacher_loss(self, name: str, temperature: float | Tensor, output: ModelOutput | None = None) -> Tensor:
        """Loss of every observed example against every teacher ``[rows, K]``, of ``label`` ``[rows, 1]``.

        By default of the retained pass, and differentiable.
        """
        return self.loss.per_teacher(name, temperature, self.student_output() if output is None else output, self.observe())

    def per_example_loss(self, decision: Decision) -> Tensor:
        """The loss of each example ``[rows]`` of the observed mini-batches, differentiable."""
        return self.loss.per_example(decision, self.student_output(), self.observe())

    def apply(self, decision: Decision, active: np.ndarray | None = None) -> Outcome:
        """Teach the observed mini-batches as ``decision`` says: one optimizer step, and a measurement where it is due.

        Args:
            active: ``[S]``, who is taught; by default, and at most, those whose budget lasts.
        """
        active = ~self.done if active is None else active & ~self.done
        assert active.any(), "the budget is spent"
        features = self.observe()
        measures = self.settings.reward in ("dev_improvement", "mixed") and self.settings.credit == "shared"
        if measures and (fresh := active & np.isnan(self.meter.before[0])).any():
            self.meter.start(self.student, fresh)
        student_ce = label.ce(features.student.logits, features.labels)
        loss = self.per_example_loss(decision).view(self.num_students, -1).mean(1)  # [S]
        if self.settings.reward_ce > 0.0:
            loss = loss + self.settings.reward_ce * self._reward_ce()
        value = loss.detach().double().cpu().numpy()
        self.diverged |= active & ~np.isfinite(value)
        learns = active & ~self.diverged
        if learns.any() and loss.requires_grad:
            chosen = loss if learns.all() else loss[torch.from_numpy(learns).to(loss.device)]
            self.student.step(chosen.sum(), features.progress, learns)
        self.skip(active)
        improvement = self._measure(learns) if measures else None
        return Outcome(value, student_ce, improvement, self.diverged.copy())

    def _measure(self, learns: np.ndarray) -> np.ndarray | None:
        """Improvement of those for whom a measurement is due, every ``reward_every`` updates in whole phases, and at the end."""
        phase = self.settings.updates_per_phase
        every = phase * -(-self.settings.reward_every // phase) or self.settings.updates
        due = learns & (self.done | (self.update % every == 0))
        if not due.any():
            return None
        improvement = self.meter.improvement(self.student, due)
        self.diverged |= due & ~np.isfinite(improvement)
        return np.where(self.diverged, np.nan, improvement)

    def skip(self, active: np.ndarray | None = None) -> None:
        """On to the next mini-batch, the students as they are."""
        self.update += np.ones_like(self.diverged) if active is None else active
        self.features, self._student_output = None, None

    def reset_student(self, student: int, seed: int) -> None:
        """Begin again with one student of a population; the others do not notice. What was observed is seen anew."""
        self.student.reset_student(student, build_network(self.data.task, self._student_config(), self._example(), seed))
        self._begin(student, seed)
        if self.features is not None:
            self.features, self._student_output, self._rng = None, None, self._rng_before
            self.student_forward_examples -= self.settings.batch_size * (np.arange(self.num_students) != student)

    def logits_after_update(self) -> Tensor:
        """Logits ``[rows, C]`` of the mini-batches last taught, after their update; one more pass, and counted."""
        self.student_forward_examples += self.settings.batch_size
        return self.student.predict(self._inputs)

    def validate(self) -> tuple[np.ndarray, np.ndarray]:
        """Loss and metric ``[S]`` on the validation split."""
        return self.student.evaluate(self.data.inputs["validation"], self.data.labels["validation"], shared=True)

    def batch_inputs(self) -> Inputs:
        """What the students read in :meth:`observe`."""
        self.observe()
        return self._inputs

    @contextmanager
    def rng(self, replay: bool = False) -> Iterator[None]:
        """Draw dropout from this run's own generator; ``replay`` repeats the mask of the retained forward pass and leaves no trace."""
        if not self.student.has_dropout:
            yield
            return
        outer = randomness.states(self.student.device)
        randomness.set_states(self._rng_before if replay else self._rng, self.student.device)
        try:
            yield
        finally:
            if not replay:
                self._rng = randomness.states(self.student.device)
            randomness.set_states(outer, self.student.device)

    def snapshot(self) -> bytes:
        """The whole state of the run, self-contained, without pickle; bit-exact on CPU, in another process too."""
        observed, meter = self.features is not None, self.meter
        tensors = {f"student.{name}": tensor for name, tensor in self.student.state().items()}
        tensors |= {f"gradient.{index}": tensor for index, tensor in enumerate(meter.gradient or ())}
        tensors |= {f"rng.{index}": tensor for index, tensor in enumerate(self._rng_before if observed else self._rng)}
        tensors["before"] = torch.from_numpy(meter.before)  # JSON has no NaN
        state = {
            "identity": _identity(self.data, self.settings),
            "observed": observed,
            "label_seeds": self.label_seeds,
            "memory": self.memory,
            "gradient_of_head": meter.gradient_of_head,
            "student_forward_examples": (self.student_forward_examples - observed * self.settings.batch_size).tolist(),
            **{name: getattr(self, name).tolist() for name in ("seeds", "update", "diverged")},
            **{name: getattr(meter, name).tolist() for name in ("measurements", "gradient_update", "forward_examples")},
        }
        return to_bytes(tensors, state)

    def restore(self, snapshot: bytes) -> None:
        """Go back (or over) to a snapshot of a run of the same task, pool and settings.

        Raises:
            InputError: not a snapshot, or one of another task, pool or settings.
        """
        self.__dict__.update(Distillation.of_snapshot(self.data, self.settings, snapshot).__dict__)

    @classmethod
    def of_snapshot(cls, data: EncodedTask, settings: Settings, snapshot: bytes) -> Distillation:
        """A run that continues from a snapshot of one with this material and these settings; refuses others as :meth:`restore` does."""
        tensors, state = from_bytes(snapshot, _identity(data, settings))
        fresh = cls(data, settings, state["seeds"], state["label_seeds"])
        fresh.student.load_state(part(tensors, "student"))
        gradient, rng = part(tensors, "gradient"), part(tensors, "rng")
        fresh.meter.gradient = [gradient[str(i)].to(fresh.student.device) for i in range(len(gradient))] or None
        fresh.meter.gradient_of_head = state["gradient_of_head"]
        fresh.meter.before = tensors["before"].numpy()
        for name in ("measurements", "gradient_update", "forward_examples"):
            setattr(fresh.meter, name, np.array(state[name]))
        for name in ("update", "diverged", "student_forward_examples"):
            setattr(fresh, name, np.array(state[name]))
        fresh.memory = state["memory"]
        fresh._rng = [rng[str(i)] for i in range(len(rng))]
        if state["observed"]:
            fresh.observe()
        return fresh

    def fork(self) -> Distillation:
        """An independent run that continues from here; task and bank are shared."""
        return Distillation.of_snapshot(self.data, self.settings, self.snapshot())

    def member(self, student: int) -> Distillation:
        """One student of a population as a run of its own, in the same state; of a lone student, the run itself."""
        if self.num_students == 1:
            return self
        alone = Distillation(self.data, replace(self.settings, num_students=1), int(self.seeds[student]), [self.label_seeds[student]])
        alone.student.load_state(self.student.state_of(student))
        alone._rng = self._rng if self.features is None else self._rng_before
        own = slice(student, student + 1)
        for name in ("measurements", "gradient_update", "forward_examples"):
            setattr(alone.meter, name, getattr(self.meter, name)[own].copy())
        alone.meter.gradient_update[:] = -1  # its gradient stays here: the next one is taken anew
        alone.meter.before = self.meter.before[:, own].copy()
        alone.memory = [dict(self.memory[student])]
        alone.update, alone.diverged = self.update[own].copy(), self.diverged[own].copy()
        alone.student_forward_examples = self.student_forward_examples[own] - (self.features is not None) * self.settings.batch_size
        return alone

    def _begin(self, student: int, seed: int) -> None:
        self.seeds[student], self.update[student], self.diverged[student] = seed, 0, False
        self.student_forward_examples[student], self.memory[student] = 0, {}
        self.meter.reset_student(student, seed)

    def _student_config(self) -> StudentConfig:
        return StudentConfig(
            self.settings.student,
            self.settings.optimizer,
            tuple(self.terms.values()),
            self.data.bank.shapes,
            self.settings.auxiliary_module,
            self.settings.device,
            self.settings.precision,
        )

    def _example(self) -> Inputs:
        return take(self.data.inputs["train"], slice(0, 1), torch.device("cpu"))

    def _next_rows(self, student: int) -> np.ndarray:
        size, batch = len(self.data.labels["train"]), self.settings.batch_size
        epoch, position = divmod(int(self.update[student]), size // batch)
        seed = self.seeds[0 if self.loss.asks_peers else student]  # those who teach each other see the same examples
        return self._order(int(seed), epoch)[position * batch : (position + 1) * batch].copy()

    def _reward_ce(self) -> Tensor:
        count = min(self.settings.batch_size, self.meter.rows.shape[1])
        self.student_forward_examples += count
        inputs, labels = self.meter.at(self.meter.draw("reward_ce", self.update, count), self.student.device)
        with self.rng():
            logits = self.student.forward(inputs).logits
        return cross_entropy(logits, labels, reduction="none").view(self.num_students, -1).mean(1)


def _identity(data: EncodedTask, settings: Settings) -> dict[str, object]:
    return {"task": data.task.fingerprint, "bank": data.bank.fingerprint, **asdict(settings)}
