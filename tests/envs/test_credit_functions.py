"""Formulas of credit by hand, and credit by name with its options."""

import itertools

import pytest
import torch
from credited import response, start, taught

from kd_env.envs import credit, credit_scale
from kd_env.envs.credit_functions import checked_credit, make_credit
from kd_env.errors import InputError

SMOOTHINGS = [-0.5, 0.2]


# Formulas


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_normalized_rows_have_mean_zero_and_deviation_one(dtype, precision):
    for num_teachers, scale in itertools.product([2, 3, 5, 8], [1e-9, 1.0, 1e6]):
        raw = scale * torch.randn(50, num_teachers, dtype=dtype, generator=torch.Generator().manual_seed(0))
        normalized = credit_scale.normalize(raw)
        torch.testing.assert_close(normalized.mean(1), torch.zeros(50, dtype=dtype), rtol=0, atol=precision)
        torch.testing.assert_close(normalized.std(1, unbiased=False), torch.ones(50, dtype=dtype), rtol=0, atol=precision)
        assert torch.equal(normalized.argsort(1), raw.argsort(1))


def test_normalize_by_hand():
    normalized = credit_scale.normalize(torch.tensor([[1.0, 3.0], [2.0, 2.0], [-1.0, 0.0]]))
    assert normalized.tolist() == [[-1.0, 1.0], [0.0, 0.0], [-1.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_teacher_or_equal_ones_have_no_credit(dtype):
    for num_teachers in (1, 2, 3, 5, 6, 7):
        values = torch.rand(200, 1, dtype=dtype, generator=torch.Generator().manual_seed(1)) - 0.5
        assert not credit_scale.normalize(values.expand(-1, num_teachers).contiguous()).any()


def test_scale_by_hand():
    """To a root mean square of 1 over all candidates of a row; zero stays zero, and signs stay."""
    scaled = credit_scale.scale(torch.tensor([[[3.0, -4.0]], [[0.0, 0.0]]]))
    torch.testing.assert_close(scaled, torch.tensor([[[3.0, -4.0]], [[0.0, 0.0]]]) / 12.5**0.5)


# By name


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("name", ["first_order", "counterfactual"])
def test_label_smoothing_is_of_the_held_out_loss(digits_data, name, smoothing, monkeypatch):
    """Credit is linear in the held-out loss to first order, so it is compared with credit under a loss written out by hand."""
    selection = taught(start(digits_data, optimizer="sgd(lr=0.001)"), 3)
    smoothed = response(make_credit(f"{name}(smoothing={smoothing})"), selection)

    def by_hand(logits, labels, reduction="mean"):
        targets = (1 - smoothing) * torch.nn.functional.one_hot(labels, 10) + smoothing / 10
        losses = -(targets * logits.log_softmax(1)).sum(1)
        return losses.mean() if reduction == "mean" else losses

    plain = response(make_credit(name), selection)
    selection.meter.state.gradient_update[:] = -1
    monkeypatch.setattr("kd_env.distillation.reward_meter.cross_entropy", by_hand)
    torch.testing.assert_close(smoothed, response(make_credit(name), selection))
    assert not torch.allclose(smoothed, plain, rtol=0.05)


def test_a_gradient_of_another_smoothing_is_not_used_again(digits_data):
    selection = taught(start(digits_data, credit_refresh=5), 2)
    plain = response(credit.head, selection)
    smoothed = response(make_credit("head(smoothing=-1)"), selection)
    assert not torch.allclose(smoothed, plain)
    assert torch.equal(response(credit.head, selection), plain)


def negative(run, meter, names, temperature=None, factor=1.0):
    return {name: -factor * values for name, values in credit.head(run, meter, names, temperature).items()}


def test_options_of_credit(digits_data):
    selection = taught(start(digits_data), 2)
    doubled = response(make_credit(f"{__name__}:negative(factor=2.0)"), selection)
    torch.testing.assert_close(doubled, -2.0 * response(credit.head, selection))
    with pytest.raises(InputError, match=r"unknown option of credit=head 'smooting'; did you mean 'smoothing'"):
        make_credit("head(smooting=0.1)")
    with pytest.raises(InputError, match=r"credit=head\(smoothing='much'\): expected a number below 1"):
        make_credit("head(smoothing=much)")
    with pytest.raises(InputError, match="shared has no options, got smoothing"):
        make_credit("shared(smoothing=0.1)")


def test_credit_by_name():
    assert make_credit("shared") is None
    assert make_credit("head") is credit.head
    assert make_credit(f"{__name__}:response") is response
    with pytest.raises(InputError, match=r"unknown credit 'first_ordr'; did you mean 'first_order'.*name your own as module:function"):
        make_credit("first_ordr")
    with pytest.raises(InputError, match=r"credit 'no_such_module:f' cannot be imported \(ModuleNotFoundError: .*\); give module:name"):
        make_credit("no_such_module:f")
    with pytest.raises(InputError, match=f"credit '{__name__}:SMOOTHINGS': a list is not a function; name one that takes"):
        make_credit(f"{__name__}:SMOOTHINGS")


def test_a_running_mean_of_folds_is_refused():
    with pytest.raises(InputError, match="decay averages gradients of all labels, and folds keeps them apart"):
        make_credit("difference(decay=0.9,folds=2)")


def test_credit_of_one_s_own_moves_to_the_student(digits_data, monkeypatch):
    selection = start(digits_data)
    run, names = selection.distillation, ("response",)
    own = {"response": torch.zeros(len(run.observe().labels), run.num_teachers)}
    monkeypatch.setattr(run.student, "device", torch.device("meta"))  # stands for another device
    assert checked_credit(lambda *_: own, run, selection.meter, names, None)["response"].device.type == "meta"
