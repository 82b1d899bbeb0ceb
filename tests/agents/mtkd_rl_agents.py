"""An agent of MTKD-RL in its environment, and what it sees."""

from agents.mtkd_state import state_of
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.policies import registry

BOTH = ["mtkd_rl", "mtkd_rl_released"]


def make(policy, seed=0, task="digits", teachers=None, **settings):
    env = make_env(Trial(task, policy, seed, teachers, settings={"updates": 20, **settings}))
    agent = registry.find(policy).build(env, seed)
    env.reset(seed=seed)
    return env, agent


def current_state(agent):
    """What the agent sees of the mini-batch about to be taught."""
    return state_of(agent.context, agent.context.batch())
