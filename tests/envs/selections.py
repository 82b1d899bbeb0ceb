"""Selections without an environment around them: how they begin, how they are taught, and what is compared."""

from types import SimpleNamespace

import numpy as np

from kd_env.envs.selection import Selection
from kd_env.envs.settings import settings
from kd_env.teachers import Pool


def pool_of(data):
    """The names of the teachers in the bank: all that a selection asks of its pool."""
    return Pool("of the bank", tuple(SimpleNamespace(name=name) for name in data.bank.teachers))


def select(data, seed=0, label_seeds=None, **keywords):
    keywords = {"action": "subset", "batch_size": 8, "updates": 30, "student": "mlp(width=8)", "reward_labels": 40} | keywords
    selection = Selection(data, pool_of(data), settings(data.task, **keywords), label_seeds)
    selection.begin(seed)
    return selection


def actions_for(selection):
    """Random actions that follow from each student's update: subsets of the teachers, some of them empty; or gates."""
    kind, rows = selection.action_kind, selection.num_slots // selection.num_students
    of_students = []
    for update in selection.distillation.update.tolist():
        rng = np.random.default_rng([11, update])
        of_students.append(rng.integers(2, size=(rows, kind.size)) if kind.name != "soft" else rng.uniform(-1, 1, (rows, kind.size)))
    return np.concatenate(of_students)


def advance(selection, updates):
    """Teach, and return what every update paid, measured and credited."""
    return [shown(selection.advance(actions_for(selection))) for _ in range(updates)]


def shown(step):
    values = {name: getattr(step, name) for name in ("rewards", "student_ce", "improvement", "validation", "diverged")}
    arrays = {**values, **step.reward_terms, **step.credit}
    return {name: None if values is None else np.asarray(values).tolist() for name, values in arrays.items()}


def state_of(selection):
    """All that a selection remembers, as numbers: equal exactly where selections are in the same state."""
    run, meter = selection.distillation, selection.meter
    tensors = {f"student.{name}": tensor for name, tensor in run.student.state().items()}
    tensors |= {f"run.{name}": tensor for name, tensor in run.state.tensors().items()}
    tensors |= {f"meter.{name}": tensor for name, tensor in meter.tensors().items()}
    numbers = {name: tensor.detach().cpu().numpy().tobytes() for name, tensor in tensors.items()}
    return numbers | {"meter": meter.info(), "exploration": repr(selection.exploration.memory), "rows": run.reward_split.positions.tolist()}


def uniform(selection):
    """The ``weights`` action that gives all teachers the same weight."""
    return np.zeros((selection.num_slots, selection.num_teachers))
