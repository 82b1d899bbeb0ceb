"""``piloted``: tries a learner and rules on students of its own, then teaches by the one whose student was best.

Credit is about one update. A policy that earns more credit in every update can still end with the worse student: where teachers are too
certain, for instance, credit leads away from weights that teach better in the long run. So the policy first teaches one student on trial,
by its learner, and beside it students of its own, the pilots, which start from the same weights and see the same mini-batches. Each way to
teach has a pilot: the learner and each rule, and each of them with and without reward labels that teach by cross-entropy (``reward_ce``).
A score is the mean of the pilot's metric on the reward labels, measured five times in the last quarter of the trial. A way in which labels
teach has two pilots. Each is taught the labels of one half of the reward examples and scored on the other half. The student that counts is
then taught from the start by

    the learner with labels that teach, unless the best other way has  score - score_learner > margin * sqrt(p (1 - p) / n)

with p the learner's score limited to [0, 1] and n the number of reward labels. The learner begins again as it was before the trial. With
the setting ``reward_ce=0``, labels never teach.

This is model selection by held-out score; the use of pilots for it is our own. Where a rule is chosen, a supervised rule teaches the
student.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from agents import saving
from agents.crossfit_credit import CrossfitCredit
from agents.entropy import normalized_entropy
from agents.member_rules import checked_rules, make_rule, rule_weights
from agents.saving import Stateful
from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext, Transition, registry
from kd_env.policies.faults import faults_of
from kd_env.policies.own_students import OwnStudents
from kd_env.types import Decision, Observation

MEASUREMENTS = 5
"""Number of measurements of a score: the last is at the end of the trial, and they are a twentieth of the updates apart."""


class Way(NamedTuple):
    """A way to teach: by the learner (``rule`` is ``None``) or a rule, with or without reward labels that teach."""

    rule: int | None
    labels_teach: bool


class Pilot(NamedTuple):
    """A student that tries a way to teach, and the half of the reward labels that it is taught, if labels teach."""

    way: Way
    taught_half: int | None


class Piloted:
    """Tries, then teaches. The result is the student that is taught after the trial."""

    access = "reward labels"
    learns_from = "as its learner; and scores of its own students on reward labels"
    paper = ""
    any_student = True
    env_options: dict[str, Any] = {**CrossfitCredit.env_options, "reward_ce": 1.0}
    training_episodes = 1
    learns_on_the_last = True

    def __init__(
        self,
        context: PolicyContext,
        seed: int = 0,
        learner: str = "crossfit_credit",
        rules: str = "taught_stacking",
        margin: float = 0.5,
    ) -> None:
        """Fit the learner's start and the rules.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: of the learner, the rules and the pilots.
            learner: a policy with ``act``, ``update``, ``state`` and ``load_state``, and with ``weigh(batch)``, which returns the weights
                of the teachers ``[n, K]`` for a mini-batch of another student; options as in ``crossfit_credit(rate=1.0)``.
            rules: names of rules that return weights of the teachers, separated by semicolons.
            margin: lead that another way needs, in standard errors of a score.

        Raises:
            InputError: the learner cannot weigh mini-batches of other students, or a rule does not exist or cannot have a pilot; or there
                are too few labels.
        """
        spec.numbers("piloted", least=0, margin=margin)
        self.options = {"seed": seed, "learner": learner, "rules": rules, "margin": margin}
        self.context, self.seed, self.margin = context, seed, margin
        policy = registry.find(learner)
        for method in ("weigh", "act", "update", "state", "load_state"):
            if not callable(getattr(policy.make, method, None)):
                raise InputError(f"piloted: learner={learner!r} has no method {method}; use crossfit_credit, or add it to your class")
        self.learner = spec.call_plugin(f"policy {learner!r}", policy.make, policy.options, context, seed)
        self.names = checked_rules("piloted", rules, context)
        self.rules = [make_rule(name, context, seed) for name in self.names]
        labelled = context.reward_positions
        half = len(labelled) // 2
        if half == 0:
            raise InputError(f"reward_labels={len(labelled)}: piloted teaches pilots and scores them on different labels; use at least 2")
        self.halves = labelled[0 : 2 * half : 2], labelled[1 : 2 * half : 2]
        self.labels_may_teach = context.settings.distillation.reward_ce > 0.0
        by = [None, *range(len(self.rules))]
        self.ways = [Way(rule, teach) for teach in ([True, False] if self.labels_may_teach else [False]) for rule in by]
        self.crew = [Pilot(way, half) for way in self.ways for half in ((0, 1) if way.labels_teach else (None,))]
        self.on_trial = False
        self.scores, self.chosen = np.zeros(len(self.ways)), self.ways[0]
        self.pilots: OwnStudents | None = None
        self.learner_before = copy.deepcopy(self.learner.state())

    def begin_episode(self, learning: bool) -> None:
        """Begin a trial, or the student that counts after it. With ``learning=False``, begin a student that is taught as before."""
        self.pilots = None
        if not learning:
            return
        self.on_trial = not self.on_trial
        if self.on_trial:
            self.scores, self.chosen = np.zeros(len(self.ways)), self.ways[0]
            self.learner_before = copy.deepcopy(self.learner.state())
        else:
            self.learner.load_state(copy.deepcopy(self.learner_before))

    def act(self, observation: Observation) -> Decision:
        """Return the decision about the next mini-batch. On trial, also teach each pilot one mini-batch."""
        batch = self.context.batch()
        if self.on_trial:
            self._teach_pilots(int(batch.update[0]) + 1)
        if self.chosen.rule is None:
            with faults_of(self.learner, "act"):
                self._actions: np.ndarray = self.learner.act(observation)
            self._weights = self.context.action.decode(self._actions, self.context.num_envs).weights
        else:
            self._weights = self._weights_for(self.chosen.rule, batch).float().cpu().numpy()
        return self._decision([torch.from_numpy(self._weights).to(self.context.device, self.context.dtype)], [self.chosen])

    def update(self, transition: Transition) -> None:
        """Let the learner learn from the credit of the step."""
        if self.chosen.rule is None:
            with faults_of(self.learner, "update"):
                self.learner.update(replace(transition, action=self._actions))

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy over ln K of the weights that :meth:`act` returned last, ``[num_envs]``."""
        return normalized_entropy(self._weights)

    def _teach_pilots(self, update: int) -> None:
        """Teach the pilots their mini-batches number ``update``, and score them at the end of the trial."""
        if self.pilots is None:
            self.pilots = self._new_pilots()
        weights: dict[int, Tensor] = {}  # by number of the pilot, [B, K]
        for rule in (None, *range(len(self.rules))):
            numbers = [number for number, pilot in enumerate(self.crew) if pilot.way.rule == rule]
            of_rule = self._weights_for(rule, self.pilots.batch(numbers))
            weights.update(zip(numbers, of_rule.chunk(len(numbers)), strict=True))
        self.pilots.teach(self._decision([weights[number] for number in range(len(self.crew))], [pilot.way for pilot in self.crew]))
        updates = self.context.settings.distillation.updates
        remaining, interval = updates - update, max(updates // 20, 1)
        if remaining % interval == 0 and remaining < MEASUREMENTS * interval:
            self.scores += self._measured() / min(MEASUREMENTS, updates)
        if remaining == 0:
            self._choose()

    def _new_pilots(self) -> OwnStudents:
        taught = np.stack([self.halves[pilot.taught_half or 0] for pilot in self.crew])
        return self.context.own_students(len(self.crew), self.seed, taught)

    def _measured(self) -> np.ndarray:
        """Return the metric of each way to teach, on labels that its pilots were not taught."""
        assert self.pilots is not None
        metrics: dict[Way, list[float]] = {way: [] for way in self.ways}
        for half, positions in enumerate(self.halves):
            for pilot, metric in zip(self.crew, self.pilots.evaluate(positions), strict=True):
                if pilot.taught_half != half:
                    metrics[pilot.way].append(metric)
        return np.array([np.mean(of_way) for of_way in metrics.values()])

    def _weights_for(self, rule: int | None, batch: PolicyBatch) -> Tensor:
        """Return the weights of a rule, or of the learner, for a mini-batch, ``[n, K]``."""
        if rule is None:
            with faults_of(self.learner, "weigh"):
                weights = self.learner.weigh(batch)
        else:
            weights = rule_weights("piloted", self.names[rule], self.rules[rule], batch)
        return torch.as_tensor(weights).to(self.context.device, self.context.dtype)

    def _decision(self, weights: list[Tensor], ways: list[Way]) -> Decision:
        """Return the decision about the mini-batches of several students, which have weights ``[n, K]`` each."""
        factors: dict[str, float | Tensor] = {}
        if self.labels_may_teach:
            teach = torch.tensor([float(way.labels_teach) for way in ways], device=self.context.device, dtype=self.context.dtype)
            factors["reward_ce"] = teach.repeat_interleave(len(weights[0]))
        return self.context.decision(dict.fromkeys(self.context.terms, torch.cat(weights)), factors)

    def _choose(self) -> None:
        expected = float(np.clip(self.scores[0], 0.0, 1.0))
        lead = self.margin * (expected * (1.0 - expected) / (2 * len(self.halves[0]))) ** 0.5
        best = int(self.scores.argmax())
        self.chosen = self.ways[best if self.scores[best] > self.scores[0] + lead else 0]

    def learned_summary(self) -> dict[str, Any]:
        """Return what was chosen, and the scores of the ways, for records; the score of a pilot that diverged is ``None``."""
        names = {way: self.options["learner"] if way.rule is None else self.names[way.rule] for way in self.ways}
        if self.labels_may_teach:
            names = {way: f"{name} {'and' if way.labels_teach else 'without'} labels" for way, name in names.items()}
        scores = {names[way]: float(score) if np.isfinite(score) else None for way, score in zip(self.ways, self.scores, strict=True)}
        return {"chosen": names[self.chosen], "scores": scores}

    def state(self) -> dict[str, Any]:
        """Return learner, rules, pilots and scores."""
        return {
            "learner": self.learner.state(),
            "learner_before": self.learner_before,
            "rules": [rule.state() if isinstance(rule, Stateful) else None for rule in self.rules],
            "pilots": None if self.pilots is None else self.pilots.state(),
            "on_trial": self.on_trial,
            "scores": self.scores,
            "chosen": self.ways.index(self.chosen),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.learner.load_state(state["learner"])
        self.learner_before = state["learner_before"]
        for rule, value in zip(self.rules, state["rules"], strict=True):
            if isinstance(rule, Stateful):
                rule.load_state(value)
        self.pilots = None
        if state["pilots"] is not None:
            self.pilots = self._new_pilots()
            self.pilots.load_state(state["pilots"])
        self.on_trial, self.scores, self.chosen = state["on_trial"], np.asarray(state["scores"]), self.ways[state["chosen"]]

    def save(self, path: str) -> None:
        """Write the agent to a file."""
        saving.save(path, self)

    @classmethod
    def load(cls, path: str, context: PolicyContext) -> Self:
        """Read an agent."""
        return saving.load(path, cls, context)
