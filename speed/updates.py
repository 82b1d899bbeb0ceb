"""Compare student updates of a hand-written loop, the distillation and the Gymnasium environment, with different rewards and credit.

In: a task's name. Out: rows of two comparisons. The budget is never reached, so the evaluation at its end is not timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import kd_env  # noqa: F401  (registers the ids)
from kd_env import tasks
from kd_env.distillation import Distillation
from kd_env.envs.selection import Selection
from kd_env.types import Decision
from speed.measure import Row, Subject, compare
from speed.plain_loop import PlainLoop

ENDLESS = 10**9
SLOTS = 32
FEW_EXAMPLES = "difference(examples=32,decay=0.9)"
ALONE, VIEW = "Distillation.observe/apply", "slots step, reward_every=0"


def core(task: str, device: torch.device, turns: int, count: int) -> list[Row]:
    """Compare the distillation with a hand-written loop that trains the same student.

    Raises:
        AssertionError: the two have different losses, so their times cannot be compared.
    """
    selection = slots(task, device, precision="float32").selection
    plain = PlainLoop(selection.data, selection.settings.distillation, 0, device)
    run = Distillation(selection.data, selection.settings.distillation, 0)
    teach = uniform(selection)
    for _ in range(20):
        difference = abs(plain.update() - teach(run))
        assert difference < 1e-3, f"{task}: the hand-written loop and the distillation differ by {difference} in loss"
    subjects = [
        Subject("plain PyTorch loop", lambda: [plain.update() for _ in range(count)], count),
        Subject(ALONE, lambda: [teach(run) for _ in range(count)], count),
    ]
    return compare(f"The core: {_title(selection)}", subjects, "ms/update", turns)


def view(task: str, device: torch.device, turns: int, count: int) -> list[Row]:
    """Compare the Gymnasium environment with the distillation, and each kind of reward and credit with none."""
    validation_every = tasks.load(task).defaults.updates // 20
    rewards: dict[str, dict[str, Any]] = {
        "dev_improvement every update": {"reward_every": 1},
        "dev_improvement every 10": {"reward_every": 10},
        "credit=head": {"credit": "head"},
        "credit=first_order": {"credit": "first_order"},
        "credit=first_order, credit_refresh=10": {"credit": "first_order", "credit_refresh": 10},
        "credit=difference": {"credit": "difference"},
        f"credit={FEW_EXAMPLES}": {"credit": FEW_EXAMPLES},
    }
    env = slots(task, device)
    run, teach = Distillation(env.selection.data, env.selection.settings.distillation, 0), uniform(env.selection)
    validating = _steps(slots(task, device, validation_every=validation_every), validation_every)
    subjects = [
        Subject(ALONE, lambda: [teach(run) for _ in range(count)], count),
        Subject(VIEW, _steps(env, count), count, ALONE),
        Subject(f"validation every {validation_every} (default)", validating, validation_every, VIEW),
    ]
    subjects += [Subject(name, _steps(slots(task, device, **options), count), count, VIEW) for name, options in rewards.items()]
    return compare(f"The Gym view, reward and credit: {_title(env.selection)}", subjects, "ms/update", turns)


def slots(task: str, device: torch.device, students: int = 1, **options: Any) -> Any:  # a VectorEnv with a selection
    """Return B instance slots per student with an episode that never ends. By default, they measure neither reward nor validation."""
    keywords = {"action": "weights", "updates": ENDLESS, "reward_every": 0, "validation_every": ENDLESS, "device": str(device), **options}
    return gym.make_vec(
        "kd_env/TeacherSelection-v0",
        num_envs=SLOTS * students,
        num_students=students,
        vectorization_mode="vector_entry_point",
        task=task,
        **keywords,
    ).unwrapped


def uniform(selection: Selection) -> Callable[[Distillation], float]:
    """Return a function that trains each student on one mini-batch, with equal teacher weights, and returns the sum of their losses."""
    settings = selection.settings

    def teach(run: Distillation) -> float:
        rows = run.num_students * settings.distillation.batch_size
        weights = torch.full((rows, run.num_teachers), 1.0 / run.num_teachers, device=run.student.device)
        return float(run.apply(Decision.response(weights, settings.distillation.kd_weight, settings.distillation.temperature)).loss.sum())

    return teach


def _steps(env: Any, count: int) -> Callable[[], object]:
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    return lambda: [env.step(action)[1] for _ in range(count)]


def _title(selection: Selection) -> str:
    name = selection.settings.distillation.student.partition("(")[0]
    return f"{selection.data.task.name}, {name}, B={SLOTS}, K={selection.num_teachers}"
