"""Measure students on held-out reward examples, before and after an update, on the *same* examples.

In: students and a reward split. Out: their improvement since the last measurement, and the gradient of the held-out loss. The paired
measurement makes the effect of a single update visible. On different examples, the effect is smaller than the sampling noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env.distillation.reward_split import RewardSplit
from kd_env.distillation.state import PerStudent, per_student
from kd_env.serialization import add_prefix, with_prefix
from kd_env.student.protocol import Students
from kd_env.types import Inputs

MEASUREMENTS_PER_DRAW = 10
"""Number of measurements on one draw of examples. A new draw costs one extra pass. A fixed draw would leave the other labels unused."""


@dataclass(frozen=True)
class GradientOptions:
    """Options of the held-out gradient.

    Attributes:
        smoothing: label smoothing of the loss, see :func:`smoothed_cross_entropy`.
        examples: number of examples that are drawn for a gradient; 0 for those of a measurement.
        decay: factor by which the weight of an earlier gradient falls with each later one; 0 for the last gradient alone. The mean of
            gradients of few examples has less noise than each of them, and lags behind the student.
        folds: number of equal parts of the labels. Gradients use the parts in turn. With fewer labels than parts, each label is a part.
        head_only: whether to differentiate the classifier alone; the gradient is then zero below it.
    """

    smoothing: float = 0.0
    examples: int = 0
    decay: float = 0.0
    folds: int = 1
    head_only: bool = False


@dataclass
class MeterState(PerStudent):
    """State of a meter, one value per student.

    Attributes:
        seed: seed of the student; it determines the draws.
        measurements: number of measured improvements.
        loss_before: held-out loss at the last measurement, on the current draw; NaN before the first.
        metric_before: metric at the last measurement, on the current draw; NaN before the first.
        gradient_update: update at which the held-out gradient was computed; -1 before the first.
        gradient_weight: sum of the weights of the gradients in the mean, of which the last has weight 1.
        forward_examples: number of examples that passed through the student for measurements and held-out gradients.
    """

    seed: np.ndarray = per_student(np.int64)
    measurements: np.ndarray = per_student(np.int64)
    loss_before: np.ndarray = per_student(np.float64, np.nan)
    metric_before: np.ndarray = per_student(np.float64, np.nan)
    gradient_update: np.ndarray = per_student(np.int64, -1)
    gradient_weight: np.ndarray = per_student(np.float64)
    forward_examples: np.ndarray = per_student(np.int64)


class RewardMeter:
    """Measures S students on labelled reward examples. The draws for a student depend on its seed alone."""

    def __init__(
        self, split: RewardSplit, seeds: Sequence[int], examples: int, measure: Literal["loss", "metric"], gradient_refresh: int = 1
    ) -> None:
        """Create a meter without measurements.

        Args:
            split: labelled reward examples of each student.
            seeds: seeds of the students, one per student.
            examples: number of examples in one measurement; it is limited to the number of labels.
            measure: measure of improvement: the decrease of the ``loss``, or the increase of the ``metric``.
            gradient_refresh: number of updates after which the held-out gradient is computed again.
        """
        self.split, self.measure, self.gradient_refresh = split, measure, gradient_refresh
        self.examples = min(examples, split.num_labels)
        self.state = MeterState.start(len(seeds))
        self.state.seed[:] = seeds
        self.gradient: list[Tensor] | None = None  # of the held-out loss, one tensor per parameter
        self.gradient_options = GradientOptions()
        self._drawn: tuple[tuple[tuple[int, int], ...], Inputs, Tensor] | None = None  # the current draws: identity, inputs, labels

    @property
    def metric(self) -> np.ndarray:
        """Metric at the last measurement, ``[S]``; 0 before the first."""
        return np.asarray(np.nan_to_num(self.state.metric_before, nan=0.0))

    @property
    def unmeasured(self) -> np.ndarray:
        """Students that have not been measured yet, ``[S]``."""
        return np.asarray(np.isnan(self.state.loss_before))

    def reset_student(self, student: int, seed: int) -> None:
        """Forget the measurements of one student and give it a new seed."""
        self.state.reset(student)
        self.state.seed[student] = seed

    def start(self, students: Students, due: np.ndarray) -> None:
        """Measure the students in ``due`` (``[S]``) before their first update, or on the first use of a new draw."""
        loss, metric = self._evaluate(students, due)
        self.state.loss_before = np.where(due, loss, self.state.loss_before)
        self.state.metric_before = np.where(due, metric, self.state.metric_before)

    def improvement(self, students: Students, due: np.ndarray) -> np.ndarray:
        """Measure the students that are ``due`` (``[S]``) and return their improvement since the last measurement, on the same examples.

        Call :meth:`start` first; it makes the first measurement.

        Returns:
            Improvements, ``[S]``. The value is NaN for a student that is not due, and for a student with a NaN loss.
        """
        loss_before, metric_before = self.state.loss_before, self.state.metric_before
        loss, metric = self._evaluate(students, due)
        self.state.measurements += due
        self.state.loss_before = np.where(due, loss, loss_before)
        self.state.metric_before = np.where(due, metric, metric_before)
        redrawn = due & (self.state.measurements % MEASUREMENTS_PER_DRAW == 0) & (self.examples < self.split.num_labels)
        if redrawn.any():
            self.start(students, redrawn)
        improvement = loss_before - loss if self.measure == "loss" else metric - metric_before
        return np.where(due, improvement, np.nan)

    def held_out_gradient(self, students: Students, update: np.ndarray, options: GradientOptions = GradientOptions()) -> list[Tensor]:
        """Return the gradient of the held-out loss, one tensor per parameter. It is computed again after ``gradient_refresh`` updates.

        Args:
            students: students to differentiate.
            update: updates so far, ``[S]``.
            options: options of the gradient. The mean over earlier gradients starts again if they change.
        """
        if options != self.gradient_options:
            self.gradient, self.gradient_options = None, options
        stale = (self.state.gradient_update < 0) | (update - self.state.gradient_update >= self.gradient_refresh)
        if self.gradient is None:
            stale[:] = True
            self.state.gradient_weight[:] = 0.0
        if stale.any():
            self.gradient = self._averaged(self._new_gradient(students, update, stale, options), stale, options.decay)
            self.state.gradient_update = np.where(stale, update, self.state.gradient_update)
        assert self.gradient is not None
        return self.gradient

    def num_folds(self, folds: int) -> int:
        """Return ``folds``, limited to the number of labels."""
        return min(folds, self.split.num_labels)

    @property
    def gradient_fold(self) -> np.ndarray:
        """Fold of the labels of the last held-out gradient, ``[S]``; 0 without folds. Undefined before the first gradient."""
        return self._gradient_number(self.state.gradient_update) % self.num_folds(self.gradient_options.folds)

    def _gradient_number(self, update: np.ndarray) -> np.ndarray:
        return update // self.gradient_refresh

    @torch.no_grad()
    def held_out_loss(self, students: Students, parameters: list[Tensor], update: np.ndarray, smoothing: float = 0.0) -> Tensor:
        """Return the loss at other ``parameters``, ``[S]``, on the examples that a gradient without options draws at ``update``."""
        self.state.forward_examples += self.examples
        inputs, labels = self.split.at(self.split.draw(self.state.seed, "gradient", update, self.examples), students.device)
        with students.evaluating():
            logits = students.forward_at(parameters, inputs).logits
        return smoothed_cross_entropy(logits, labels, smoothing).view(students.num_students, -1).mean(1)

    def of_student(self, student: int, split: RewardSplit) -> RewardMeter:
        """Return a meter for one student. It computes the held-out gradient again when it is next needed."""
        meter = RewardMeter(split, [int(self.state.seed[student])], self.examples, self.measure, self.gradient_refresh)
        meter.state = self.state.of_student(student)
        meter.state.gradient_update[:] = -1
        return meter

    def tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors by name, except for :meth:`info`."""
        gradient = {f"gradient.{index}": tensor for index, tensor in enumerate(self.gradient or ())}
        return {**add_prefix(self.state.tensors(), "state"), **gradient}

    def info(self) -> dict[str, Any]:
        """Return the part of the state that is not tensors, as values for JSON."""
        return {"gradient_options": asdict(self.gradient_options)}

    def load(self, tensors: Mapping[str, Tensor], info: Mapping[str, Any], device: torch.device) -> None:
        """Load the state that :meth:`tensors` and :meth:`info` returned."""
        self.state = MeterState.from_tensors(with_prefix(tensors, "state"))
        gradient = with_prefix(tensors, "gradient")
        self.gradient = [gradient[str(index)].to(device) for index in range(len(gradient))] or None
        self.gradient_options = GradientOptions(**info["gradient_options"])
        self._drawn = None

    def _evaluate(self, students: Students, due: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return held-out loss and metric, each ``[S]``, on the current draw. Count the pass only for the students in ``due``."""
        number = self.state.measurements // MEASUREMENTS_PER_DRAW
        identity = tuple(zip(self.state.seed.tolist(), number.tolist(), strict=True))
        if self._drawn is None or self._drawn[0] != identity:
            positions = self.split.draw(self.state.seed, "measurement", number, self.examples)
            self._drawn = identity, *self.split.at(positions, students.device)
        self.state.forward_examples += self.examples * due
        return students.evaluate(*self._drawn[1:])

    def _new_gradient(self, students: Students, update: np.ndarray, due: np.ndarray, options: GradientOptions) -> list[Tensor]:
        """Return the gradient of the sum of the students' held-out losses. Count the pass only for the students in ``due``."""
        folds = self.num_folds(options.folds)
        split = self.split.fold(self._gradient_number(update), folds) if folds > 1 else self.split
        examples = min(options.examples or self.examples, split.num_labels)
        self.state.forward_examples += examples * due
        inputs, labels = split.at(split.draw(self.state.seed, "gradient", update, examples), students.device)
        parameters = students.parameters
        with students.evaluating(), torch.set_grad_enabled(not options.head_only):
            output = students.forward(inputs)
        logits = students.classify(output.features.detach(), parameters) if options.head_only else output.logits
        loss = students.num_students * smoothed_cross_entropy(logits, labels, options.smoothing).mean()
        return list(torch.autograd.grad(loss, parameters, materialize_grads=True))

    def _averaged(self, gradient: list[Tensor], due: np.ndarray, decay: float) -> list[Tensor]:
        """Return the mean of the gradients so far, with the new ``gradient`` of the students in ``due`` (``[S]``)."""
        weight = np.where(due, 1.0 + decay * self.state.gradient_weight, self.state.gradient_weight)
        self.state.gradient_weight = weight
        if self.gradient is None or (due.all() and (weight == 1.0).all()):
            return gradient
        if len(due) == 1:
            return [mean.lerp(new, 1.0 / float(weight[0])) for new, mean in zip(gradient, self.gradient, strict=True)]
        step = torch.from_numpy(np.where(due, 1.0 / np.maximum(weight, 1.0), 0.0)).to(gradient[0])[:, None]
        pairs = zip(gradient, self.gradient, strict=True)
        # of a student that diverged and began again, the mean holds NaN, and interpolating from NaN gives NaN
        return [torch.where(step == 1.0, new, torch.where(step == 0.0, mean, mean.lerp(new, step))) for new, mean in pairs]


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the cross-entropy of ``logits [n, C]`` against ``(1 - smoothing) onehot(labels) + smoothing / C``, ``[n]``.

    A negative smoothing (Wei et al. 2022, arXiv 2106.04149) adds ``-smoothing * (mean of the logits - logit of the label)``, which does not
    vanish for examples that the student is sure about.
    """
    loss = cross_entropy(logits, labels, reduction="none")
    if smoothing == 0.0:
        return loss
    return loss + smoothing * (logits.gather(1, labels[:, None]).squeeze(1) - logits.mean(1))
