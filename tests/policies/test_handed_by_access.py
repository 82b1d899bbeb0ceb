"""What each access class is handed: fields of a batch, outputs, transitions and observations."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import batch as batch_module
from kd_env.policies import make_policy, run_episode
from kd_env.policies.access import ACCESS, ALLOWED, DEFAULT_ACCESS, LABELS, REWARD, STUDENT, TEACHERS
from kd_env.policies.registry import declared
from kd_env.types import ModelOutput

SETTINGS = {"updates": 3, "student": "mlp(width=8)", "batch_size": 8, "reward_labels": 40, "knowledge": "response,layer"}


class UniformLearner:
    """Weighs all teachers equally; its option is its access."""

    env_options = {"action": "weights", "credit": "first_order"}

    def __init__(self, context, seed=0, access="nothing"):
        self.context = context

    @staticmethod
    def access_for(access="nothing"):
        return access

    def act(self, observation):
        return np.zeros((len(observation["progress"]), self.context.num_teachers), dtype=np.float32)

    def update(self, transition):
        pass


@pytest.fixture(scope="module")
def env():
    return make_env(Trial("digits", f"{__name__}:UniformLearner", 0, settings=SETTINGS))


def assert_copied(handed, own):
    if isinstance(own, torch.Tensor):
        assert torch.equal(handed, own)
        assert handed.data_ptr() != own.data_ptr()
    elif isinstance(own, ModelOutput):
        assert_copied((handed.logits, handed.features), (own.logits, own.features))
    else:
        assert len(handed) == len(own)
        keys = own if isinstance(own, Mapping) else range(len(own))
        for key in keys:
            assert_copied(handed[key], own[key])


def context_of(env, access):
    return make_policy(UniformLearner, env, access=access).context


@pytest.mark.parametrize("access", ACCESS)
def test_a_batch_holds_the_fields_of_its_class_and_their_values(access, env):
    env.reset(seed=0)
    batch, observed = context_of(env, access).batch(), env.selection.distillation.observe()
    held = {*vars(batch)["_fields"], *({"student_output"} & vars(batch).keys())}
    assert held == {name for name, resource in batch_module.NEEDS.items() if resource in ALLOWED[access]}
    assert (batch.num_rows, batch.num_teachers) == (8, 4)
    assert batch.example_ids.tolist() == observed.example_ids.tolist()
    for name in held - {"student_output"}:
        handed, own = getattr(batch, name), getattr(observed, name)
        assert getattr(batch, name) is handed, "copied once"
        assert_copied(handed, own)
    if "student" in held:
        assert not batch.student.logits.requires_grad
        assert batch.student.layers is batch.student.attention is None
    if "student_output" in held:
        own = env.selection.distillation.student_output()
        assert (batch.student_output is own) == (LABELS in ALLOWED[access])
        assert torch.equal(batch.student_output.logits, own.logits)
        assert batch.student_output.logits.requires_grad
    with pytest.raises(AttributeError, match="PolicyBatch has no 'tacher_logits'"):
        _ = batch.tacher_logits


def test_reward_outputs_come_without_labels_and_reward_examples_with_those_of_the_run(env):
    outputs = context_of(env, "teacher outputs").reward_outputs()
    assert outputs.labels is None
    assert len(outputs.teacher_logits) == len(env.selection.data.labels["reward"])
    context = context_of(env, "reward labels")
    rows = env.selection.distillation.reward_split.positions[0]
    assert np.array_equal(context.reward_positions, rows)
    assert len(rows) == 40
    assert torch.equal(context.reward_examples().labels, env.selection.data.labels["reward"][rows])


def test_a_class_that_declares_nothing_has_rewards_and_outputs_and_no_labels():
    class Silent:
        def act(self, observation):
            return None

    assert declared("Silent", Silent, {}).access == DEFAULT_ACCESS
    assert {TEACHERS, STUDENT, REWARD} == ALLOWED[DEFAULT_ACCESS]


def test_a_transition_of_a_rewarded_learner_is_whole_but_for_validation(env):
    seen = []

    class Keeps(UniformLearner):
        def update(self, transition):
            seen.append(transition)

    run_episode(env, make_policy(Keeps, env, access="reward scalar"), 0)
    assert [transition.reward.shape for transition in seen] == [(8,)] * 3
    assert seen[0].info["credit"].shape == (8, 4)
    assert seen[2].terminated.all()
    assert set(seen[0].observation) == {"instance", "teachers", "student", "progress"}
    assert not any("validation" in {*transition.info, *transition.info.get("final_info", {})} for transition in seen)
    env.reset(seed=0)
    steps = [env.step(np.zeros((8, 4), dtype=np.float32)) for _ in range(3)]
    assert any("validation" in {**step[4], **step[4].get("final_info", {})} for step in steps), "the environment says it"


@pytest.mark.parametrize("name", ["credit", "_credit"])  # the entry, and its mask
def test_get_refuses_what_the_access_does_not_include(name, env):
    class Asks(UniformLearner):
        def update(self, transition):
            assert transition.info.get("no such entry", 7) == 7
            transition.info.get(name)

    with pytest.raises(InputError, match=rf"Asks.*transition\.info\['{name}'\]"):
        run_episode(env, make_policy(Asks, env), 0)


@pytest.mark.parametrize(("access", "blocks"), [("nothing", {"progress"}), ("teacher outputs", {"progress", "teachers"})])
def test_observations_hold_what_the_access_includes(access, blocks, env):
    seen = []

    class Looks(UniformLearner):
        def act(self, observation):
            seen.append(set(observation))
            return super().act(observation)

        def update(self, transition):
            assert set(transition.observation) == set(transition.next_observation) == blocks

    run_episode(env, make_policy(Looks, env, access=access), 0)
    assert seen == [blocks] * 3
