"""Selections at which credit is measured, their credit, and how well one credit ranks as another."""

import dataclasses

import numpy as np
import torch
from scipy.stats import spearmanr
from selections import select

from kd_env.envs import credit
from kd_env.types import Decision

STUDENTS = [
    ("digits_data", "mlp(width=8)"),
    ("digits_data", "mlp(width=8,dropout=0.3)"),
    ("digits_data", "tiny-vit(width=8,layers=1,dropout=0.2)"),
    ("text_data", "tiny-bert(width=8,layers=1,dropout=0.2)"),
]


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


def rank_correlations(exact, estimate):
    """Spearman's rank correlation of credit ``[rows, K]`` over all pairs, and its mean within instances.

    An instance has a rank where its teachers differ: the standard deviation of its exact credit over the teachers is above 1 % of the root
    mean square of all exact credit. Others are left out of the mean.
    """
    differ = exact.std(1) > 0.01 * np.sqrt(np.square(exact).mean())
    assert differ.mean() > 0.5, "most instances have a rank"
    within = [spearmanr(exact[b], estimate[b]).statistic for b in np.flatnonzero(differ)]
    return spearmanr(exact.ravel(), estimate.ravel()).statistic, np.mean(within)


def at_rate(selection, rate):
    """Credit of the response by each function when the next step has learning rate ``rate``."""
    students = selection.distillation.student
    students.options = dataclasses.replace(students.options, lr=rate)
    return {name: response(function, selection).numpy() for name, function in credit.CREDITS.items()}
