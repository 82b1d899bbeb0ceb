"""Fit a built-in network to (some groups of) a task's train split. In: a recipe. Out: the trained network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from kd_env.models.encode import encode, take
from kd_env.models.networks import build
from kd_env.randomness import one_thread, seeded
from kd_env.tasks import Task


@dataclass(frozen=True)
class TeacherRecipe:
    """How to make one teacher of a named pool.

    Attributes:
        groups: names of the groups it is trained on; empty for all.
        fraction: part of those examples it sees, drawn with ``seed``.
        label_noise: part of the labels replaced by random ones.
        next_class: mass that its training targets give to the class after the true one: right at the top, misleading below it.
        logit_scale: applied to its logits when it teaches; above 1 is overconfident.
    """

    name: str
    network: str
    groups: tuple[str, ...] = ()
    fraction: float = 1.0
    label_noise: float = 0.0
    next_class: float = 0.0
    logit_scale: float = 1.0
    epochs: int = 40
    seed: int = 0


def fit(recipe: TeacherRecipe, task: Task, learning_rate: float = 2e-3, batch_size: int = 64) -> nn.Module:
    """Train with Adam on soft targets; deterministic in ``recipe.seed``; one thread, since sums over more differ in their last bits."""
    with one_thread():
        return _fit(recipe, task, learning_rate, batch_size)


def _fit(recipe: TeacherRecipe, task: Task, learning_rate: float, batch_size: int) -> nn.Module:
    rng = np.random.default_rng([recipe.seed, 7])
    rows = _rows(recipe, task, rng)
    split = task.train.take(rows)
    inputs = encode(task, split.inputs)
    targets = _targets(recipe, task, split.labels, rng)
    network = build(recipe.network, task, recipe.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    cpu = torch.device("cpu")
    with seeded(recipe.seed):  # dropout draws from the global generator
        for _ in range(recipe.epochs):
            for batch in np.array_split(rng.permutation(len(rows)), max(len(rows) // batch_size, 1)):
                optimizer.zero_grad()
                cross_entropy(network(**take(inputs, batch, cpu)).logits, targets[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return network.eval()


def _rows(recipe: TeacherRecipe, task: Task, rng: np.random.Generator) -> np.ndarray:
    rows = task.train.labelled
    if recipe.groups:
        assert task.train.groups is not None, f"task {task.name!r} has no groups"
        wanted = [task.group_names.index(name) for name in recipe.groups]
        rows = rows[np.isin(task.train.groups[rows], wanted)]
    return np.sort(rng.permutation(rows)[: max(int(recipe.fraction * len(rows)), 1)])


def _targets(recipe: TeacherRecipe, task: Task, labels: np.ndarray, rng: np.random.Generator) -> Tensor:
    classes = task.num_classes
    noisy = np.where(rng.random(len(labels)) < recipe.label_noise, rng.integers(classes, size=len(labels)), labels)
    hard = one_hot(torch.from_numpy(noisy), classes).float()  # [n, C]
    return (1.0 - recipe.next_class) * hard + recipe.next_class * hard.roll(1, dims=1)
