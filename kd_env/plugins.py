"""Import what a user names as ``module:Name``: tasks, pools, policies, knowledge types, students, rewards."""

from __future__ import annotations

import pkgutil
from typing import Any

from kd_env.errors import InputError


def resolve(path: str, kind: str) -> Any:
    """Import and return the object that ``path`` names.

    Args:
        path: ``module:name``.
        kind: what the object is, for the error message.

    Raises:
        InputError: the module or the name cannot be imported.
    """
    try:
        return pkgutil.resolve_name(path)
    except Exception as error:  # a module may raise anything while it is imported
        raise InputError(
            f"{kind} {path!r} cannot be imported ({type(error).__name__}: {error}); give module:name, importable from here"
        ) from None
