"""A trial's description: resolved once, with an id of everything that decides its result."""

import dataclasses
import pickle

import pytest

from kd_env import tasks
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import registry


def settings_of(policy, **settings):
    return {"updates": 20, **({"kd_weight": 0.5} if policy == "no_teacher" else {}), **settings}


def test_different_trials_have_different_ids():
    base = Trial("digits", "uniform", 0, settings={"updates": 20})
    others = [
        dataclasses.replace(base, seed=1),
        dataclasses.replace(base, policy="camkd"),
        dataclasses.replace(base, teachers="digits/mixed"),
        dataclasses.replace(base, suite="demo"),
        dataclasses.replace(base, settings={"updates": 21}),
        dataclasses.replace(base, settings={"updates": 20, "temperature": 3.0}),
        dataclasses.replace(base, settings={"updates": 20, "reward_labels": 64}),
        dataclasses.replace(base, settings={"updates": 20, "student": "mlp(width=25)"}),
        dataclasses.replace(base, policy="single:1"),
    ]
    ids = {trial.id for trial in [base, *others]}
    assert len(ids) == len(others) + 1
    assert dataclasses.replace(base, command="kd-env run").id == base.id
    spellings = ("reinforce(window=2, baseline=false)", "reinforce(baseline=False,window=2)")
    assert len({dataclasses.replace(base, policy=policy).id for policy in spellings}) == 1


def test_a_trial_is_resolved_once(monkeypatch):
    trial, looked_up, find = Trial("digits", "no_teacher", 3, settings=settings_of("no_teacher")), [], registry.find
    monkeypatch.setattr(registry, "find", lambda name: (looked_up.append(name), find(name))[1])
    resolved = trial.resolved
    assert resolved.task is tasks.load("digits")
    settings = resolved.settings.distillation
    assert (resolved.policy.name, settings.updates, settings.kd_weight) == ("no_teacher", 20, 0.0)
    assert list(resolved.env_keywords)[:4] == ["task", "teachers", "bank", "label_seed"]
    assert resolved.env_keywords["label_seed"] == 3
    make_env(trial)
    assert (trial.id, trial.resolved) == (resolved.id, resolved)
    assert looked_up == ["no_teacher"]
    assert dataclasses.replace(trial, seed=4).id != trial.id, "a changed copy is resolved again"


def test_a_trial_for_another_process_leaves_its_data_behind():
    trial = Trial("digits", "uniform", 0, settings={"updates": 20})
    trial_id = trial.id
    assert len(content := pickle.dumps(trial)) < 1000
    assert pickle.loads(content) == trial
    assert pickle.loads(content).id == trial_id


@pytest.mark.parametrize(
    ("policy", "settings", "message"),
    [
        ("camkd", {"action": "subset"}, "action=subset: policy 'camkd' needs action=weights; leave action out"),
        ("uniform", {"granularity": "batch"}, "granularity=batch: policy 'uniform' needs granularity=instance"),
        ("reinforce", {"observation": "summary"}, "observation=summary: policy 'reinforce' needs observation=full"),
        ("gradient_credit", {"reward": "student_loss"}, "credit='first_order' replaces the measured dev_improvement; with"),
        ("no_teacher", {}, "'no_teacher' learns from hard labels"),
        ("uniform", {"steps": 3}, "unknown setting 'steps'"),
        ("uniform", {"task": "digits"}, "unknown setting 'task'"),
        ("uniform", {"num_envs": 3}, "unknown setting 'num_envs'"),
    ],
)
def test_settings_that_contradict_the_policy_are_refused(policy, settings, message):
    with pytest.raises(InputError) as refused:
        _ = Trial("digits", policy, 0, settings=settings).id
    assert message in str(refused.value)


def test_settings_that_came_later_change_an_id_only_where_they_are_used():
    plain = Trial("digits", "uniform", 0, settings={"updates": 5})
    assert dataclasses.replace(plain, settings={"updates": 5, "teacher_answers": "bank", "augmentation": ""}).id == plain.id
    assert dataclasses.replace(plain, settings={"updates": 5, "teacher_answers": "live"}).id != plain.id
