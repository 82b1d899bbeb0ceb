"""Parse a name with options, written ``name(key=value,...)`` on a command line or in a setting, and check numbers.

``parse("mlp(width=24)")`` returns ``Spec("mlp", {"width": 24})``. The other functions check and pass on such options.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeGuard

from kd_env.errors import InputError

MAX_SEEDS = 10_000


class Spec(NamedTuple):
    """A name and its options."""

    name: str
    options: dict[str, Any]

    def __str__(self) -> str:
        """Return the canonical text: options are sorted, so equal specs are equal strings."""
        if not self.options:
            return self.name
        return f"{self.name}({','.join(f'{key}={value}' for key, value in sorted(self.options.items()))})"


def parse(text: str) -> Spec:
    """Split a spec into its name and options. Values are Python literals; anything else is a string.

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
    """Parse several ``key=value``.

    Raises:
        InputError: an item is malformed, or a key is given twice.
    """
    parsed: dict[str, Any] = {}
    for item in items:
        key, value = option(item)
        if key in parsed:
            raise InputError(f"{key} is given twice, as {parsed[key]!r} and {value!r}; give it once")
        parsed[key] = value
    return parsed


def option(text: str) -> tuple[str, Any]:
    """Parse one ``key=value``.

    Raises:
        InputError: there is no ``=``, or the key is not an identifier.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip().isidentifier():
        raise InputError(f"{text!r}: expected key=value")
    return key.strip(), _literal(value.strip())


def call(text: str, function: Callable[..., Any], options: Mapping[str, Any], *arguments: Any) -> Any:
    """Return ``function(*arguments, **options)``. Exceptions that ``function`` raises pass through.

    Args:
        text: the spec as the user wrote it, for the error message.

    Raises:
        InputError: ``function`` does not take these options, or needs one that is missing.
    """
    require_options(text, function, options, *arguments)
    return function(*arguments, **options)


def require_options(text: str, function: Callable[..., Any], options: Mapping[str, Any], *arguments: Any) -> None:
    """Check that :func:`call` with the same arguments calls ``function``.

    Raises:
        InputError: ``function`` does not take these options, or needs one that is missing.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise InputError(f"{text}: {function!r} cannot be called with options; name a function or a class of your own") from None
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        optional = list(signature.parameters.values())[len(arguments) :]  # the first parameters are not for users to set
        names = [parameter.name for parameter in optional if parameter.default is not parameter.empty]
        raise InputError(f"{text}: {error}; options: {', '.join(names) or 'none'}") from None


def call_plugin(text: str, function: Callable[..., Any], options: Mapping[str, Any], *arguments: Any) -> Any:
    """Call as :func:`call` does, for code that a user may have written.

    Raises:
        InputError: the options do not fit, or ``function`` raised; then the message names the file and the line.
    """
    try:
        return call(text, function, options, *arguments)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit() there must not end the command as if it were done
        raise fault(text, error, function) from error


def fault(text: str, error: BaseException, plugin: object = None) -> InputError:
    """Return the error to raise for an exception in code that a user may have written: its text, and the file and line.

    Args:
        text: what was called, for the message.
        error: the exception.
        plugin: what was called; the line is the last one of its file, so that an error deep in a library names the user's line.
    """
    places = traceback.extract_tb(error.__traceback__)
    own_file = getattr(sys.modules.get(getattr(plugin, "__module__", "")), "__file__", None)
    place = next((place for place in reversed(places) if place.filename == own_file), places[-1])
    reason = f"sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
    return InputError(f"{text}: {reason} ({place.filename}, line {place.lineno}); fix it there")


def numbers(
    what: str,
    /,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    whole: bool = False,
    **values: object,
) -> None:
    """Check that options are finite numbers within limits.

    Args:
        what: name of the thing that has the options, for the error message; empty for settings, which have names of their own.
        least: the smallest value allowed.
        above: values must be greater than this.
        most: the largest value allowed.
        below: values must be smaller than this.
        whole: integers only.
        **values: the options by name.

    Raises:
        InputError: a value does not fit; it names the option, its value and what was expected.
    """
    for name, value in values.items():
        if not (_is_number(value, whole) and least <= value <= most and above < value < below):
            word = "a whole number" if whole else "a number"
            limits = [f"of at least {least:g}"] * (least > -math.inf) + [f"above {above:g}"] * (above > -math.inf)
            limits += [f"at most {most:g}"] * (most < math.inf) + [f"below {below:g}"] * (below < math.inf)
            option = f"{what}({name}={value!r})" if what else f"{name}={value!r}"
            raise InputError(f"{option}: expected {word} {', '.join(limits)}".rstrip())


def one_of(what: str, /, *allowed: object, **values: object) -> None:
    """Check that options have one of the ``allowed`` values, of the same type.

    Args:
        what: name of the thing that has the options, for the error message.
        **values: the options by name.

    Raises:
        InputError: a value is not allowed; it names the option, its value and the allowed ones.
    """
    for name, value in values.items():
        if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in allowed):
            choices = " or ".join(str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in allowed)
            raise InputError(f"{what}({name}={value!r}): expected {choices}")


def unknown(kind: str, name: str, known: Iterable[str], also: str = "") -> InputError:
    """Return the error for a name that is not known, with the nearest known name or all of them.

    Args:
        kind: what the name should be a name of.
        also: appended to the message, for example where else it was looked for.
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(names)}"
    return InputError(f"unknown {kind} {name!r}; {hint}{also}")


def split(text: str) -> list[str]:
    """Split at commas outside brackets and outside quotes after ``=``, and drop empty parts."""
    parts, depth, start, quote, before = [], 0, 0, "", ""
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote and text[position - 1] != "\\" else quote
            continue
        if character in "'\"" and before == "=" and text.rfind(character) > position:
            quote = character
            continue
        before = before if character.isspace() else character
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [part for part in [*parts, text[start:]] if part.strip()]


def seeds(text: str, place: str) -> list[int]:
    """Return the seeds that a text as ``0-4`` or ``0,3,7`` names, without repetitions.

    Args:
        place: where the text is from, for the error message.

    Raises:
        InputError: a part is not a number or a range, or names too many seeds.
    """
    named: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip())
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if not 0 <= last - first < MAX_SEEDS:
            raise InputError(
                f"{place} {text!r}: {part!r} names no seeds; expected numbers as 0-4 or 0,3,7, up to {MAX_SEEDS} of at most 9 digits"
            )
        named += range(first, last + 1)
    return list(dict.fromkeys(named))


def _is_number(value: object, whole: bool) -> TypeGuard[float]:
    return isinstance(value, int if whole else int | float) and not isinstance(value, bool) and math.isfinite(value)


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # the last two of text that is nested very deeply
        return text
