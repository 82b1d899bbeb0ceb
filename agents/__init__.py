"""Agents: policies learned from what the environment pays.

``reinforce`` (RL-KD), ``gradient_credit`` (first-order credit for every teacher), ``sb3`` (any Stable-Baselines3 algorithm).
"""
