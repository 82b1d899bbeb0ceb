"""Agents: policies learned from what the environment pays, one file each; ``kd-env list policies`` says what each is.

What several share: ``bandit`` (over teachers), ``saving`` (to a file).
"""
