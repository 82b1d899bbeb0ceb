"""What libraries do with an environment, one function each. In: a function that makes the environment. An error means that it cannot.

``Make`` makes a form of the environment with more keywords: ``make(render_mode="rgb_array")``. The functions import their library, so that
one that is not installed is an ``ImportError``.
"""

import functools
import importlib
import os
import tempfile
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import gymnasium_wrappers
import numpy as np
import torch
from gymnasium.wrappers import vector
from gymnasium_wrappers import STEPS, Make, finite_episode
from stable_baselines3.common.vec_env import VecMonitor

from kd_env.envs import SB3VecEnv

# CleanRL


def cleanrl(make: Make) -> None:
    """CleanRL's loop: own network, own distribution, an update on a rollout of a vector environment."""
    env = make()
    env = vector.FlattenObservation(env if isinstance(env, gym.vector.VectorEnv) else gym.vector.SyncVectorEnv([make, make]))
    space = env.single_action_space
    generator = torch.Generator().manual_seed(0)
    numbers = int(space.nvec.sum()) if isinstance(space, gym.spaces.MultiDiscrete) else gym.spaces.flatdim(space)
    weights = (0.01 * torch.randn(env.single_observation_space.shape[0], numbers, generator=generator)).requires_grad_()
    before, optimizer = weights.detach().clone(), torch.optim.Adam([weights], 1e-2)
    observation, _ = env.reset(seed=0)
    loss = torch.zeros(())
    for _ in range(STEPS):
        output = torch.from_numpy(observation) @ weights
        if isinstance(space, gym.spaces.Discrete):
            distribution = torch.distributions.Categorical(logits=output)
        elif isinstance(space, gym.spaces.MultiDiscrete):
            distribution = torch.distributions.Categorical(logits=output.unflatten(1, (len(space.nvec), -1)))
        elif isinstance(space, gym.spaces.MultiBinary):
            distribution = torch.distributions.Bernoulli(logits=output)
        else:
            distribution = torch.distributions.Normal(output, 0.1)
        action = distribution.sample()
        taken = action.clip(-1, 1) if isinstance(space, gym.spaces.Box) else action
        observation, rewards, _, _, _ = env.step(taken.numpy().astype(space.dtype))
        log_probability = distribution.log_prob(action).reshape(env.num_envs, -1).sum(1)
        loss = loss - (torch.from_numpy(rewards).float() * log_probability).mean()
    loss.backward()
    optimizer.step()
    assert torch.isfinite(weights).all()
    assert not torch.equal(weights, before)


# Stable-Baselines3 and sb3-contrib

SB3, CONTRIB = ("PPO", "A2C", "DQN", "SAC", "TD3", "DDPG"), ("TRPO", "MaskablePPO", "RecurrentPPO", "QRDQN", "TQC")
ON_POLICY = {"n_steps": 8, "batch_size": 8}
OFF_POLICY = {"learning_starts": 8, "buffer_size": 100, "batch_size": 8}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "A2C": {"n_steps": 4},
    **dict.fromkeys(("PPO", "TRPO", "MaskablePPO", "RecurrentPPO"), ON_POLICY),
    **dict.fromkeys(("DQN", "QRDQN", "SAC", "TD3", "DDPG", "TQC"), OFF_POLICY),
}


def learned(name: str, env: Any) -> None:
    """Learn with an algorithm."""
    package = importlib.import_module("sb3_contrib" if name in CONTRIB else "stable_baselines3")
    network = "MultiInputLstmPolicy" if name == "RecurrentPPO" else "MultiInputPolicy"
    model = getattr(package, name)(network, env, seed=0, device="cpu", policy_kwargs={"net_arch": [8]}, **ARGUMENTS[name])
    before = {key: tensor.clone() for key, tensor in model.policy.state_dict().items()}
    model.learn(32)
    after = model.policy.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert any(not torch.equal(before[key], tensor) for key, tensor in after.items())


class AllAllowed(gym.Wrapper):
    """Action masks for a single environment: MaskablePPO needs them."""

    def action_masks(self) -> np.ndarray:
        return masks(self.action_space)


class AllAllowedOfSlots(gym.vector.VectorWrapper):
    """Action masks for slots."""

    def action_masks(self) -> np.ndarray:
        return np.tile(masks(self.single_action_space), (self.num_envs, 1))


def masks(space: gym.Space) -> np.ndarray:
    """Everything is allowed: a boolean for each value of each number of an action, in sb3-contrib's order."""
    return np.ones(2 * space.n if isinstance(space, gym.spaces.MultiBinary) else gym.spaces.flatdim(space), dtype=np.bool_)


def sb3(name: str, make: Make) -> None:
    """An algorithm learns on one environment, or on slots."""
    env = make()
    if isinstance(env, gym.vector.VectorEnv):
        env = make(autoreset_mode="same_step")
        learned(name, VecMonitor(SB3VecEnv(AllAllowedOfSlots(env) if name == "MaskablePPO" else env)))
    else:
        learned(name, AllAllowed(env) if name == "MaskablePPO" else env)


# TorchRL


def torchrl(make: Make) -> None:
    """TorchRL's wrapper agrees with its own specs, and rolls out over the end of an episode."""
    torchrl_rollout(without_autoreset(make))


