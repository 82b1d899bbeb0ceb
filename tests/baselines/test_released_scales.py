"""``scale=released``: the losses as the published codes add them up, by hand."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from baselines import camkd
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import registry

SCALED = ["amtml", "camkd", "ebkd", "fitnet_mkd", "mmkd", "mt_bert", "mtkd_rl_released"]


def env_and_policy(name, **settings):
    env = make_env(Trial("digits", name, 0, settings={"updates": 200, "kd_weight": 0.4, "precision": "float64", **settings}))
    policy = registry.find(name).build(env, 0)
    env.reset(seed=0)
    return env, policy


def at_update(env, policy, update):
    """Return what the policy decides at an update of the run, which starts there."""
    env.distillation.state.update[:] = update
    env.distillation.forget_batch()
    return policy.act(None)


def updates_per_epoch(env):
    return len(env.selection.data.labels["train"]) // 32


@pytest.mark.parametrize("name", SCALED)
def test_what_is_released_has_labels(name):
    with pytest.raises(InputError, match=rf"policy {name}\(scale=released\) has the hard label in its loss, which kd_weight=1 leaves out"):
        env_and_policy(f"{name}(scale=released)", kd_weight=1.0)
    with pytest.raises(InputError, match=rf"{name}\(scale='big'\): expected matched or released"):
        env_and_policy(f"{name}(scale=big)")


@pytest.mark.parametrize(
    ("options", "first", "later"),
    [("", (0.4, 0.4 * 50, 0.6), (0.4, 0.4 * 50, 0.6)), ("(scale=released)", (1 / 4, 0.0, 1.0), (1 / 4, 50 / 4, 1.0))],
)
def test_camkd_has_no_hints_in_the_first_epoch(options, first, later):
    env, policy = env_and_policy(f"camkd{options}")
    for update, expected in ((0, first), (updates_per_epoch(env) - 1, first), (updates_per_epoch(env), later)):
        strengths = at_update(env, policy, update).strengths
        hints = torch.as_tensor(strengths["hint"], dtype=torch.float64).expand(32)
        assert hints.tolist() == pytest.approx([expected[1]] * 32)
        assert [strengths["response"], strengths["label"]] == pytest.approx([expected[0], expected[2]])


def test_fitnet_mkd_is_the_average_of_responses_and_the_label():
    env, policy = env_and_policy("fitnet_mkd(scale=released)", temperature=4.0)
    run = env.distillation
    loss = run.per_example_loss(policy.act(None))
    expected = run.per_teacher_loss("response", 4.0).mean(1) + run.per_teacher_loss("label", 4.0)[:, 0]
    torch.testing.assert_close(loss, expected)


def test_amtml_divides_by_classes_and_decays_its_gate():
    env, policy = env_and_policy("amtml(scale=released)", temperature=5.0)
    run = env.distillation
    batch, output = run.observe(), run.student_output()
    gate = output.auxiliary[:, :4]
    p = (batch.teacher_logits / 5.0).softmax(2)
    mixture = (gate[..., None] * p).sum(1)
    # torch.nn.KLDivLoss() of the release averages over B and C: tau^2 2 alpha KL / C
    response = 25.0 * (mixture * (mixture.log() - (output.logits / 5.0).log_softmax(1))).sum(1) * 2 * 0.4 / 10
    module = run.student.network.auxiliary_module
    penalty = 0.1 * (module.u.square().sum() + module.theta.square().sum())
    hints = 0.4 * run.per_teacher_loss("layer", 5.0).mean(1)
    label = 0.6 * cross_entropy(output.logits, batch.labels, reduction="none")
    torch.testing.assert_close(run.per_example_loss(policy.act(None)), response + hints + label + penalty)


def test_mtkd_rl_gives_each_teacher_weight_1_in_the_first_epoch():
    env, policy = env_and_policy("mtkd_rl_released(scale=released)", knowledge="response,hint(strength=5)", temperature=4.0)
    run = env.distillation
    decision = policy.act(None)
    sums = [run.per_teacher_loss(name, 4.0).sum(1) for name in ("response", "hint")]
    label = run.per_teacher_loss("label", 4.0)[:, 0]
    torch.testing.assert_close(run.per_example_loss(decision), sums[0] + 5.0 * sums[1] + label)
    later = at_update(env, policy, updates_per_epoch(env))
    assert later.strengths == {"response": 1.0, "hint": 5.0, "label": 1.0}
    rule = camkd.weights(run.observe().teacher_logits, run.observe().labels)
    assert (later.weights["response"] - rule / 3 > 0.0).all()
    assert later.weights["response"].sum(1).tolist() == pytest.approx([1.0] * 32)


def test_mtkd_rl_learns_by_sgd_on_raw_states_without_bias():
    _, policy = env_and_policy("mtkd_rl_released(scale=released)")
    assert policy.agent.body[0].bias is None
    policy.act(None)
    taken = policy._taken
    # the sample deviation: with n - 1 the rewards of 32 instances are sqrt(31 / 32) of those with n
    loss = taken.loss
    expected = ((loss.mean() - loss) / loss.std()).clamp(0.0, 1.0)
    assert policy.reward(taken).tolist() == pytest.approx(expected.tolist())
    before = [parameter.detach().clone() for parameter in policy.agent.parameters()]
    columns = taken.state.columns
    hidden = (columns @ before[0].T).relu()
    heads = {name: (hidden @ before[i].T + before[i + 1]).softmax(1) for name, i in (("response", 1), ("hint", 3))}
    for name, head in heads.items():
        torch.testing.assert_close(policy.agent(columns)[name].exp(), head)
    parameters = list(policy.agent.parameters())
    weights = [(policy.agent(columns)[name].exp() + taken.state.rule + taken.state.gaps[name].softmax(1)) / 3.0 for name in heads]
    bce = sum(-(expected[:, None] * values.log()).mean() for values in weights)
    gradients = torch.autograd.grad(bce, parameters)
    policy.update_policy(taken.state, {}, policy.reward(taken))
    for now, old, gradient in zip(parameters, before, gradients, strict=True):
        torch.testing.assert_close(now.detach(), old - 0.1 * gradient)
