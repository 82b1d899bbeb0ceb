"""Teachers that change during a run: what the bank keeps of that, and what their outputs are afterwards."""

import numpy as np
import pytest
from known_teachers import ATTENTION, LAYERS, Layered, Linear, image_task, layered_pool

from kd_env.bank import open_bank
from kd_env.bank.bank import TeacherOutputs
from kd_env.bank.drift import after_drift
from kd_env.bank.fingerprint import fingerprint
from kd_env.errors import InputError
from kd_env.teachers import Pool
from kd_env.teachers.teacher import Drift

DRIFT = Drift(0.5, (2, 0, 1))


def outputs(*, layers=False):
    """Three teachers, two examples; teacher k says 10 k for the first and 10 k + 1 for the second."""
    numbers = [np.array([[10.0 * k], [10.0 * k + 1]], dtype=np.float32) for k in range(3)]
    more = tuple(number[:, :, None] for number in numbers) if layers else ()
    return TeacherOutputs(np.stack(numbers, 1), tuple(numbers), more, tuple(part[..., None] for part in more))


@pytest.mark.parametrize("layers", [False, True])
def test_each_teacher_answers_in_its_new_role_where_the_change_is_past(layers):
    changed = after_drift(outputs(layers=layers), DRIFT, np.array([False, True]))
    assert changed.logits[:, :, 0].tolist() == [[0, 10, 20], [21, 1, 11]]
    assert [values[:, 0].tolist() for values in changed.features] == [[0, 21], [10, 1], [20, 11]]
    for part in (changed.layers, changed.attention):
        assert [values.ravel().tolist() for values in part] == ([[0, 21], [10, 1], [20, 11]] if layers else [])


def test_nothing_is_copied_before_the_change():
    before = outputs()
    assert after_drift(before, DRIFT, np.array([False, False])) is before


def pool(drift, *teachers):
    return Pool("changing", teachers or tuple(Linear(f"t{k}", k) for k in range(3)), drift=drift)


def test_a_bank_knows_the_drift_of_its_pool_and_keeps_what_the_teachers_say_before_it(tmp_path):
    task, changing, constant = image_task(), pool(DRIFT), pool(None)
    bank = open_bank(task, changing, tmp_path / "changing")
    assert bank.drift == DRIFT
    assert open_bank(task, changing, tmp_path / "changing").drift == DRIFT, "read back"
    other = open_bank(task, constant, tmp_path / "constant")
    assert other.drift is None
    assert "drift" not in other.meta
    assert bank.fingerprint != other.fingerprint
    assert np.array_equal(bank.gather("train", slice(None)).logits, other.gather("train", slice(None)).logits)
    assert fingerprint(task, pool(Drift(0.4, DRIFT.roles))) != bank.fingerprint
    with pytest.raises(InputError, match="teachers that change in another way during a run"):
        open_bank(task, constant, tmp_path / "changing")


def test_teachers_that_change_roles_have_outputs_of_one_shape(tmp_path):
    with pytest.raises(InputError, match="its teachers change roles during a run, and the shapes of their outputs differ"):
        open_bank(image_task(), pool(DRIFT, Linear("a", 0, 2), Linear("b", 1, 2), Linear("c", 2, 3)), tmp_path / "bank")
    layered = Pool("layered", (Layered("one", 1), Layered("two", 2)), drift=Drift(0.5, (1, 0)))
    bank = open_bank(image_task(), layered, tmp_path / "layered", keep=LAYERS | ATTENTION)
    assert bank.drift == layered.drift
    assert layered_pool().drift is None
