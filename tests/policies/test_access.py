"""A policy is handed what its access includes: reaching for more is an error that names the policy, the thing and the access to declare."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext, make_policy, run_episode
from kd_env.policies import batch as batch_module
from kd_env.policies.access import (
    ACCESS,
    ALLOWED,
    GRADIENT,
    LABELS,
    NEEDS,
    REWARD,
    REWARD_LABELS,
    STUDENT,
    TEACHERS,
    refuse,
)

ROOT = Path(__file__).parents[2]
SETTINGS = {"updates": 3, "student": "mlp(width=8)", "batch_size": 8, "reward_labels": 40, "knowledge": "response,layer"}
CREDIT = {"credit": "first_order"}

BATCH = {f"batch.{name}": resource for name, resource in batch_module.NEEDS.items()}
CONTEXT = {name: resource for name, resource in NEEDS.items() if name.startswith("context.")}
STUDENTS = {name: resource for name, resource in NEEDS.items() if name.startswith("student.")}
STUDENTS |= {"student.examples('train')": LABELS, "student.examples('reward')": REWARD_LABELS}
TOLD = {
    "observation['teachers']": TEACHERS,
    "observation['student']": STUDENT,
    "observation['instance']": STUDENT,
    "transition.reward": REWARD,
    "transition.info['credit']": REWARD,
    "transition.info['credit_fold']": REWARD,
    "transition.info['reward_terms']": REWARD,
}


def beyond(access, *kinds):
    """What of ``kinds`` the access does not include; of the student's parts only where there is a student at all."""
    resources = {name: resource for kind in kinds for name, resource in kind.items() if resource not in ALLOWED[access]}
    has_student = STUDENT in ALLOWED[access]
    return [name for name in resources if has_student or not name.startswith("student.")]


RULES = [(access, name) for access in ACCESS for name in beyond(access, BATCH, CONTEXT, STUDENTS)]
LEARNERS = [(access, name) for access in ACCESS for name in beyond(access, BATCH, CONTEXT, STUDENTS, TOLD)]


def read(name, context, batch, observation=None, transition=None):
    """Read ``name`` as a policy's code would; nothing, if it is empty."""
    if not name:
        return None
    rows = np.array(context.reward_positions[:4] if REWARD_LABELS in ALLOWED[context.access] else range(4))
    arguments = {
        "context.train_examples": (rows,),
        "context.credit": (("response",),),
        "context.own_students": (2, 0),
        "context.once_per_example": (lambda teacher_logits, teacher_features: teacher_logits,),
        "context.with_reward_positions": (rows,),
        "student.forward_at": ([], {}),
        "student.examples('train')": ("train", rows),
        "student.examples('reward')": ("reward", rows),
    }
    if "observation[" in name or "info[" in name:
        place, key = re.fullmatch(r"(.*)\['(.*)'\]", name).groups()
        return {"observation": observation, "transition.info": transition and transition.info}[place][key]
    root, rest = re.fullmatch(r"(\w+)\.(\w+)(?:\(.*\))?", name).groups()
    place = context.student if root == "student" else {"batch": batch, "context": context, "transition": transition}[root]
    value = getattr(place, rest)
    return value(*arguments.get(name, ())) if callable(value) else value


class ReachingRule:
    """A rule that reads ``name``, whatever its access."""

    env_options = {"action": "weights", "reward_every": 0}

    def __init__(self, context, seed=0, access="nothing", name=""):
        self.context, self.name = context, name

    @staticmethod
    def access_for(access="nothing", **_):
        return access

    def decide(self, batch):
        read(self.name, self.context, batch)
        return torch.full((batch.num_rows, batch.num_teachers), 1.0 / batch.num_teachers)


class ReachingLearner(ReachingRule):
    """A learner that does so, in ``act`` or, of what a step says, in ``update``."""

    env_options = {"action": "weights", "credit": "first_order"}
    decide = None

    def __init__(self, context, seed=0, access="nothing", name=""):
        super().__init__(context, seed, access, name)
        self.updates = 0

    def act(self, observation):
        if not self.name.startswith("transition"):
            read(self.name, self.context, self.context.batch(), observation)
        return np.zeros((len(observation["progress"]), self.context.num_teachers), dtype=np.float32)

    def update(self, transition):
        self.updates += 1
        if self.name.startswith("transition") and self.updates == 1:  # the last step's info is that of a reset
            read(self.name, self.context, None, transition=transition)


@pytest.fixture(scope="module")
def env():
    return make_env(Trial("digits", f"{__name__}:ReachingLearner", 0, settings=SETTINGS | CREDIT))


def resource_of(name):
    return {**BATCH, **CONTEXT, **STUDENTS, **TOLD}[name]


def assert_refused(error, kind, access, name):
    message = str(error.value)
    policy = re.match(rf"policy '({kind.__name__}[^']*)' reads ", message)
    assert policy, message
    assert f" reads {name}, and its access {access!r} does not include {resource_of(name)}; " in message
    advised = re.search(r"declare access = '([a-z ]+)' in its class$", message)[1]
    assert resource_of(name) in ALLOWED[advised]
    assert ALLOWED[access] < ALLOWED[advised], "it still has what it had"
    return advised


