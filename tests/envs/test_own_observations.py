"""Observation sets of your own: what they show, and sets that cannot be made or used."""

from pathlib import Path

import numpy as np
import pytest
from mini_batches import batch_of, observed
from playing import batch as environment
from playing import rollout, slots

from kd_env.envs.observations import ObservationSet
from kd_env.errors import InputError


class Disagreement(ObservationSet):
    """How far each teacher is from the student, in ``power``; a second block only with labels."""

    columns = {"teachers": ("distance",), "student": ("right [label]",), "progress": ("part of the budget spent",)}

    def __init__(self, power=1):
        self.power = power

    def blocks(self, batch, labels):
        distance = (batch.teacher_logits - batch.student.logits[:, None]).abs().mean(2) ** self.power  # [rows, K]
        right = (batch.student.logits.argmax(1) == batch.labels).float()  # [rows]
        return {"teachers": distance} | ({"student": right} if labels else {})


class Failing(Disagreement):
    def __init__(self):
        raise IndexError("too far")


OWN = f"{__name__}:Disagreement"


def test_a_set_of_one_s_own_is_observed():
    batch = batch_of(3, 5)
    blocks = observed(batch, f"{OWN}(power=2)", labels=True)
    distance = (batch.teacher_logits - batch.student.logits[:, None]).abs().mean(2)
    np.testing.assert_allclose(blocks["teachers"], (distance**2).clamp(max=10.0), rtol=1e-6)
    assert {name: block.shape for name, block in blocks.items()} == {"teachers": (5, 3), "student": (5, 1), "progress": (5, 1)}


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("granularity", ["instance", "batch"])
def test_a_set_of_one_s_own_makes_the_space_of_an_environment(granularity, labels):
    shown = {"observation": f"{OWN}(power=2)", "observe_labels": labels, "granularity": granularity}
    env, many = environment(**shown), slots(3 if granularity == "instance" else 1, **shown)
    widths = {"teachers": 4, "progress": 1} | ({"student": 1} if labels else {})
    assert {name: box.shape for name, box in many.single_observation_space.items()} == {name: (n,) for name, n in widths.items()}
    for blocks, *_ in rollout(env, seed=0):
        assert env.observation_space.contains(blocks)
    assert env.unwrapped.selection.settings.interface.observation == f"{OWN}(power=2)"


CANNOT_BE_MADE = [
    ("sumary", r"unknown observation 'sumary'; did you mean 'summary'\? \(or name your own as module:Class\)"),
    (f"{__name__}:Missing", r"observation '.*:Missing' cannot be imported \(AttributeError: .*\); give module:name"),
    ("no_such_module:Set", r"observation 'no_such_module:Set' cannot be imported \(ModuleNotFoundError: "),
    (f"{__name__}:batch_of", r"batch_of is not a subclass of kd_env\.envs\.observations\.ObservationSet; derive it from that"),
    ("kd_env.envs.observations:ObservationSet", r"ObservationSet does not define blocks; define it"),
    (f"{OWN}(strength=2)", r"got an unexpected keyword argument 'strength'; options: power"),
    ("summary(power=2)", r"observation 'summary\(power=2\)': .*options"),
]


def test_a_set_that_cannot_be_made_is_named():
    for observation, message in CANNOT_BE_MADE:
        with pytest.raises(InputError, match=message):
            environment(observation=observation)


def test_an_error_raised_inside_a_set_names_file_and_line():
    line = next(number for number, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "too far" in text)
    with pytest.raises(InputError) as caught:
        environment(observation=f"{__name__}:Failing")
    assert f"IndexError: too far ({__file__}, line {line})" in str(caught.value)
