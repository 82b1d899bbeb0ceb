"""Credit of knowledge types that an epoch leaves out: none, and from the next epoch on as if nothing had been left out."""

import pytest
import torch
from credited import credit_of, start

from kd_env.envs import credit
from kd_env.types import Decision

SKIPPED = ["response(skip_epochs=1)", "response(skip_epochs=1),tckd", "tckd,hint(skip_epochs=1)"]


@pytest.mark.parametrize("knowledge", SKIPPED)
@pytest.mark.parametrize("kind", credit.CREDITS)
def test_a_type_that_the_epoch_leaves_out_has_no_credit(digits_data, kind, knowledge):
    keywords = {"knowledge": knowledge, "batch_size": 3, "optimizer": "sgd(lr=0.1)", "student": "mlp(width=6)", "kd_weight": 0.5}
    run_names = [name.partition("(")[0] for name in knowledge.split(",")]
    skipped = "hint" if "hint" in run_names else "response"
    selection = start(digits_data, **keywords)
    run = selection.distillation
    before = credit_of(credit.CREDITS[kind], selection, run_names)
    assert not before[skipped].any()
    assert before[skipped].shape == (3, selection.num_teachers)
    assert all(before[name].any() for name in run_names if name != skipped), "the others have theirs"
    assert not run.per_teacher_loss(skipped, 2.0).any()
    plain = start(digits_data, **{**keywords, "knowledge": knowledge.replace("(skip_epochs=1)", "")})
    for each in (run, plain.distillation):
        each.state.update[:] = len(digits_data.labels["train"]) // 3
        each.forget_batch()
    after, expected = (credit_of(credit.CREDITS[kind], each, run_names)[skipped] for each in (selection, plain))
    assert torch.equal(after, expected), "from the second epoch on it is as if nothing had been left out"
    assert expected.any() or (kind, skipped) == ("head", "hint")


@pytest.mark.parametrize("kind", ["first_order", "difference", "head"])
def test_students_of_a_population_leave_types_out_on_their_own(digits_data, kind):
    keywords = {"knowledge": "response(skip_epochs=1)", "batch_size": 3, "optimizer": "sgd(lr=0.1)", "student": "mlp(width=6)"}
    selection = start(digits_data, num_students=2, **keywords)
    run = selection.distillation
    run.state.update[:] = [0, len(digits_data.labels["train"]) // 3]
    run.forget_batch()
    values, losses = credit_of(credit.CREDITS[kind], selection, ["response"])["response"], run.per_teacher_loss("response", 2.0)
    for each in (values, losses):
        assert not each[:3].any()
        assert each[3:].all()
    weights = torch.full((6, run.num_teachers), 1.0 / run.num_teachers, dtype=torch.float64)
    loss = run.per_example_loss(Decision({"response": weights}, {"response": 1.0}, 2.0))
    torch.testing.assert_close(loss, losses.mean(1))
