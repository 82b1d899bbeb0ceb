"""``mmkd``: weights learned by a meta step, MMKD (Zhang et al. 2023, ICME, arXiv 2306.06634).

One net weighs the responses, from all logits; one weighs the hints, from how each example resembles the others in the teachers' features
and in the student's (:mod:`baselines.meta_weights`). Both learn from nothing but this, after the first update and every ``every``-th
from there: on B hard examples (:mod:`baselines.hard_buffer`), two steps of SGD on the weighted distillation loss, one on CE, then the
gradient of CE on the same examples by the nets' parameters through all three (:mod:`baselines.meta_step`), and one step of Adam on the
nets. The student itself is not changed by it. Decisions carry the nets' weights without a gradient.

What the release leaves to be known, and is kept: an example is hard if the student gets it wrong; the nets are asked anew at each tracked
step, and the student's outputs that they read are constants there. So the gradient is exact for weights with those inputs.

Deviations: tracked steps are SGD and begin without momentum, since the student's optimizer may be another (in the release they continue its
momentum, Nesterov's); their rate is the student's. They look at the student in evaluation mode, without dropout, so that every pass of a
meta step sees one function. The maps to the teachers' widths are matrices. Gram matrices are of features of length 1 (``cosine``); as
released, on features of some length, the hint net soon puts all weight on one teacher and no gradient comes through. A meta step whose
gradient is not finite is left out.

It reads training labels in every setting, in pure distillation too: hardness and CE ask for them. ``meta_split="reward"`` (ours) takes
them from the reward split instead: at each meta step B labelled reward examples pass through the student into the buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from baselines.hard_buffer import HardBuffer
from baselines.meta_step import Descent, Objective, meta_gradient
from baselines.meta_weights import MetaWeights
from baselines.rule import WEIGHTS, Rule
from baselines.scale import SCALES, Scale, scaled
from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext
from kd_env.randomness import seeded
from kd_env.types import Batch, Decision, Inputs, ModelOutput


class MMKD(Rule):
    """Differentiates through the student's steps, and reads the labels of the split it learns from."""

    access = "gradient"
    supports_population = False
    paper = "Zhang et al. 2023, arXiv 2306.06634"
    env_options: dict[str, Any] = {**WEIGHTS, "knowledge": "response,hint(strength=100)"}

    def __init__(
        self,
        context: PolicyContext,
        seed: int = 0,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        every: int = 5,
        buffer: int = 256,
        distillation_steps: int = 2,
        inner_lr: float | None = None,
        momentum: float = 0.9,
        inner_weight_decay: float = 5e-4,
        gram_width: int = 0,
        cosine: bool = True,
        meta_split: str = "train",
        scale: Scale = "matched",
    ) -> None:
        """Make the nets.

        Args:
            learning_rate: of Adam, on the nets; ``weight_decay`` too.
            every: updates between two meta steps.
            buffer: hard examples kept.
            distillation_steps: tracked steps on the distillation loss, before the one on CE.
            inner_lr: of the tracked steps, by default the student's own rate; ``momentum`` and ``inner_weight_decay`` are theirs too.
            gram_width: 0 shows the hint net whole rows of the Gram matrices, as the release does; else that many quantiles of each.
            cosine: Gram matrices of features of length 1; ``False`` is the release.
            meta_split: ``train`` or ``reward``, whose examples and labels the nets learn from.
            scale: ``matched`` to the setting's strengths, or as ``released``: label and responses 1, hints their own strength.

        Raises:
            InputError: an option is out of its range, the student has peers, or the teachers do not teach at all (strength 0).
        """
        super().__init__(context, seed)
        spec.numbers("mmkd", least=1, whole=True, every=every, distillation_steps=distillation_steps)
        spec.numbers("mmkd", least=0, whole=True, gram_width=gram_width)
        spec.one_of("mmkd", *SCALES, scale=scale)
        spec.one_of("mmkd", "train", "reward", meta_split=meta_split)
        distillation = context.settings.distillation
        if context.num_students > 1 or distillation.kd_weight == 0.0:
            raise InputError("policy mmkd differentiates what its teachers do for one student; leave out num_students and kd_weight=0")
        self.hints = "hint" in context.terms
        self.every, self.distillation_steps = every, distillation_steps
        self.inner_lr, self.descent = inner_lr, Descent(inner_lr or 0.0, momentum, inner_weight_decay)
        self.meta_split: Literal["train", "reward"] = "train" if meta_split == "train" else "reward"
        self.scale = scale
        self.buffer = HardBuffer(buffer, seed)
        self.labelled = context.reward_rows if meta_split == "reward" else np.zeros(0, dtype=np.int64)
        with seeded(seed):
            self.nets = MetaWeights(context.num_teachers, context.num_classes, distillation.batch_size, gram_width, cosine)
        self.nets.to(context.device, context.dtype)
        self.optimizer = torch.optim.Adam(self.nets.parameters(), lr=learning_rate, weight_decay=weight_decay)
        self._decided = -1  # the last update that was decided about

    @staticmethod
    def access_for(meta_split: str = "train", **_options: object) -> str:
        """Return what it reads: with ``meta_split="reward"`` the labels of the reward split in place of the training labels."""
        return "reward labels" if meta_split == "reward" else "gradient"

    def decide(self, batch: PolicyBatch) -> Decision:
        """Return the nets' weights; before that, a meta step where it is due after the last update."""
        update = int(batch.update[0])
        if update == 0:
            self.buffer.clear()
        elif update != self._decided and (update - 1) % self.every == 0:
            self.learn_from_hard_examples()
        if update != self._decided and self.meta_split == "train":
            known = (batch.labels >= 0).cpu().numpy()  # an unlabelled text is no example to learn from
            self.buffer.put(batch.example_ids[known], wrong(batch.student.logits, batch.labels)[known])
        self._decided = update
        with torch.no_grad():
            return self.weighed(batch.teacher_logits, batch.teacher_features, batch.student)

    def weighed(self, teacher_logits: Tensor, teacher_features: Sequence[Tensor], student: ModelOutput) -> Decision:
        """Return the nets' weights for some examples, with the setting's strengths; differentiable in the nets' parameters."""
        weights = {}
        if "response" in self.context.terms:
            weights["response"] = self.nets.response(teacher_logits, student.logits)
        if self.hints:
            weights["hint"] = self.nets.hint(teacher_features, student.features)
        return scaled(self.context, weights, self.scale, 1.0)

    def learn_from_hard_examples(self) -> None:
        """Take one step of the nets on B examples of the buffer, if there are any."""
        examples = self.hard_examples()
        if examples is not None:
            self.learn_from(*examples)

    def learn_from(self, inputs: Inputs, batch: Batch) -> None:
        """Take one step of the nets along :meth:`meta_gradient`."""
        _, gradient = self.meta_gradient(inputs, batch)
        if not all(values.isfinite().all() for values in gradient):
            return
        for parameter, values in zip(self.nets.parameters(), gradient, strict=True):
            parameter.grad = values
        self.optimizer.step()

    def meta_gradient(self, inputs: Inputs, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return CE on the examples after the tracked steps, and its gradient by the nets' parameters; the student stays as it is."""
        student = self.context.student

        def distillation(parameters: Sequence[Tensor]) -> Tensor:
            output = student.forward_at(parameters, inputs)
            decision = self.weighed(batch.teacher_logits, batch.teacher_features, output)
            strengths = {name: strength for name, strength in decision.strengths.items() if name != "label"}
            return student.per_example_loss(replace(decision, strengths=strengths), output, batch).mean()

        def hard_label(parameters: Sequence[Tensor]) -> Tensor:
            return cross_entropy(student.forward_at(parameters, inputs).logits, batch.labels)

        steps: list[Objective] = [*[distillation] * self.distillation_steps, hard_label]
        rate = student.rate(float(batch.progress[0])) if self.inner_lr is None else self.inner_lr
        descent = replace(self.descent, rate=rate)
        with student.evaluating():
            return meta_gradient(steps, hard_label, student.parameters, list(self.nets.parameters()), descent)

    def hard_examples(self) -> tuple[Inputs, Batch] | None:
        """Return B examples of the buffer, drawn anew; ``None`` where it is empty."""
        size, student = self.context.settings.distillation.batch_size, self.context.student
        if self.meta_split == "reward":
            rows = self.buffer.rng.choice(self.labelled, min(size, len(self.labelled)), replace=False)
            inputs, batch = student.examples("reward", rows)
            self.buffer.put(rows, wrong(student.predict(inputs), batch.labels))
        return student.examples(self.meta_split, self.buffer.sample(size)) if len(self.buffer.rows) else None


def wrong(student_logits: Tensor, labels: Tensor) -> np.ndarray:
    """Which examples the student gets wrong, ``[B, C]``, ``[B]`` -> ``[B]``."""
    found: np.ndarray = (student_logits.argmax(1) != labels).cpu().numpy()
    return found
