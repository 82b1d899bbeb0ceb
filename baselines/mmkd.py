"""``mmkd``: weights learned by a meta step, MMKD (Zhang et al. 2023, ICME, arXiv 2306.06634).

One net weighs the responses, from all logits; one weighs the hints, from how each example resembles the others in the teachers' features
and in the student's (:mod:`baselines.meta_weights`). Both learn by meta steps alone, after the first update and after each ``every``-th
update from there. A meta step takes, on B hard examples (:mod:`baselines.hard_buffer`), two steps of SGD on the weighted distillation loss
and one on CE, then the gradient of CE on the same examples by the nets' parameters through all three (:mod:`baselines.meta_step`), and one
step of Adam on the nets. The student does not change. Decisions carry the nets' weights without gradient.

As in the release: an example is hard if the student gets it wrong; the nets compute new weights at each tracked step, where the student's
outputs that they read are constants. So the gradient is exact for weights with those inputs. If the setting's knowledge has ``map_hint``,
the second net weighs that term, and its Gram matrices are of the feature maps, each as one vector, as published. With
``scale="released"`` these maps are not scaled to length 1. The published regressor is ``map_hint(strength=100,convolutions=3)``.

Deviations: tracked steps are SGD and begin without momentum, since the student may have another optimizer (in the release they continue its
Nesterov momentum); their rate is the student's. They run the student without dropout, so that all passes of a meta step compute the same
function; BatchNorm normalises by the mini-batch, as released, and does not move its running statistics. With ``hint`` the maps to the
teachers' widths are matrices. Features are scaled to length 1 before their Gram matrices (``cosine``); as released, without that, the hint
net soon puts all weight on one teacher and its gradient vanishes. A meta step whose gradient is not finite is left out.

It reads training labels in all settings, also in pure distillation, for hardness and CE. ``meta_split="reward"`` (ours) takes labels from
the reward split instead: at each meta step B labelled reward examples pass through the student into the buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from baselines.compared_features import compared_features, hint_of
from baselines.hard_buffer import HardBuffer
from baselines.meta_step import Descent, Objective, meta_gradient
from baselines.meta_weights import MetaWeights
from baselines.rule import WEIGHTS, BaseRule
from baselines.scale import Scale, check_scale, scaled
from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import Choice, PolicyBatch, PolicyContext, Range, SearchSpace
from kd_env.randomness import seeded
from kd_env.types import Batch, Decision, Inputs, ModelOutput


class MMKD(BaseRule):
    """Differentiates through the student's steps, and reads the labels of the split it learns from."""

    access = "gradient"
    supports_population = False
    paper = "Zhang et al. 2023, arXiv 2306.06634"
    env_options: dict[str, Any] = {**WEIGHTS, "knowledge": "response,hint(strength=100)"}
    search_space: SearchSpace = {
        "learning_rate": Range(1e-4, 1e-2, log=True),
        "knowledge": Choice(("response,hint(strength=100)", "response,hint(strength=10)", "response,hint(strength=1)")),
    }

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
        cosine: bool | None = None,
        meta_split: str = "train",
        scale: Scale = "matched",
    ) -> None:
        """Make the nets.

        Args:
            learning_rate: of Adam on the nets, with ``weight_decay``.
            every: number of updates between two meta steps.
            buffer: number of hard examples kept.
            distillation_steps: number of tracked steps on the distillation loss, before the step on CE.
            inner_lr: learning rate of the tracked steps, by default the student's; they also have ``momentum`` and ``inner_weight_decay``.
            gram_width: at 0 the hint net reads whole rows of the Gram matrices, as released; otherwise this many quantiles of each row.
            cosine: whether features are scaled to length 1 before their Gram matrices; ``False`` is the release. By default they are,
                except maps with ``scale="released"``.
            meta_split: the split whose examples and labels the nets learn from, ``train`` or ``reward``.
            scale: ``matched`` keeps the setting's strengths; ``released`` gives label and responses strength 1, and hints theirs.

        Raises:
            InputError: an option is out of its range, the student has peers, teachers do not teach (``kd_weight=0``), or the nets are to
                learn from maps of the reward split, which a bank does not keep.
        """
        super().__init__(context, seed)
        spec.numbers("mmkd", least=1, whole=True, every=every, distillation_steps=distillation_steps)
        spec.numbers("mmkd", least=0, whole=True, gram_width=gram_width)
        spec.numbers("mmkd", above=0, learning_rate=learning_rate)
        spec.numbers("mmkd", least=0, weight_decay=weight_decay)
        check_scale(context, "mmkd", scale)
        spec.one_of("mmkd", "train", "reward", meta_split=meta_split)
        distillation = context.settings.distillation
        if context.num_students > 1 or distillation.kd_weight == 0.0:
            raise InputError("policy mmkd differentiates through the distillation of one student; leave out num_students and kd_weight=0")
        self.hints = hint_of(context)
        if self.hints == "map_hint" and meta_split == "reward":
            raise InputError("policy mmkd(meta_split='reward'): a bank keeps feature maps of train alone; use meta_split=train, or hint")
        if cosine is None:
            cosine = not (scale == "released" and self.hints == "map_hint")
        self.every, self.distillation_steps = every, distillation_steps
        self.inner_lr, self.descent = inner_lr, Descent(inner_lr or 0.0, momentum, inner_weight_decay)
        self.meta_split: Literal["train", "reward"] = "train" if meta_split == "train" else "reward"
        self.scale = scale
        self.buffer = HardBuffer(buffer, seed)
        self.labelled = context.reward_positions if meta_split == "reward" else np.zeros(0, dtype=np.int64)
        with seeded(seed):
            self.nets = MetaWeights(context.num_teachers, context.num_classes, distillation.batch_size, gram_width, cosine)
        self.nets.to(context.device, context.dtype)
        self.optimizer = torch.optim.Adam(self.nets.parameters(), lr=learning_rate, weight_decay=weight_decay)
        self._decided = -1  # the last update that a decision was made for

    @staticmethod
    def access_for(meta_split: str = "train", **_options: object) -> str:
        """Return what it reads: with ``meta_split="reward"`` the labels of the reward split in place of the training labels."""
        return "reward labels" if meta_split == "reward" else "gradient"

    def decide(self, batch: PolicyBatch) -> Decision:
        """Make a meta step if one is due after the last update, and return the nets' weights."""
        update = int(batch.update[0])
        if update == 0:
            self.buffer.clear()
        elif update != self._decided and (update - 1) % self.every == 0:
            self.learn_from_hard_examples()
        if update != self._decided and self.meta_split == "train":
            known = (batch.labels >= 0).cpu().numpy()  # nothing can be learned from an unlabelled example
            self.buffer.put(batch.example_ids[known], wrong(batch.student.logits, batch.labels)[known])
        self._decided = update
        with torch.no_grad():
            return self.weighed(batch, batch.student_output)

    def state(self) -> dict[str, Any]:
        """Return nets, optimizer, hard examples and random states."""
        buffer = {"rows": self.buffer.positions, "rng": self.buffer.rng.bit_generator.state}
        learned = {"nets": self.nets.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**super().state(), **learned, "buffer": buffer, "decided": self._decided}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        super().load_state(state)
        self.nets.load_state_dict(state["nets"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.buffer.positions, self.buffer.rng.bit_generator.state = state["buffer"]["rows"], state["buffer"]["rng"]
        self._decided = state["decided"]

    def weighed(self, batch: Batch | PolicyBatch, student: ModelOutput) -> Decision:
        """Return the nets' weights for some examples with the setting's strengths, differentiable in the nets' parameters."""
        weights = {}
        if "response" in self.context.terms:
            weights["response"] = self.nets.response(batch.teacher_logits, student.logits)
        if self.hints:
            weights[self.hints] = self.nets.hint(*compared_features(self.context, self.hints, batch, student))
        return scaled(self.context, weights, self.scale, 1.0)

    def learn_from_hard_examples(self) -> None:
        """Make one update of the nets on B examples of the buffer, if there are any."""
        examples = self.hard_examples()
        if examples is not None:
            self.learn_from(*examples)

    def learn_from(self, inputs: Inputs, batch: Batch) -> None:
        """Make one update of the nets along :meth:`meta_gradient`; a gradient that is not finite is ignored."""
        _, gradient = self.meta_gradient(inputs, batch)
        if not all(values.isfinite().all() for values in gradient):
            return
        for parameter, values in zip(self.nets.parameters(), gradient, strict=True):
            parameter.grad = values
        self.optimizer.step()

    def meta_gradient(self, inputs: Inputs, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return CE on the examples after the tracked steps, and its gradient by the nets' parameters; the student does not change."""
        student = self.context.student

        def distillation(parameters: Sequence[Tensor]) -> Tensor:
            output = student.forward_at(parameters, inputs)
            decision = self.weighed(batch, output)
            strengths = {name: strength for name, strength in decision.strengths.items() if name != "label"}
            return student.per_example_loss(replace(decision, strengths=strengths), output, batch).mean()

        def hard_label(parameters: Sequence[Tensor]) -> Tensor:
            return cross_entropy(student.forward_at(parameters, inputs).logits, batch.labels)

        steps: list[Objective] = [*[distillation] * self.distillation_steps, hard_label]
        rate = student.rate(float(batch.progress[0])) if self.inner_lr is None else self.inner_lr
        descent = replace(self.descent, rate=rate)
        with student.without_dropout():
            return meta_gradient(steps, hard_label, student.parameters, list(self.nets.parameters()), descent)

    def hard_examples(self) -> tuple[Inputs, Batch] | None:
        """Return B random examples of the buffer; ``None`` if it is empty."""
        size, student = self.context.settings.distillation.batch_size, self.context.student
        if self.meta_split == "reward":
            rows = self.buffer.rng.choice(self.labelled, min(size, len(self.labelled)), replace=False)
            inputs, batch = student.examples("reward", rows)
            self.buffer.put(rows, wrong(student.predict(inputs), batch.labels))
        return student.examples(self.meta_split, self.buffer.sample(size)) if len(self.buffer.positions) else None


def wrong(student_logits: Tensor, labels: Tensor) -> np.ndarray:
    """Return which examples the student gets wrong, ``[B, C]``, ``[B]`` -> ``[B]``."""
    errors: np.ndarray = (student_logits.argmax(1) != labels).cpu().numpy()
    return errors
