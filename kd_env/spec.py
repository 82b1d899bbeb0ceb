"""Specs: ``name(key=value,...)``, the one way to name a thing with options on a command line.

In: ``"mlp(width=24)"``. Out: ``Spec("mlp", {"width": 24})``.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from kd_env.errors import InputError


class Spec(NamedTuple):
    """A name and its options."""

    name: str
    options: dict[str, Any]

    def __str__(self) -> str:
        """Canonical text: options sorted, so equal specs are equal strings."""
        if not self.options:
            return self.name
        return f"{self.name}({','.join(f'{key}={value}' for key, value in sorted(self.options.items()))})"


def parse(text: str) -> Spec:
    """Split a spec into name and options; values are Python literals, anything else is text.

    Raises:
        InputError: the brackets or the options are malformed.
    """
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return Spec(name, {})
    if not rest.endswith(")") or not name:
        raise InputError(f"{text!r}: expected name(key=value,...), for example mlp(width=24)")
    return Spec(name, options(split(rest[:-1])))


def options(items: Iterable[str]) -> dict[str, Any]:
    """Parse several ``key=value``; a key given twice is an input error."""
    parsed: dict[str, Any] = {}
    for item in items:
        key, value = option(item)
        if key in parsed:
            raise InputError(f"{key} is given twice, as {parsed[key]!r} and {value!r}; give it once")
        parsed[key] = value
    return parsed


def option(text: str) -> tuple[str, Any]:
    """Parse one ``key=value``."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip().isidentifier():
        raise InputError(f"{text!r}: expected key=value")
    return key.strip(), _literal(value.strip())


def call(text: str, function: Callable[..., Any], options: Mapping[str, Any], *given: Any) -> Any:
    """Call ``function(*given, **options)``; an unknown or a missing option is an input error, one inside ``function`` is not."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise InputError(f"{text}: {function!r} cannot be called with options; name a function or a class of your own") from None
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        names = [p.name for p in signature.parameters.values() if p.default is not p.empty]
        raise InputError(f"{text}: {error}; options: {', '.join(names) or 'none'}") from None
    return function(*given, **options)


def call_plugin(text: str, function: Callable[..., Any], options: Mapping[str, Any], *given: Any) -> Any:
    """As :func:`call`, for code that a user may have written: whatever it raises is an input error that names the file and the line."""
    try:
        return call(text, function, options, *given)
    except InputError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(f"{text}: {type(error).__name__}: {error} ({place.filename}, line {place.lineno}); mend it there") from error


def numbers(
    what: str,
    /,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    whole: bool = False,
    **given: object,
) -> None:
    """Refuse an option of ``what`` that is no finite number, or not from ``least`` (or ``above`` it) to ``most`` (or ``below`` it).

    Raises:
        InputError: it names the option, its value and what was expected.
    """
    kind, word = (int, "a whole number") if whole else (int | float, "a number")
    for name, value in given.items():
        fits = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
        if not fits or not least <= value <= most or not above < value < below:  # type: ignore[operator]
            limits = [f"of at least {least:g}"] * (least > -math.inf) + [f"above {above:g}"] * (above > -math.inf)
            limits += [f"at most {most:g}"] * (most < math.inf) + [f"below {below:g}"] * (below < math.inf)
            raise InputError(f"{what}({name}={value!r}): expected {word} {', '.join(limits)}".rstrip())


def one_of(what: str, /, *allowed: object, **given: object) -> None:
    """Refuse an option of ``what`` that is none of ``allowed``.

    Raises:
        InputError: it names the option, its value and what there is.
    """
    for name, value in given.items():
        if not any(value is one or (type(value) is type(one) and value == one) for one in allowed):
            known = " or ".join(str(one).lower() if isinstance(one, bool) else str(one) for one in allowed)
            raise InputError(f"{what}({name}={value!r}): expected {known}")


def unknown(kind: str, name: str, known: Iterable[str], also: str = "") -> InputError:
    """The error for a name that is not there, with the nearest one that is; ``also`` says where else it was looked for."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return InputError(f"unknown {kind} {name!r}; {hint}{also}")


def split(text: str) -> list[str]:
    """Split at commas outside brackets; empty parts are dropped."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [part for part in [*parts, text[start:]] if part.strip()]


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
