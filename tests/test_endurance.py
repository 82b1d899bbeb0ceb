"""A million decisions in one process: every number stays finite, and memory stays where it was."""

import time

import gymnasium as gym
import numpy as np
import psutil
import pytest

import kd_env  # noqa: F401  (makes the environments known)

STUDENTS, BATCH, STEPS, EPISODE = 8, 8, 20_000, 250


@pytest.mark.slow
@pytest.mark.timeout(1800)
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
    for step in range(STEPS):
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
    assert ended == STUDENTS * STEPS // EPISODE
    assert paid > 0.99 * STEPS, "every update was measured"
    with capsys.disabled():
        print(
            f"\n{slots * STEPS:,} decisions, {STUDENTS * STEPS:,} updates of {ended} students: {seconds:.0f} s, "
            f"memory {early / 2**20:.1f} MB after a tenth, {late / 2**20:.1f} MB at the end"
        )
    assert late - early < 0.05 * early
    assert late - early < 30 * 2**20
