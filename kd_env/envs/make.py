"""From keywords to a selection. In: what a user gave an environment. Out: task, pool, bank and settings in one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.distillation import EncodedTask
from kd_env.distillation.settings import Action
from kd_env.distillation.settings import settings as make_settings
from kd_env.envs.selection import Selection
from kd_env.errors import InputError
from kd_env.knowledge.terms import extra_parts, parse_terms
from kd_env.tasks import Task
from kd_env.teachers import Pool, Teacher, load_pool
from kd_env.teachers.vocabulary_check import require_same_vocabulary


def make_selection(
    actions: Sequence[Action],
    defaults: Mapping[str, Any],
    task: str | Task,
    teachers: str | Pool | Sequence[Teacher] | None,
    bank: str | Path | None,
    data_dir: str | None,
    **keywords: Any,
) -> Selection:
    """Load the task, the pool and its bank, and check the settings.

    Args:
        actions: the kinds of action that the environment has, its default first.
        defaults: other keywords that the environment sees to, where the user does not.

    Raises:
        InputError: anything in the keywords that cannot be used.
    """
    if data_dir is not None and not isinstance(task, str):
        raise InputError(f"data_dir={data_dir!r}: it goes with a task's name, and here is the task itself; leave it out")
    loaded = tasks.load(task, data_dir) if isinstance(task, str) else task
    if not isinstance(loaded, Task):
        raise InputError(f"task={task!r}: expected a name or a kd_env.tasks.Task, got {type(task).__name__}")
    given = {name: value for name, value in keywords.items() if value is not None}
    options = make_settings(loaded, **{"action": actions[0], **defaults, **given})
    if options.action not in actions:
        raise InputError(f"action={options.action!r}: this environment has {' and '.join(actions)}")
    if options.action in ("soft", "hard") and options.granularity != "batch":
        raise InputError(f"granularity={options.granularity!r}: knowledge is selected for a batch or a phase; leave granularity out")
    if loaded.unlabelled and options.reward != "dev_improvement":
        raise InputError(f"reward={options.reward!r} reads every training label, and task {loaded.name!r} has texts without one")
    if options.exploration_bonus > 0.0 and options.action not in ("soft", "hard"):
        raise InputError(f"exploration_bonus={options.exploration_bonus}: it is paid for knowledge selection alone; leave it out")
    named = loaded.defaults.pool if teachers is None else teachers
    if isinstance(named, str):
        pool = load_pool(named, loaded)
    else:
        pool = named if isinstance(named, Pool) else Pool("own", tuple(named))
    require_same_vocabulary(loaded, pool, options.student, options.knowledge)
    opened = open_bank(loaded, pool, None if bank is None else Path(bank), keep=extra_parts(parse_terms(options.knowledge)))
    return Selection(EncodedTask.of(loaded, opened, options.student), pool, options)
