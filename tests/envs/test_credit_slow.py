"""Credit against what really happens, in full: after 300 updates, on both tasks with their experts, over whole mini-batches."""

import numpy as np
import pytest
from credited import at_rate, rank_correlations, start, taught

from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.distillation import EncodedTask
from kd_env.teachers import load_pool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

WARM_UP = 300
RATE = 1e-7
"""Of the step that both look at: small enough that a smaller one changes no correlation in its fourth place."""


@pytest.fixture(scope="module")
def domains_data():
    """The generated text with its four trained experts."""
    task = tasks.load("domains")
    return EncodedTask.of(task, open_bank(task, load_pool("domains/experts", task)))


@pytest.mark.parametrize("num_students", [1, 2])
@pytest.mark.parametrize("optimizer", ["adam(lr=0.003)", "sgd(lr=0.05)"])
@pytest.mark.parametrize(("data", "student", "seeds"), [("digits_data", "mlp", 3), ("domains_data", "tiny-bert", 1)])
def test_first_order_ranks_pairs_as_real_steps_do(request, capsys, data, student, seeds, optimizer, num_students):
    """The counterfactual is the candidate alone, in float64 and on the same reward examples, under the same dropout mask."""
    encoded = request.getfixturevalue(data)
    keywords = {"student": student, "optimizer": optimizer, "num_students": num_students, "batch_size": 32 // num_students, "updates": 400}
    correlations = []
    for seed in range(seeds):
        selection = start(encoded, seed=10 * seed, reward_labels=64, reward_examples=64, **keywords)
        values = at_rate(taught(selection, WARM_UP, seed), RATE)
        correlations.append([rank_correlations(values["counterfactual"], values[name]) for name in ("first_order", "head")])
    table = np.array(correlations)  # [seeds, 2, 2]
    with capsys.disabled():
        for name, worst in zip(("first_order", "head"), table.min(0), strict=True):
            title = f"{encoded.task.name} {student} {optimizer} S={num_students} {name}"
            print(f"\n{title}: all pairs {worst[0]:.4f}, within {worst[1]:.4f}", end="")
    assert table[:, 0].min() > 0.95
    assert np.isfinite(table).all(), "head is a rougher estimate: how rough is printed"
