"""Baselines: one file a rule or a paper; none of them learns from reward. ``rule`` is what they share, ``gate`` the router's network.

Rules that are formulas are pure functions too: ``baselines.camkd.weights(teacher_logits, labels)``.
"""
