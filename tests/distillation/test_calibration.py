"""Teachers' temperatures: known answers, few labels, and where they act."""

import gymnasium
import numpy as np
import pytest
import torch
from small_runs import start

import kd_env  # noqa: F401  registers the environments
from kd_env.distillation.calibration import fit_temperatures
from kd_env.policies.context import PolicyContext


def two_classes(log_odds, right, count):
    """Logits ``[count, 1, 2]`` with these log-odds for the answer, which is class 1, and labels, of which a part is ``right``."""
    logits = np.tile(np.array([[[0.0, log_odds]]], dtype=np.float32), (count, 1, 1))
    return logits, (np.arange(count) < right * count).astype(np.int64)


@pytest.mark.long
@pytest.mark.parametrize("log_odds", [0.5, 2.0, 9.0])
@pytest.mark.parametrize("right", [0.6, 0.9])
def test_the_temperature_makes_confidence_equal_to_accuracy(log_odds, right):
    (temperature,) = fit_temperatures(*two_classes(log_odds, right, 100_000))
    assert 1.0 / (1.0 + np.exp(-log_odds / temperature)) == pytest.approx(right, abs=1e-3)


def test_a_calibrated_teacher_keeps_its_logits():
    logits = np.random.default_rng(0).normal(0.0, 2.0, (50_000, 1, 5)).astype(np.float32)
    probabilities = torch.from_numpy(logits[:, 0]).softmax(1)
    labels = torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(0))[:, 0].numpy()
    assert fit_temperatures(logits, labels)[0] == pytest.approx(1.0, abs=0.02)


def test_a_few_right_answers_sharpen_a_teacher_less_than_many():
    few, many = (fit_temperatures(*two_classes(1.0, 1.0, count))[0] for count in (4, 400))
    assert 0.02 < many < few < 1.0


def test_an_expert_stays_certain_in_its_domain():
    """Each of two teachers is right on its half, and just as certain and wrong on the other. Alone, it is as certain as it is right."""
    logits, labels = np.zeros((2000, 2, 5)), np.full(2000, 4)
    for teacher, domain in enumerate((slice(0, 1000), slice(1000, 2000))):
        logits[:, teacher, 0] = 4.0
        logits[domain, teacher] = [0.0, 0.0, 0.0, 0.0, 4.0]
    assert fit_temperatures(logits[:, :1], labels)[0] == pytest.approx(4.0 / np.log(4.0), rel=0.01)  # half of the answers are right
    assert (fit_temperatures(logits, labels) < 1.0).all()


def test_the_objective_is_at_its_minimum():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0.0, 3.0, (60, 3, 4)), rng.integers(0, 4, 60)
    fitted = np.log(fit_temperatures(logits, labels))

    def objective(log_temperatures):
        probabilities = torch.from_numpy(logits / np.exp(log_temperatures)[:, None]).softmax(2)[torch.arange(60), :, labels]
        return -probabilities.mean(1).log().sum().item() + 0.5 * (log_temperatures**2).sum()

    for k in range(3):
        for step in (-0.05, 0.05):
            assert objective(fitted + step * np.eye(3)[k]) > objective(fitted)


def test_students_learn_from_logits_divided_by_the_temperatures_of_their_own_labels(digits_data):
    keywords = {"num_students": 2, "reward_labels": 15, "label_seeds": [0, 1], "precision": "float64"}
    plain, calibrated = start(digits_data, **keywords), start(digits_data, calibrate_teachers=True, **keywords)
    temperatures = calibrated.teacher_temperatures
    for student in range(2):
        rows = calibrated.reward_split.positions[student]
        expected = fit_temperatures(digits_data.bank.gather("reward", rows).logits, digits_data.labels["reward"].numpy()[rows])
        assert temperatures[student].tolist() == expected.tolist()
    assert (temperatures[0] != temperatures[1]).all()
    divisor = torch.from_numpy(np.repeat(temperatures, plain.settings.batch_size, axis=0))[:, :, None]
    torch.testing.assert_close(calibrated.observe().teacher_logits, plain.observe().teacher_logits / divisor)
    assert plain.teacher_temperatures is None


def test_policies_see_the_calibrated_teachers():
    """What a policy gets of the teachers outside a mini-batch has the temperatures of the mini-batch."""
    options = {"task": "digits", "teachers": "digits/experts", "action": "weights", "reward_labels": 100}
    contexts = []
    for calibrate in (False, True):
        env = gymnasium.make_vec(
            "kd_env/TeacherSelection-v0", num_envs=32, vectorization_mode="vector_entry_point", calibrate_teachers=calibrate, **options
        )
        contexts.append(PolicyContext(env, "test", "privileged"))
    plain, calibrated = contexts
    divisor = torch.from_numpy(env.unwrapped.distillation.teacher_temperatures[0]).float()
    for resource in ("reward_outputs", "reward_examples"):
        raw, seen = getattr(plain, resource)().teacher_logits, getattr(calibrated, resource)().teacher_logits
        torch.testing.assert_close(seen, raw / divisor[:, None])
    examples = calibrated.train_examples(np.arange(5)), calibrated.student.examples("train", np.arange(5))[1]
    torch.testing.assert_close(examples[0].teacher_logits, examples[1].teacher_logits)
    for (weight, _), (raw, _), temperature in zip(calibrated.classifiers(), plain.classifiers(), divisor, strict=True):
        torch.testing.assert_close(weight, raw / temperature)
