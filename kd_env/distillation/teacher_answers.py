"""Let the teachers answer live in a run, on inputs that may be augmented, and learn where the setting says so.

In: the examples of a mini-batch. Out: the student's inputs and the teachers' outputs for them, or for a bank, the inputs alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from kd_env.distillation.data import EncodedTask
from kd_env.distillation.learning_options import LearningOptions
from kd_env.distillation.loss import Loss
from kd_env.distillation.reward_split import RewardSplit
from kd_env.distillation.settings import DistillationSettings
from kd_env.distillation.state import RunState
from kd_env.distillation.teacher_learning import Exam, LearningTeachers, StudentStep
from kd_env.errors import InputError
from kd_env.models.encode import take
from kd_env.randomness import stream
from kd_env.serialization import add_prefix, with_prefix
from kd_env.student.data_parallel import current_processes
from kd_env.student.protocol import Students
from kd_env.tasks.augmentation import Augmentation
from kd_env.types import Batch, Decision, Inputs, ModelOutput


class TeacherAnswers:
    """Where the teachers' outputs for the mini-batches of a run come from: a bank, or their networks.

    Attributes:
        live: networks of the teachers; ``None`` if a bank answers.
        learning: networks of this run that learn; ``None`` if the teachers stay as they are.
    """

    def __init__(self, data: EncodedTask, settings: DistillationSettings, device: torch.device, dtype: torch.dtype) -> None:
        """Copy the teachers' networks if they learn.

        Raises:
            InputError: the data have no networks of teachers, or texts are to be augmented.
        """
        self._data, self._settings = data, settings
        self._augmentation = Augmentation.of(settings.augmentation)
        self.live = data.live if settings.teacher_answers == "live" else None
        if settings.teacher_answers == "live" and self.live is None:
            raise InputError(
                "teacher_answers='live': the data have no teachers; make them with EncodedTask.of(..., live=LiveTeachers.of(...))"
            )
        if settings.augmentation and data.task.kind != "image":
            raise InputError(f"augmentation={settings.augmentation!r}: task {data.task.name!r} has texts; leave augmentation out")
        self.learning: LearningTeachers | None = None
        if settings.teacher_learning and self.live is not None:
            if current_processes() is not None:
                raise InputError("teacher_learning: processes that share one student cannot differentiate its step; run one process")
            self.learning = LearningTeachers(self.live, LearningOptions.of(settings.teacher_learning), device, dtype)
            self.live = self.learning.teachers

    def forward_examples(self, num_batches: np.ndarray) -> np.ndarray:
        """Return the number of examples that have passed through the teachers after ``num_batches [S]`` mini-batches of each student."""
        answers = num_batches * self._settings.batch_size * (0 if self.live is None else len(self.live.teachers))
        return answers + (0 if self.learning is None else self.learning.forward_examples)

    def ask(
        self, examples: np.ndarray, seeds: np.ndarray, update: np.ndarray, device: torch.device, extra_outputs: frozenset[str]
    ) -> tuple[Inputs, list[ModelOutput] | None]:
        """Return the student's inputs of training examples, and the outputs of live teachers for them (``None``: the bank has them).

        Args:
            examples: positions in the train split, ``[S * B]``, student 0 first.
            seeds: seeds of the augmentation, one per student.
            update: number of updates of each student so far.
            device: device of the inputs.
            extra_outputs: outputs of the teachers beyond logits and features.
        """
        inputs = self._data.inputs["train"]
        if self.live is None:
            return take(inputs, examples, device), None
        raw = self.raw_inputs(examples, seeds, update)
        encoded = take(self._data.read(raw), slice(None), device) if self._settings.augmentation else take(inputs, examples, device)
        with torch.no_grad():
            return encoded, self.live(raw, extra_outputs)

    def raw_inputs(self, examples: np.ndarray, seeds: np.ndarray, update: np.ndarray) -> np.ndarray:
        """Return the raw inputs of training examples, augmented as :meth:`ask` does it."""
        raw: np.ndarray = self._data.task.train.inputs[examples]
        if not self._settings.augmentation:
            return raw
        of_students = zip(raw.reshape(len(seeds), -1, *raw.shape[1:]), seeds.tolist(), update.tolist(), strict=True)
        return np.concatenate([self._augmentation(images, stream(seed, "augmentation", number)) for images, seed, number in of_students])

    def learn(
        self,
        student: Students,
        loss: Loss,
        output: ModelOutput,
        batch: Batch,
        decision: Decision,
        reward_split: RewardSplit,
        state: RunState,
    ) -> None:
        """Let the teachers learn from the step that the student is about to take, if an exam is due."""
        learning, update = self.learning, int(state.update[0])
        if learning is None or update % learning.options.every:
            return
        split, size = learning.options.exam, self._settings.batch_size
        if split == "reward":
            examples = reward_split.draw(state.seed, "exam", state.update, min(size, reward_split.num_labels))
        else:
            labelled = self._data.task.train.labelled
            examples = stream(int(state.seed[0]), "exam", update).choice(labelled, min(size, len(labelled)), replace=False)
        device = student.device
        inputs, labels = take(self._data.inputs[split], examples, device), self._data.labels[split][examples].to(device)
        raw = self.raw_inputs(batch.example_ids, state.seed, state.update)
        temperatures = reward_split.teacher_temperatures[0] if self._settings.calibrate_teachers else None
        step = StudentStep(student, loss, output, batch, decision, raw, temperatures)
        learning.exam_step(step, Exam(student.cast(inputs), getattr(self._data.task, split).inputs[examples], labels))
        if learning.options.feedback_weight > 0.0:
            state.forward_examples += len(examples)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of teachers that learn, by name."""
        return {} if self.learning is None else add_prefix(self.learning.state(), "teachers")

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load a copy of what :meth:`tensors` returned, from all tensors of a run."""
        if self.learning is not None:
            self.learning.load_state(with_prefix(tensors, "teachers"))
