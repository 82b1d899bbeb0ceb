"""Selections at which credit is measured, and their credit."""

import numpy as np
import torch
from selections import select

from kd_env.types import Decision


def start(data, seed=0, **keywords):
    """A run and its meter, in a selection."""
    keywords = {"batch_size": 5, "precision": "float64", "reward_labels": 40, "reward_examples": 40, "updates": 40} | keywords
    return select(data, seed, **keywords)


def taught(selection, updates, seed=0):
    """The selection after some updates with random weights, its next mini-batch observed."""
    run, rng = selection.distillation, np.random.default_rng(seed)
    for _ in range(updates):
        rows = run.num_students * run.settings.batch_size
        weights = torch.from_numpy(rng.dirichlet(np.ones(run.num_teachers), rows)).to(run.student.dtype)
        strengths = {**dict.fromkeys(run.loss.terms, run.settings.kd_weight), "label": 1.0 - run.settings.kd_weight}
        run.apply(Decision(dict.fromkeys(run.loss.terms, weights), strengths, run.settings.temperature))
    run.observe()
    return selection


def credit_of(function, selection, names):
    return function(selection.distillation, selection.meter, names)


def response(function, selection):
    """The credit of the response alone ``[rows, K]``."""
    (values,) = credit_of(function, selection, ["response"]).values()
    return values
