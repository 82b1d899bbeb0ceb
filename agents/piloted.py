"""``piloted``: tries a learner and rules on students of its own, then teaches by the one whose student was best.

Credit is about one update. A policy that earns more credit in every update can still end with the worse student: where teachers are too
certain, for instance, credit leads away from weights that teach better in the long run. So the policy first teaches one student on trial,
by its learner, and beside it students of its own, the pilots. One is taught by the learner and one by each rule, from the same first
weights and on the same mini-batches. Each score is the mean of the pilot's metric on the reward labels, measured five times in the last
quarter of the trial. The student that counts is then taught from the start by

    the learner, unless the best rule has score_rule - score_learner > margin * sqrt(p (1 - p) / n)

with p the learner's score limited to [0, 1] and n the number of labels that score. The learner begins again as it was before the trial.
With ``reward_ce``, the pilots are taught the labels of one half of the reward examples and are scored on the other half.

This is model selection by held-out score; the use of pilots for it is our own. Where a rule is chosen, a supervised rule teaches the
student.
"""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from agents import saving
from agents.crossfit_credit import CrossfitCredit
from agents.entropy import normalized_entropy
from agents.member_rules import checked_rules, make_rule, rule_weights
from agents.saving import Stateful
from kd_env import spec
from kd_env.envs.actions import from_weights
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext, Transition, registry
from kd_env.policies.faults import faults_of
from kd_env.policies.own_students import OwnStudents
from kd_env.types import Observation

MEASUREMENTS = 5
"""Number of measurements of a score: the last is at the end of the trial, and they are a twentieth of the updates apart."""


class Piloted:
    """Tries, then teaches. The result is the student that is taught after the trial."""

    access = "reward labels"
    learns_from = "as its learner; and scores of its own students on reward labels"
    paper = ""
    any_student = True
    env_options: dict[str, Any] = CrossfitCredit.env_options
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
            margin: lead that a rule needs, in standard errors of a score.

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
        teaches_labels = context.settings.distillation.reward_ce > 0.0
        if teaches_labels and len(labelled) < 2:
            raise InputError(f"reward_labels={len(labelled)}: piloted teaches pilots and scores them on different labels; use at least 2")
        self.taught_positions, self.score_positions = (labelled[::2], labelled[1::2]) if teaches_labels else (labelled, labelled)
        self.on_trial = False
        self.scores = np.zeros(1 + len(self.rules))
        self.chosen_rule: int | None = None
        self.pilots: OwnStudents | None = None
        self.learner_before = copy.deepcopy(self.learner.state())

    def begin_episode(self, learning: bool) -> None:
        """Begin a trial, or the student that counts after it. With ``learning=False``, begin a student that is taught as before."""
        self.pilots = None
        if not learning:
            return
        self.on_trial = not self.on_trial
        if self.on_trial:
            self.scores, self.chosen_rule = np.zeros(1 + len(self.rules)), None
            self.learner_before = copy.deepcopy(self.learner.state())
        else:
            self.learner.load_state(copy.deepcopy(self.learner_before))

    def act(self, observation: Observation) -> np.ndarray:
        """Return the weights of all slots as actions. On trial, also teach each pilot one mini-batch."""
        batch = self.context.batch()
        if self.on_trial:
            self._teach_pilots(int(batch.update[0]) + 1)
        if self.on_trial or self.chosen_rule is None:
            with faults_of(self.learner, "act"):
                self._actions: np.ndarray = self.learner.act(observation)
        else:
            self._actions = from_weights(self._rule_weights(self.chosen_rule, batch).float().cpu().numpy())
        return self._actions

    def update(self, transition: Transition) -> None:
        """Let the learner learn from the credit of the step."""
        if self.on_trial or self.chosen_rule is None:
            with faults_of(self.learner, "update"):
                self.learner.update(transition)

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy over ln K of the weights that :meth:`act` returned last, ``[num_envs]``."""
        return normalized_entropy(self.context.action.decode(self._actions, len(self._actions)).weights)

    def _teach_pilots(self, update: int) -> None:
        """Teach the pilots their mini-batches number ``update``, and score them at the end of the trial."""
        if self.pilots is None:
            self.pilots = self._new_pilots()
        with faults_of(self.learner, "weigh"):
            of_learner = torch.as_tensor(self.learner.weigh(self.pilots.batch([0]))).to(self.context.device, self.context.dtype)
        of_rules = [self._rule_weights(rule, self.pilots.batch([rule + 1])) for rule in range(len(self.rules))]
        self.pilots.teach(self.context.decision(dict.fromkeys(self.context.terms, torch.cat([of_learner, *of_rules]))))
        updates = self.context.settings.distillation.updates
        remaining, interval = updates - update, max(updates // 20, 1)
        if remaining % interval == 0 and remaining < MEASUREMENTS * interval:
            self.scores += self.pilots.evaluate(self.score_positions) / min(MEASUREMENTS, updates)
        if remaining == 0:
            self._choose()

    def _new_pilots(self) -> OwnStudents:
        return self.context.with_reward_positions(self.taught_positions).own_students(1 + len(self.rules), self.seed)

    def _rule_weights(self, rule: int, batch: PolicyBatch) -> Tensor:
        weights = rule_weights("piloted", self.names[rule], self.rules[rule], batch)
        return weights.to(self.context.device, self.context.dtype)

    def _choose(self) -> None:
        expected = float(np.clip(self.scores[0], 0.0, 1.0))
        lead = self.margin * (expected * (1.0 - expected) / len(self.score_positions)) ** 0.5
        best = int(self.scores[1:].argmax())
        self.chosen_rule = best if self.scores[1 + best] > self.scores[0] + lead else None

    def learned_summary(self) -> dict[str, Any]:
        """Return what was chosen, and the scores of the pilots, for records; the score of a pilot that diverged is ``None``."""
        names = [self.options["learner"], *self.names]
        scores = {name: float(score) if np.isfinite(score) else None for name, score in zip(names, self.scores, strict=True)}
        return {"chosen": names[0 if self.chosen_rule is None else 1 + self.chosen_rule], "scores": scores}

    def state(self) -> dict[str, Any]:
        """Return learner, rules, pilots and scores."""
        return {
            "learner": self.learner.state(),
            "learner_before": self.learner_before,
            "rules": [rule.state() if isinstance(rule, Stateful) else None for rule in self.rules],
            "pilots": None if self.pilots is None else self.pilots.state(),
            "on_trial": self.on_trial,
            "scores": self.scores,
            "chosen_rule": self.chosen_rule,
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
        self.on_trial, self.scores, self.chosen_rule = state["on_trial"], np.asarray(state["scores"]), state["chosen_rule"]

    def save(self, path: str) -> None:
        """Write the agent to a file."""
        saving.save(path, self)

    @classmethod
    def load(cls, path: str, context: PolicyContext) -> Self:
        """Read an agent."""
        return saving.load(path, cls, context)
