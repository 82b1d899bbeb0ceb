"""Define the kinds of action, one class each: ``teachers``, ``knowledge`` and ``joint``; ``kind`` has the base class.

A kind of your own subclasses ``TeacherAction``, ``KnowledgeAction`` or ``JointAction``. Use it as ``action="module:Class"`` in the
environment that has this base.
"""

from kd_env.envs.actions.joint import JointAction
from kd_env.envs.actions.kind import ActionKind, ActionLayout, parse_factors
from kd_env.envs.actions.knowledge import Hard, KnowledgeAction, Soft
from kd_env.envs.actions.teachers import One, Subset, TeacherAction, Weights, action_of_weights
from kd_env.plugins import build

__all__ = [
    "ACTIONS",
    "ActionKind",
    "ActionLayout",
    "Hard",
    "JointAction",
    "KnowledgeAction",
    "TeacherAction",
    "action_of_weights",
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
"""Built-in kinds by their name in the setting ``action``."""


def make_action(text: str, layout: ActionLayout) -> ActionKind:
    """Return the kind of action ``text``, built-in or ``module:Class``.

    Raises:
        InputError: the kind does not exist, or it is not an :class:`ActionKind`.
    """
    return build(text, "action", ACTIONS, ActionKind, layout, text)
