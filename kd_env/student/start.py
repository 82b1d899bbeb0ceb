"""Build students. In: an architecture, a task, seeds. Out: a :class:`Student`, or a :class:`Population` of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from kd_env.errors import InputError
from kd_env.knowledge.projectors import LayerProjector, LinearProjector, MLPProjector
from kd_env.knowledge.terms import Term, extra_parts
from kd_env.models.networks import build
from kd_env.randomness import seeded
from kd_env.student import auxiliary_module
from kd_env.student.auxiliary_module import WithAuxiliaryModule
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.population import Population
from kd_env.student.student import Student, pick_device
from kd_env.tasks import Task
from kd_env.types import Inputs, ModelOutput, TeacherShapes


@dataclass(frozen=True)
class StudentConfig:
    """How a student is built.

    Attributes:
        architecture: a built-in network or a checkpoint, with options.
        terms: the knowledge types that it is taught with; they decide which projectors it needs.
        teachers: the shapes that projectors map to.
        auxiliary_module: a module that learns beside the student, ``module:Class(options)``; empty for none.
    """

    architecture: str
    optimizer: str
    terms: tuple[Term, ...]
    teachers: TeacherShapes
    auxiliary_module: str = ""
    device: str = "auto"
    precision: str = "auto"


def start(task: Task, config: StudentConfig, example: Inputs, seeds: Sequence[int]) -> Student | Population:
    """Build students with freshly drawn weights, one per seed.

    Args:
        example: one row of encoded inputs, to find the shapes of the student's outputs.

    Raises:
        InputError: the architecture does not fit the task, the knowledge types or a population.
    """
    networks = [network(task, config, example, seed) for seed in seeds]
    options, device = OptimizerOptions.of(config.optimizer), pick_device(config.device)
    if len(networks) > 1:
        return Population(networks, options, device, config.precision, task.metric)
    return Student(networks[0], options, device, config.precision, task.metric)


def network(task: Task, config: StudentConfig, example: Inputs, seed: int) -> nn.Module:
    """Build one student's network from ``seed``, with the projectors and the auxiliary module that learn beside it."""
    student = build(config.architecture, task, seed)
    parts = extra_parts(config.terms)
    projects = {term.kind.needs for term in config.terms if term.kind.projects and not term.kind.bends}
    bends = any(term.kind.bends for term in config.terms)
    if not parts and not projects and not bends and not config.auxiliary_module:
        return student
    with torch.no_grad():
        output: ModelOutput = student.eval()(**example, **({"extra_outputs": parts} if parts else {}))
    student.train()
    for part in sorted(parts):
        if getattr(output, part) is None:
            names = ", ".join(term.name for term in config.terms if term.kind.needs == part)
            knowledge = ",".join(term.name for term in config.terms)
            raise InputError(f"knowledge={knowledge!r}: student {config.architecture!r} shows no {part}, which {names} compares")
    width, widths = output.features.shape[1], config.teachers.widths
    with seeded(seed):
        if "layers" in projects:
            assert output.layers is not None
            student = LayerProjector(student, output.layers.shape[1], output.layers.shape[2], config.teachers.layers)
        if "features" in projects:
            student = LinearProjector(student, width, widths)
        if bends:
            student = MLPProjector(student, width, widths)
        if config.auxiliary_module:
            module = auxiliary_module.make(config.auxiliary_module, width, widths, len(config.terms))
            student = WithAuxiliaryModule(student, module)
    return student
