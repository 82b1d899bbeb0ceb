"""Ways in which a policy could read, or change, more than its access includes."""

import numpy as np
import pytest
import torch
from uniform_rule import SETTINGS, Rule, env_of

from kd_env.benchmark.run_trial import run_trials
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import make_policy, run_episode
from kd_env.types import Decision


def context_of(policy, **settings):
    env = env_of(policy, **settings)
    built = make_policy(policy, env)
    return env, getattr(built, "context", built)


class Backpropagated(Rule):
    """Its strengths carry a gradient: after the update that is the cross-entropy of each instance."""

    @staticmethod
    def access_for(access="nothing"):
        return access

    def __init__(self, context, seed=0, access="nothing"):
        super().__init__(context)
        self.strengths = []

    def decide(self, batch):
        self.strengths.append(torch.full((batch.num_rows,), 0.5, requires_grad=True))
        return Decision({"response": super().decide(batch)}, {"response": 0.5, "label": self.strengths[-1]}, 2.0)


WIDER = {"nothing": "gradient", "student outputs": "gradient", "train labels": "gradient", "reward labels": "privileged"}


@pytest.mark.parametrize(("access", "wider"), WIDER.items())
def test_a_decision_with_a_gradient_is_refused(access, wider):
    env = env_of(Backpropagated, kd_weight=0.5)
    policy = make_policy(Backpropagated, env, access=access)
    with pytest.raises(InputError, match=rf"policy 'Backpropagated': its decision carries a gradient, .* declare access = '{wider}'"):
        run_episode(env, policy, 0)
    assert policy.rule.strengths[0].grad is None


def test_a_policy_cannot_teach_students_of_its_own_with_a_gradient():
    env, context = context_of(Paid, kd_weight=0.5)
    env.reset(seed=0)
    students = context.own_students(2, 0)
    weights = torch.full((16, context.num_teachers), 0.25)
    decision = Decision({"response": weights}, {"response": 0.5, "label": torch.full((16,), 0.5, requires_grad=True)}, 2.0)
    with pytest.raises(InputError, match="its decision carries a gradient"):
        students.teach(decision)
    students.teach(decision.detach())


def test_gradients_of_the_outputs_do_not_tell_the_labels():
    env, context = context_of(Paid, kd_weight=0.5)
    env.reset(seed=0)
    output = context.batch().student_output
    output.logits.retain_grad()
    env.step(np.zeros((8, context.num_teachers)))
    assert output.logits.grad is None
    assert output.logits.requires_grad


def test_outputs_and_terms_are_copies():
    env, context = context_of(Paid, kd_weight=0.5)
    env.reset(seed=0)
    run = env.selection.distillation
    before = run.student_output().logits.detach().clone()
    context.student.output().logits.zero_()
    for tensor in context.student.batch_inputs().values():
        tensor.zero_()
    context.terms.clear()
    assert torch.equal(run.student_output().logits, before)
    assert all(tensor.any() for tensor in run.batch_inputs().values())
    assert list(run.loss.terms) == ["response"]


def test_a_decision_with_a_gradient_is_for_the_access_gradient():
    env = env_of(Backpropagated, kd_weight=0.5)
    policy = make_policy(Backpropagated, env, access="gradient")
    run_episode(env, policy, 0)
    assert all(strengths.grad is not None for strengths in policy.rule.strengths)


def test_a_temperature_can_carry_a_gradient():
    weights = {"response": torch.ones(2, 1)}
    assert Decision(weights, {"response": 1.0}, torch.ones(2, requires_grad=True)).differentiable
    assert not Decision(weights, {"response": 1.0}, torch.ones(2)).differentiable


class Paid(Rule):
    access = "reward labels"


@pytest.mark.parametrize(("name", "knowledge"), [("label", "response"), ("tckd", "tckd,nckd(strength=8)")])
def test_own_credit_of_training_labels_is_refused(name, knowledge):
    env, context = context_of(Paid, kd_weight=0.5, knowledge=knowledge)
    env.reset(seed=0)
    with pytest.raises(InputError, match=rf"reads context\.credit\(\['{name}'\]\), .* does not include the training labels"):
        context.credit([name])