@pytest.mark.parametrize(("access", "name"), RULES)
def test_a_rule_that_reaches_for_more_is_refused_and_told_what_to_declare(access, name, env):
    policy = make_policy(ReachingRule, env, access=access, name=name)
    observation, _ = env.reset(seed=0)
    with pytest.raises(InputError) as error:
        policy.act(observation)
    advised = assert_refused(error, ReachingRule, access, name)
    if name != "student.forward_at":  # called with nothing here
        make_policy(ReachingRule, env, access=advised, name=name).act(observation)


@pytest.mark.parametrize(("access", "name"), LEARNERS)
def test_a_learner_that_reaches_for_more_is_refused_and_told_what_to_declare(access, name, env):
    with pytest.raises(InputError) as error:
        run_episode(env, make_policy(ReachingLearner, env, access=access, name=name), 0)
    advised = assert_refused(error, ReachingLearner, access, name)
    if name != "student.forward_at":
        policy = make_policy(ReachingLearner, env, access=advised, name=name)
        run_episode(env, policy, 0)
        assert policy.updates == 3


def test_every_class_but_the_last_is_planted_and_every_resource():
    assert {access for access, _ in RULES} == {access for access, _ in LEARNERS} == set(ACCESS) - {"privileged"}
    assert {name for _, name in LEARNERS} == {*BATCH, *CONTEXT, *STUDENTS, *TOLD}
    assert set(BATCH.values()) | set(CONTEXT.values()) == set().union(*ALLOWED.values())
    fields = set(PolicyBatch.__annotations__) - {"num_rows", "num_teachers", "update", "progress", "example_ids"}
    assert fields == set(batch_module.NEEDS), "a new field of the batch says what it needs"
    for_all = {"columns", "uses_hard_labels", "credit_folds", "batch", "decision", "after_epochs", "require_own_students"}
    public = {name for name in vars(PolicyContext) if not name.startswith("_")} - for_all
    assert {f"context.{name}" for name in public} == set(CONTEXT), "a new method of the context says what it needs"


@pytest.mark.parametrize("kind", [ReachingRule, ReachingLearner])
@pytest.mark.parametrize("access", ACCESS[:-1])
def test_the_command_says_so_in_one_line(kind, access, tmp_path, capsys):
    name = beyond(access, CONTEXT)[-1]
    policy = f'{__name__}:{kind.__name__}(access="{access}",name={name})'
    settings = [word for key, value in SETTINGS.items() if key != "updates" for word in ("--set", f"{key}={value}")]
    command = ["run", "--task", "digits", "--policy", policy, "--seeds", "0", "--updates", "3", "--quiet", "--out", str(tmp_path)]
    assert invoke([*command, *settings]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    assert f"{kind.__name__}(" in message
    assert f"reads {name}, and its access {access!r} does not include {resource_of(name)}; declare access = " in message
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_name_that_does_not_exist_is_no_question_of_access(env):
    with pytest.raises(AttributeError, match="has no attribute 'studnet'"):
        _ = make_policy(ReachingRule, env, access="nothing").context.studnet


def test_labels_of_the_reward_split_that_the_run_does_not_have_are_refused(env):
    env.reset(seed=0)
    context = make_policy(ReachingRule, env, access="reward labels").context
    _, batch = context.student.examples("reward", context.reward_positions[:5])
    assert torch.equal(batch.labels, env.selection.data.labels["reward"][context.reward_positions[:5]])
    others = np.setdiff1d(np.arange(len(env.selection.data.labels["reward"])), context.reward_positions)
    with pytest.raises(
        InputError, match=r"ReachingRule.*: student\.examples\('reward'\) got positions that are not in context\.reward_pos"
    ):
        context.student.examples("reward", np.array([context.reward_positions[0], others[0]]))


def test_refusals_advise_the_smallest_wider_class():
    advised = {
        ("nothing", TEACHERS): "teacher outputs",
        ("nothing", REWARD): "reward scalar",
        ("teacher outputs", STUDENT): "student outputs",
        ("student outputs", LABELS): "train labels",
        ("train labels", GRADIENT): "gradient",
        ("reward scalar", REWARD_LABELS): "reward labels",
        ("train labels", REWARD): "privileged",
    }
    for (access, resource), wider in advised.items():
        assert f"declare access = {wider!r}" in str(refuse("p", access, "x", resource))


# nobody in this repository reaches around it


@pytest.mark.parametrize("path", sorted([*ROOT.glob("agents/*.py"), *ROOT.glob("baselines/*.py")]), ids=lambda path: path.stem)
def test_no_policy_of_this_repository_reaches_through_the_environment(path):
    text = path.read_text()
    assert ".unwrapped" not in text
    assert "._selection" not in text
    imported = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names}
    assert "kd_env.envs.selection" not in imported
    assert not {name for name in imported if name and name.startswith("kd_env.tasks")}, "a task that it loads would have test"
    if path.stem != "sb3":  # it wraps the environment that it is built with
        assert not {name for name in imported if name and name.startswith(("kd_env.distillation", "kd_env.benchmark", "kd_env.envs.slots"))}
