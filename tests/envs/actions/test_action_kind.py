"""Kinds of action: which there are, what is refused, and classes of your own."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from pairwise import chosen
from playing import CLASSES, JOINT, KNOWLEDGE, TEACHERS, batch, rollout, slots, weights_of

from kd_env.envs.actions import ACTIONS, ActionKind, ActionLayout, JointAction, KnowledgeAction, TeacherAction, make_action, parse_factors
from kd_env.envs.actions.kind import FACTORS
from kd_env.errors import InputError
from kd_env.types import DecodedAction


def test_every_kind_has_one_base_and_knows_its_name():
    for name in ACTIONS:
        kind = make_action(name, ActionLayout(3, ("response", "label")))
        assert kind.name == name
        assert sum(isinstance(kind, base) for base in (TeacherAction, KnowledgeAction, JointAction)) == 1
        assert kind.decides_teachers or kind.decides_knowledge


@pytest.mark.parametrize("name", ACTIONS)
def test_sampled_actions_decode_to_legal_weights_and_gates(name):
    """Weights of a row are on the simplex or all zero; gates are in [0, 1]."""
    for num_teachers, num_slots in itertools.product([1, 2, 5, 16], [1, 2, 32]):
        assert_legal(name, num_teachers, num_slots)


def assert_legal(name, num_teachers, num_slots):
    kind = make_action(name, ActionLayout(num_teachers, ("response", "label")))
    space = kind.space(num_slots)
    space.seed(0)
    for _ in range(5):
        decoded = kind.decode(space.sample(), num_slots)
        assert decoded.weights.shape == (num_slots, num_teachers)
        assert decoded.weights.dtype == np.float32
        assert (decoded.weights >= 0).all()
        sums = decoded.weights.sum(1)
        empty = sums == 0
        assert name in ("subset", "joint") or not empty.any()
        np.testing.assert_allclose(sums[~empty], 1.0, atol=1e-6)
        assert (decoded.gates is not None) == kind.decides_knowledge
        if decoded.gates is not None:
            assert decoded.gates.shape == (num_slots, 2)
            assert ((decoded.gates >= 0) & (decoded.gates <= 1)).all()


REFUSED = [
    ("subset", np.zeros(5), "expected 6 numbers for 2 decisions over 3 teachers"),
    ("subset", np.zeros((2, 4)), "expected 6 numbers"),
    ("subset", np.zeros((3, 2)), r"expected shape \(2, 3\)"),
    ("subset", [0, 1, 2, 0, 1, 0], "zeros and ones"),
    ("subset", [0, 1, 0.5, 0, 1, 0], "zeros and ones"),
    ("subset", [0, 1, -1, 0, 1, 0], "zeros and ones"),
    ("subset", [0, 1, math.nan, 0, 1, 0], "NaN"),
    ("one", [0], "expected 2 numbers"),
    ("one", [0, 3], r"teachers 0\.\.2"),
    ("one", [0, -1], r"teachers 0\.\.2"),
    ("one", [0, 1.5], r"teachers 0\.\.2"),
    ("one", [0, math.inf], "infinite"),
    ("weights", np.zeros(7), "expected 6 numbers"),
    ("weights", np.zeros((3, 2)), r"expected shape \(2, 3\)"),
    ("weights", [0, 0, 0, math.nan, 0, 0], "NaN"),
    ("weights", [0, 0, 0, math.inf, 0, 0], "infinite"),
    ("weights", [0, 0, 0, 1.01, 0, 0], r"in \[-1, 1\]"),
    ("weights", [0, 0, 0, -1.01, 0, 0], r"in \[-1, 1\]"),
    ("soft", np.zeros(5), "expected 4 numbers for 2 decisions over 2 knowledge types"),
    ("soft", [0, 0, 0, 1.01], r"in \[-1, 1\]"),
    ("soft", [0, 0, 0, math.nan], "NaN"),
    ("hard", [0, 1, 2, 0], "zeros and ones"),
    ("hard", [0, 1, -1, 0], "zeros and ones"),
    ("hard", np.zeros((4, 1)), r"expected shape \(2, 2\)"),
    ("joint", np.zeros(15), r"expected 16 .* 3 teachers \+ 2 knowledge \+ 1 kd_weight \+ 1 temperature \+ 1 abstain"),
    ("joint", np.zeros((8, 2)), r"expected shape \(2, 8\)"),
    ("joint", [*np.zeros(15), math.inf], "infinite"),
    ("joint", [*np.zeros(15), -1.01], r"in \[-1, 1\]"),
]


def test_actions_outside_the_space_are_refused():
    for name, action, message in REFUSED:
        kind = make_action(name, ActionLayout(3, ("response", "label")))
        with pytest.raises(ValueError, match=f"action '{name}': .*{message}"):
            kind.decode(np.asarray(action), 2)


@pytest.mark.parametrize("name", ["subset", "one", "weights", "soft", "hard"])
def test_encode_is_the_inverse_of_decode(name):
    kind = make_action(name, ActionLayout(3, ("response", "layer", "label")))
    space = kind.space(20)
    space.seed(3)
    action = np.asarray(space.sample()).reshape(20, kind.size)
    decoded = kind.decode(action, 20)
    values = decoded.gates if isinstance(kind, KnowledgeAction) else decoded.weights
    again = kind.decode(kind.encode(values), 20)
    for name_of_part, part in decoded._asdict().items():
        if part is not None:
            np.testing.assert_allclose(getattr(again, name_of_part), part, atol=1e-6)


def test_a_joint_action_has_no_inverse():
    with pytest.raises(
        InputError,
        match=r"action 'joint': weights cannot be converted to this kind of action; return actions, or a kd_env\.types\.Decision",
    ):
        make_action("joint", ActionLayout(2, ("response",))).encode(np.full((1, 2), 0.5))


# Factors


NO_FACTORS = [
    ("", "name at least one of teachers, knowledge"),
    (" , ", "name at least one"),
    ("teachers,kd_wieght", "did you mean 'kd_weight'"),
    ("teachers,strength", "factors='teachers,strength': 'strength' is now called 'kd_weight'; use that name"),
]


def test_factors_that_do_not_exist_are_refused():
    for text, message in NO_FACTORS:
        with pytest.raises(InputError, match=message):
            parse_factors(text)


def test_factors_come_in_one_order():
    assert parse_factors("abstain, teachers,abstain") == ("teachers", "abstain")
    assert parse_factors(",".join(reversed(FACTORS))) == FACTORS


# Kinds of your own


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
