"""Baselines: one file per rule or paper; none of them learns from rewards. ``rule`` holds what they share, ``gating`` the router's network.

Rules that are formulas are also pure functions: ``baselines.camkd.weights(teacher_logits, labels)``.
"""
