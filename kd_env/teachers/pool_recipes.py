"""Define the built-in pools: how their teachers are trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kd_env.tasks import Task
from kd_env.teachers.erring import Confusions, RandomErrors
from kd_env.teachers.teacher import Drift
from kd_env.teachers.train_recipe import TeacherRecipe


@dataclass(frozen=True)
class PoolRecipe:
    """What a pool is for, and how its teachers are trained.

    Attributes:
        about: one line on the pool, for ``kd-env list pools``.
        teachers: how each teacher is trained.
        best_for_group: per group, the index of its best teacher by construction; ``None`` where that is not known.
        expert: in place of ``teachers``: trained once for each group of the task, on that group alone.
        expert_is_best: each expert is its group's best teacher by construction.
        best_for_class: per class, the index of its best teacher by construction; ``None`` where that does not depend on the class.
        drift: how the teachers change during a run.
        examples: if not 0, a teacher sees about this many examples at most: fewer epochs, and a part of a larger split.
    """

    about: str
    teachers: tuple[TeacherRecipe, ...] = ()
    best_for_group: tuple[int, ...] | None = None
    expert: TeacherRecipe | None = None
    expert_is_best: bool = True
    examples: int = 0
    best_for_class: tuple[int, ...] | None = None
    drift: Drift | None = None

    def fitted(self, task: Task) -> PoolRecipe:
        """Return the recipe with its teachers written out for ``task``."""
        labelled = task.train.take(task.train.labelled)
        if self.expert is None:
            teachers = tuple(self._shortened(recipe, len(labelled)) for recipe in self.teachers)
            return replace(self, teachers=teachers, examples=0)
        sizes = np.bincount(labelled.groups) if labelled.groups is not None else ()
        experts = tuple(
            self._shortened(replace(self.expert, name=group, groups=(group,), seed=k), int(sizes[k]))
            for k, group in enumerate(task.group_names)
        )
        best = tuple(range(len(experts))) if self.expert_is_best else None
        return replace(self, teachers=experts, best_for_group=best, expert=None, examples=0)

    def _shortened(self, recipe: TeacherRecipe, size: int) -> TeacherRecipe:
        if not self.examples:
            return recipe
        epochs = min(recipe.epochs, max(self.examples // size, 1))
        return replace(recipe, epochs=epochs, fraction=min(recipe.fraction, self.examples / size))


_CLASSES = ((0, 1, 2), (3, 4), (5, 6, 7), (8, 9))
_MEDIOCRE = ((1, 7), (5, 9), (6, 0), (3, 8))
_PAIRS = ((1, 7), (9, 4), (8, 3), (6, 0), (5, 2))

POOLS = {
    "digits/experts": PoolRecipe(
        "one expert for each domain, confidently wrong in the others",
        expert=TeacherRecipe("expert", "mlp(width=128)"),
    ),
    "digits/mixed": PoolRecipe(
        "a good, a weak, a label-noise and an overconfident teacher, each for all domains",
        (
            TeacherRecipe("good", "mlp(width=256)", seed=0),
            TeacherRecipe("weak", "mlp(width=16)", epochs=2, seed=1),
            TeacherRecipe("label-noise", "mlp(width=256)", label_noise=0.4, seed=2),
            TeacherRecipe("overconfident", "mlp(width=128)", fraction=0.08, logit_scale=8.0, seed=3),
        ),
        best_for_group=(0, 0, 0, 0),
    ),
    "digits/homogeneous": PoolRecipe(
        "four equally good teachers that differ in their seeds only: there is little to select",
        tuple(TeacherRecipe(f"net-{k}", "mlp(width=128)", epochs=20, seed=k) for k in range(4)),
    ),
    "digits/corrupted": PoolRecipe(
        "a clean teacher, and three whose answers are replaced by wrong ones for 30, 60 and 90 % of the inputs, with equal confidence",
        (
            TeacherRecipe("clean", "mlp(width=128)", seed=0),
            *(
                TeacherRecipe(f"corrupted-{percent}", "mlp(width=128)", errors=RandomErrors(percent / 100, seed=percent), seed=k)
                for k, percent in enumerate((30, 60, 90), start=1)
            ),
        ),
        best_for_group=(0, 0, 0, 0),
    ),
    "digits/capacity": PoolRecipe(
        "the most accurate teacher is not the best one for a small student: its soft labels mislead below the top class",
        (
            TeacherRecipe("misleading", "mlp(width=512)", next_class=0.2, epochs=60, seed=0),
            TeacherRecipe("overconfident", "mlp(width=256)", logit_scale=20.0, fraction=0.2, seed=1),
            TeacherRecipe("modest", "mlp(width=64)", epochs=12, seed=2),
        ),
    ),
    "digits/complementary": PoolRecipe(
        "each teacher knows some classes, in all domains, and is wrong on the others: the best one depends on the class",
        tuple(
            TeacherRecipe(f"classes-{classes[0]}-to-{classes[-1]}", "mlp(width=128)", classes=classes, epochs=20, seed=k)
            for k, classes in enumerate(_CLASSES)
        ),
        best_for_class=tuple(k for k, classes in enumerate(_CLASSES) for _ in classes),
    ),
    "digits/overconfident": PoolRecipe(
        "the more accurate a teacher, the less certain it is: the most confident one is the worst",
        (
            TeacherRecipe("accurate", "mlp(width=256)", logit_scale=0.15, seed=0),
            TeacherRecipe("fair", "mlp(width=128)", fraction=0.2, logit_scale=0.6, seed=1),
            TeacherRecipe("poor", "mlp(width=64)", fraction=0.1, logit_scale=4.0, seed=2),
            TeacherRecipe("worst", "mlp(width=64)", fraction=0.04, logit_scale=12.0, seed=3),
        ),
        best_for_group=(0, 0, 0, 0),
    ),
    "digits/duplicated": PoolRecipe(
        "one good teacher, three near-copies of a mediocre one, which outvote it, and an adversary, whose answers are all wrong",
        (
            TeacherRecipe("good", "mlp(width=256)", seed=0),
            *(TeacherRecipe(f"copy-{k}", "mlp(width=64)", errors=Confusions(_MEDIOCRE), epochs=20, seed=k) for k in (1, 2, 3)),
            TeacherRecipe("adversary", "mlp(width=256)", next_class=1.0, seed=4),
        ),
        best_for_group=(0, 0, 0, 0),
    ),
    "digits/systematic": PoolRecipe(
        "the more accurate teacher always confuses the same classes; the errors of the other are random and average out in the student",
        (
            TeacherRecipe("systematic", "mlp(width=256)", errors=Confusions(_PAIRS), seed=0),
            TeacherRecipe("random", "mlp(width=256)", errors=RandomErrors(0.55), seed=1),
        ),
        best_for_group=(1, 1, 1, 1),
    ),
    "digits/drift": PoolRecipe(
        "the experts of digits/experts; half-way through the updates each becomes the expert for the next domain",
        expert=TeacherRecipe("expert", "mlp(width=128)"),
        drift=Drift(0.5, (1, 2, 3, 0)),
    ),
    "domains/experts": PoolRecipe(
        "one expert for each domain of the generated text, confidently wrong in the others",
        expert=TeacherRecipe("expert", "tiny-bert(width=48,layers=1,dropout=0)", epochs=8),
    ),
    "text/sizes": PoolRecipe(
        "for any text task: three small transformers of growing size, trained from scratch",
        (
            TeacherRecipe("small", "tiny-bert(width=32,layers=1)", epochs=20, seed=0),
            TeacherRecipe("medium", "tiny-bert(width=64,layers=2)", epochs=20, seed=1),
            TeacherRecipe("large", "tiny-bert(width=96,layers=2)", epochs=20, seed=2),
        ),
        examples=20_000,
    ),
    "text/experts": PoolRecipe(
        "for any text task with groups: one small transformer for each group, trained from scratch",
        expert=TeacherRecipe("expert", "tiny-bert(width=64,layers=1)", epochs=20),
        expert_is_best=False,
        examples=20_000,
    ),
    "image/sizes": PoolRecipe(
        "for any image task: three networks of growing width",
        (
            TeacherRecipe("small", "mlp(width=32)", epochs=20, seed=0),
            TeacherRecipe("medium", "mlp(width=128)", epochs=20, seed=1),
            TeacherRecipe("large", "mlp(width=512)", epochs=20, seed=2),
        ),
        examples=400_000,
    ),
    "image/resnets": PoolRecipe(
        "for any image task: three residual networks of growing depth",
        (
            TeacherRecipe("resnet8", "resnet8", epochs=20, seed=0, cosine=True),
            TeacherRecipe("resnet14", "resnet14", epochs=20, seed=1, cosine=True),
            TeacherRecipe("resnet20", "resnet20", epochs=20, seed=2, cosine=True),
        ),
        examples=400_000,
    ),
}
"""The built-in pools by name. The part before the slash is the task, or the kind of task, that a pool is for."""
