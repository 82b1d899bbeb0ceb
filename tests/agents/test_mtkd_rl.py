"""MTKD-RL: its formulas by hand, what it sees, and what each of its two updates converges to."""

import math

import pytest
import torch
from mtkd_rl_agents import current_state, make
from torch.nn.functional import cosine_similarity, cross_entropy

from agents.mtkd_rl import MTKDRL, reinforce_loss
from agents.mtkd_rl_released import MTKDRLReleased, released_loss, shared_reward
from agents.mtkd_state import State, averaged
from baselines import camkd
from kd_env.knowledge.response import per_teacher

# formulas


def test_the_average_by_hand():
    head, rule = torch.tensor([[0.2, 0.8]]), torch.tensor([[0.6, 0.4]])
    # softmax(ln 3, 0) = (.75, .25); (.2 + .6 + .75) / 3, (.8 + .4 + .25) / 3
    assert averaged(head, rule, torch.tensor([[math.log(3), 0.0]]))[0].tolist() == pytest.approx([1.55 / 3, 1.45 / 3])


def test_the_policy_gradient_by_hand():
    log_policy = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log().requires_grad_()
    loss = reinforce_loss(log_policy, torch.tensor([1, 0]), torch.tensor([[1.0, -1.0], [2.0, -2.0]]))
    # -(-1 ln .5 + 2 ln .25) / 2
    assert loss.item() == pytest.approx((math.log(0.5) - 2 * math.log(0.25)) / 2)
    loss.backward()
    assert log_policy.grad.tolist() == [[0.0, 0.5], [-1.0, 0.0]]


def test_the_released_loss_by_hand():
    weights = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    # (-1 (ln .5 + ln .5) - .5 (ln .25 + ln .75)) / 4
    expected = (2 * math.log(2) - 0.5 * math.log(0.25 * 0.75)) / 4
    assert released_loss(weights, torch.tensor([1.0, 0.5])).item() == pytest.approx(expected)
    assert released_loss(torch.tensor([[1.0, 0.0]]), torch.ones(1)).isfinite()


def test_the_shared_reward_by_hand():
    # mean 2, deviation 1: -(1, 3, 1, 3) standardised is (1, -1, 1, -1)
    assert shared_reward(torch.tensor([1.0, 3.0, 1.0, 3.0])).tolist() == [1.0, 0.0, 1.0, 0.0]
    # mean 2, deviation sqrt(2): (2, 1, 1) over sqrt(2), cut, and three that lost
    loss = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    assert shared_reward(loss).tolist() == pytest.approx([1.0, 1 / math.sqrt(2), 0.0, 0.0, 0.0])
    assert shared_reward(torch.full((3,), 0.7)).tolist() == [0.0, 0.0, 0.0]


# what the agent sees


def test_the_state_is_what_it_says():
    env, agent = make("mtkd_rl", temperature=3.0)
    run = env.selection.distillation
    batch, hints, state = run.observe(), run.student_output().projections["linear"], current_state(agent)
    widths = [values.shape[1] for values in batch.teacher_features]
    assert state.columns.shape == (32, sum(widths) + 4 * 13)
    start = sum(widths[:2]) + 2 * 13
    third = state.columns[:, start : start + widths[2] + 13]
    assert torch.equal(third[:, : widths[2]], batch.teacher_features[2])
    assert torch.equal(third[:, widths[2] : widths[2] + 10], batch.teacher_logits[:, 2])
    assert torch.allclose(third[:, -3], cross_entropy(batch.teacher_logits[:, 2], batch.labels, reduction="none"))
    assert torch.allclose(third[:, -2], cosine_similarity(hints[2].detach(), batch.teacher_features[2]))
    assert torch.allclose(third[:, -1], per_teacher(batch.student.logits, batch.teacher_logits, 3.0)[:, 2])
    assert torch.equal(state.rule, camkd.weights(batch.teacher_logits, batch.labels))
    assert torch.equal(state.gaps["hint"][:, 2], third[:, -2])
    assert not state.columns.requires_grad


def test_without_hints_there_is_one_head_and_no_similarity():
    _, agent = make("mtkd_rl", knowledge="response")
    state = current_state(agent)
    assert set(state.gaps) == {"response"}
    assert set(agent.act({}).weights) == {"response"}


def test_decisions_are_the_averages():
    _, agent = make("mtkd_rl_released")
    state = current_state(agent)
    taken = agent.make_decision(state)
    with torch.no_grad():
        heads = {name: head.exp() for name, head in agent.agent(state.columns).items()}
    for name in ("response", "hint"):
        assert torch.equal(taken.decision.weights[name], averaged(heads[name], state.rule, state.gaps[name]))
        assert taken.decision.weights[name].sum(1).tolist() == pytest.approx([1.0] * 32)
    assert taken.sampled == {}
    _, agent = make("mtkd_rl")
    taken = agent.make_decision(state)
    for name in ("response", "hint"):
        sampled = torch.eye(4)[taken.sampled[name]]
        assert torch.equal(taken.decision.weights[name], averaged(sampled, state.rule, state.gaps[name]))
    assert not torch.equal(taken.sampled["response"], agent.make_decision(state).sampled["response"])


