"""Population-based training finds the schedule that is known to be right, and counts what it costs."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny_problem import KnownTeacher, tiny_task

from agents.population import Population
from agents.schedule import Hyperparameters
from kd_env.benchmark import records
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run_trial import run_trial, teach
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.teachers import Pool
from kd_env.teachers.teacher import Drift
from kd_env.testing import check_policy

pytestmark = pytest.mark.long

TASK = tiny_task()
RIGHT, WRONG = KnownTeacher("right", (4.0, 4.0)), KnownTeacher("wrong", (-4.0, -4.0))
UPDATES, BATCH = 40, 16
SINGLES = "population(members=4,interval=5,rules=single:0;single:1)"


def built(policy=SINGLES, pool=None, seed=0, **settings):
    env = gym.make_vec(
        "kd_env/TeacherSelection-v0",
        num_envs=BATCH,
        vectorization_mode="vector_entry_point",
        autoreset_mode="same_step",
        task=TASK,
        teachers=pool or Pool("right and wrong", (WRONG, RIGHT)),
        **{"updates": UPDATES, "optimizer": "adam(lr=0.05)", **Population.env_options, **settings},
    ).unwrapped
    return env, registry.find(policy).build(env, seed)


def rules_of(agent):
    """The rule of the schedule at each update."""
    starts = np.arange(UPDATES) / UPDATES
    return [[stage.hyperparameters.rule for stage in agent.schedule if stage.start <= start][-1] for start in starts]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_the_right_teacher(seed):
    env, agent = built(seed=seed)
    taught = []
    env.selection.listeners.append(lambda step: taught.append(step.weights.mean(0)))
    teach(env, [agent], [seed])
    assert set(rules_of(agent)[10:]) == {"single:1"}
    assert np.array(taught)[-UPDATES + 10 :, 1].min() == 1.0
    assert env.finished.student.evaluate(*env.finished.reward_split.at(np.arange(64)))[1][0] > 0.8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_its_schedule_follows_a_change_of_the_teachers(seed):
    """After half of the updates the teachers change places."""
    pool = Pool("changing", (WRONG, RIGHT), drift=Drift(0.5, (1, 0)))
    env, agent = built("population(members=8,interval=4,rules=single:0;single:1,resample=1.0)", pool, seed)
    teach(env, [agent], [seed])
    rules = rules_of(agent)
    assert np.mean([rule == "single:1" for rule in rules[4:20]]) >= 0.75  # a stage of the best member may begin before the change
    assert set(rules[28:]) == {"single:0"}


def test_the_student_that_counts_is_the_best_member():
    """It is taught by the whole schedule. Rules that read no labels are the same as in the population."""
    env, agent = built()
    scores = []
    exploit = agent._exploit_and_explore
    agent._exploit_and_explore = lambda values, progress: (scores.append(values), exploit(values, progress))
    final = {}

    def remember(learning):
        if not learning and agent.students is not None:
            final["tensors"] = agent.students.state()["tensors"]
        Population.begin_episode(agent, learning)

    agent.begin_episode = remember
    teach(env, [agent], [0])
    assert len(scores) == UPDATES // 5 - 1
    best = final["tensors"]["student.theta"][agent.best]
    counted = torch.cat([parameter.detach().flatten() for parameter in env.finished.student.parameters])
    torch.testing.assert_close(counted, best, atol=1e-4, rtol=1e-3)


def test_half_of_the_labels_score_and_the_others_fit_rules():
    _, agent = built(reward_labels=32)
    assert len(agent.fit_positions) == len(agent.score_positions) == 16
    assert not set(agent.fit_positions) & set(agent.score_positions)
    assert set(agent.fit_positions) | set(agent.score_positions) == set(agent.context.reward_positions)
    labels = TASK.reward.labels
    assert abs(labels[agent.fit_positions].mean() - labels[agent.score_positions].mean()) < 0.2


def test_copies_are_changed_and_others_stay():
    env, agent = built("population(members=8,interval=5,rules=single:0;single:1,resample=0.0)", kd_weight=0.5)
    env.reset(seed=0)
    agent.act({})
    before = list(agent.lineages)
    scores = np.array([0.1, 0.9, 0.5, 0.5, 0.2, 0.8, 0.5, 0.5])
    tensors = agent.students.state()["tensors"]["student.theta"].clone()
    agent._exploit_and_explore(scores, 0.25)
    after = agent.students.state()["tensors"]["student.theta"]
    for member in range(8):
        if member not in (0, 4):
            assert agent.lineages[member] == before[member]
            assert torch.equal(after[member], tensors[member])
    for member in (0, 4):
        (origin,) = [best for best in (1, 5) if agent.lineages[member][:-1] == before[best]]
        assert torch.equal(after[member], tensors[origin])
        old, new = before[origin][-1].hyperparameters, agent.lineages[member][-1].hyperparameters
        assert agent.lineages[member][-1].start == 0.25
        assert new.rule == old.rule
        assert new.temperature / old.temperature == pytest.approx(0.8) or new.temperature / old.temperature == pytest.approx(1.25)
        assert new.strength / old.strength == pytest.approx(0.8) or new.strength / old.strength == pytest.approx(1.25)


def test_each_teacher_alone_is_a_rule():
    _, agent = built("population(rules=uniform;singles)")
    assert agent.names == ["uniform", "single:0", "single:1"]
    assert [lineage[0].hyperparameters.rule for lineage in agent.lineages] == (agent.names * 3)[:8]
    assert all(lineage[0].hyperparameters == Hyperparameters(name) for lineage, name in zip(agent.lineages, agent.names, strict=False))
    pool = Pool("many", tuple(KnownTeacher(f"teacher {k}", (1.0, 1.0)) for k in range(9)))
    _, agent = built("population(rules=uniform;singles)", pool)
    assert len(agent.lineages) == 10


def test_strength_varies_only_beside_labels():
    _, agent = built()
    assert {agent._changed(Hyperparameters("single:0")).strength for _ in range(20)} == {1.0}
    _, agent = built(reward_ce=1.0)
    assert {agent._changed(Hyperparameters("single:0")).strength for _ in range(20)} == {0.8, 1.25}


def test_all_members_are_counted():
    env, agent = built("population(members=4,interval=10,rules=single:0;single:1)")
    finished = []
    env.selection.listeners.append(lambda step: finished.append(env.selection.finished[0]))
    teach(env, [agent], [0])
    first, counted = finished[UPDATES - 1].state.forward_examples[0], env.finished.state.forward_examples[0]
    observed = (UPDATES + 1) * BATCH  # with the mini-batch after the last update
    assert counted == observed
    assert first == observed + 4 * UPDATES * BATCH + 4 * 4 * 32  # four scores of four members on half of the 64 labels


def trial(**changes):
    settings = {"updates": 12, "student": "mlp(width=8)", "batch_size": 8}
    policy = "population(members=3,interval=4,rules=uniform;router)"
    return dataclasses.replace(Trial("digits", policy, 1, settings=settings, test=False), **changes)


def test_the_record_has_the_schedule_and_replays(tmp_path):
    record = run_trial(trial(), tmp_path)
    records.append(tmp_path, record)
    (first, *_) = record["learned"]
    assert first["start"] == 0.0
    assert first.keys() == {"start", "rule", "strength", "temperature"}
    assert records.read(tmp_path)[0]["learned"] == record["learned"]
    assert replay(tmp_path, record["trial"]) == []
    assert record["access"] == "reward labels"


def test_a_saved_schedule_teaches_another_student(tmp_path):
    from kd_env.benchmark.saved_policies import find

    record = run_trial(trial(save_policy=True), tmp_path)
    (file,) = find(tmp_path, [], [5])[5]
    used = run_trial(trial(seed=5, policy_from=str(file), policy_from_name="there", frozen=True), tmp_path)
    assert used["learned"] == record["learned"]
    assert used["student_forward_examples"] == 13 * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("rules=''", "rules=''; name some, separated by semicolons"),
        ("rules=ppo", "'ppo' in rules is not a rule"),
        ("rules=uniform;nobody", "nobody"),
        ("rules=uniform_reward_ce", "rule 'uniform_reward_ce' needs the setting reward_ce, which all its students share"),
        ("members=1", "members=1; a population has at least 2"),
        ("members=-1", "members=-1"),
        ("interval=0", "interval=0"),
    ],
)
def test_what_cannot_be_a_population_is_refused(options, message):
    with pytest.raises(InputError) as refused:
        built(f"population({options})")
    assert message in str(refused.value)


def test_a_rule_that_reads_training_labels_is_refused():
    with pytest.raises(InputError, match="rule 'camkd_logits' reads 'train labels', more than the 'reward labels' of population"):
        built("population(rules=camkd_logits)")


def test_it_follows_the_protocol():
    check_policy(Population, rules="uniform;most_confident", members=3, interval=2)
