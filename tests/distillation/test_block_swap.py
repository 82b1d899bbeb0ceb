"""Runs whose students mix blocks with a teacher: the pass that is taught is the mixture that is drawn, all else is the student alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import digest, drive, start

from kd_env import tasks
from kd_env.bank import open_bank
from kd_env.distillation import EncodedTask
from kd_env.distillation.block_swap import BlockSwap
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.envs.credit import CREDITS
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.models.residual_blocks import swapped
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.teachers.live import LiveTeachers
from kd_env.types import Decision

STUDENT = "resnet14(width=2)"


@pytest.fixture(scope="module")
def data():
    """A few digits with two untrained residual teachers, of which only the second matches the student."""
    digits = tasks.load("digits")
    few = replace(digits, train=digits.train.take(np.arange(64)), reward=digits.reward.take(np.arange(48)))
    few = replace(few, validation=digits.validation.take(np.arange(32)))
    networks = {"wide": "resnet20(width=4)", "deep": "resnet20(width=2)"}
    pool = Pool("residual", tuple(NetworkTeacher(name, build(text, few, k), few) for k, (name, text) in enumerate(networks.items())))
    return EncodedTask.of(few, open_bank(few, pool), STUDENT, LiveTeachers.of(pool, torch.device("cpu")))


def begin(data, seed=0, **keywords):
    options = {"student": STUDENT, "block_swap": "uniform(p=0.5,teacher=1)", "optimizer": "sgd(lr=0.05)", "kd_weight": 0.5}
    return start(data, seed, **(options | keywords))


def test_the_taught_pass_is_the_drawn_mixture_and_other_passes_are_not(data):
    run, alone = begin(data), begin(data, block_swap="")
    run.student.load_state(alone.student.state())
    inputs, unmixed, drawn = alone.batch_inputs(), alone.observe().student.logits, run.swap.drawn(0, 0, 0.0)
    assert 0 < len(drawn) < len(run.swap.blocks)
    with swapped(alone.student.network, {place: run.swap.blocks[place] for place in drawn}):
        expected = alone.student.forward(inputs).logits
    assert torch.equal(run.observe().student.logits, expected.detach())
    assert not torch.equal(expected, unmixed)
    assert run.validate() == alone.validate()


def test_a_step_is_a_hand_written_step_of_the_mixture(data):
    """Cross-entropy of the mixture, SGD with momentum from zero on the blocks that ran: nothing else moves but by its weight decay of 0."""
    run = begin(data)
    batch, drawn = run.observe(), run.swap.drawn(0, 0, 0.0)
    network = build(STUDENT, data.task, 0)
    before = {name: value.clone() for name, value in network.named_parameters()}
    with swapped(network, {place: run.swap.blocks[place] for place in drawn}):
        loss = torch.nn.functional.cross_entropy(network(**run.batch_inputs()).logits, batch.labels)
    loss.backward()
    run.apply(Decision.response(torch.zeros(8, 2), 0.0, 1.0))
    replaced = {f"stage{place.stage + 1}.{place.block}." for place in drawn}
    for name, parameter in run.student.network.named_parameters():
        gradient = network.get_parameter(name).grad
        assert (gradient is None) == any(name.startswith(prefix) for prefix in replaced)
        expected = before[name] - 0.05 * (0.0 if gradient is None else gradient)
        torch.testing.assert_close(parameter, expected, atol=1e-6, rtol=1e-5)


def test_draws_follow_from_seed_and_update_at_the_schedule_s_rate(data):
    run = begin(data, block_swap="uniform(p=0.3,teacher=1)")
    draws = [run.swap.drawn(4, update, 0.0) for update in range(300)]
    assert draws == [run.swap.drawn(4, update, 0.0) for update in range(300)]
    assert draws != [run.swap.drawn(5, update, 0.0) for update in range(300)]
    assert sum(map(len, draws)) / (300 * 6) == pytest.approx(0.3, abs=0.04)
    always, never = begin(data, block_swap="uniform(p=1,teacher=1)"), begin(data, block_swap="uniform(p=0,teacher=1)")
    assert len(always.swap.drawn(0, 3, 0.5)) == 6
    assert never.swap.drawn(0, 3, 0.5) == []


def test_without_swaps_a_run_is_the_one_without_the_setting(data):
    run, plain = begin(data, block_swap="uniform(p=0,teacher=1)"), begin(data, block_swap="")
    assert drive(run, 4) == drive(plain, 4)
    assert digest(run) == digest(plain)


@pytest.mark.parametrize("keywords", [{}, {"teacher_answers": "live", "augmentation": "flip"}, {"block_swap": "review(teacher=1)"}])
def test_a_restored_run_mixes_the_same_blocks(data, keywords):
    run, undisturbed = begin(data, 3, **keywords), begin(data, 3, **keywords)
    drive(run, 3)
    drive(undisturbed, 3)
    run.observe()
    state, outcomes = run.snapshot(), drive(run, 4)
    other = begin(data, 9, **keywords)
    other.restore(state)
    twin = other.fork()
    assert drive(other, 4) == drive(twin, 4) == drive(undisturbed, 4) == outcomes
    assert digest(other) == digest(twin) == digest(run)


@pytest.mark.parametrize("names", [("response",), ("response", "label")])
@pytest.mark.parametrize("kind", ["first_order", "difference", "head", "counterfactual"])
def test_credit_is_that_of_the_student_alone(data, kind, names):
    """The mixture is what learns. Credit of the same student without swaps is the reference."""
    run = begin(data, precision="float64")
    drive(run, 2)
    run.observe()
    assert run.swap.drawn(0, 2, float(run.observe().progress[0]))
    meter = RewardMeter(run.reward_split, [0], 48, "loss")
    credit = CREDITS[kind](run, meter, names, None)
    run.swap.blocks = {}
    run.forget_batch()
    alone = CREDITS[kind](run, meter, names, None)
    for name in names:
        assert credit[name].std() > 0
        torch.testing.assert_close(credit[name], alone[name], rtol=1e-4, atol=1e-12)


def test_a_new_student_takes_its_place(data):
    run, new = begin(data), begin(data, 7)
    drive(run, 2)
    run.reset_student(0, 7)
    assert drive(run, 3) == drive(new, 3)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"block_swap": "uniform"}, "teacher 'wide' have blocks of other widths in stage 1"),
        ({"block_swap": "uniform(teacher=2)"}, "teacher=2, and the pool has 2; count from 0"),
        ({"student": "mlp"}, "have no blocks of one kind"),
        ({"num_students": 2, "student": "mlp"}, "needs one student, and teachers that do not learn; leave num_students=2 out"),
        ({"teacher_answers": "live", "teacher_learning": "feedback"}, "leave teacher_learning='feedback' out"),
    ],
)
def test_what_does_not_fit_is_refused(data, keywords, message):
    with pytest.raises(InputError, match=message):
        begin(data, **keywords)


def test_knowledge_that_a_mixture_changes_is_refused(layered_data):
    with pytest.raises(InputError, match="knowledge='response,layer' compares layers, which a swap mixes; use another"):
        begin(layered_data, student="tiny-bert(width=16,layers=1)", knowledge="response,layer")


def test_knowledge_of_maps_is_refused(data):
    with pytest.raises(InputError, match="knowledge='response,map_hint' compares maps, which a swap mixes; use another"):
        begin(data, knowledge="response,map_hint")
    run = begin(data)
    for requested in ("maps.stage2", "maps.all"):
        with pytest.raises(InputError, match="compares maps, which a swap mixes; use another"):
            BlockSwap(data, run.settings, run.student, frozenset({requested}))


def test_data_without_networks_are_refused(digits_data):
    with pytest.raises(InputError, match="the data have no teachers"):
        begin(digits_data)
