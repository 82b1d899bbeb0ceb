"""Train a built-in network on the train split of a task, or on some of its groups, as a recipe says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim.lr_scheduler import CosineAnnealingLR

from kd_env.models.encode import encode, take
from kd_env.models.networks import build
from kd_env.randomness import reproducible, seeded
from kd_env.tasks import Task
from kd_env.teachers.erring import Errors


@dataclass(frozen=True, repr=False)
class TeacherRecipe:
    """How to train one teacher of a named pool. Its ``repr`` is part of the names of cached files.

    Attributes:
        name: of the teacher.
        network: architecture, as ``mlp(width=128)``.
        groups: names of the groups it is trained on; empty for all.
        fraction: part of those examples that it is trained on, drawn by ``seed``.
        label_noise: part of the labels that is replaced by random ones.
        next_class: probability that its training targets give to the class after the true one: right at the top, misleading below it.
        logit_scale: multiplies its logits when it teaches; above 1 it is overconfident.
        epochs: passes over the examples.
        seed: draws the weights, the examples, their order and the label noise.
        classes: classes whose examples it is trained on; empty for all.
        errors: errors that are made of its answers when it teaches.
        cosine: whether the learning rate falls to 0 along half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983), or is constant.
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
    classes: tuple[int, ...] = ()
    errors: Errors | None = None
    cosine: bool = False

    def __repr__(self) -> str:
        """Return the fields as a dataclass does, without those that were added later and are not set: names of cached files stay."""
        later = ("classes", "errors", "cosine")
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return f"TeacherRecipe({', '.join(f'{name}={value!r}' for name, value in values.items() if value or name not in later)})"


def train_network(
    recipe: TeacherRecipe,
    task: Task,
    progress: Callable[[int, int], None] | None = None,
    learning_rate: float = 2e-3,
    batch_size: int = 64,
) -> nn.Module:
    """Train the recipe's network with Adam on soft targets and return it; deterministic in ``recipe.seed``.

    It runs on one thread, since several threads change the last bits of sums.

    Args:
        recipe: how it is trained.
        task: the task.
        progress: called after each update with the number of updates that are done, and of all updates.
        learning_rate: of Adam; the highest one where the recipe says ``cosine``.
        batch_size: examples of one update.
    """
    with reproducible():
        return _train(recipe, task, progress or (lambda done, total: None), learning_rate, batch_size)


def training_rows(recipe: TeacherRecipe, task: Task, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of train that the recipe's teacher is trained on."""
    rows = task.train.labelled
    if recipe.groups:
        assert task.train.groups is not None, f"task {task.name!r} has no groups"
        rows = rows[np.isin(task.train.groups[rows], [task.group_names.index(name) for name in recipe.groups])]
    if recipe.classes:
        rows = rows[np.isin(task.train.labels[rows], recipe.classes)]
    return np.sort(rng.permutation(rows)[: max(int(recipe.fraction * len(rows)), 1)])


def training_targets(recipe: TeacherRecipe, task: Task, labels: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Return the soft targets ``[n, C]`` that the recipe makes of ``labels`` ``[n]``."""
    classes = task.num_classes
    noisy = np.where(rng.random(len(labels)) < recipe.label_noise, rng.integers(classes, size=len(labels)), labels)
    hard = one_hot(torch.from_numpy(noisy), classes).float()  # [n, C]
    return (1.0 - recipe.next_class) * hard + recipe.next_class * hard.roll(1, dims=1)


def _train(recipe: TeacherRecipe, task: Task, progress: Callable[[int, int], None], learning_rate: float, batch_size: int) -> nn.Module:
    rng = np.random.default_rng([recipe.seed, 7])
    rows = training_rows(recipe, task, rng)
    split = task.train.take(rows)
    inputs = encode(task, split.inputs)
    targets = training_targets(recipe, task, split.labels, rng)
    network = build(recipe.network, task, recipe.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    num_batches = max(len(rows) // batch_size, 1)
    num_updates = recipe.epochs * num_batches
    schedule = CosineAnnealingLR(optimizer, T_max=num_updates) if recipe.cosine else None
    cpu = torch.device("cpu")
    with seeded(recipe.seed):  # dropout draws from the global generator
        for epoch in range(recipe.epochs):
            for number, batch in enumerate(np.array_split(rng.permutation(len(rows)), num_batches), start=1):
                optimizer.zero_grad()
                cross_entropy(network(**take(inputs, batch, cpu)).logits, targets[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                if schedule:
                    schedule.step()
                progress(epoch * num_batches + number, num_updates)
    return network.eval()
