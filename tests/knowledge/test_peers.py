"""Students of a population as each other's teachers: values worked out by hand, and what must not reach a student."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from kd_env.distillation import Distillation
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.distillation.settings import distillation_settings
from kd_env.envs import credit
from kd_env.errors import InputError
from kd_env.knowledge import LossContext
from kd_env.knowledge.check import check_knowledge
from kd_env.knowledge.peers import Peer, PeerEnsemble
from kd_env.types import Batch, Decision, ModelOutput

KINDS = pytest.mark.parametrize("kind", [Peer(), PeerEnsemble()], ids=["peer", "peer_ensemble"])


def losses_of(kind, logits, students, ids=None, temperature=1.0, observed=None):
    """Losses ``[rows]`` of students with ``logits [rows, C]``, by default all of the same examples."""
    logits = torch.as_tensor(logits, dtype=torch.float64)
    rows = len(logits)
    ids = np.tile(np.arange(rows // students), students) if ids is None else np.array(ids)
    output = ModelOutput(logits, logits)
    batch = Batch(
        update=np.zeros(students),
        progress=np.zeros(students),
        example_ids=ids,
        labels=torch.zeros(rows, dtype=torch.int64),
        teacher_logits=torch.full((rows, 3, logits.shape[1]), float("nan")),  # no teacher is asked
        teacher_features=(),
        student=output._replace(logits=logits.detach() if observed is None else observed),
    )
    losses = kind.losses(output, batch, LossContext(temperature))
    assert losses.shape == (rows, 3)
    torch.testing.assert_close(losses, losses[:, :1].expand(-1, 3), rtol=0, atol=0, equal_nan=True, msg="the same for all teachers")
    return losses[:, 0]


HALF, SURE, OTHER = [math.log(0.5)] * 2, [math.log(0.8), math.log(0.2)], [math.log(0.2), math.log(0.8)]


def test_three_students_by_hand():
    # KL(.8,.2 || .5,.5) = .8 ln 1.6 + .2 ln .4; KL(.5,.5 || .8,.2) = .5 ln(.5/.8) + .5 ln(.5/.2); KL(.2,.8 || .8,.2) = .6 ln 4
    to_half, from_half, across = 0.192745, 0.223144, 0.831777
    assert losses_of(Peer(), [HALF, SURE, OTHER], 3).tolist() == pytest.approx(
        [to_half, (from_half + across) / 2, (from_half + across) / 2], abs=1e-6
    )
    # the mean of (.8,.2) and (.2,.8) is (.5,.5); of (.5,.5) and (.2,.8) it is (.35,.65)
    to_sure = 0.35 * math.log(0.35 / 0.8) + 0.65 * math.log(0.65 / 0.2)
    assert losses_of(PeerEnsemble(), [HALF, SURE, OTHER], 3).tolist() == pytest.approx([0.0, to_sure, to_sure], abs=1e-12)


@KINDS
def test_two_students_by_hand_and_at_a_temperature(kind):
    assert losses_of(kind, [HALF, SURE], 2).tolist() == pytest.approx([0.192745, 0.223144], abs=1e-6)
    hotter = [[4 * value for value in logits] for logits in (HALF, SURE)]
    assert losses_of(kind, hotter, 2, temperature=4.0).tolist() == pytest.approx([16 * 0.192745, 16 * 0.223144], abs=1e-5)
    by_row = losses_of(kind, [HALF, SURE], 2, temperature=torch.tensor([[1.0], [0.5]], dtype=torch.float64))
    alone = losses_of(kind, [HALF, SURE], 2, temperature=0.5)
    assert by_row.tolist() == pytest.approx([0.192745, alone[1].item()], abs=1e-6)


@KINDS
def test_rows_are_compared_with_those_of_the_same_place(kind):
    drawn = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # [S, B, C]
    together = losses_of(kind, drawn.flatten(0, 1), 4).view(4, 3)
    for row in range(3):
        torch.testing.assert_close(losses_of(kind, drawn[:, row], 4), together[:, row])
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(losses_of(kind, drawn[order].flatten(0, 1), 4).view(4, 3), together[order])
    torch.testing.assert_close(losses_of(kind, drawn[:1].expand(4, -1, -1).flatten(0, 1), 4), torch.zeros(12, dtype=torch.float64))


@KINDS
def test_who_sees_another_example_or_is_broken_teaches_nobody(kind):
    pair, broken = losses_of(kind, [HALF, SURE], 2), [7.0, float("nan")]
    assert losses_of(kind, [HALF, SURE, OTHER], 3, ids=[5, 5, 6]).tolist() == pytest.approx([*pair.tolist(), 0.0])
    assert losses_of(kind, [HALF, SURE, broken], 3)[:2].tolist() == pytest.approx(pair.tolist())
    assert losses_of(kind, [HALF, SURE], 2, ids=[1, 2]).tolist() == [0.0, 0.0]


@KINDS
@pytest.mark.parametrize("case", ["confident", "uniform", "alone", "broken peers"])
def test_loss_and_gradient_are_finite(kind, case):
    logits = torch.tensor([[1e4, 0.0, 0.0], [0.0, 1e4, 0.0], [0.0, 0.0, -1e4]], dtype=torch.float64)
    logits = logits * (case != "uniform")
    if case == "broken peers":
        logits[1:] = float("nan")
    logits.requires_grad_()
    loss = losses_of(kind, logits, 3, ids=[1, 2, 3] if case == "alone" else None)[0]
    assert loss.isfinite()
    (gradient,) = torch.autograd.grad(loss, logits, materialize_grads=True)
    assert gradient[0].isfinite().all()
    assert not gradient[1:].nan_to_num(0.0).any(), "what the others say is not differentiated"


@KINDS
def test_each_is_a_sound_type(kind):
    check_knowledge(kind)


def run_of(data, knowledge="response,peer", **keywords):
    keywords = {"student": "mlp(width=8)", "num_students": 3, "batch_size": 6, "updates": 5, "precision": "float64", **keywords}
    return Distillation(data, distillation_settings(data.task, knowledge=knowledge, **keywords), 0)


def decision(run, weights=0.25):
    rows = run.num_students * run.settings.batch_size
    tensor = torch.full((rows, run.num_teachers), weights, dtype=run.student.dtype)
    return Decision(dict.fromkeys(run.loss.terms, tensor), dict.fromkeys(run.loss.terms, 1.0), 2.0)


def test_those_who_teach_each_other_see_the_same_examples(digits_data):
    run, apart, lone = (run_of(digits_data, text, num_students=n) for text, n in (("response,peer", 3), ("response", 3), ("response", 1)))
    for _ in range(3):
        ids, ids_apart = (each.observe().example_ids.reshape(-1, 6) for each in (run, apart))
        assert (ids == lone.observe().example_ids).all(), "the order of the first student"
        assert not (ids_apart[0] == ids_apart[1]).all()
        for each in (run, apart, lone):
            each.apply(decision(each))


@pytest.mark.parametrize("knowledge", ["response,peer", "response,peer_ensemble"])
def test_a_student_is_not_moved_by_what_its_loss_is_to_others(knowledge, digits_data):
    run = run_of(digits_data, knowledge)
    (slope,) = torch.autograd.grad(run.per_example_loss(decision(run))[:6].sum(), run.student.parameters)
    assert slope[0].any()
    assert not slope[1:].any()


def test_the_loss_of_a_decision_holds_the_peers_at_their_strength(digits_data):
    run = run_of(digits_data, "response,peer(strength=3)", num_students=2)
    logits = run.observe().student.logits.view(2, 6, -1) / 2.0
    log_q = logits.log_softmax(2)
    peers = 4.0 * (log_q.flip(0).exp() * (log_q.flip(0) - log_q)).sum(2).flatten()
    uniform, nobody = decision(run), decision(run, weights=0.0)
    response = run.per_example_loss(Decision(uniform.weights, {"response": 1.0}, 2.0))
    assert run.loss.terms["peer"].strength == 3.0
    torch.testing.assert_close(run.per_example_loss(uniform), response + peers)
    torch.testing.assert_close(run.per_example_loss(nobody), peers, msg="peers teach where no teacher does")


@pytest.mark.long
def test_students_come_closer(digits_data):
    def spread(knowledge):
        run = run_of(digits_data, knowledge, updates=60, optimizer="adam(lr=0.01)")
        for _ in range(59):
            run.apply(decision(run))
        inputs, labels = run.data.inputs["validation"], run.data.labels["validation"]
        probabilities = run.student.predict(inputs, shared=True).view(3, len(labels), -1).softmax(2)
        return float(probabilities.std(0).mean())

    alone, taught, ensemble = spread("response"), spread("response,peer"), spread("response,peer_ensemble")
    assert taught < 0.7 * alone
    assert ensemble < 0.7 * alone


@pytest.mark.parametrize("name", ["peer", "peer_ensemble"])
def test_first_order_credit_of_others_is_as_it_was_and_that_of_peers_is_the_derivative(name, digits_data):
    run = run_of(digits_data, f"response,{name}", optimizer="sgd(lr=0.00001)")
    meter = RewardMeter(run.reward_split, run.seeds.tolist(), examples=20, measure="loss")
    for _ in range(2):
        run.apply(decision(run))
    both, response = (credit.first_order(run, meter, names) for names in (("response", name), ("response",)))
    assert torch.allclose(both["response"], response["response"], rtol=1e-9, atol=0)
    exact = credit.counterfactual(run, meter, (name,))[name]
    assert exact.abs().max() > 0
    assert torch.allclose(both[name], both[name][:, :1].expand(-1, 4))
    torch.testing.assert_close(both[name], exact, rtol=1e-3, atol=1e-4 * float(exact.abs().max()))


def test_a_snapshot_carries_on_to_the_bit(digits_data):
    run = run_of(digits_data)
    run.apply(decision(run))
    twin = run.fork()
    for each in (run, twin):
        each.apply(decision(each))
    assert run.student.theta.equal(twin.student.theta)


MAKE = {
    "vectorization_mode": "vector_entry_point",
    "task": "digits",
    "updates": 8,
    "student": "mlp(width=8)",
    "autoreset_mode": "same_step",
}
SELECTION = "kd_env/TeacherSelection-v0"


@pytest.mark.parametrize("knowledge", ["response,peer", "peer_ensemble"])
def test_a_lone_student_has_no_peers(knowledge, digits_data):
    says = r"with num_students=1 there are no other students, which peer(_ensemble)? needs; use num_students=2 or more, or leave"
    with pytest.raises(InputError, match=says):
        gym.make_vec(SELECTION, num_envs=4, knowledge=knowledge, **MAKE)
    with pytest.raises(InputError, match=says):
        gym.make(SELECTION, task="digits", knowledge=knowledge)
    run = run_of(digits_data, knowledge, num_students=1)
    with pytest.raises(InputError, match="no other students"):
        run.apply(decision(run))


def test_a_peer_that_breaks_down_does_not_take_the_others_along():
    env = gym.make_vec(SELECTION, num_envs=12, num_students=3, knowledge="response,peer", action="weights", **MAKE)
    env.reset(seed=0)
    ended = []
    for update in range(8):
        if update == 3:
            with torch.no_grad():
                env.unwrapped.distillation.student.theta[1] = float("nan")
            env.unwrapped.distillation.forget_batch()
        *_, terminated, _, _ = env.step(np.zeros((12, 4), dtype=np.float32))
        ended.append(terminated[::4].tolist())
    assert ended[3] == [False, True, False]
    assert ended[7] == [True, False, True]
    first, broken, third = env.unwrapped.finished
    assert broken.diverged.all()
    for run in (first, third):
        assert not run.diverged.any()
        assert run.update.tolist() == [8]
        assert np.isfinite(run.validate()[0]).all()


def test_knowledge_selection_has_a_gate_for_peers():
    env = gym.make_vec("kd_env/KnowledgeSelection-v0", num_envs=2, num_students=2, knowledge="response,peer", credit="first_order", **MAKE)
    env.reset(seed=0)
    assert env.unwrapped.selection.layout.knowledge == ("response", "peer")
    *_, info = env.step(np.zeros((2, 2), dtype=np.float32))
    assert info["credit"].shape == (2, 2)
    assert np.isfinite(info["credit"]).all()
