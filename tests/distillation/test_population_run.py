"""Many students at once: each is the student it would be alone, whatever becomes of the others."""

import numpy as np
import pytest
import torch
from runs_apart import BOTH, CASES, IMAGE, TEXT, alone, assert_equal, damage, each_alone, follow, start_case
from small_runs import decide, start, weights_for

from kd_env.errors import InputError
from kd_env.student.population import Population
from kd_env.types import Decision


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", [pytest.param(name, marks=[pytest.mark.long] * name.startswith("text")) for name in CASES])
def test_each_student_is_the_one_it_would_be_alone(request, case, times):
    run, updates = start_case(request, case), CASES[case][2] * times
    run = start_case(request, case, updates=max(updates, run.settings.updates))
    assert isinstance(run.student, Population)
    apart = each_alone(run)
    before, _ = run.validate()
    follow(run, apart, updates)
    loss, metric = run.validate()
    for s, lone in enumerate(apart):
        assert_equal(run, s, lone)
        np.testing.assert_allclose((loss[s], metric[s]), [value[0] for value in lone.validate()], rtol=1e-7)
    assert len(set(loss.tolist())) == len(loss), "students differ"
    assert (np.abs(loss - before) > 1e-3).all(), "and have learned"


def test_seeds_may_be_given_one_by_one_and_reward_labels_too(digits_data):
    keywords = IMAGE | {"batch_size": 8, "reward_ce": 0.5, "num_students": 2}
    run = start(digits_data, [9, 2], reward_labels=30, label_seeds=[7, 3], **keywords)
    assert run.seeds.tolist() == [9, 2]
    assert (run.reward_split.positions[0] != run.reward_split.positions[1]).any()
    apart = each_alone(run)
    follow(run, apart, 12)
    for s, lone in enumerate(apart):
        assert (run.reward_split.positions[s] == lone.reward_split.positions[0]).all()
        assert_equal(run, s, lone)


def test_one_seed_is_numbered_on(digits_data):
    assert start(digits_data, 5, **IMAGE).seeds.tolist() == [5, 6, 7]
    assert start(digits_data, np.int64(5), **IMAGE).seeds.tolist() == [5, 6, 7]


BROKEN = {
    "adam": ("adam", "nan"),
    "sgd": ("sgd", "inf"),
    "adamw": ("adamw, labels", "-inf"),
    "extra reward loss": ("extra reward loss", "nan"),
    "tiny-vit": ("tiny-vit", "nan"),
    "text": ("text, all others", "inf"),
}


@pytest.mark.long
@pytest.mark.parametrize(("name", "observed"), list(zip(BROKEN, BOTH, strict=False)))
def test_numbers_that_are_not_finite_stay_in_their_student_which_can_begin_again(request, name, observed):
    """Another student takes the place of the broken one, at its own point of schedule, data and draws."""
    case, value = BROKEN[name]
    run = start_case(request, case, updates=24)
    apart = each_alone(run)
    follow(run, apart, 9)
    for broken, student in ((run, 1), (apart[1], 0)):
        damage(broken, student, float(value))
    follow(run, apart, 1)
    assert run.diverged.tolist() == [s == 1 for s in range(run.num_students)]
    follow(run, apart, 3)
    assert run.update.tolist() == [10 if s == 1 else 13 for s in range(run.num_students)], "a student that diverged is taught no more"
    if observed:
        run.observe()
    apart[1] = alone(run, 1, 77)
    run.reset_student(1, 77)
    assert_equal(run, 1, apart[1])
    assert not run.diverged.any()
    follow(run, apart, 11)
    for s in (0, *range(2, run.num_students)):
        assert run.done[s]
        assert_equal(run, s, apart[s])
    follow(run, apart, 13)
    assert run.done.all()
    assert_equal(run, 1, apart[1])


@pytest.mark.parametrize("optimizer", ["adamw(lr=0.003,weight_decay=0.1)", "sgd(lr=0.02,weight_decay=0.1)"])
def test_a_type_that_reaches_a_part_of_the_network_alone_is_no_exception(layered_data, optimizer):
    """Momentum and weight decay of the other part go on, in a population as in a student of its own."""
    run = start(layered_data, 5, **TEXT | {"knowledge": "response,layer", "optimizer": optimizer})
    apart = each_alone(run)
    for update in range(12):
        for each in (run, *apart):
            name = ("response", "layer", "label")[update // 3 % 3]
            each.apply(Decision({name: weights_for(each)}, {name: 1.0}, 2.0))
    for s, lone in enumerate(apart):
        assert_equal(run, s, lone)


def test_students_that_are_left_out_stay_as_they_are(request):
    run = start_case(request, "adam")
    apart = each_alone(run)
    follow(run, apart, 5)
    kept = run.student.state_of(1)
    for _ in range(3):
        run.apply(decide(run), np.array([True, False, True]))
        for lone in (apart[0], apart[2]):
            lone.apply(decide(lone))
    assert run.update.tolist() == [8, 5, 8]
    assert all(torch.equal(value, kept[name]) for name, value in run.student.state_of(1).items())
    for _ in range(2):
        run.apply(decide(run), np.array([False, True, False]))
        apart[1].apply(decide(apart[1]))
    for s, lone in enumerate(apart):
        lone.state.forward_examples[:] = run.state.forward_examples[s]  # a forward pass is one of all
        assert_equal(run, s, lone)


def test_networks_that_mix_examples_are_refused_by_name(digits_data, monkeypatch):
    from kd_env.models import networks

    class Mixing(networks.MLP):
        def __init__(self, task):
            super().__init__(64, task.num_classes)
            self.body.append(torch.nn.BatchNorm1d(24))

    monkeypatch.setitem(networks.NETWORKS, "mixing", Mixing)
    assert start(digits_data, student="mixing").num_students == 1
    with pytest.raises(InputError, match=r"num_students: body\.2 is a BatchNorm1d, which mixes the examples of a batch; use LayerNorm"):
        start(digits_data, student="mixing", num_students=2)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("student", ["mlp(width=8)", "tiny-vit(width=8,layers=1)"])
def test_on_cuda_a_population_follows_the_cpu_s_and_is_restored(digits_data, student):
    keywords = IMAGE | {"student": student, "optimizer": "sgd(lr=0.02)"}
    host, device = (start(digits_data, 5, device=name, **keywords) for name in ("cpu", "cuda"))
    for run in (host, device):
        for update in range(6):
            if update == 3:
                run.reset_student(1, 40)
            weights = weights_for(run).to(run.student.device)
            run.apply(Decision.response(weights, 1.0, 2.0), np.array([True, True, update != 4]))
    assert host.update.tolist() == device.update.tolist() == [6, 3, 5]
    torch.testing.assert_close(device.student.theta.detach().cpu(), host.student.theta.detach(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(device.validate(), host.validate(), rtol=1e-6)
    twin = device.fork()
    assert torch.equal(device.observe().student.logits, twin.observe().student.logits)
    member = device.of_student(1)
    torch.testing.assert_close(member.observe().student.logits, device.observe().student.logits[8:16], rtol=1e-9, atol=1e-9)
