"""Choose the examples that a teacher learns from. In: a task and a config. Out: rows of train to learn from, and held-out rows."""

from __future__ import annotations

import numpy as np

from kd_env.errors import InputError
from kd_env.tasks import Task
from kd_env.teachers.finetune_config import FinetuneConfig, fold_of

HELD_OUT, MIN_EXAMPLES, MAX_EXAMPLES = 0.1, 16, 1000
"""The slice of train that decides when to stop: its share, and the smallest and largest number of examples."""


def training_rows(task: Task, config: FinetuneConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of train to learn from, and the rows held out from them: of stored views, one view of each held-out image.

    Raises:
        InputError: there are too few.
    """
    rows = task.train.labelled
    if config.groups:
        assert task.train.groups is not None
        rows = rows[np.isin(task.train.groups[rows], [task.group_names.index(name) for name in config.groups])]
    if config.fold >= 0:
        rows = rows[[fold_of(task.train.inputs[row], config.folds) != config.fold for row in rows]]
    all_rows, originals = rows, task.train.originals
    if originals is not None:
        rows = rows[np.unique(originals[rows], return_index=True)[1]]  # one view of each image
    if config.fraction < 1.0:
        rows = np.sort(rng.permutation(rows)[: round(config.fraction * len(rows))])
    num_held_out = min(max(round(HELD_OUT * len(rows)), MIN_EXAMPLES), MAX_EXAMPLES)
    if len(rows) < 2 * num_held_out:
        raise InputError(
            f"teacher of {config.model!r}: {len(rows)} examples to learn from are too few; "
            "give it more groups, a larger fraction, or fewer folds"
        )
    shuffled = rng.permutation(rows)
    learned, held_out = np.sort(shuffled[num_held_out:]), np.sort(shuffled[:num_held_out])
    return learned if originals is None else all_rows[np.isin(originals[all_rows], originals[learned])], held_out
