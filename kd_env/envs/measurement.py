"""Schedule the measurements of students on the reward split and on validation. In: a run and its meter. Out: values per student."""

from __future__ import annotations

import math

import numpy as np

from kd_env.distillation import Distillation
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.envs.settings import Settings


class MeasurementSchedule:
    """Tells when an environment measures."""

    def __init__(self, settings: Settings, needs_improvement: bool) -> None:
        """Read the schedule from the settings; ``needs_improvement`` is whether the reward needs held-out measurements."""
        updates, phase = settings.distillation.updates, settings.interface.updates_per_phase
        self.needs_improvement = needs_improvement
        phases = math.ceil(settings.reward.reward_every / phase)
        self._every = phases * phase if phases else updates  # 0: once, at the end
        self._validation_every = settings.interface.validation_every or max(updates // 20, 1)

    def before_update(self, run: Distillation, meter: RewardMeter, active: np.ndarray) -> None:
        """Measure the students in ``active`` (``[S]``) that have not been measured yet."""
        if self.needs_improvement and (unmeasured := active & meter.unmeasured).any():
            meter.start(run.student, unmeasured)

    def improvement(self, run: Distillation, meter: RewardMeter, learned: np.ndarray) -> np.ndarray | None:
        """Return the improvement ``[S]`` of the students in ``learned`` that are due, NaN for others; ``None`` if none is due or needed.

        A student with a held-out loss that is not finite is marked as diverged.
        """
        due = learned & (run.done | (run.update % self._every == 0))
        if not self.needs_improvement or not due.any():
            return None
        improvement = meter.improvement(run.student, due)
        run.mark_diverged(due & ~np.isfinite(improvement))
        return np.where(run.diverged, np.nan, improvement)

    def validation(self, run: Distillation, active: np.ndarray) -> np.ndarray | None:
        """Return the validation metric ``[S]`` of the students in ``active`` that are due, NaN for others; ``None`` if no student is due.

        A student with a validation loss that is not finite is marked as diverged.
        """
        due = active & (run.done | (run.update % self._validation_every == 0))
        if not due.any():
            return None
        loss, metric = run.validate()
        run.mark_diverged(due & ~np.isfinite(loss))
        return np.where(due, metric, np.nan)
