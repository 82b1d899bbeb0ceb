"""Processes that share one student compute what one process computes."""

import multiprocessing

import pytest
import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy

from kd_env.errors import InputError
from kd_env.models.encode import take
from kd_env.models.networks import build
from kd_env.student.data_parallel import Processes, current_processes
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.student import Student

CPU = torch.device("cpu")
TIMEOUT = 120


def student_of(network, processes=None):
    return Student(network, OptimizerOptions.of("adamw(lr=0.01)"), CPU, "float64", processes=processes)


def in_processes(count, work, *arguments):
    """Run ``work(processes, *arguments)`` in processes that are joined; return the results by rank."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        results = manager.dict()
        store = manager.address  # a name that no other test has
        processes = [context.Process(target=_joined, args=(rank, count, store, results, work, arguments)) for rank in range(count)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(TIMEOUT)
            assert process.exitcode == 0
        return [results[rank] for rank in range(count)]


def _joined(rank, count, store, results, work, arguments):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}.store", rank=rank, world_size=count)
    processes = current_processes()
    assert processes == Processes(rank, count)
    results[rank] = work(processes, *arguments)
    distributed.destroy_process_group()


def taught(processes, network, batches, labels):
    """Teach a student; return the outputs, the gradients of a held-out loss, the parameters, and the predictions."""
    student = student_of(network, processes)
    outputs = []
    for update, (inputs, targets) in enumerate(zip(batches, labels, strict=True)):
        output = student.forward(inputs, frozenset({"layers"}))
        pairs = output.features @ output.features.T  # a loss that compares rows, as relation knowledge does
        student.step(cross_entropy(output.logits, targets) + 0.1 * pairs.square().mean() + output.layers.mean(), update / len(batches))
        outputs.append(output.map(torch.detach).logits)
    with student.evaluating():
        loss = cross_entropy(student.forward(batches[0]).logits, labels[0])
    gradient = torch.autograd.grad(loss, student.parameters, materialize_grads=True)
    loss, metric = student.evaluate(batches[1], labels[1])
    return [tensor.numpy() for tensor in (*outputs, *gradient, *(p.detach() for p in student.parameters))] + [loss, metric]


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("data", "text"), [("digits_data", "mlp(width=8)"), ("text_data", "tiny-bert(width=8,layers=1,dropout=0)")])
def test_steps_gradients_and_evaluations_are_those_of_one_process(request, count, data, text):
    data = request.getfixturevalue(data)
    rows = [range(start, start + size) for start, size in ((0, 7), (10, 8), (20, 1))]  # parts of unequal size, and a part without rows
    batches = [take(data.inputs["train"], list(part), CPU) for part in rows]
    labels = [data.labels["train"][list(part)] for part in rows]
    alone = taught(None, build(text, data.task, 0), batches, labels)
    shared = in_processes(count, taught, build(text, data.task, 0), batches, labels)
    for rank in range(count):
        for mine, other, first in zip(shared[rank], alone, shared[0], strict=True):
            torch.testing.assert_close(torch.as_tensor(mine), torch.as_tensor(other), rtol=1e-7, atol=1e-9)  # Adam divides rounding by 1e-8
            assert (mine == first).all(), "processes must not drift apart"


def passes_with_dropout(processes, network, inputs):
    student = student_of(network, processes)
    torch.manual_seed(5)
    first, state = student.forward(inputs).logits, torch.get_rng_state()
    torch.manual_seed(5)
    again = student.forward_at(student.parameters, inputs).logits
    torch.testing.assert_close(first, again, rtol=1e-12, atol=1e-12)
    assert torch.equal(state, torch.get_rng_state())
    return first.detach().numpy(), state.numpy()


@pytest.mark.long
def test_dropout_differs_between_parts_and_is_repeated_in_a_pass_at_other_parameters(digits_data):
    inputs = {name: tensor.repeat_interleave(8, 0) for name, tensor in take(digits_data.inputs["train"], [3], CPU).items()}
    network = build("mlp(width=64,dropout=0.5)", digits_data.task, 0)
    (first, first_state), (second, second_state) = in_processes(2, passes_with_dropout, network, inputs)
    assert (first == second).all()
    assert (first_state == second_state).all()
    assert len({tuple(row) for row in first.round(9)}) == 8, "equal inputs, and masks of their own"


def test_students_whose_rows_affect_each_other_are_refused():
    two = Processes(0, 2)
    with pytest.raises(InputError, match=r"it has BatchNorm.*use one with LayerNorm"):
        two.require_splittable(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)), 1)
    with pytest.raises(InputError, match="3 students cannot be taught at once; leave population and peers out"):
        two.require_splittable(nn.Linear(2, 2), 3)


def test_a_process_that_is_alone_shares_nothing():
    assert current_processes() is None
