"""Gymnasium's wrappers on an environment, one function each. In: a function that makes the environment, with more keywords."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import vector

Make = Callable[..., Any]
STEPS = 6
"""Steps of a slot: an episode of four, and the beginning of the next."""


def finite_episode(env: gym.Env) -> dict[str, Any]:
    """Play an episode with random actions; return the last info."""
    env.action_space.seed(0)
    env.reset(seed=0)
    done = False
    while not done:
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert np.isfinite(reward)
        done = terminated or truncated
    return info


def finite_steps(env: gym.vector.VectorEnv) -> list[dict[str, Any]]:
    """Take random steps over the end of an episode; return all infos."""
    env.action_space.seed(0)
    infos = [env.reset(seed=0)[1]]
    for _ in range(STEPS):
        _, rewards, _, _, info = env.step(env.action_space.sample())
        assert np.isfinite(rewards).all()
        infos.append(info)
    return infos


# Gymnasium, one environment


def passive_checker(make: Make) -> None:
    """``check_env`` without a warning."""
    check_env(make().unwrapped, skip_render_check=True)


def episode_statistics(make: Make) -> None:
    """The return and the length of an episode are in ``info``."""
    assert finite_episode(wrappers.RecordEpisodeStatistics(make()))["episode"]["l"] == 4


def video(make: Make) -> None:
    """An episode is a video file."""
    with tempfile.TemporaryDirectory() as folder:
        env = wrappers.RecordVideo(make(render_mode="rgb_array"), str(Path(folder) / "videos"))
        finite_episode(env)
        env.close()
        assert [path.suffix for path in Path(folder, "videos").iterdir()] == [".mp4"]


def flat_and_normalized(make: Make) -> None:
    """Flat, normalized observations and rewards."""
    env = wrappers.NormalizeReward(wrappers.NormalizeObservation(wrappers.FlattenObservation(make())))
    finite_episode(env)
    assert env.observation_space.contains(env.reset(seed=0)[0].astype(np.float32))


def sync_vector(make: Make) -> None:
    """Copies of the environment side by side."""
    finite_steps(gym.vector.SyncVectorEnv([make, make]))


# Gymnasium, slots


def vector_episode_statistics(make: Make) -> None:
    """The return and the length of each slot's episode are in ``info``."""
    for mode in ("next_step", "same_step"):
        infos = finite_steps(vector.RecordEpisodeStatistics(make(autoreset_mode=mode)))
        assert set(infos[4]["episode"]["l"].tolist()) == {4}


def vector_video(make: Make) -> None:
    """An episode of all slots is a video file."""
    with tempfile.TemporaryDirectory() as folder:
        env = vector.RecordVideo(
            make(render_mode="rgb_array"), str(Path(folder) / "videos"), step_trigger=lambda step: step == 0, video_length=2
        )
        finite_steps(env)
        env.close()
        assert [path.suffix for path in Path(folder, "videos").iterdir()] == [".mp4"]


def vector_flat_and_normalized(make: Make) -> None:
    """Flat, normalized observations and rewards."""
    env = vector.NormalizeReward(vector.NormalizeObservation(vector.FlattenObservation(make())))
    finite_steps(env)


def infos_as_list(make: Make) -> None:
    """One info per slot, with the same keys always."""
    env = vector.DictInfoToList(make(info="minimal"))
    assert {tuple(info) for infos in finite_steps(env) for info in infos} == {("example_ids", "diverged")}


def same_step_flat(make: Make) -> None:
    """Flat observations of slots that reset within the step."""
    finite_steps(vector.FlattenObservation(make(autoreset_mode="same_step")))


ONE_ENVIRONMENT: dict[str, Callable[[Make], None]] = {
    "Gymnasium `check_env`": passive_checker,
    "Gymnasium `RecordEpisodeStatistics`": episode_statistics,
    "Gymnasium `RecordVideo`": video,
    "Gymnasium `FlattenObservation`, `NormalizeObservation`, `NormalizeReward`": flat_and_normalized,
    "Gymnasium `SyncVectorEnv`": sync_vector,
}
SLOTS: dict[str, Callable[[Make], None]] = {
    "Gymnasium `RecordEpisodeStatistics`": vector_episode_statistics,
    "Gymnasium `RecordVideo`": vector_video,
    "Gymnasium `FlattenObservation`, `NormalizeObservation`, `NormalizeReward`": vector_flat_and_normalized,
    "Gymnasium `FlattenObservation`, `same_step`": same_step_flat,
    "Gymnasium `DictInfoToList`": infos_as_list,
}
