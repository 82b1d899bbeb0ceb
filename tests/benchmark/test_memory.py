"""A finished trial's students are freed when it returns, though Python's collector of reference cycles is off."""

import gc
import weakref

import pytest

from kd_env.benchmark import run_trial
from kd_env.benchmark.trial import Trial
from kd_env.envs.selection import Selection

POLICIES = [
    "uniform",
    "amtml",
    "mutual_learning",
    "gradient_credit",
    "mtkd_rl",
    "akd(training_episodes=1)",
    "sb3:PPO(n_steps=4,batch_size=32)",
    "sb3:DQN",
]


@pytest.mark.parametrize("policy", POLICIES)
def test_what_a_trial_made_is_freed_when_it_returns(policy, tmp_path, monkeypatch):
    begin, references = Selection.begin, []

    def begun(selection, *arguments):
        begin(selection, *arguments)
        run = selection.distillation
        references.extend(map(weakref.ref, (selection, selection.meter, run, run.student, run.student.parameters[0])))

    monkeypatch.setattr(Selection, "begin", begun)
    gc.disable()
    try:
        run_trial.run_trial(Trial("digits", policy, 0, settings={"updates": 6, "reward_examples": 16}), tmp_path)
        alive = [type(reference()).__name__ for reference in references if reference() is not None]
    finally:
        gc.enable()
    assert len(references) >= 5
    assert alive == []
