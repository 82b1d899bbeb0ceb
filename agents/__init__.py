"""Agents: policies that learn from rewards, one file each; ``kd-env list policies`` says what each of them is.

What several of them share:

- ``teacher_scorer``, ``rollout``: actor and critic, and the mini-batches that ``actor_critic`` and ``ppo`` learn from
- ``credit_policies``, ``credit_learners``: policies that start from labels and learn from credit
- ``shared_scorer``: the scorer of ``scorer_credit``
- ``bandit``: what bandits over teachers share
- ``inner_policies``, ``candidates``, ``schedule``: rules, learners, ways to teach and schedules of ``piloted`` and ``population``
- ``mtkd_state``: the state of MTKD-RL's agent
- ``moments``, ``entropy``, ``saving``: running moments, entropies of selections, files
"""
