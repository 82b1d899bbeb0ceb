"""One scorer for all teachers: it follows credit, fits labels, and means the same in another pool."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny_problem import EXPERTS, KnownTeacher, tiny_task

from agents.scorer_credit import ScorerCredit
from agents.shared_scorer import NUM_COLUMNS, PoolColumns, SharedScorer
from baselines.scorer import scorer_columns
from kd_env.benchmark.run_trial import teach
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.policies.context import PolicyContext
from kd_env.teachers import Pool
from kd_env.testing import check_policy

TASK = tiny_task()
THREE = Pool("three", (*EXPERTS.teachers, KnownTeacher("bad", (-1.0, -1.0))))


def logits(seed=0, n=50, teachers=4, classes=5):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, teachers, classes)) * 2.0).float()


def built(policy="scorer_credit", pool=EXPERTS, seed=0, **settings):
    env = gym.make_vec(
        "kd_env/TeacherSelection-v0",
        num_envs=16,
        vectorization_mode="vector_entry_point",
        autoreset_mode="same_step",
        task=TASK,
        teachers=pool,
        **{"updates": 60, **ScorerCredit.env_options, **settings},
    ).unwrapped
    return env, registry.find(policy).build(env, seed)


def right_weight(env, agent, learning=True):
    """The mean weight of the right expert in the last quarter of a run."""
    shares = []

    def listen(step):
        groups = TASK.train.groups[step.batch.example_ids]
        shares.append(step.weights[np.arange(len(groups)), groups].mean())

    env.selection.listeners.append(listen)
    teach(env, [agent], [0], frozen=not learning)
    return np.mean(shares[-15:])


# columns


def test_columns_are_standardised_and_bounded():
    columns = PoolColumns(logits())(logits())
    assert columns.shape == (50, 4, NUM_COLUMNS)
    varied = columns[:, :, [0, 1, 2, 4, 9]]
    assert varied.mean((0, 1)) == pytest.approx(np.zeros(5), abs=0.05)
    assert varied.std((0, 1)) == pytest.approx(np.ones(5), abs=0.1)
    assert columns.abs().max() <= 5.0


def test_a_teacher_is_compared_with_what_it_usually_is():
    """Logits times 3 make a teacher surer on every example; columns 10 and 11 do not change its rank among its own answers."""
    usual = logits(1, 400)
    columns = PoolColumns(usual)
    entropy = -(usual.softmax(2) * usual.log_softmax(2)).sum(2) / np.log(5)
    z = (entropy - entropy.mean(0)) / entropy.std(0, correction=0)
    expected = z - z.amin(1, keepdim=True)
    raw = columns._raw(usual)
    torch.testing.assert_close(raw[:, :, 9], z.float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(raw[:, :, 10], expected.float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(raw[:, :, :9], scorer_columns(usual))


def test_agreement_finds_the_odd_one():
    same = logits(2, 100, 1).expand(-1, 3, -1)
    odd = torch.cat([same, logits(3, 100, 1)], 1)
    agreement = PoolColumns(odd)._raw(odd)[0, :, 11]
    assert agreement[:3].min() > agreement[3]
    assert PoolColumns(odd)._raw(odd)[0, :, 12].tolist() == pytest.approx([0, 0, 0, float(agreement[3] - agreement[0])])


def test_a_permutation_of_the_teachers_permutes_the_weights():
    scorer = SharedScorer()
    with torch.no_grad():
        scorer.linear.weight.normal_()
        scorer.output.weight.normal_()
    values, order = logits(), [2, 0, 3, 1]
    log_weights = scorer(PoolColumns(values)(values))
    permuted = scorer(PoolColumns(values[:, order])(values[:, order]))
    torch.testing.assert_close(permuted, log_weights[:, order], atol=1e-4, rtol=1e-4)
    assert log_weights.exp().sum(1).detach() == pytest.approx(np.ones(50), abs=1e-5)


def test_a_new_scorer_weighs_all_teachers_equally():
    assert SharedScorer()(torch.randn(7, 3, NUM_COLUMNS)).exp().detach().numpy() == pytest.approx(np.full((7, 3), 1 / 3), abs=1e-6)


# learning, saving, moving


def test_labels_alone_tell_the_right_expert():
    """Each expert is sure where it is right, so the fitted scorer chooses it."""
    env, agent = built("scorer_credit(label_start=True)")
    agent.begin_episode(True)
    env.reset(seed=0)
    agent.act({})
    groups = TASK.train.groups[agent.context.batch().example_ids]
    assert agent._taught()[np.arange(16), groups].mean() > 0.9


@pytest.mark.long
def test_what_it_learned_serves_another_number_of_teachers(tmp_path):
    """Learned on two experts, used without learning where a third teacher is always wrong."""
    env, agent = built("scorer_credit(learning_rate=0.02)", credit="first_order")
    agent_weight = right_weight(env, agent)
    agent.save(str(tmp_path / "agent"))
    for pool in (EXPERTS, THREE):
        env, _ = built(pool=pool)
        moved = ScorerCredit.load(str(tmp_path / "agent"), PolicyContext(env, "scorer_credit", "reward gradient"))
        before = {name: value.clone() for name, value in moved.scorer.state_dict().items()}
        assert right_weight(env, moved, learning=False) > 0.7
        assert all(torch.equal(value, before[name]) for name, value in moved.scorer.state_dict().items())
    assert agent_weight > 0.7


def test_a_loaded_policy_with_label_start_is_not_fitted_again(tmp_path):
    env, agent = built("scorer_credit(label_start=True)")
    agent.begin_episode(True)
    agent.save(str(tmp_path / "agent"))
    env, _ = built(pool=THREE)
    moved = ScorerCredit.load(str(tmp_path / "agent"), PolicyContext(env, "scorer_credit", "reward labels"))
    moved.begin_episode(True)
    assert all(torch.equal(value, moved.scorer.state_dict()[name]) for name, value in agent.scorer.state_dict().items())


@pytest.mark.long
def test_it_stays_near_the_policy_at_the_beginning_of_the_episode():
    for hold, least in ((100.0, 0.0), (0.0, 0.2)):
        env, agent = built(f"scorer_credit(label_start=True,learning_rate=0.02,hold={hold})", credit=f"{__name__}:pays_the_wrong_expert")
        agent.begin_episode(True)
        teach(env, [agent], [0])
        env.reset(seed=0)
        agent.act({})
        with torch.no_grad():
            moved = (agent.scorer(agent._read).exp() - agent.start(agent._read).exp()).abs().mean()
        assert (moved < 0.1) if not least else (moved > least), hold


def pays_the_wrong_expert(run, meter, names, temperature):
    paid = torch.from_numpy(np.eye(2)[1 - TASK.train.groups[run.observe().example_ids]])
    return dict.fromkeys(names, paid)


def test_shared_rewards_are_refused_if_it_is_to_learn():
    _, agent = built(credit="shared")
    agent.begin_episode(learning=False)
    with pytest.raises(InputError, match="scorer_credit learns from credit"):
        agent.begin_episode(learning=True)


@pytest.mark.long
def test_it_follows_the_protocol():
    check_policy(ScorerCredit)
    assert registry.find("scorer_credit").access == "reward gradient"
    assert registry.find("scorer_credit(label_start=True)").access == "reward labels"
