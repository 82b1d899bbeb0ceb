"""PCL: the loss of heads, ensemble and temporal means against a reference written by hand; replay and continuation."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from baselines import pcl
from kd_env.benchmark.replay import replay_record
from kd_env.benchmark.run_trial import make_env, run_trial
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.testing import check_policy

TAU = 3.0


def env_and_policy(text="pcl", **settings):
    options = {"updates": 20, "precision": "float64", "temperature": TAU, "kd_weight": 0.25, "student": "mlp(width=6)", "batch_size": 8}
    env = make_env(Trial("digits", text, 0, settings=options | settings))
    policy = registry.find(text).build(env, 0)
    env.reset(seed=0)
    return env, policy


def first_decision(text, **settings):
    _, policy = env_and_policy(text, **settings)
    return policy.act(None)


def divergence(target, logits):
    """``tau^2 KL`` of softened logits, summed over classes, ``[B]``."""
    log_q, p = (logits / TAU).log_softmax(1), (target.detach() / TAU).softmax(1)
    return TAU**2 * kl_div(log_q, p, reduction="none").sum(1)


def test_the_whole_loss_and_its_gradient_are_those_of_the_formula():
    env, policy = env_and_policy("pcl(strength=0.7,ramp_up=0.5,decay=0.6)")
    run, network = env.distillation, env.distillation.student.network
    mean = [parameter.detach().clone() for parameter in run.student.parameters]
    for update in range(4):
        if update:
            keep = min(1 - 1 / (update + 1), 0.6)
            mean = [keep * old + (1 - keep) * new.detach() for old, new in zip(mean, run.student.parameters, strict=True)]
        decision = policy.act(None)
        loss = run.per_example_loss(decision)
        if update < 3:
            env.step(decision)
    output, batch = run.student_output(), run.observe()

    def all_logits(output, modules):
        first = output.features
        second, third = ((first @ layer.weight.T + layer.bias).relu() for layer in modules.hidden)
        further = [each @ head.weight.T + head.bias for each, head in zip((second, third), modules.classifiers, strict=True)]
        joined = torch.cat([first, second, third], 1)
        return [output.logits, *further, joined @ modules.ensemble.weight.T + modules.ensemble.bias]

    *heads, ensemble = all_logits(output, network.auxiliary_module)
    own = [parameter.detach().clone() for parameter in run.student.parameters]
    with torch.no_grad():
        for parameter, value in zip(run.student.parameters, mean, strict=True):
            parameter.data = value
        *means, _ = all_logits(network.network(**run.student.cast(run.batch_inputs())), network.auxiliary_module)
        for parameter, value in zip(run.student.parameters, own, strict=True):
            parameter.data = value
    ramp = math.exp(-5 * (1 - (3 / 20) / 0.5) ** 2)
    expected = 0.0
    for each in [*heads, ensemble]:
        expected = expected + 0.75 * cross_entropy(each, batch.labels, reduction="none")
        expected = expected + 0.25 * sum(divergence(batch.teacher_logits[:, k], each) for k in range(4)) / 4
    for i, head in enumerate(heads):
        peers = sum(divergence(means[j], head) for j in range(3) if j != i) / 2
        expected = expected + 0.7 * ramp * (divergence(ensemble, head) + peers)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    for ours, theirs in zip(
        torch.autograd.grad(loss.mean(), run.student.parameters, retain_graph=True),
        torch.autograd.grad(expected.mean(), run.student.parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_the_ramp_grows_to_one():
    weights = [pcl.ramp_weight(progress, 0.5) for progress in (0.0, 0.25, 0.5, 0.9)]
    assert weights == pytest.approx([math.exp(-5), math.exp(-1.25), 1.0, 1.0])
    assert pcl.ramp_weight(0.0, 0.0) == 1.0


def test_it_is_a_sound_policy():
    check_policy(pcl.PCL)


@pytest.mark.parametrize("settings", [{}, {"student": "resnet8(width=2)"}, {"auxiliary_module": "baselines.pcl:Heads(heads=2)"}])
def test_a_trial_without_teachers_is_replayed(settings, tmp_path):
    record = run_trial(Trial("digits", "pcl", 0, settings={"updates": 4, "kd_weight": 0.0, "batch_size": 8} | settings), tmp_path)
    assert record["access"] == "gradient"
    assert replay_record(tmp_path, record) == []


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("pcl", {"kd_weight": 1.0, "knowledge": "hint"}, "policy pcl: the heads learn from labels or responses; add response"),
        ("pcl(decay=2)", {}, r"pcl\(decay=2\): expected a number of at least 0, at most 1"),
        ("pcl(strength=-1)", {}, r"pcl\(strength=-1\)"),
        ("pcl", {"auxiliary_module": "baselines.pcl:Heads(heads=1)"}, r"Heads\(heads=1\): expected a whole number of at least 2"),
        ("pcl", {"auxiliary_module": ""}, "leave auxiliary_module out"),
        ("pcl", {"num_students": 2, "knowledge": "response,peer"}, "policy pcl keeps the mean of one student; leave out num_students"),
        ("pcl", {"auxiliary_module": "baselines.uncertainty:LogSigma"}, "policy pcl: auxiliary_module returns no logits of heads"),
        ("pcl", {"knowledge": "response(skip_epochs=1)"}, r"learn from the first epoch on; leave response\(skip_epochs=1\) out"),
    ],
)
def test_what_it_cannot_do_is_refused(text, settings, message):
    with pytest.raises(InputError, match=message):
        first_decision(text, **settings)


def test_a_restored_mean_is_where_the_student_is():
    env, policy = env_and_policy()
    policy.act(env.selection.observation())
    state = policy.rule.state()
    student = env.selection.distillation.student
    student.network.to("meta")  # stands for another device
    policy.rule.load_state(state)
    assert [mean.device.type for mean in policy.rule.mean] == ["meta"] * len(student.parameters)