def torchrl_same_step(make: Make) -> None:
    """The same for slots that reset within the step."""
    torchrl_rollout(make(autoreset_mode="same_step", info="minimal"))


def torchrl_infos(make: Make) -> None:
    """The values of ``info`` are in the rollout."""
    torchrl_rollout(without_autoreset(make, info="minimal"), infos=True)


def without_autoreset(make: Make, **keywords: Any) -> Any:
    """Return the environment; slots as TorchRL prefers them, since it resets by itself."""
    return make(**keywords, **({"autoreset_mode": "disabled"} if isinstance(make(), gym.vector.VectorEnv) else {}))


def torchrl_rollout(env: Any, infos: bool = False) -> None:
    """Check the specs and roll out."""
    from torchrl.envs import GymWrapper
    from torchrl.envs.utils import check_env_specs

    wrapped = GymWrapper(env)
    if infos:
        wrapped.auto_register_info_dict()
    check_env_specs(wrapped)
    rollout = wrapped.rollout(STEPS, break_when_any_done=False)
    assert torch.isfinite(rollout["next", "reward"]).all()
    assert rollout["next", "done"].any()
    assert not infos or rollout["next", "example_ids"].numel() > 0


# skrl


def skrl(make: Make) -> None:
    """PPO of skrl learns."""
    from skrl.agents.torch.ppo import PPO
    from skrl.envs.wrappers.torch import wrap_env
    from skrl.memories.torch import RandomMemory
    from skrl.models.torch import CategoricalMixin, DeterministicMixin, GaussianMixin, Model, MultiCategoricalMixin
    from skrl.trainers.torch import SequentialTrainer

    env = wrap_env(make(), wrapper="gymnasium", verbose=False)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space, "device": "cpu"}
    mixins = {gym.spaces.Discrete: CategoricalMixin, gym.spaces.MultiDiscrete: MultiCategoricalMixin, gym.spaces.Box: GaussianMixin}
    mixin = mixins.get(type(env.action_space), GaussianMixin)
    options = {"clip_actions": True} if isinstance(env.action_space, gym.spaces.Box) else {}

    class Actor(mixin, Model):
        def __init__(self):
            Model.__init__(self, **spaces)
            mixin.__init__(self, **options)
            self.linear = torch.nn.Linear(self.num_observations, self.num_actions)
            self.log_std = torch.nn.Parameter(torch.zeros(self.num_actions))

        def compute(self, inputs, role=""):
            return self.linear(inputs["observations"]), {"log_std": self.log_std} if mixin is GaussianMixin else {}

    class Critic(DeterministicMixin, Model):
        def __init__(self):
            Model.__init__(self, **spaces)
            DeterministicMixin.__init__(self)
            self.linear = torch.nn.Linear(self.num_observations, 1)

        def compute(self, inputs, role=""):
            return self.linear(inputs["observations"]), {}

    models = {"policy": Actor(), "value": Critic()}
    before = models["policy"].linear.weight.detach().clone()
    with tempfile.TemporaryDirectory() as folder:
        experiment = {"directory": folder, "write_interval": 0, "checkpoint_interval": 0}
        settings = {"rollouts": 4, "learning_epochs": 1, "mini_batches": 1, "experiment": experiment}
        agent = PPO(models=models, memory=RandomMemory(memory_size=4, num_envs=env.num_envs, device="cpu"), cfg=settings, **spaces)
        SequentialTrainer(
            env=env, agents=agent, cfg={"timesteps": 8, "disable_progressbar": True, "headless": True, "close_environment_at_exit": False}
        ).train()
    assert torch.isfinite(models["policy"].linear.weight).all()
    assert not torch.equal(models["policy"].linear.weight, before)


# Minari


def minari(make: Make) -> None:
    """Minari's collector records episodes with infos, and reads the same rewards back."""
    import minari

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        env = minari.DataCollector(make(info="minimal"), record_infos=True)
        finite_episode(env)
        (episode,) = env.create_dataset("kd-env/conformance-v0").iterate_episodes()
    assert len(episode.rewards) == 4
    assert episode.infos["diverged"].shape == (5,)


ONE_ENVIRONMENT: dict[str, Callable[[Make], None]] = {
    **gymnasium_wrappers.ONE_ENVIRONMENT,
    "CleanRL's loop on `SyncVectorEnv`": cleanrl,
    **{f"SB3 `{name}`": functools.partial(sb3, name) for name in SB3},
    **{f"sb3-contrib `{name}`": functools.partial(sb3, name) for name in CONTRIB},
    "TorchRL `GymWrapper`": torchrl,
    "TorchRL `GymWrapper` with infos": torchrl_infos,
    "skrl `PPO`": skrl,
    "Minari `DataCollector` with infos": minari,
}
SLOTS: dict[str, Callable[[Make], None]] = {
    **gymnasium_wrappers.SLOTS,
    "CleanRL's loop": cleanrl,
    **{f"SB3 `{name}`": functools.partial(sb3, name) for name in SB3},
    **{f"sb3-contrib `{name}`": functools.partial(sb3, name) for name in CONTRIB},
    "TorchRL `GymWrapper`, `disabled`": torchrl,
    "TorchRL `GymWrapper`, `same_step`": torchrl_same_step,
    "TorchRL `GymWrapper` with infos": torchrl_infos,
    "skrl `PPO`": skrl,
    "Minari `DataCollector` with infos": minari,
}
