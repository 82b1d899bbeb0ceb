"""Kinds of action, one class each: ``teachers``, ``knowledge`` and ``joint``; ``kind`` says what a kind is.

A kind of your own is a subclass, used as ``action="module:Class"`` in the environment whose base it derives from.
"""

from kd_env.envs.actions.joint import JointAction
from kd_env.envs.actions.kind import ActionKind, ActionLayout, parse_factors
from kd_env.envs.actions.knowledge import Hard, KnowledgeAction, Soft
from kd_env.envs.actions.teachers import One, Subset, TeacherAction, Weights, from_weights
from kd_env.plugins import build

__all__ = [
    "ACTIONS",
    "ActionKind",
    "ActionLayout",
    "Hard",
    "JointAction",
    "KnowledgeAction",
    "TeacherAction",
    "from_weights",
    "make_action",
    "parse_factors",
]

ACTIONS: dict[str, type[ActionKind]] = {
    "subset": Subset,
    "one": One,
    "weights": Weights,
    "soft": Soft,
    "hard": Hard,
    "joint": JointAction,
}
"""Built-in kinds, by the name that the ``action`` setting uses."""


def make_action(text: str, layout: ActionLayout) -> ActionKind:
    """Return the kind of action that ``text`` names, built-in or ``module:Class``.

    Raises:
        InputError: there is none, or it is no :class:`ActionKind`.
    """
    return build(text, "action", ACTIONS, ActionKind, layout, text)
