"""Make the tables of ``docs/how-to/libraries.md``: what works with which library. ``python tests/conformance/table.py`` prints them."""

import functools
import warnings

import gymnasium as gym
from libraries import ONE_ENVIRONMENT, SLOTS

import kd_env  # noqa: F401

SMALL = {"task": "digits", "updates": 4, "student": "mlp(width=8)", "reward_examples": 20}
KINDS = {
    "teachers `subset`": ("kd_env/TeacherSelection-v0", "subset"),
    "`one`": ("kd_env/TeacherSelection-v0", "one"),
    "`weights`": ("kd_env/TeacherSelection-v0", "weights"),
    "knowledge `soft`": ("kd_env/KnowledgeSelection-v0", "soft"),
    "`hard`": ("kd_env/KnowledgeSelection-v0", "hard"),
    "`joint`": ("kd_env/JointSelection-v0", "joint"),
}
"""Environments with their kinds of action, by their columns."""

REASONS = {
    "The algorithm only supports": "a",
    "Float can't be cast to the desired output type Char": "b",
    "Unsupported space (MultiBinary": "c",
    "Expected env to be a `gymnasium.Env`": "d",
    "Expected autoreset_mode to be NEXT_STEP or DISABLED": "e",
}
"""Part of an error, and the note below the tables that explains it. Any other error is one of ours."""

NOT_INSTALLED = "not installed"


def one_environment(name: str, action: str, **keywords: object) -> gym.Env:
    """One student, one step per mini-batch."""
    return gym.make(name, action=action, batch_size=3, **SMALL, **keywords)


def slots(name: str, action: str, **keywords: object) -> gym.vector.VectorEnv:
    """Four slots: four instances of one student, or four students with a decision for each mini-batch."""
    size = {"num_students": 4, "batch_size": 3} if "Knowledge" in name else {}
    return gym.make_vec(name, num_envs=4, action=action, vectorization_mode="vector_entry_point", **SMALL, **size, **keywords)


FORMS = {"gym.make": (ONE_ENVIRONMENT, one_environment), "gym.make_vec": (SLOTS, slots)}
ROWS = [(form, use) for form, (uses, _) in FORMS.items() for use in uses]


def cell(form: str, use: str, kind: str) -> str:
    """Return ``yes``, ``no`` with the letter of the reason, or that the library is not installed."""
    uses, make = FORMS[form]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries, about themselves
            uses[use](functools.partial(make, *KINDS[kind]))
    except (ImportError, gym.error.DependencyNotInstalled):
        return NOT_INSTALLED
    except Exception as error:
        letters = [letter for part, letter in REASONS.items() if part in str(error)]
        if not letters:
            raise
        return f"no ({letters[0]})"
    return "yes"


def row(form: str, use: str) -> str:
    """Return the line of a table."""
    return f"| {use} | {' | '.join(cell(form, use, kind) for kind in KINDS)} |"


if __name__ == "__main__":
    for form, (uses, _) in FORMS.items():
        print(f"\n| `{form}` | {' | '.join(KINDS)} |\n|{'---|' * (1 + len(KINDS))}")
        for use in uses:
            print(row(form, use), flush=True)