@pytest.mark.long
def test_teachers_are_drawn_as_the_head_has_them():
    _, agent = make("mtkd_rl")
    state = current_state(agent)
    with torch.no_grad():
        head = agent.agent(state.columns)["response"].exp()
    drawn = torch.stack([torch.eye(4)[agent.make_decision(state).sampled["response"]] for _ in range(2000)]).mean(0)
    assert (drawn - head).abs().max() < 0.06


@pytest.mark.parametrize("size", [0.0, 1e4])
def test_extreme_teachers_give_finite_weights(size):
    env, agent = make("mtkd_rl_released")
    state = current_state(agent)
    logits = size * torch.randn(32, 4, 10, generator=torch.Generator().manual_seed(0))
    student = env.selection.distillation.observe().student.logits
    gaps = {"response": per_teacher(student, logits, 1.0), "hint": torch.ones(32, 4)}
    extreme = State(size * torch.ones_like(state.columns), camkd.weights(logits, torch.arange(32) % 10), gaps)
    for weights in agent.make_decision(extreme).decision.weights.values():
        assert weights.isfinite().all()
        assert weights.sum(1).tolist() == pytest.approx([1.0] * 32, abs=1e-5)
    agent.update_policy(extreme, agent.make_decision(extreme).sampled, torch.ones(32))
    assert all(parameter.isfinite().all() for parameter in agent.agent.parameters())


# what the updates converge to


def problem(num_teachers, seed=0):
    """Fixed states of 16 instances; the rules weigh unevenly, but leave the averages room to be uniform."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randn(16, 6, generator=generator)
    rule = torch.full((16, num_teachers), 1 / num_teachers)
    gap = 0.3 * torch.randn(16, num_teachers, generator=generator)
    return State(columns, rule, {"response": gap})


def agent_for(kind, num_teachers):
    teachers = ",".join(f"digits/experts/{name}" for name in ("upright", "inverted", "mirrored", "transposed")[:num_teachers])
    _, agent = make(policies_name(kind), teachers=teachers, knowledge="response")
    torch.manual_seed(1)
    agent.agent.body[0] = torch.nn.Linear(6, 128)
    agent.agent.standardise.mean, agent.agent.standardise.variance = torch.zeros(6), torch.ones(6)
    with torch.no_grad():
        agent.agent.heads["response"].bias[0] += 2.0
    agent.optimizer = torch.optim.Adam(agent.agent.parameters(), lr=0.01)
    return agent


def policies_name(kind):
    return "mtkd_rl_released" if kind is MTKDRLReleased else "mtkd_rl"


def head_of(agent, state):
    with torch.no_grad():
        return agent.agent(state.columns)["response"].exp()


@pytest.mark.long
@pytest.mark.parametrize("teachers", [2, 3])
def test_the_released_update_converges_to_uniform_weights_and_the_papers_does_not(teachers):
    """Teacher 1 is always the best one, and both are told so in their own way: its loss is the lowest."""
    state = problem(teachers)
    losses = torch.ones(16, teachers)
    losses[:, 1] = 0.1
    released = agent_for(MTKDRLReleased, teachers)
    before = averaged(head_of(released, state), state.rule, state.gaps["response"])
    assert (before - 1 / teachers).abs().max() > 0.05
    for _ in range(400):  # .1 more for all: who is below the mean in every round would be paid 0 for ever, and not be moved
        weights = averaged(head_of(released, state), state.rule, state.gaps["response"])
        released.update_policy(state, {}, shared_reward((weights * losses).sum(1) + torch.linspace(0, 1, 16)) + 0.1)
    after = averaged(head_of(released, state), state.rule, state.gaps["response"])
    assert (after - 1 / teachers).abs().max() < 0.01

    papers = agent_for(MTKDRL, teachers)
    assert head_of(papers, state)[:, 1].max() < 0.5
    reward = (losses.mean(1, keepdim=True) - losses) / losses.std(1, correction=0, keepdim=True)
    for _ in range(400):
        sampled = torch.multinomial(head_of(papers, state), 1, generator=papers.generator)[:, 0]
        papers.update_policy(state, {"response": sampled}, reward)
    assert head_of(papers, state)[:, 1].min() > 0.9


def test_a_reward_that_is_not_finite_teaches_nothing():
    _, agent = make("mtkd_rl")
    taken = agent.make_decision(current_state(agent))
    before = [parameter.detach().clone() for parameter in agent.agent.parameters()]
    agent.update_policy(taken.state, taken.sampled, torch.full((32, 4), torch.nan))
    assert all(torch.equal(a, b) for a, b in zip(before, agent.agent.parameters(), strict=True))
    agent.update_policy(taken.state, taken.sampled, torch.randn(32, 4))
    assert not all(torch.equal(a, b) for a, b in zip(before, agent.agent.parameters(), strict=True))
