"""The state of a run as tensors and JSON: what a snapshot holds, what a fork copies, and one student of a population by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from kd_env.distillation.state import RunState
from kd_env.serialization import part

if TYPE_CHECKING:
    from kd_env.distillation.run import Distillation


def identity(run: Distillation) -> dict[str, object]:
    """Return what a run and its snapshots have in common: task, teachers and settings."""
    return {"task": run.data.task.fingerprint, "bank": run.data.bank.fingerprint, **asdict(run.settings)}


def tensors_of(run: Distillation) -> dict[str, Tensor]:
    """Return the state of a run as tensors, by name; the observed mini-batch is left out, since it follows from the rest."""
    generator = run.dropout.states if run.batch is None else run.dropout.before_batch
    return {
        **{f"student.{name}": tensor for name, tensor in run.student.state().items()},
        **{f"state.{name}": tensor for name, tensor in _without_observed(run, run.state).tensors().items()},
        **{f"dropout.{index}": tensor for index, tensor in enumerate(generator)},
    }


def info_of(run: Distillation) -> dict[str, Any]:
    """Return the rest of the state, as JSON can hold it."""
    return {"observed": run.batch is not None}


def load(run: Distillation, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Put a run into the state that :func:`tensors_of` and :func:`info_of` saved."""
    run.student.load_state(part(tensors, "student"))
    run.state = RunState.from_tensors(part(tensors, "state"))
    generator = part(tensors, "dropout")
    run.dropout.states = [generator[str(index)] for index in range(len(generator))]
    run.forget_batch()
    if info["observed"]:
        run.observe()


def fork(run: Distillation) -> Distillation:
    """Return an independent run in the same state; task and bank are shared."""
    twin = type(run)(run.data, run.settings, run.seeds.tolist(), run.reward_split)
    load(twin, tensors_of(run), info_of(run))
    return twin


def member(run: Distillation, student: int) -> Distillation:
    """Return one student of a population as a run of its own, in the same state; of a lone student, the run itself."""
    if run.num_students == 1:
        return run
    settings = replace(run.settings, num_students=1)
    alone = type(run)(run.data, settings, [int(run.seeds[student])], run.reward_split.of_student(student))
    alone.student.load_state(run.student.state_of(student))
    alone.state = _without_observed(run, run.state.of_student(student))
    alone.dropout.states = run.dropout.states if run.batch is None else run.dropout.before_batch
    return alone


def _without_observed(run: Distillation, state: RunState) -> RunState:
    """Return the state without the forward pass of the observed mini-batch, which will be made again."""
    observed = 0 if run.batch is None else run.settings.batch_size
    return replace(state, forward_examples=state.forward_examples - observed)
