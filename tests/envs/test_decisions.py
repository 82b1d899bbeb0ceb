"""Whole decisions in place of actions: what they teach, what is refused, and the module that learns with the student."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from pairwise import chosen
from playing import KNOWLEDGE, same, slots, weights_of
from selections import select
from torch import nn

from kd_env.envs import decisions
from kd_env.envs.decisions import RecordedDecision, concatenate, decision_of_weights, from_numbers, strength_names, to_numbers
from kd_env.errors import InputError
from kd_env.types import Decision

DIGITS = {"task": "digits", "student": "mlp(width=8)"}


class Tilt(nn.Module):
    """An auxiliary module: one weighting of the teachers for all examples."""

    def __init__(self, width, widths, num_terms):
        super().__init__()
        self.arguments = {"width": width, "widths": widths, "num_terms": num_terms}
        self.scores = nn.Parameter(torch.zeros(len(widths)))

    def forward(self, output):
        return self.scores.softmax(0).expand(len(output.logits), -1)


AUXILIARY = f"{__name__}:Tilt"
UNIFORM = torch.full((3, 4), 0.25)


# What a decision teaches


@pytest.mark.parametrize(("kd_weight", "students"), chosen(itertools.product([1.0, 0.25], [1, 2]), [(1.0, 1), (0.25, 2)]))
def test_a_decision_and_the_action_that_means_it_give_the_same_student(kd_weight, students):
    keywords = {**DIGITS, "action": "one", "kd_weight": kd_weight, "temperature": 3.0, "num_students": students}
    acting, deciding = (slots(3 * students, autoreset_mode="disabled", **keywords).unwrapped for _ in range(2))
    acting.reset(seed=2), deciding.reset(seed=2)
    rng = np.random.default_rng(0)
    for _ in range(4):
        action = rng.integers(4, size=3 * students)
        weights = torch.eye(4)[torch.from_numpy(action)]
        strengths = {"response": kd_weight} | ({"label": 1.0 - kd_weight} if kd_weight < 1.0 else {})
        step = acting.step(action)
        assert same(step, deciding.step(Decision({"response": weights}, strengths, 3.0)))
        assert torch.equal(weights_of(acting), weights_of(deciding))
    assert np.isfinite(step[1]).all()


def test_weights_become_a_decision_with_the_setting_s_strengths_times_factors():
    env = slots(3, **DIGITS, kd_weight=0.4, temperature=2.5, knowledge="response,hint(strength=5)").unwrapped
    uniform = torch.full((3, 4), 0.25)
    column = torch.tensor([1.0, 2.0, 3.0])
    decision = decision_of_weights(env.selection.distillation, {"response": uniform, "hint": uniform}, {"hint": 0.5, "label": column})
    assert decision.temperature == 2.5
    assert list(decision.weights) == ["response", "hint"]
    assert decision.strengths["response"] == pytest.approx(0.4)
    assert decision.strengths["hint"] == pytest.approx(0.4 * 5 * 0.5)
    assert decision.strengths["label"].tolist() == pytest.approx([0.6, 1.2, 1.8])
    assert set(decision.strengths) == {"response", "hint", "label"}
    with pytest.raises(InputError, match=r"the policy gives weights for response, not for hint; leave hint out of it"):
        decision_of_weights(env.selection.distillation, {"response": uniform})
    without_labels = slots(3, **DIGITS, kd_weight=1.0).unwrapped
    assert decision_of_weights(without_labels.selection.distillation, {"response": uniform}).strengths == {"response": 1.0}


def test_decisions_are_concatenated_row_by_row_whatever_the_form_of_their_numbers():
    first = Decision({"response": torch.full((2, 3), 1 / 3)}, {"response": torch.tensor(0.5)}, 2.0, torch.tensor([1.0, 2.0]))
    second = Decision({"response": torch.eye(3)[:2]}, {"response": 1.0}, torch.tensor([4.0, 5.0]), torch.tensor([3.0, 4.0]))
    both = concatenate([first, second], 2)
    assert both.weights["response"].tolist() == [*first.weights["response"].tolist(), *torch.eye(3)[:2].tolist()]
    assert both.strengths["response"].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert both.temperature.tolist() == [2.0, 2.0, 4.0, 5.0]
    assert both.penalty.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert concatenate([second, dataclasses.replace(second, temperature=2.0)], 2).strengths == {"response": 1.0}


def test_a_row_that_decides_for_a_batch_is_repeated_for_its_instances():
    rows = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert decisions.per_instance(rows, 4).tolist() == [[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [3.0, 4.0]]
    assert decisions.per_instance(rows, 2) is rows


def test_an_action_s_gates_and_factors_become_strengths_and_temperature(digits_data):
    selection = select(digits_data, action="joint", batch_size=2, kd_weight=0.3, temperature=3.0, knowledge="response,hint(strength=5)")
    row = [1.0, -1, -1, -1, 1.0, 1.0, -1.0, 0.0, 0.5, -1.0]  # teacher 0; both types, not the label; kd_weight .5; temperature x 2
    kind = selection.action_kind
    decision = decisions.of_action(selection.distillation, kind, kind.decode(np.array([row, row]), 2))
    assert list(decision.weights) == ["response", "hint"]
    assert all(weights.tolist() == [[1.0, 0, 0, 0]] * 2 for weights in decision.weights.values())
    assert {name: strength.tolist() for name, strength in decision.strengths.items()} == {
        "response": [0.5] * 2,
        "hint": [2.5] * 2,
        "label": [0.0] * 2,
    }
    assert decision.temperature.tolist() == [6.0] * 2


def test_numbers_of_a_decision_and_back():
    keywords = {**DIGITS, "kd_weight": 0.5, "knowledge": "response,hint", "reward_ce": 0.3, "reward_labels": 6}
    run = slots(2, **keywords).unwrapped.selection.distillation
    weights, column = torch.tensor([[0.5, 0.5, 0, 0], [1.0, 0.0, 0, 0]]), torch.tensor([0.25, 0.75])
    decision = Decision({"response": weights}, {"response": column, "label": 0.5}, 2.0)
    assert strength_names(run) == ["response", "hint", "label", "reward_ce"]
    recorded = to_numbers(run, decision)
    assert isinstance(recorded, RecordedDecision)
    assert recorded.weights.tolist() == [[[0.5, 0.5, 0, 0], [0] * 4], [[1.0, 0, 0, 0], [0] * 4]]
    assert recorded.strengths.tolist() == [[0.25, 0.0, 0.5, 0.3], [0.75, 0.0, 0.5, 0.3]], "reward_ce is the setting's"
    assert recorded.temperature.tolist() == [2.0, 2.0]
    again = from_numbers(run, recorded, like=torch.zeros((), dtype=torch.float64))
    assert again.weights["response"].tolist() == weights.tolist()
    assert again.weights["response"].dtype == torch.float64
    assert again.strengths["response"].tolist() == [0.25, 0.75]
    strengths = [again.strengths[name] for name in ("hint", "label", "reward_ce")]
    assert (*strengths, again.temperature) == (0.0, 0.5, 0.3, 2.0), "equal values are one number"
    without_labels = slots(2, **DIGITS, kd_weight=1.0).unwrapped.selection.distillation
    assert to_numbers(without_labels, Decision({"response": weights}, {"response": column}, 2.0)).strengths.tolist() == [[0.25], [0.75]]


def test_reward_ce_has_a_factor():
    run = slots(3, **DIGITS, kd_weight=1.0, reward_ce=0.5).unwrapped.selection.distillation
    assert decision_of_weights(run, {"response": UNIFORM}).strengths == {"response": 1.0}, "left out, it is the setting's"
    assert decision_of_weights(run, {"response": UNIFORM}, {"reward_ce": 0.5}).strengths == {"response": 1.0, "reward_ce": 0.25}
    without = slots(3, **DIGITS, kd_weight=1.0).unwrapped.selection.distillation
    with pytest.raises(InputError, match="unknown strength 'reward_ce'"):
        decision_of_weights(without, {"response": UNIFORM}, {"reward_ce": 0.5})


def test_decisions_with_other_strengths_are_not_joined():
    first = Decision({"response": UNIFORM}, {"response": 1.0}, 2.0)
    for other in (Decision({"response": UNIFORM}, {"label": 1.0}, 2.0), Decision({"hint": UNIFORM}, {"response": 1.0}, 2.0)):
        with pytest.raises(InputError, match="name the same in all of them"):
            concatenate([first, other], 3)


# What is refused

BAD = {
    "an unknown type": (
        {},
        Decision({"magic": UNIFORM}, {"magic": 1.0}, 1.0),
        "decision: 'magic' is not a knowledge type of this setting, .*response",
    ),
    "labels that are no part of the setting": (
        {},
        Decision({"response": UNIFORM}, {"label": 0.5}, 1.0),
        "decision: 'label' is not a strength of this setting, which has response$",
    ),
    "weights of the label": ({"kd_weight": 0.5}, Decision({"label": UNIFORM}, {}, 1.0), "'label' is not a knowledge type"),
    "too few rows": (
        {},
        Decision({"response": UNIFORM[:2]}, {"response": 1.0}, 1.0),
        r"weights of 'response' have shape \(2, 4\), expected \(3, 4\)",
    ),
    "too few teachers": ({}, Decision({"response": UNIFORM[:, :3]}, {"response": 1.0}, 1.0), r"have shape \(3, 3\), expected \(3, 4\)"),
    "a strength of another shape": (
        {},
        Decision({"response": UNIFORM}, {"response": UNIFORM}, 1.0),
        r"strength of 'response' has shape \(3, 4\), expected \(3,\)",
    ),
    "a temperature of another shape": (
        {},
        Decision({"response": UNIFORM}, {"response": 1.0}, torch.ones(2)),
        r"temperature has shape \(2,\), expected \(3,\)",
    ),
    "a temperature of no shape": (
        {},
        Decision({"response": UNIFORM}, {"response": 1.0}, torch.tensor(2.0)),
        r"temperature has shape \(\), expected \(3,\)",
    ),
    "weights of reward_ce": (
        {"reward_ce": 0.5},
        Decision({"response": UNIFORM, "reward_ce": UNIFORM}, {"response": 1.0}, 2.0),
        "decision: 'reward_ce' is not a knowledge type of this setting, which has response",
    ),
    "a penalty of another shape": (
        {},
        Decision({"response": UNIFORM}, {"response": 1.0}, 1.0, torch.tensor(1.0)),
        r"penalty has shape \(\), expected \(3,\)",
    ),
    "a strength without weights": ({}, Decision({}, {"response": 1.0}, 1.0), "'response' has a strength but no weights; give both"),
    "cross-entropy on labels that teach nothing": (
        {},
        Decision({"response": UNIFORM}, {"response": 1.0, "reward_ce": 1.0}, 1.0),
        "decision: 'reward_ce' is not a strength of this setting",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_decision_that_does_not_fit_is_refused_and_teaches_nothing(case):
    keywords, decision, message = BAD[case]
    env = slots(3, **{**DIGITS, "kd_weight": 1.0, **keywords}).unwrapped
    env.reset(seed=0)
    before = weights_of(env)
    with pytest.raises(InputError, match=message):
        env.step(decision)
    assert torch.equal(weights_of(env), before)
    assert env.distillation.update == 0


def test_a_decision_is_about_one_mini_batch():
    env = slots(1, KNOWLEDGE, task="digits", batch_size=3, updates_per_phase=2).unwrapped
    env.reset(seed=0)
    with pytest.raises(InputError, match="updates_per_phase=2: a whole decision is about one mini-batch; leave updates_per_phase out"):
        env.step(Decision({"response": UNIFORM}, {"response": 1.0}, 1.0))


def test_an_auxiliary_module_that_cannot_be_made_is_refused():
    for auxiliary_module, message in (
        (f"{__name__}:Nothing", "cannot be imported"),
        ("builtins:dict", "auxiliary_module 'builtins:dict'"),
        (f"{AUXILIARY}(size=3)", "size"),
    ):
        with pytest.raises(InputError, match=message):
            slots(3, **DIGITS, auxiliary_module=auxiliary_module)


# Gradients


@pytest.mark.parametrize(("detached", "students"), chosen(itertools.product([False, True], [1, 2]), [(False, 1), (False, 2), (True, 2)]))
def test_an_auxiliary_module_learns_by_its_weights_and_by_nothing_else(detached, students):
    keywords = {"auxiliary_module": AUXILIARY, "num_students": students, "optimizer": "sgd(lr=0.1)", "precision": "float64"}
    env = slots(3 * students, **DIGITS, **keywords).unwrapped
    env.reset(seed=0)
    run = env.distillation
    weights = run.student_output().auxiliary
    assert weights.tolist() == [[0.25] * 4] * 3 * students
    losses = run.per_teacher_loss("response", 2.0).detach().view(students, 3, 4).mean(1)  # [S, K]
    env.step(Decision({"response": weights.detach() if detached else weights}, {"response": 1.0}, 2.0))
    # d/ds_k of sum_k softmax(s)_k L_k at s = 0 is (L_k - mean L) / K
    expected = torch.zeros_like(losses) if detached else -0.1 * (losses - losses.mean(1, keepdim=True)) / 4
    for s in range(students):
        scores = env.distillation.of_student(s).student.network.auxiliary_module.scores
        torch.testing.assert_close(scores.detach(), expected[s])


def test_an_auxiliary_module_is_told_widths_and_types():
    env = slots(3, **DIGITS, knowledge="response,hint,contrast", kd_weight=0.5, auxiliary_module=AUXILIARY).unwrapped
    arguments = env.distillation.student.network.auxiliary_module.arguments
    assert arguments == {"width": 8, "widths": env.selection.data.bank.widths, "num_terms": 3}
