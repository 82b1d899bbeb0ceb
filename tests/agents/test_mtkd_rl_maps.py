"""MTKD-RL on feature maps: state, weights, loss and update of the released code, written out again."""

import copy

import pytest
import torch
from torch.nn.functional import binary_cross_entropy, cosine_similarity, cross_entropy, kl_div, log_softmax, softmax

from agents.mtkd_rl import teacher_reward
from agents.mtkd_state import state_of
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.models.networks import build
from kd_env.policies import registry
from kd_env.teachers import NetworkTeacher

HERE = "test_mtkd_rl_maps:pool"
BOTH = ["mtkd_rl", "mtkd_rl_released(scale=released)"]


def pool(task):
    """Two untrained teachers with maps of the student's size and other numbers of channels."""
    networks = ("resnet8(width=3)", "wrn(depth=10,widen=1)")
    return [NetworkTeacher(f"teacher{k}", build(text, task, k), task, logit_scale=3.0) for k, text in enumerate(networks)]


def make(policy, **settings):
    keywords = {"student": "resnet8(width=2)", "batch_size": 16, "kd_weight": 0.5, "temperature": 4.0, "precision": "float64"}
    keywords |= {"updates": 20, "knowledge": "response,map_hint(strength=5)", **settings}
    env = make_env(Trial("digits", policy, 0, HERE, settings=keywords))
    agent = registry.find(policy).build(env, 0)
    env.reset(seed=0)
    return env.selection.distillation, agent


def released_state(run):
    """``get_agent_state`` of ``train_loops.py``: the states of the teachers, CE, KL and cosine ``[B, K]``."""
    batch, output = run.observe(), run.student_output().map(torch.Tensor.detach)
    infos, numbers = [], []
    for k, maps in enumerate(output.projections["maps"]):
        logits = batch.teacher_logits[:, k]
        cosine = cosine_similarity(maps.mean((2, 3)), batch.teacher_maps[k].mean((2, 3)))
        kl = kl_div(log_softmax(output.logits / 4, 1), softmax(logits / 4, 1), reduction="none").sum(1) * 16
        ce = cross_entropy(logits, batch.labels, reduction="none")
        infos.append(torch.cat([batch.teacher_maps[k].mean((2, 3)), logits, ce[:, None], cosine[:, None], kl[:, None]], 1))
        numbers.append((ce, kl, cosine))
    return torch.cat(infos, 1), *(torch.stack(column, 1) for column in zip(*numbers, strict=True))


def released_weights(agent, columns, ce, kl, cosine):
    """``PolicyTrans.forward`` of ``models/policy.py``, without learned shares."""
    rule = (1 - softmax(ce, 1)) / (ce.shape[1] - 1)
    hidden = agent.body(columns)
    heads = [softmax(agent.heads[name](hidden), 1) for name in ("response", "map_hint")]
    return [(head + rule + softmax(gap, 1)) / 3 for head, gap in zip(heads, (kl, cosine), strict=True)]


def sample_losses(run, logit_weights, feature_weights):
    batch, output = run.observe(), run.student_output()
    loss = cross_entropy(output.logits, batch.labels, reduction="none")
    for k, maps in enumerate(output.projections["maps"]):
        kl = kl_div(log_softmax(output.logits / 4, 1), softmax(batch.teacher_logits[:, k] / 4, 1), reduction="none").sum(1) * 16
        distance = ((maps.reshape(16, -1) - batch.teacher_maps[k].reshape(16, -1)) ** 2).mean(1)
        loss = loss + logit_weights[:, k] * kl + 5 * feature_weights[:, k] * distance
    return loss


def after_an_epoch(run):
    run.state.update[:] = len(run.data.labels["train"]) // 16
    run.forget_batch()


