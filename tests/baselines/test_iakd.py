"""``iakd``: cross-entropy of a mixture of blocks; its trials end with a student alone and are replayed; it is refused elsewhere."""

import pytest

from kd_env.benchmark.replay import replay_record
from kd_env.benchmark.run_trial import run_trial
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher, Pool

TEXT = "domains(train=160,reward=48,validation=32,test=16)"


def residual(task):
    """Untrained residual networks as teachers."""
    return Pool("residual", tuple(NetworkTeacher(f"net{k}", build("resnet14(width=2)", task, k), task) for k in range(2)))


def encoders(task):
    """Untrained encoders as teachers."""
    return Pool("encoders", (NetworkTeacher("deep", build("tiny-bert(width=8,layers=4)", task, 0), task),))


def trial(policy="iakd", task="digits", pool="residual", **settings):
    student = "resnet8(width=2)" if pool == "residual" else "tiny-bert(width=8,layers=2)"
    options = {"updates": 4, "kd_weight": 0.5, "student": student, "batch_size": 8} | settings
    return Trial(task, policy, 0, f"{__name__}:{pool}", settings=options)


@pytest.mark.long
@pytest.mark.parametrize(("task", "pool"), [("digits", "residual"), (TEXT, "encoders")])
def test_a_trial_is_replayed_and_teaches_with_labels_alone(task, pool, tmp_path):
    record = run_trial(trial(task=task, pool=pool, block_swap="uniform(p=0.5)"), tmp_path)
    assert record["access"] == "train labels"
    assert sum(record["selection_rate"]) == 0.0
    assert replay_record(tmp_path, record) == []


@pytest.mark.long
def test_it_is_no_teacher_where_nothing_is_swapped(tmp_path):
    never = run_trial(trial(block_swap="uniform(p=0)"), tmp_path)
    plain = run_trial(trial("no_teacher"), tmp_path)
    swapped = run_trial(trial(block_swap="uniform(p=1)"), tmp_path)
    assert never["curve"] == plain["curve"]
    assert swapped["curve"] != plain["curve"]


@pytest.mark.long
def test_other_policies_swap_blocks_too(tmp_path):
    record = run_trial(trial("uniform", block_swap="linear(start=0.9)"), tmp_path)
    assert record["curve"] != run_trial(trial("uniform"), tmp_path)["curve"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"student": "mlp"}, "have no blocks of one kind"),
        ({"block_swap": ""}, "block_swap='': policy 'iakd' swaps blocks; leave block_swap out"),
        ({"kd_weight": 1.0}, "learns from hard labels, which this setting does not use"),
    ],
)
def test_what_it_cannot_do_is_refused(settings, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run_trial(trial(**settings), tmp_path)
