"""Parse the setting ``knowledge``. In: ``"response,layer(strength=50)"``. Out: terms, and the outputs and projectors that they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kd_env import spec
from kd_env.errors import InputError
from kd_env.knowledge import KNOWLEDGE, Knowledge
from kd_env.knowledge.feature_ensemble import MLPProjector
from kd_env.knowledge.hint import LinearProjector
from kd_env.knowledge.layer import LayerProjector
from kd_env.knowledge.map_ensemble import NonlinearMapProjector
from kd_env.knowledge.map_hint import DeepMapProjector, MapProjector
from kd_env.knowledge.projector import Projector
from kd_env.plugins import resolve

RENAMED = {"feature": "layer"}
"""New names of knowledge types by their former names. A former name raises an error that gives the new one."""
PROJECTOR_ORDER: tuple[type[Projector], ...] = (
    LayerProjector, LinearProjector, MLPProjector, MapProjector, DeepMapProjector, NonlinearMapProjector,
)  # fmt: skip
"""Order in which projectors are created, whatever the order of the terms. Their initial weights depend on it. Others come after these."""


@dataclass(frozen=True)
class Term:
    """One knowledge type as a term of the loss.

    Attributes:
        name: name of the type in decisions.
        knowledge: knowledge type.
        strength: factor of the loss in the setting.
        skip_epochs: number of epochs of a student from its start without this term, in which its strength is 0.
    """

    name: str
    knowledge: Knowledge
    strength: float = 1.0
    skip_epochs: int = 0


def parse_terms(text: str) -> tuple[Term, ...]:
    """Return the terms of the setting ``knowledge``.

    Each type is a spec, built-in or ``module:Class``, and accepts the options ``strength`` and ``skip_epochs`` besides its own options.

    Raises:
        InputError: a type or option is unknown, a type is named twice, or a strength is not a positive number.
    """
    terms: dict[str, Term] = {}
    for part in spec.split(text):
        term = _parse_term(part, f"knowledge={text!r}")
        if term.name in terms:
            raise InputError(f"knowledge={text!r}: {term.name} is named twice; name it once")
        terms[term.name] = term
    if not terms:
        raise InputError("knowledge='': name at least one type, such as knowledge=response")
    return tuple(terms.values())


def extra_outputs(terms: Sequence[Term]) -> frozenset[str]:
    """Return the outputs besides logits and features that the bank must keep and the student must compute for ``terms``."""
    return frozenset(output for term in terms for output in term.knowledge.requests)


def projectors(terms: Sequence[Term]) -> list[type[Projector]]:
    """Return the projectors that ``terms`` need, each once, in the order in which they are created.

    Raises:
        InputError: two different projectors have the same name.
    """
    needed = {term.knowledge.projector: term.name for term in terms if term.knowledge.projector is not None}
    ordered = [projector for projector in (*PROJECTOR_ORDER, *needed) if projector in needed]
    unique = {projector.name: projector for projector in ordered}
    for projector in ordered:
        if unique[projector.name] is not projector:
            shared = f"{projector.__name__} and {unique[projector.name].__name__} are both named {projector.name!r}"
            raise InputError(f"knowledge type {needed[projector]}: projectors {shared}; give one of them another name")
    return list(unique.values())


def _parse_term(part: str, setting: str) -> Term:
    name, options = spec.parse(part)
    strength = options.pop("strength", 1.0)
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0.0 < strength < float("inf"):
        raise InputError(f"{setting}: strength={strength!r} of {name} must be a number above 0; to turn a type off, leave it out")
    skip_epochs = options.pop("skip_epochs", 0)
    spec.numbers(f"knowledge {name}", least=0, most=2**31, whole=True, skip_epochs=skip_epochs)
    if name == "label":
        raise InputError(f"{setting}: leave out label; the hard label is always part of the loss with kd_weight below 1")
    if name in RENAMED:
        raise InputError(f"{setting}: {name!r} is now called {RENAMED[name]!r}; use that name")
    if name not in KNOWLEDGE and ":" not in name:
        raise spec.unknown("knowledge type", name, KNOWLEDGE)
    kind = spec.call_plugin(f"knowledge {part!r}", KNOWLEDGE[name] if name in KNOWLEDGE else resolve(name, "knowledge type"), options)
    if not isinstance(kind, Knowledge):
        raise InputError(f"knowledge {part!r}: a {type(kind).__name__} is not a kd_env.knowledge.Knowledge; subclass it")
    for key, value in options.items():
        if isinstance(getattr(type(kind), key, None), bool) and not isinstance(value, bool):
            raise InputError(f"knowledge {part!r}: {key}={value!r}, expected true or false")
    return Term(name, kind, float(strength), skip_epochs)
