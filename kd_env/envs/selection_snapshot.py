"""Save and load the state of an environment: the run, the reward meter and the memory of exploration, as self-contained bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kd_env.distillation import Distillation
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.distillation.reward_split import RewardSplit
from kd_env.envs.exploration import ExplorationBonus
from kd_env.envs.settings import Settings
from kd_env.serialization import add_prefix, from_bytes, to_bytes, with_prefix


def save(run: Distillation, meter: RewardMeter, exploration: ExplorationBonus, settings: Settings, generator: np.random.Generator) -> bytes:
    """Return the state as bytes; ``generator`` draws the seeds of later students."""
    tensors = {**add_prefix(run.tensors(), "run"), **add_prefix(meter.tensors(), "meter")}
    info = {
        "identity": identity(run, settings),
        "run": run.info(),
        "meter": meter.info(),
        "exploration": exploration.memory,
        "label_seeds": run.reward_split.label_seeds,
        "generator": generator.bit_generator.state,
    }
    return to_bytes(tensors, info)


def load(
    run: Distillation, meter: RewardMeter, exploration: ExplorationBonus, settings: Settings, generator: np.random.Generator, state: bytes
) -> None:
    """Load a saved state into run, meter, exploration and generator.

    Raises:
        InputError: ``state`` is not a snapshot, or its task, pool or settings are different.
    """
    tensors, info = from_bytes(state, identity(run, settings))
    run.reward_split = meter.split = RewardSplit(run.data, settings.reward.reward_labels, info["label_seeds"])
    run.load(with_prefix(tensors, "run"), info["run"])
    meter.load(with_prefix(tensors, "meter"), info["meter"], run.student.device)
    exploration.memory = info["exploration"]
    generator.bit_generator.state = info.get("generator", generator.bit_generator.state)  # earlier versions did not save it


def identity(run: Distillation, settings: Settings) -> Mapping[str, object]:
    """Return what a state belongs to: task, pool and all settings."""
    return {**run.identity(), **settings.flat()}
