"""Build students. In: an architecture, a task, seeds. Out: a :class:`Student`, or a :class:`Population` of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kd_env.errors import InputError
from kd_env.knowledge.knowledge import EXTRA_OUTPUTS
from kd_env.knowledge.map_knowledge import paired
from kd_env.knowledge.terms import Term, extra_outputs, projectors
from kd_env.models import networks
from kd_env.models.device import pick_device
from kd_env.models.from_plugin import errors_of
from kd_env.models.modes import has_plugin
from kd_env.models.stages import ALL, LAST, STEM, output_of, request
from kd_env.randomness import seeded
from kd_env.student import auxiliary_module
from kd_env.student.auxiliary_module import WithAuxiliaryModule
from kd_env.student.data_parallel import current_processes
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.population import Population
from kd_env.student.protocol import Students
from kd_env.student.student import Student
from kd_env.tasks import Task
from kd_env.types import Inputs, ModelOutput, TeacherShapes


@dataclass(frozen=True)
class StudentConfig:
    """Configuration of students.

    Attributes:
        architecture: built-in network, checkpoint or ``module:Class``, with options.
        optimizer: optimizer and schedule, such as ``adam(lr=0.003)``.
        terms: knowledge types of the loss; they determine the projectors.
        teachers: shapes of the teachers' outputs, to which projectors map.
        auxiliary_module: auxiliary module, ``module:Class(options)``; empty for none.
        device: device name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: number format: ``auto``, ``float32``, ``float64`` or ``bfloat16``.
    """

    architecture: str
    optimizer: str
    terms: tuple[Term, ...]
    teachers: TeacherShapes
    auxiliary_module: str = ""
    device: str = "auto"
    precision: str = "auto"


def build_students(task: Task, config: StudentConfig, example: Inputs, seeds: Sequence[int]) -> Students:
    """Build students with new initial weights, one student per seed.

    Args:
        task: task that the students learn.
        config: configuration of the students.
        example: one row of encoded inputs; a pass on it gives the shapes of the student's outputs.
        seeds: seeds of the initial weights, one per student.

    Raises:
        InputError: the architecture does not fit the task, the knowledge types or a population.
    """
    student_networks = [build_network(task, config, example, seed) for seed in seeds]
    options, device = OptimizerOptions.of(config.optimizer), pick_device(config.device)
    processes = current_processes()
    if processes is not None:
        processes.require_splittable(student_networks[0], len(seeds))
    if len(student_networks) == 1:
        return Student(student_networks[0], options, device, config.precision, task.metric_key, processes)
    population = Population(student_networks, options, device, config.precision, task.metric_key)
    if has_plugin(population.network):
        repeated = {name: tensor.repeat_interleave(len(seeds), 0).to(device) for name, tensor in example.items()}
        with errors_of(config.architecture, "running several students at once under torch.func.vmap fails"), seeded(0):
            population.forward(repeated, extra_outputs(config.terms))
    return population


def build_network(task: Task, config: StudentConfig, example: Inputs, seed: int) -> nn.Module:
    """Build the network of one student from ``seed``, with its projectors and its auxiliary module.

    Projectors are created before the auxiliary module, in the order of :func:`~kd_env.knowledge.terms.projectors`.
    """
    student = networks.build(config.architecture, task, seed)
    extra, needed = extra_outputs(config.terms), projectors(config.terms)
    if not extra and not needed and not config.auxiliary_module:
        return student
    with torch.no_grad():
        output: ModelOutput = student.eval()(**example, **({"extra_outputs": extra} if extra else {}))
        for name in sorted(extra):
            if problem := _problem(name, output, config.teachers):
                named = frozenset({request(ALL), request(STEM)}) if name == request(LAST) and not has_plugin(student) else frozenset()
                raise _without_output(name, problem, config, list(student(**example, extra_outputs=named).stages))
    student.train()
    with seeded(seed):
        for projector in needed:
            student = projector(student, output, config.teachers)
        if config.auxiliary_module:
            width, widths = output.features.shape[1], config.teachers.widths
            module = auxiliary_module.build(config.auxiliary_module, width, widths, len(config.terms), task.num_classes)
            student = WithAuxiliaryModule(student, module)
    return student


def _problem(name: str, output: ModelOutput, teachers: TeacherShapes) -> str:
    """Return what is wrong with an output that the terms request: of ``maps.all``, no stage in common with a teacher; empty if nothing."""
    if name == request(ALL):
        if all(paired((ALL,), output.stages, stages) for stages in teachers.stages):
            return ""
        return "has no numbered stage of feature maps in common with each teacher"
    value, axes = output.named(name), EXTRA_OUTPUTS[output_of(name)]
    if isinstance(value, Tensor):
        return "" if value.ndim == axes else f"has {name} of shape {list(value.shape)}, expected {axes} axes"
    what, _, stage = name.partition(".")
    return f"has no feature map of stage {stage!r}" if stage else f"has no {what}"


def _without_output(name: str, problem: str, config: StudentConfig, stages: Sequence[str]) -> InputError:
    """Return the error for a student with a problem; ``stages`` are those that it has instead of a last map."""
    comparing = [term.name for term in config.terms if name in term.knowledge.requests]
    names, verb = " and ".join(comparing), "compares" if len(comparing) == 1 else "compare"
    knowledge = ",".join(term.name for term in config.terms)
    remedy = f"leave {names} out, or use another student"
    if name == request(LAST) and stages:
        problem += " whose means are its features"
        remedy = f"name one of its stages, as in map_hint(stage={stages[-1]}); it has {', '.join(stages)}"
    return InputError(f"knowledge={knowledge!r}: student {config.architecture!r} {problem}, which {names} {verb}; {remedy}")