@pytest.mark.parametrize("granted", [{"reward_labels": 40, "label_seed": 1}])
def test_labels_that_were_not_granted_are_refused(granted):
    env, context = context_of(Paid, **granted)
    env.reset(seed=0)
    mine = context.reward_positions
    others = np.setdiff1d(np.arange(len(env.selection.data.labels["reward"])), mine)
    with pytest.raises(InputError, match=r"evaluate got positions that are not in context\.reward_positions"):
        context.own_students(2, 0).evaluate(others)
    with pytest.raises(InputError, match=r"with_reward_positions got an array of bool; expected positions, whole numbers"):
        context.with_reward_positions(np.isin(np.arange(len(mine) + len(others)), mine))
    mine[:] = others[:40]
    assert not np.intersect1d(context.reward_positions, others).size, "the property is a copy"
    assert torch.equal(context.reward_examples().labels, env.selection.data.labels["reward"][context.reward_positions])


def test_the_access_of_a_context_and_of_a_student_cannot_be_set():
    _, context = context_of(Paid)
    for place in (context, context.student):
        with pytest.raises(AttributeError):
            place.access = "privileged"


class Watching(Rule):
    """A learner that keeps what it is shown."""

    decide = None

    @staticmethod
    def access_for(access="nothing"):
        return access

    def __init__(self, context, seed=0, access="nothing"):
        super().__init__(context)
        self.infos, self.measured = [], []

    def act(self, observation):
        return np.zeros((len(observation["progress"]), self.context.num_teachers), dtype=np.float32)

    def update(self, transition):
        self.infos.append(transition.info)

    def selection_entropy(self, observation):
        self.measured.append(observation)
        return np.zeros(len(observation["progress"]))


@pytest.mark.parametrize("access", ["nothing", "teacher outputs"])
def test_the_last_observation_of_an_episode_is_restricted_too(access):
    env = env_of(Watching)
    policy = make_policy(Watching, env, access=access)
    run_episode(env, policy, 0)
    last = policy.infos[-1]["final_obs"][0]
    assert set(last) == {"progress", "teachers"} & ({"progress"} if access == "nothing" else set(last))
    with pytest.raises(InputError, match=r"reads observation\['student'\]"):
        _ = last["student"]


def test_the_observation_of_selection_entropy_is_restricted_too(tmp_path):
    (record,) = run_trials([Trial("digits", f"{__name__}:Peeking", 0, settings=SETTINGS)], tmp_path, lambda _: None)
    assert record["selection_entropy"] == 0.0


class Peeking(Watching):
    def selection_entropy(self, observation):
        assert set(observation) == {"progress"}
        return super().selection_entropy(observation)


def test_teacher_columns_that_compare_with_the_student_need_its_outputs():
    env = env_of(Watching, observation="summary")
    policy = make_policy(Watching, env, access="teacher outputs")
    run_episode(env, policy, 0)
    assert set(policy.infos[-1]["final_obs"][0]) == {"progress"}


def test_a_block_of_one_slot_is_no_view_of_the_whole_observation():
    env = env_of(Watching, batch_size=1)
    observation, _ = env.reset(seed=0)
    assert all(block.base is None for block in observation.values())


class Changing(Rule):
    """Overwrites what it is handed."""

    access = "train labels"

    def decide(self, batch):
        for values in (batch.teacher_logits, batch.student.logits, batch.labels, *batch.teacher_features):
            values.zero_()
        batch.example_ids[:] = 0
        return super().decide(batch)


def test_a_rule_that_changes_its_batch_does_not_change_what_is_taught(tmp_path):
    trials = [Trial("digits", f"{__name__}:{kind.__name__}", 0, settings=SETTINGS | {"kd_weight": 0.5}) for kind in (Rule, Changing)]
    first, second = run_trials(trials[:1], tmp_path, lambda _: None), run_trials(trials[1:], tmp_path, lambda _: None)
    assert first[0]["validation"] == second[0]["validation"]
    assert first[0]["curve"] == second[0]["curve"]
