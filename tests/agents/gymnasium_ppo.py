"""PPO for teacher selection in one file, after CleanRL's manner (Huang et al. 2022): what an outsider writes.

    python tests/agents/gymnasium_ppo.py --num_updates 800 --seed 1

In: arguments. Out: a trained agent and the mean reward of every step. Each slot of the vector environment is one of ``num_envs`` agents
that share a network; its action says of each of K teachers whether to ask it. Of ``kd_env`` it knows the environment's name alone.
"""

import argparse
import math
from dataclasses import asdict, dataclass, fields

import gymnasium as gym
import numpy as np
import torch
from gymnasium.wrappers.vector import FlattenObservation
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits


@dataclass
class Args:
    """What can be chosen, a line each."""

    seed: int = 0  # of the agent and of the students
    env_id: str = "kd_env:kd_env/TeacherSelection-v0"  # Gymnasium imports what stands before the colon
    task: str = "digits"  # what the students learn
    credit: str = "first_order"  # how the held-out improvement is divided among slots and teachers
    episode_updates: int = 40  # mini-batches a student is taught; then the next one begins
    num_updates: int = 400  # mini-batches in all, the budget
    num_envs: int = 32  # slots: instances of a mini-batch
    num_steps: int = 8  # steps of every slot in a rollout
    num_minibatches: int = 4  # parts of a rollout, a gradient step each
    update_epochs: int = 4  # passes over a rollout
    learning_rate: float = 2e-3  # falls linearly to zero
    gamma: float = 0.0  # a slot's next instance has nothing to do with this one
    gae_lambda: float = 0.95  # of the generalised advantage estimate; without effect at gamma 0
    clip_coef: float = 0.2  # of the surrogate objective
    ent_coef: float = 0.01  # of the entropy bonus
    vf_coef: float = 0.5  # of the value loss
    max_grad_norm: float = 0.5  # clips the gradient
    hidden: int = 64  # width of the two hidden layers


def make_env(args: Args) -> gym.vector.VectorEnv:
    """The slots, each with a flat observation."""
    options = {"task": args.task, "credit": args.credit, "updates": args.episode_updates, "action": "subset"}
    env = gym.make_vec(args.env_id, num_envs=args.num_envs, vectorization_mode="vector_entry_point", **options)
    return FlattenObservation(env)


class Agent(nn.Module):
    """Actor and critic, two networks: flat observation -> logits of K Bernoulli choices, and a value."""

    def __init__(self, num_inputs: int, num_teachers: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, gain: float) -> nn.Linear:
            layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
            nn.init.orthogonal_(layer.weight, gain, generator=generator)
            nn.init.zeros_(layer.bias)
            return layer

        def network(outputs: int, gain: float) -> nn.Sequential:
            first, second = layer(num_inputs, hidden, math.sqrt(2)), layer(hidden, hidden, math.sqrt(2))
            return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), layer(hidden, outputs, gain))

        self.generator = generator
        self.actor, self.critic = network(num_teachers, 0.01), network(1, 1.0)

    def value(self, observation: torch.Tensor) -> torch.Tensor:
        """Expected return ``[N]``."""
        return self.critic(observation).squeeze(1)

    def log_prob_and_entropy(self, observation: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of actions ``[N, K]``: the K choices are independent, so both are sums over them, ``[N]``."""
        logits = self.actor(observation)
        entropy = binary_cross_entropy_with_logits(logits, logits.sigmoid(), reduction="none")
        return -binary_cross_entropy_with_logits(logits, action, reduction="none").sum(1), entropy.sum(1)

    @torch.no_grad()
    def act(self, observation: np.ndarray, deterministic: bool = False) -> torch.Tensor:
        """Actions ``[N, K]``, drawn or the likelier of each choice."""
        chance = self.actor(torch.from_numpy(observation)).sigmoid()
        drawn = 0.5 if deterministic else torch.rand(chance.shape, generator=self.generator)
        return (chance > drawn).float()


def make_agent(args: Args, env: gym.vector.VectorEnv) -> Agent:
    """An untrained agent for ``env``."""
    (num_inputs,), (num_teachers,) = env.single_observation_space.shape, env.single_action_space.shape
    return Agent(num_inputs, num_teachers, args.hidden, torch.Generator().manual_seed(args.seed))


def train(args: Args) -> tuple[Agent, list[float]]:
    """Teach ``num_updates`` mini-batches and learn from what it pays; the mean reward of every step comes second."""
    env = make_env(args)
    agent = make_agent(args, env)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    history: list[float] = []

    shape = (args.num_steps, args.num_envs)
    observations = torch.zeros(*shape, *env.single_observation_space.shape)
    actions = torch.zeros(*shape, *env.single_action_space.shape)
    rewards, log_probs, values = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)
    ends, real = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)  # real: not a step that only resets, where actions are ignored

    observation, _ = env.reset(seed=args.seed)
    resets = np.zeros(args.num_envs, dtype=bool)  # slots whose next step begins another student (NEXT_STEP)
    num_rollouts = args.num_updates // args.num_steps
    for rollout in range(num_rollouts):
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - rollout / num_rollouts)

        # Play
        for step in range(args.num_steps):
            action = agent.act(observation)
            observations[step], actions[step], real[step] = torch.from_numpy(observation), action, torch.from_numpy(~resets)
            with torch.no_grad():
                log_probs[step], values[step] = agent.log_prob_and_entropy(observations[step], action)[0], agent.value(observations[step])
            observation, reward, terminated, truncated, _ = env.step(action.numpy().astype(np.int8))
            resets = terminated | truncated
            rewards[step], ends[step] = torch.from_numpy(reward), torch.from_numpy(resets)
            if real[step].any():
                history.append(float(rewards[step][real[step]].mean()))

        # Advantages, backwards in time
        with torch.no_grad():
            next_value, advantage = agent.value(torch.from_numpy(observation)), torch.zeros(args.num_envs)
            advantages = torch.zeros(shape)
            for step in reversed(range(args.num_steps)):
                goes_on = 1 - ends[step]
                error = rewards[step] + args.gamma * goes_on * next_value - values[step]
                advantage = error + args.gamma * args.gae_lambda * goes_on * advantage
                advantages[step], next_value = advantage, values[step]

        # Learn from the rollout, laid end to end
        flat = [table[real] for table in (observations, actions, log_probs, advantages, advantages + values)]
        for _ in range(args.update_epochs):
            order = torch.randperm(len(flat[0]), generator=agent.generator)
            for rows in order.tensor_split(args.num_minibatches):
                seen, done, before, gain, returned = (table[rows] for table in flat)
                log_prob, entropy = agent.log_prob_and_entropy(seen, done)
                ratio = (log_prob - before).exp()
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                surrogate = torch.min(gain * ratio, gain * ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)).mean()
                value_loss = 0.5 * (agent.value(seen) - returned).square().mean()
                loss = -surrogate - args.ent_coef * entropy.mean() + args.vf_coef * value_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
                optimizer.step()

    env.close()
    return agent, history


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in fields(Args):
        parser.add_argument(f"--{option.name}", type=type(option.default), default=option.default)
    chosen = Args(**vars(parser.parse_args()))
    print(asdict(chosen))
    _, paid = train(chosen)
    for start in range(0, len(paid), 64):
        print(f"updates {start:5d} to {min(start + 64, len(paid)):5d}: mean reward {np.mean(paid[start : start + 64]):+.3f}")
