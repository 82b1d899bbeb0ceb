"""A finished trial's student is freed before the next trial builds its own, though Python's collector is off."""

import gc
import weakref

from kd_env.benchmark import run_trial
from kd_env.benchmark.trial import Trial


def test_a_finished_student_is_freed_before_the_next_trial_begins(tmp_path, monkeypatch):
    make, alive, students = run_trial.make_env, [], []

    def recorded(*arguments):
        alive.append(sum(student() is not None for student in students))
        env = make(*arguments)
        students.append(weakref.ref(env.selection.distillation.student))
        return env

    monkeypatch.setattr(run_trial, "make_env", recorded)
    gc.disable()
    try:
        for seed in range(3):
            run_trial.run_trial(Trial("digits", "uniform", seed, settings={"updates": 2, "reward_examples": 16}), tmp_path)
    finally:
        gc.enable()
    assert alive == [0, 0, 0]
