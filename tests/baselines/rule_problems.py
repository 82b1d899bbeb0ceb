"""A rule in its environment, and the weights that it acts with."""

from weighing import acted_weights

from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.policies import registry


def env_and_policy(name, teachers=None, seed=0, task="digits", **settings):
    if name == "no_teacher":
        settings.setdefault("kd_weight", 0.5)
    trial = Trial(task, name, seed, teachers, settings={"updates": 20, **settings})
    env = make_env(trial)
    return env, registry.find(name).build(env, seed)


def begun(name, teachers=None, **settings):
    """The same with the environment at the first mini-batch of seed 0."""
    env, policy = env_and_policy(name, teachers, **settings)
    env.reset(seed=0)
    return env, policy


def weights_of(env, policy, seed=0):
    """Teacher weights ``[B, K]`` for the first mini-batch of ``seed``, and that mini-batch."""
    env.reset(seed=seed)
    return acted_weights(env, policy), env.selection.distillation.observe()
