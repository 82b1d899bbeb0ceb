"""Built-in pools: how their teachers are trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kd_env.tasks import Task
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
        examples: if not 0, a teacher sees about this many examples at most: fewer epochs, and a part of a larger split.
    """

    about: str
    teachers: tuple[TeacherRecipe, ...] = ()
    best_for_group: tuple[int, ...] | None = None
    expert: TeacherRecipe | None = None
    expert_is_best: bool = True
    examples: int = 0

    def fitted(self, task: Task) -> PoolRecipe:
        """Return the recipe with its teachers written out for ``task``."""
        labelled = task.train.take(task.train.labelled)
        if self.expert is None:
            teachers = tuple(self._shortened(recipe, len(labelled)) for recipe in self.teachers)
            return PoolRecipe(self.about, teachers, self.best_for_group)
        sizes = np.bincount(labelled.groups) if labelled.groups is not None else ()
        experts = tuple(
            self._shortened(replace(self.expert, name=group, groups=(group,), seed=k), int(sizes[k]))
            for k, group in enumerate(task.group_names)
        )
        return PoolRecipe(self.about, experts, tuple(range(len(experts))) if self.expert_is_best else None)

    def _shortened(self, recipe: TeacherRecipe, size: int) -> TeacherRecipe:
        if not self.examples:
            return recipe
        epochs = min(recipe.epochs, max(self.examples // size, 1))
        return replace(recipe, epochs=epochs, fraction=min(recipe.fraction, self.examples / size))


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
    "digits/capacity": PoolRecipe(
        "the most accurate teacher is not the best one for a small student: its soft labels mislead below the top class",
        (
            TeacherRecipe("misleading", "mlp(width=512)", next_class=0.2, epochs=60, seed=0),
            TeacherRecipe("overconfident", "mlp(width=256)", logit_scale=20.0, fraction=0.2, seed=1),
            TeacherRecipe("modest", "mlp(width=64)", epochs=12, seed=2),
        ),
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
}
"""The built-in pools by name. The part before the slash is the task, or the kind of task, that a pool is for."""
