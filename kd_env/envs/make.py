"""Make a selection from keywords. In: the keywords of an environment. Out: task, pool, bank and settings in one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from kd_env import tasks
from kd_env.bank import open_bank
from kd_env.distillation import EncodedTask
from kd_env.envs.actions import ACTIONS, ActionKind
from kd_env.envs.rewards import make_reward
from kd_env.envs.selection import Selection
from kd_env.envs.settings import Settings
from kd_env.envs.settings import settings as make_settings
from kd_env.errors import InputError
from kd_env.knowledge.terms import extra_outputs, parse_terms
from kd_env.models.device import pick_device
from kd_env.tasks import Task
from kd_env.teachers import Pool, Teacher, load_pool
from kd_env.teachers.live import LiveTeachers
from kd_env.teachers.own import as_pool
from kd_env.teachers.vocabulary_check import require_same_vocabulary


def make_selection(
    action_base: type[ActionKind],
    defaults: Mapping[str, Any],
    task: str | Task,
    teachers: str | Pool | Sequence[Teacher | Callable[..., Any]] | None,
    bank: str | Path | None,
    data_dir: str | None,
    **keywords: Any,
) -> Selection:
    """Load the task, the pool and its bank, and check the settings.

    Args:
        action_base: base class of the environment's kinds of action.
        defaults: keywords that the environment sets unless the user does, such as its default action.
        task: task, or its name.
        teachers: the name of a pool, a pool, or a list of teachers, modules and callables. Default: the task's.
        bank: folder of the bank. Default: the cache.
        data_dir: folder with the data of a named task.
        keywords: settings that the user set.

    Raises:
        InputError: a keyword is unknown, or its value cannot be used.
    """
    if data_dir is not None and not isinstance(task, str):
        raise InputError(f"data_dir={data_dir!r}: it is used only if task is a name, but task is a Task; leave it out")
    loaded_task = tasks.load(task, data_dir) if isinstance(task, str) else task
    if not isinstance(loaded_task, Task):
        raise InputError(f"task={task!r}: expected a name or a kd_env.tasks.Task, got {type(task).__name__}")
    settings = make_settings(loaded_task, **{**defaults, **{name: value for name, value in keywords.items() if value is not None}})
    require_action(settings.interface.action, action_base)
    _require_labels_for_reward(settings, loaded_task)
    pool_or_name = loaded_task.defaults.pool if teachers is None else teachers
    if isinstance(pool_or_name, str):
        pool = load_pool(pool_or_name, loaded_task)
    else:
        pool = as_pool("own", pool_or_name, loaded_task.development())
    if not isinstance(bank, (str, Path, NoneType)):
        raise InputError(f"bank={bank!r}: expected the path of a folder, got a {type(bank).__name__}")
    student, knowledge = settings.distillation.student, settings.distillation.knowledge
    require_same_vocabulary(loaded_task, pool, student, knowledge)
    opened_bank = open_bank(loaded_task, pool, None if bank is None else Path(bank), keep=extra_outputs(parse_terms(knowledge)))
    needs_live = settings.distillation.teacher_answers == "live" or settings.distillation.block_swap
    live = LiveTeachers.of(pool, pick_device(settings.distillation.device)) if needs_live else None
    selection = Selection(EncodedTask.of(loaded_task, opened_bank, student, live), pool, settings)
    if not isinstance(selection.action_kind, action_base):
        raise InputError(
            f"action={settings.interface.action!r}: this environment has actions derived from {action_base.__name__}; derive yours from it"
        )
    if selection.action_kind.replaces_kd_weight and settings.interface.granularity != "batch":
        raise InputError(
            f"granularity={settings.interface.granularity!r}: knowledge is selected for a batch or a phase; leave granularity out"
        )
    if settings.reward.exploration_bonus > 0.0 and not selection.action_kind.replaces_kd_weight:
        raise InputError(f"exploration_bonus={settings.reward.exploration_bonus}: it is paid for knowledge selection alone; leave it out")
    return selection


def require_action(name: str, base: type[ActionKind]) -> None:
    """Check that the environment has the built-in kind of action ``name``. Kinds of your own are checked when they are made.

    Raises:
        InputError: it does not.
    """
    names = [kind_name for kind_name, kind in ACTIONS.items() if issubclass(kind, base)]
    if ":" not in name and name not in names:
        raise InputError(f"action={name!r}: expected {', '.join(names)} or module:Class in this environment")


def _require_labels_for_reward(settings: Settings, task: Task) -> None:
    reward = settings.reward.reward
    if task.unlabelled and make_reward(reward).reads_labels:
        raise InputError(
            f"reward={reward!r} reads the label of every training example, but task {task.name!r} has unlabelled examples; "
            "use another reward"
        )
