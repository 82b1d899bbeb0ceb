"""How students begin. In: a task, settings, what teachers show, seeds. Out: a :class:`Student`, or a :class:`Population` of several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from kd_env.errors import InputError
from kd_env.knowledge.bank import KnowledgeBank
from kd_env.knowledge.terms import Term, extra_parts
from kd_env.randomness import seeded
from kd_env.settings import Settings
from kd_env.student import companion
from kd_env.student.companion import Accompanied
from kd_env.student.networks import build
from kd_env.student.population import Population
from kd_env.student.projected import Bent, Hinted, Projected
from kd_env.student.student import OptimizerOptions, Student, pick_device
from kd_env.tasks import Task
from kd_env.types import Inputs, ModelOutput


def start(
    task: Task, bank: KnowledgeBank, example: Inputs, settings: Settings, terms: Sequence[Term], seeds: Sequence[int]
) -> Student | Population:
    """Students with freshly drawn weights, one a seed; ``example`` is what they read, a row of it.

    Raises:
        InputError: the architecture does not fit the task, the knowledge types or a population.
    """
    for term in terms:
        if term.kind.reads_labels and settings.strength == 1.0:
            raise InputError(
                f"knowledge={settings.knowledge!r}: {term.name} reads the training labels, which are not part of this setting "
                "(strength=1); leave it out, or give a lower strength"
            )
        if term.kind.reads_labels and task.unlabelled:
            raise InputError(
                f"knowledge={settings.knowledge!r}: {term.name} reads the training labels, and task {task.name!r} has examples without; "
                "leave it out, or the unlabelled examples"
            )
    networks = [network(task, bank, example, settings, terms, seed) for seed in seeds]
    options, device = OptimizerOptions.of(settings.optimizer), pick_device(settings.device)
    if len(networks) > 1:
        return Population(networks, options, device, settings.precision, task.metric)
    return Student(networks[0], options, device, settings.precision, task.metric)


def network(task: Task, bank: KnowledgeBank, example: Inputs, settings: Settings, terms: Sequence[Term], seed: int) -> nn.Module:
    """One student's network drawn from ``seed``, with what learns beside it: maps to the teachers' widths, a policy's companion."""
    made = build(settings.student, task, seed)
    parts = extra_parts(terms)
    projects = {term.kind.needs for term in terms if term.kind.projects and not term.kind.bends}
    bends = any(term.kind.bends for term in terms)
    if not parts and not projects and not bends and not settings.companion:
        return made
    with torch.no_grad():
        said: ModelOutput = made.eval()(**example, **({"show": parts} if parts else {}))
    made.train()
    for part in sorted(parts):
        if getattr(said, part) is None:
            names = ", ".join(term.name for term in terms if term.kind.needs == part)
            raise InputError(f"knowledge={settings.knowledge!r}: student {settings.student!r} shows no {part}, which {names} compares")
    width = said.features.shape[1]
    with seeded(seed):
        if "layers" in projects:
            assert said.layers is not None
            depth = said.layers.shape[1]
            made = Projected(made, depth, said.layers.shape[2], [bank.shape("layers", k) for k in range(bank.num_teachers)])  # type: ignore[misc]
        if "features" in projects:
            made = Hinted(made, width, bank.widths)
        if bends:
            made = Bent(made, width, bank.widths)
        if settings.companion:
            made = Accompanied(made, companion.make(settings.companion, width, bank.widths, len(terms)))
    return made
