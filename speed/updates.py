"""Updates a task: the hand-written loop, the distillation, the Gym view of it, and what reward and credit add.

In: a task's name. Out: two comparisons. Every run is endless (the budget is out of reach), so that nothing is measured at its end.
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
ALONE, VIEW = "Distillation.observe/apply", "slots step, reward_every=0"


def core(task: str, device: torch.device, turns: int, count: int) -> list[Row]:
    """What the distillation costs over a hand-written loop that makes the same student.

    Raises:
        AssertionError: the two make different students, so their times say nothing.
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
    """What the Gym view costs over the distillation, and what each way to pay costs over the cheapest."""
    often = tasks.load(task).defaults.updates // 20
    paying: dict[str, dict[str, Any]] = {
        "dev_improvement every update": {"reward_every": 1},
        "dev_improvement every 10": {"reward_every": 10},
        "credit=head": {"credit": "head"},
        "credit=first_order": {"credit": "first_order"},
        "credit=first_order, credit_refresh=10": {"credit": "first_order", "credit_refresh": 10},
    }
    env = slots(task, device)
    run, teach = Distillation(env.selection.data, env.selection.settings.distillation, 0), uniform(env.selection)
    subjects = [
        Subject(ALONE, lambda: [teach(run) for _ in range(count)], count),
        Subject(VIEW, _steps(env, count), count, ALONE),
        Subject(f"validation every {often} (default)", _steps(slots(task, device, validation_every=often), often), often, VIEW),
    ]
    subjects += [Subject(name, _steps(slots(task, device, **changed), count), count, VIEW) for name, changed in paying.items()]
    return compare(f"The Gym view, reward and credit: {_title(env.selection)}", subjects, "ms/update", turns)


def slots(task: str, device: torch.device, **changed: Any) -> Any:  # a VectorEnv with a selection
    """B instance slots that never end and, unless ``changed`` says so, never measure."""
    options = {"action": "weights", "updates": ENDLESS, "reward_every": 0, "validation_every": ENDLESS, "device": str(device), **changed}
    return gym.make_vec(
        "kd_env/TeacherSelection-v0", num_envs=SLOTS, vectorization_mode="vector_entry_point", task=task, **options
    ).unwrapped


def uniform(selection: Selection) -> Callable[[Distillation], float]:
    """Teach one mini-batch of each student by all teachers alike; the sum of the students' losses."""
    options = selection.settings

    def teach(run: Distillation) -> float:
        rows = run.num_students * options.distillation.batch_size
        weights = torch.full((rows, run.num_teachers), 1.0 / run.num_teachers, device=run.student.device)
        return float(run.apply(Decision.response(weights, options.distillation.kd_weight, options.distillation.temperature)).loss.sum())

    return teach


def _steps(env: Any, count: int) -> Callable[[], object]:
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    return lambda: [env.step(action)[1] for _ in range(count)]


def _title(selection: Selection) -> str:
    name = selection.settings.distillation.student.partition("(")[0]
    return f"{selection.data.task.name}, {name}, B={SLOTS}, K={selection.num_teachers}"
