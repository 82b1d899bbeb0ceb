"""A million decisions, or a thousand trials, in one process: every number stays finite, and memory stays where it was.

``KD_ENV_MINUTES=30 pytest -m slow tests/test_endurance.py -k random`` takes random actions for half an hour. ``KD_ENV_TRIALS`` sets
the number of trials.
"""

import itertools
import os
import time

import gymnasium as gym
import numpy as np
import psutil
import pytest

from kd_env.benchmark import records
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.run import run
from kd_env.benchmark.trial import Trial

MINUTES, TRIALS = float(os.environ.get("KD_ENV_MINUTES", "0")), int(os.environ.get("KD_ENV_TRIALS", "1000"))
STUDENTS, BATCH, STEPS, EPISODE = 8, 8, 20_000, 250


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 1800)
def test_a_million_random_decisions_leave_no_nan_and_no_memory_behind(capsys):
    slots = STUDENTS * BATCH
    assert slots * STEPS >= 1_000_000
    env = gym.make_vec(
        "kd_env/TeacherSelection-v0",
        num_envs=slots,
        vectorization_mode="vector_entry_point",
        autoreset_mode="same_step",
        task="digits",
        num_students=STUDENTS,
        updates=EPISODE,
        action="subset",
        reward="dev_improvement",
        reward_examples=64,
    )
    rng, process = np.random.default_rng(0), psutil.Process()
    ended, paid, early, started = 0, 0, 0, time.perf_counter()
    observation, _ = env.reset(seed=0)
    steps = 0
    for step in itertools.count():
        if step >= STEPS and time.perf_counter() - started >= 60 * MINUTES:
            break
        steps = step + 1
        action = rng.integers(2, size=(slots, 4), dtype=np.int8)  # now and then of nobody, for an instance
        observation, reward, terminated, truncated, info = env.step(action)
        assert np.isfinite(reward).all()
        assert all(np.isfinite(block).all() for block in observation.values())
        assert not truncated.any()
        if terminated.any():
            ended += int(terminated.sum()) // BATCH
            last = [block for rows in info["final_obs"][info["_final_obs"]] for block in rows.values()]
            assert all(np.isfinite(block).all() for block in last)
            assert not info["final_info"]["diverged"].any()
        paid += int(reward.any())
        if step == STEPS // 10:
            early = process.memory_info().rss
    seconds, late = time.perf_counter() - started, process.memory_info().rss
    assert ended == STUDENTS * (steps // EPISODE)
    assert paid > 0.99 * steps, "every update was measured"
    with capsys.disabled():
        print(
            f"\n{slots * steps:,} decisions, {STUDENTS * steps:,} updates of {ended} students: {seconds:.0f} s, "
            f"memory {early / 2**20:.1f} MB after a tenth, {late / 2**20:.1f} MB at the end"
        )
    assert late - early < 0.05 * early
    assert late - early < 30 * 2**20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_trials_leave_no_memory_and_no_open_files_behind(tmp_path, capsys):
    process, sizes = psutil.Process(), []
    settings = {"updates": 2, "student": "mlp(width=4)", "reward_examples": 16, "validation_every": 2}
    trials = [Trial("digits", "reinforce", seed, settings=settings, test=False) for seed in range(TRIALS)]
    for start in range(0, TRIALS, TRIALS // 10):
        run(trials[start : start + TRIALS // 10], tmp_path, Progress(quiet=True))
        sizes.append((process.memory_info().rss / 2**20, process.num_fds()))
    assert len(records.finished(tmp_path)) == TRIALS
    with capsys.disabled():
        print(f"\n{TRIALS} trials: memory (MB) and open files after each tenth: {', '.join(f'{mb:.1f} {files}' for mb, files in sizes)}")
    assert sizes[-1][1] <= sizes[1][1]
    assert sizes[-1][0] - sizes[1][0] < 30
