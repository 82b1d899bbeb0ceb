"""``best_single`` (RL-KD's Best-Single; Yuan et al. 2021, arXiv 2012.06048): per instance, the teacher with the lowest cross-entropy."""

from __future__ import annotations

from torch import Tensor

from baselines.rule import ONE, BaseRule, choice
from kd_env.knowledge.label import UNKNOWN, teacher_ce
from kd_env.policies import PolicyBatch


class BestSingle(BaseRule):
    """Reads the training labels."""

    access = "train labels"
    paper = "Yuan et al. 2021, arXiv 2012.06048"
    env_options = ONE

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Choose the best teacher, the first of equally good ones; a random teacher where the label is unknown."""
        best = teacher_ce(batch.teacher_logits, batch.labels).argmin(1).cpu().numpy()
        unknown = (batch.labels == UNKNOWN).cpu().numpy()
        if unknown.any():
            best[unknown] = self.rng.integers(batch.num_teachers, size=unknown.sum())
        return choice(best, batch.num_teachers)
