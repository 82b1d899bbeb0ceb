"""Save the state of a finished run, for the checkpoint of a trial that continues with other students."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kd_env.distillation import Distillation
from kd_env.distillation.reward_split import RewardSplit
from kd_env.envs.selection import Selection


def state(run: Distillation) -> dict[str, Any]:
    """Return the state of a run of one student; :func:`kd_env.serialization.pack` takes it."""
    return {"tensors": run.tensors(), "info": run.info(), "label_seeds": run.reward_split.label_seeds}


def load(selection: Selection, content: Mapping[str, Any]) -> Distillation:
    """Return the run whose :func:`state` is ``content``.

    Args:
        selection: the core of an environment with the settings of the run.
        content: the state.
    """
    settings = replace(selection.settings.distillation, num_students=1)
    split = RewardSplit(selection.data, selection.settings.reward.reward_labels, content["label_seeds"])
    run = Distillation(selection.data, settings, content["tensors"]["state.seed"].tolist(), split)
    run.load(content["tensors"], content["info"])
    return run
