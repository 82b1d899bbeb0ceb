"""Kinds of action of your own: where they play, what they teach, and kinds that cannot be made."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from pairwise import chosen
from playing import CLASSES, JOINT, KNOWLEDGE, TEACHERS, batch, rollout, slots, weights_of

from kd_env.envs.actions import ActionKind, JointAction, KnowledgeAction, TeacherAction
from kd_env.errors import InputError
from kd_env.types import DecodedAction


class FirstTeachers(TeacherAction):
    """How many of the first teachers teach, at least ``least``."""

    def __init__(self, layout, name, least=1):
        super().__init__(layout, name)
        self.least = least

    @property
    def size(self):
        return 1

    def space(self, slots=1):
        return spaces.MultiDiscrete([self.layout.num_teachers + 1 - self.least] * slots)

    def decode_table(self, table):
        chosen = np.arange(self.layout.num_teachers) < table + self.least
        return DecodedAction((chosen / chosen.sum(1, keepdims=True)).astype(np.float32))


class OneGate(KnowledgeAction):
    """One knowledge type, at full strength."""

    @property
    def size(self):
        return 1

    def space(self, slots=1):
        return spaces.MultiDiscrete([len(self.layout.knowledge)] * slots)

    def decode_table(self, table):
        gates = np.eye(len(self.layout.knowledge), dtype=np.float32)[table[:, 0]]
        return DecodedAction(self.layout.uniform(len(table)), gates=gates)


class Neutral(JointAction):
    """The joint action around another centre."""

    def decode_table(self, table):
        return super().decode_table(np.clip(table + 0.1, -1.0, 1.0))


class OfNoEnvironment(ActionKind):
    """A kind that derives from none of the three bases."""

    size = 1

    def space(self, slots=1):
        return spaces.Discrete(2)

    def decode_table(self, table):
        return DecodedAction(self.layout.uniform(len(table)))

    def credit_reward(self, credit):
        raise NotImplementedError


class Failing(FirstTeachers):
    def __init__(self, layout, name):
        raise KeyError("nothing here")


OWN = {TEACHERS: f"{__name__}:FirstTeachers", KNOWLEDGE: f"{__name__}:OneGate", JOINT: f"{__name__}:Neutral"}


@pytest.mark.parametrize(
    ("name", "credit"),
    chosen(
        itertools.product(CLASSES, ["shared", "first_order"]),
        [(TEACHERS, "first_order"), (KNOWLEDGE, "first_order"), (KNOWLEDGE, "shared"), (JOINT, "shared")],
    ),
)
def test_a_kind_of_one_s_own_plays_in_the_environment_of_its_base(name, credit):
    env = batch(name, action=OWN[name], credit=credit)
    many = slots(1 if name == KNOWLEDGE else 3, name, action=OWN[name], credit=credit, autoreset_mode="disabled")
    for _, reward, *_, info in rollout(env, seed=0)[1:]:
        assert np.isfinite(reward)
        assert ("credit" in info) == (credit != "shared")
    many.action_space.seed(0)
    many.reset(seed=0)
    for _ in range(4):
        rewards = many.step(many.action_space.sample())[1]
        assert np.isfinite(rewards).all()
    assert env.spec.kwargs["action"] == OWN[name]


def test_a_kind_of_one_s_own_teaches_what_it_decodes_to():
    own, subset = batch(action=f"{__name__}:FirstTeachers(least=2)"), batch(action="subset")
    assert own.action_space == spaces.MultiDiscrete([3] * 3)
    for env in (own, subset):
        env.reset(seed=4)
    steps = own.step(np.array([0, 2, 1])), subset.step(np.array([1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]))
    assert steps[0][1] == steps[1][1]
    assert (weights_of(own) == weights_of(subset)).all()


@pytest.mark.parametrize("name", CLASSES)
def test_a_kind_of_another_environment_is_refused(name):
    for other, action in [*OWN.items(), (None, f"{__name__}:OfNoEnvironment")]:
        if other == name:
            continue
        base = CLASSES[name].action_base.__name__
        with pytest.raises(InputError, match=f"^action='{re.escape(action)}': this environment has actions derived from {base}"):
            batch(name, action=action)


def test_knowledge_of_one_s_own_is_selected_for_batches_too():
    with pytest.raises(InputError, match="granularity='instance': knowledge is selected for a batch or a phase; leave granularity out"):
        batch(KNOWLEDGE, action=OWN[KNOWLEDGE], granularity="instance")


CANNOT_BE_MADE = [
    ("subst", r"action='subst': expected subset, one, weights or module:Class in this environment"),
    (f"{__name__}:Missing", r"action '.*:Missing' cannot be imported \(AttributeError: .*\); give module:name"),
    ("no_such_module:Kind", r"action 'no_such_module:Kind' cannot be imported \(ModuleNotFoundError: "),
    ("builtins:dict", r"builtins:dict is not a subclass of kd_env\.envs\.actions\.kind\.ActionKind; derive it from that"),
    (f"{__name__}:FirstTeachers(most=2)", r"got an unexpected keyword argument 'most'; options: least"),
    (f"{__name__}:FirstTeachers(least", r"expected name\(key=value,\.\.\.\)"),
    ("kd_env.envs.actions:TeacherAction", r"kd_env.envs.actions:TeacherAction does not define decode_table, space; define them"),
]


def test_a_kind_that_cannot_be_made_is_named():
    for action, message in CANNOT_BE_MADE:
        with pytest.raises(InputError, match=message):
            batch(action=action)


def test_an_error_raised_inside_a_kind_names_file_and_line():
    line = next(number for number, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "nothing here" in text)
    with pytest.raises(InputError) as caught:
        batch(action=f"{__name__}:Failing")
    assert f"KeyError: 'nothing here' ({__file__}, line {line})" in str(caught.value)