@pytest.mark.long
@pytest.mark.parametrize("policy", BOTH)
def test_the_state_is_the_released_one(policy):
    run, agent = make(policy)
    state, (columns, ce, kl, cosine) = state_of(agent.context, agent.context.batch()), released_state(run)
    torch.testing.assert_close(state.columns, columns, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state.gaps["response"], kl, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(state.gaps["map_hint"], cosine, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state.rule, (1 - softmax(ce, 1)) / (ce.shape[1] - 1), rtol=1e-5, atol=1e-7)


def test_one_update_of_student_and_agent_is_the_released_one():
    run, agent = make("mtkd_rl_released(scale=released)")
    after_an_epoch(run)
    decision = agent.act(None)
    state = released_state(run)
    weights = released_weights(agent.agent, *state)
    losses = sample_losses(run, *(values.detach() for values in weights))
    torch.testing.assert_close(run.per_example_loss(decision), losses, rtol=1e-5, atol=1e-7)
    gradients = [
        torch.autograd.grad(loss.mean(), run.student.parameters, retain_graph=True) for loss in (run.per_example_loss(decision), losses)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)
    reward = ((losses.mean() - losses) / losses.std()).clamp(0, 1).detach()
    torch.testing.assert_close(agent.reward(agent._taken), reward, rtol=1e-5, atol=1e-7)
    parameters = list(agent.agent.parameters())
    bce = sum(binary_cross_entropy(values, torch.ones_like(values), weight=reward[:, None]) for values in weights)
    expected = [parameter - 0.1 * slope for parameter, slope in zip(parameters, torch.autograd.grad(bce, parameters), strict=True)]
    agent.update_policy(agent._taken.state, {}, agent.reward(agent._taken))
    for ours, theirs in zip(parameters, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_shares_are_learned_as_in_the_published_command():
    """``--dynamic``: softmax of three numbers that begin at 1, trained with the agent."""
    run, agent = make("mtkd_rl_released(scale=released,learned_shares=true)")
    after_an_epoch(run)
    agent.act(None)
    columns, ce, kl, cosine = released_state(run)
    with torch.no_grad():
        for name, values in (("response", [0.5, -1.0, 2.0]), ("map_hint", [1.0, 0.0, -0.5])):
            agent.agent.shares[name].copy_(torch.tensor(values))
    decision = agent.act(None)
    parameters = list(agent.agent.parameters())
    rule, hidden, bce = (1 - softmax(ce, 1)) / (ce.shape[1] - 1), agent.agent.body(columns), 0.0
    reward = agent.reward(agent._taken)
    for name, gap in (("response", kl), ("map_hint", cosine)):
        head, shares = softmax(agent.agent.heads[name](hidden), 1), softmax(agent.agent.shares[name], 0)
        weights = shares[0] * head + shares[1] * rule + shares[2] * softmax(gap, 1)
        torch.testing.assert_close(decision.weights[name], weights.detach(), rtol=1e-5, atol=1e-7)
        bce = bce + binary_cross_entropy(weights, torch.ones_like(weights), weight=reward[:, None])
    expected = [parameter - 0.1 * slope for parameter, slope in zip(parameters, torch.autograd.grad(bce, parameters), strict=True)]
    agent.update_policy(agent._taken.state, {}, reward)
    for ours, theirs in zip(parameters, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert len(parameters) == 7, "first layer, two heads with biases, two shares"


@pytest.mark.long
def test_mini_batches_are_stored_and_gone_through_once(tmp_path):
    """``--agent-step``: the agent's updates from three stored mini-batches are those of following one after the other."""
    run, agent = make("mtkd_rl_released(scale=released,every=3)")
    twin = copy.deepcopy(agent.agent)
    taken = []
    for _ in range(3):
        before = [parameter.clone() for parameter in agent.agent.parameters()]
        decision = agent.act(None)
        taken.append((agent._taken.state, agent.reward(agent._taken)))
        run.apply(decision)
        if len(taken) == 2:
            agent.save(str(tmp_path / "agent"))
        agent.learn_from(agent._taken)
        unchanged = all(torch.equal(old, new) for old, new in zip(before, agent.agent.parameters(), strict=True))
        assert unchanged is (len(taken) < 3)
    again = type(agent).load(str(tmp_path / "agent"), agent.context)
    ((state, reward),) = again._stored
    assert torch.equal(state.columns, taken[0][0].columns)
    assert torch.equal(reward, taken[0][1])
    learned, agent.agent = agent.agent, twin
    agent.optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for state, reward in taken:
        agent.update_policy(state, {}, reward)
    for ours, theirs in zip(learned.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0.0)


@pytest.mark.long
def test_what_is_stored_is_gone_through_at_the_end_of_an_epoch(tmp_path):
    run, agent = make("mtkd_rl_released(scale=released,every=1000)", batch_size=400)
    per_epoch = len(run.data.task.train) // 400
    assert per_epoch >= 2
    twin, taken = copy.deepcopy(agent.agent), []
    for update in range(2 * per_epoch):
        decision = agent.act(None)
        run.apply(decision)
        if update < per_epoch:
            taken.append((agent._taken.state, agent.reward(agent._taken)))
        agent.learn_from(agent._taken)
        if update == per_epoch - 1:
            unchanged = zip(agent.agent.parameters(), twin.parameters(), strict=True)
            assert all(torch.equal(ours, old) for ours, old in unchanged), "it learns when the next epoch begins"
            agent.save(str(tmp_path / "agent"))
    assert len(agent._stored) == per_epoch, "those of the second epoch"
    again = type(agent).load(str(tmp_path / "agent"), agent.context)
    assert (len(again._stored), again._epochs) == (per_epoch, 0)
    learned, agent.agent = agent.agent, twin
    agent.optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for state, reward in taken:
        agent.update_policy(state, {}, reward)
    for ours, theirs in zip(learned.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0.0)


def test_in_the_first_epoch_each_teacher_has_weight_1():
    run, agent = make("mtkd_rl_released(scale=released)")
    losses = sample_losses(run, torch.ones(16, 2), torch.ones(16, 2))
    torch.testing.assert_close(run.per_example_loss(agent.act(None)), losses, rtol=1e-5, atol=1e-7)


def test_the_reward_of_the_paper_s_update_counts_maps():
    """``-L_k`` after the update of KL and of the distance of maps, in evaluation mode, centred and scaled over the teachers."""
    run, agent = make("mtkd_rl")
    run.apply(agent.act(None))
    taken = agent._taken
    output = run.student.network.eval()(**run.student.cast(taken.inputs), extra_outputs=frozenset({"maps"}))
    losses = []
    for k, maps in enumerate(output.projections["maps"]):
        kl = kl_div(log_softmax(output.logits / 4, 1), softmax(taken.batch.teacher_logits[:, k] / 4, 1), reduction="none").sum(1) * 16
        losses.append(0.5 * kl + 0.5 * 5 * (maps - taken.batch.teacher_maps[k]).square().mean((1, 2, 3)))
    reward = -torch.stack(losses, 1)
    centred = reward - reward.mean(1, keepdim=True)
    run.student.network.train()
    torch.testing.assert_close(teacher_reward(taken), centred / centred.square().mean(1, keepdim=True).sqrt(), rtol=1e-5, atol=1e-7)


@pytest.mark.long
def test_maps_of_a_named_stage_are_compared_by_their_means():
    run, agent = make("mtkd_rl", knowledge="response,map_hint(stage=stage2)")
    batch, output = run.observe(), run.student_output()
    for k, maps in enumerate(output.projections["maps.stage2"]):
        expected = cosine_similarity(maps.mean((2, 3)), batch.teacher_stages[k]["stage2"].mean((2, 3)))
        torch.testing.assert_close(state_of(agent.context, agent.context.batch()).gaps["map_hint"][:, k], expected.detach())
