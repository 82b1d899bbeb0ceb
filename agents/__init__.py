"""Agents: policies that learn from rewards, one file each; ``kd-env list policies`` says what each of them is.

What several of them share: ``bandit`` (over teachers), ``moments`` (running means), ``entropy`` (of selections), ``saving`` (files).
"""
