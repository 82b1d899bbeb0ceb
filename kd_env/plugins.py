"""Import what a user names as ``module:Name``: tasks, pools, policies, knowledge types, students, rewards."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from kd_env import spec
from kd_env.errors import InputError

OURS = ("agents", "baselines", "kd_env")
"""Packages whose exceptions are faults of this project: they keep their traceback."""
Plugin = TypeVar("Plugin")


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
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise InputError(
            f"{kind} {path!r} cannot be imported ({type(error).__name__}: {error}); give module:name, importable from here"
        ) from None


@contextmanager
def faults_in(what: str, plugin: object) -> Iterator[None]:
    """Turn exceptions of a user's own code into ``InputError`` with their text, file and line. Those of built-in code pass through.

    ``sys.exit`` counts as an exception: it must not end a run as if it were finished.

    Args:
        what: what is called, for the message.
        plugin: the class or function that the code belongs to.
    """
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        if is_built_in(plugin):
            raise
        raise spec.fault(what, error, plugin) from error


def is_built_in(plugin: object) -> bool:
    """Return whether a class or function is of this project."""
    return str(getattr(plugin, "__module__", "")).partition(".")[0] in OURS


def build(text: str, kind: str, known: Mapping[str, type[Plugin]], base: type, *arguments: Any) -> Plugin:
    """Build what ``text`` names: one of ``known``, or a user-defined ``module:Class``, with options as ``module:Class(scale=2)``.

    Args:
        kind: what it is, for error messages.
        base: the class that it must derive from.
        arguments: passed to the constructor before the options.

    Raises:
        InputError: no such name, a class that is no ``base`` or lacks a method of it, or options that it does not take.
    """
    name, options = spec.parse(text)
    if name not in known and ":" not in name:
        raise spec.unknown(kind, name, known, " (or name your own as module:Class)")
    plugin = known[name] if name in known else resolve(name, kind)
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        raise InputError(f"{kind} {text!r}: {name} is not a subclass of {base.__module__}.{base.__name__}; derive it from that")
    if missing := sorted(getattr(plugin, "__abstractmethods__", ())):
        raise InputError(f"{kind} {text!r}: {name} does not define {', '.join(missing)}; define {'them' if missing[1:] else 'it'}")
    result: Plugin = spec.call_plugin(f"{kind} {text!r}", plugin, options, *arguments)
    return result
