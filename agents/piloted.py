"""``piloted``: tries ways to teach on students of its own, then teaches in the best one.

Credit is about one update. A policy that earns more credit in every update can still end with the worse student. So the policy first tries
several candidates: the learner and each rule, with and without reward labels that also teach by cross-entropy (``reward_ce``), and these
labels without teachers. In this pilot phase the learner teaches one student. Beside it the policy teaches students of its own, the pilots,
from equal first weights and on the same mini-batches. A candidate without labels has one pilot, scored on both halves of the reward
labels. A candidate with labels has two pilots: each is taught one half and scored on the other. A score is the mean of five measurements
in the last quarter of the phase. The final student is then taught by the candidate with the largest

    score - lead,    lead = margin * sqrt(p (1 - p) / n)

with p the score of the learner with labels, limited to [0, 1], and n the number of labels in both halves. The lead is 0 for the learner
with labels, and for labels alone: their pilots have only half of the labels, and a student without teachers loses more by that.
This is model selection by held-out score; the use of pilots for it is our own. If a rule is chosen, the gain is that of a supervised rule.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.candidates import Candidate, all_candidates, factors_of, pilots_of
from agents.crossfit_credit import CrossfitCredit
from agents.entropy import normalized_entropy
from agents.inner_policies import checked_rules, make_learner, make_rule, rule_weights
from agents.saving import SavedAgent, Stateful
from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext, Transition
from kd_env.policies.faults import faults_of
from kd_env.policies.own_students import OwnStudents
from kd_env.types import Decision, Observation

MEASUREMENTS = 5
"""Number of measurements of a score: the last is at the end of the pilot phase, and they are a twentieth of the updates apart."""


class Piloted(SavedAgent):
    """Tries, then teaches. The result is the student that is taught after the pilot phase."""

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
        rules: str = "taught_stacking;stacking(sharpness=30)",
        margin: float = 0.5,
    ) -> None:
        """Fit the learner's start and the rules.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: of the learner, the rules and the pilots.
            learner: a policy with ``act``, ``update``, ``state`` and ``load_state``, and with ``weigh(batch)``, which returns the weights
                of the teachers ``[n, K]`` for a mini-batch of another student; options as in ``crossfit_credit(rate=1.0)``.
            rules: names of rules that return weights of the teachers, separated by semicolons.
            margin: lead that another candidate needs, in standard errors of a score.

        Raises:
            InputError: the learner cannot weigh mini-batches of other students, or a rule cannot have a pilot, or labels are too few.
        """
        spec.numbers("piloted", least=0, margin=margin)
        self.options = {"seed": seed, "learner": learner, "rules": rules, "margin": margin}
        self.context, self.seed, self.margin = context, seed, margin
        context.require_own_students()
        self.learner = make_learner("piloted", learner, context, seed)
        rule_names = checked_rules("piloted", rules, context)
        self.rules = [make_rule(name, context, seed) for name in rule_names]
        labelled = context.reward_positions
        half_size = len(labelled) // 2
        if half_size == 0:
            raise InputError(f"reward_labels={len(labelled)}: piloted teaches pilots and scores them on different labels; use at least 2")
        self.halves = labelled[0 : 2 * half_size : 2], labelled[1 : 2 * half_size : 2]
        self.labels_may_teach = context.settings.distillation.reward_ce > 0.0
        self.decider_names: dict[int | None, str] = {None: learner, **dict(enumerate(rule_names))}  # by number of the rule
        self.candidates = all_candidates(self.decider_names, self.labels_may_teach)
        self.pilots = pilots_of(self.candidates)
        self.in_pilot_phase = False
        self.measured_scores: list[np.ndarray] = []  # of each measurement, a score of each candidate
        self.chosen = self.candidates[0]
        self.pilot_students: OwnStudents | None = None
        self.learner_before = copy.deepcopy(self.learner.state())

    def begin_episode(self, learning: bool) -> None:
        """Begin the pilot phase, or the final student after it. With ``learning=False``, begin a student that is taught as before."""
        self.pilot_students = None
        if not learning:
            return
        self.in_pilot_phase = not self.in_pilot_phase
        if self.in_pilot_phase:
            self.measured_scores, self.chosen = [], self.candidates[0]
            self.learner_before = copy.deepcopy(self.learner.state())
        else:
            self.learner.load_state(copy.deepcopy(self.learner_before))

    def act(self, observation: Observation) -> Decision:
        """Return the decision about the next mini-batch. In the pilot phase, also teach each pilot one mini-batch."""
        batch, chosen = self.context.batch(), self.chosen
        if self.in_pilot_phase:
            self._teach_pilots(int(batch.update[0]) + 1)  # with the last update of the pilot phase, it chooses
        if chosen.rule is None:
            with faults_of(self.learner, "act"):
                self._actions: np.ndarray = self.learner.act(observation)
            self._weights = self.context.action.decode(self._actions, self.context.num_envs).weights
        elif not chosen.teachers_teach:
            self._weights = np.zeros((self.context.num_envs, self.context.num_teachers), np.float32)
        else:
            self._weights = self._weights_for(chosen.rule, batch).float().cpu().numpy()
        return self._decision([torch.from_numpy(self._weights).to(self.context.device, self.context.dtype)], [chosen])

    def update(self, transition: Transition) -> None:
        """Let the learner learn from the credit of the step."""
        if self.in_pilot_phase or self.chosen.rule is None:
            with faults_of(self.learner, "update"):
                self.learner.update(replace(transition, action=self._actions))

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy over ln K of the weights that :meth:`act` returned last, ``[num_envs]``."""
        return normalized_entropy(self._weights)

    def _teach_pilots(self, update: int) -> None:
        """Teach the pilots their mini-batches number ``update``, and score them at the end of the pilot phase."""
        if self.pilot_students is None:
            self.pilot_students = self._new_pilots()
        candidates = [pilot.candidate for pilot in self.pilots]
        weights: dict[int, Tensor] = {}  # by number of the pilot, [B, K]
        for rule in self.decider_names:
            numbers = [number for number, candidate in enumerate(candidates) if candidate.rule == rule]
            of_rule = self._weights_for(rule, self.pilot_students.batch(numbers))
            weights.update(zip(numbers, of_rule.chunk(len(numbers)), strict=True))
        self.pilot_students.teach(self._decision([weights[number] for number in range(len(candidates))], candidates))
        updates = self.context.settings.distillation.updates
        remaining, interval = updates - update, max(updates // 20, 1)
        if remaining % interval == 0 and remaining < MEASUREMENTS * interval:
            self.measured_scores.append(self._current_scores())
        if remaining == 0:
            self._choose()

    def _new_pilots(self) -> OwnStudents:
        taught = np.stack([self.halves[pilot.taught_half or 0] for pilot in self.pilots])  # ``None``: any half, of strength 0
        return self.context.own_students(len(self.pilots), self.seed, taught)

    def _current_scores(self) -> np.ndarray:
        """Return the metric of each candidate, on labels that its pilots were not taught."""
        assert self.pilot_students is not None
        metrics: dict[Candidate, list[float]] = {candidate: [] for candidate in self.candidates}
        for half, positions in enumerate(self.halves):
            for pilot, metric in zip(self.pilots, self.pilot_students.evaluate(positions), strict=True):
                if pilot.taught_half != half:
                    metrics[pilot.candidate].append(metric)
        return np.array([np.mean(of_candidate) for of_candidate in metrics.values()])

    def _weights_for(self, rule: int | None, batch: PolicyBatch) -> Tensor:
        """Return the weights of a rule, or of the learner, for a mini-batch, ``[n, K]``."""
        if rule is None:
            with faults_of(self.learner, "weigh"):
                weights = self.learner.weigh(batch)
        else:
            weights = rule_weights("piloted", self.decider_names[rule], self.rules[rule], batch)
        return torch.as_tensor(weights).to(self.context.device, self.context.dtype)

    def _decision(self, weights: list[Tensor], candidates: list[Candidate]) -> Decision:
        """Return the decision about the mini-batches of several students, which have weights ``[n, K]`` each."""
        factors = factors_of(candidates, self.context.terms, self.labels_may_teach, weights[0])
        return self.context.decision(dict.fromkeys(self.context.terms, torch.cat(weights)), factors)

    @property
    def scores(self) -> np.ndarray:
        """Mean score of each candidate: nan before the first measurement, minus infinity if a pilot diverged."""
        if not self.measured_scores:
            return np.full(len(self.candidates), np.nan)
        mean: np.ndarray = np.sum(np.stack(self.measured_scores) / len(self.measured_scores), axis=0)
        return mean

    def _choose(self) -> None:
        scores = self.scores
        expected = float(np.clip(scores[0], 0.0, 1.0))
        lead = self.margin * (expected * (1.0 - expected) / sum(len(half) for half in self.halves)) ** 0.5
        leads = np.array([lead if candidate.teachers_teach else 0.0 for candidate in self.candidates])
        leads[0] = 0.0
        self.chosen = self.candidates[int((scores - leads).argmax())]  # of equal ones the first

    def learned_summary(self) -> dict[str, Any]:
        """Return the candidate that was chosen and all scores, for records; a score that is not a number is ``None``."""
        scores = zip(self.candidates, self.scores, strict=True)
        by_name = {candidate.name: float(score) if np.isfinite(score) else None for candidate, score in scores}
        return {"chosen": self.chosen.name, "scores": by_name}

    def state(self) -> dict[str, Any]:
        """Return learner, rules, pilots and scores."""
        return {
            "learner": self.learner.state(),
            "learner_before": self.learner_before,
            "rules": [rule.state() if isinstance(rule, Stateful) else None for rule in self.rules],
            "pilots": None if self.pilot_students is None else self.pilot_students.state(),
            "in_pilot_phase": self.in_pilot_phase,
            "measured_scores": list(self.measured_scores),
            "chosen": self.chosen.name,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned.

        Raises:
            InputError: it was saved with other candidates, or by an earlier version.
        """
        by_name = {candidate.name: candidate for candidate in self.candidates}
        measured_scores = state.get("measured_scores")
        if state["chosen"] not in by_name or measured_scores is None or any(len(scores) != len(by_name) for scores in measured_scores):
            raise InputError(
                f"piloted: it was saved with other candidates than {', '.join(by_name)}; use the same learner, rules and reward_ce, "
                "or begin again if another version of kd-env saved it"
            )
        self.learner.load_state(state["learner"])
        self.learner_before = state["learner_before"]
        for rule, value in zip(self.rules, state["rules"], strict=True):
            if isinstance(rule, Stateful):
                rule.load_state(value)
        self.pilot_students = None
        if state["pilots"] is not None:
            self.pilot_students = self._new_pilots()
            self.pilot_students.load_state(state["pilots"])
        self.in_pilot_phase, self.chosen = state["in_pilot_phase"], by_name[state["chosen"]]
        self.measured_scores = [np.asarray(scores) for scores in measured_scores]
