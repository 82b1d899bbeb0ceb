"""``piloted``: teaches by a learner, or by a rule while a student that the rule has taught is ahead.

Credit is about one update. A policy that earns more credit in every update can still end with the worse student: where teachers are too
certain, for instance, credit leads away from weights that teach better in the long run. So the policy has students of its own, the pilots,
which show what each way to teach leads to. One is taught by the learner and one by each rule, from the same first weights and on the same
mini-batches:

    score_j <- 0.5 score_j + 0.5 metric_j                              ``checks`` times in a run, on the reward labels
    leader   = the learner, unless the best rule has score_rule - score_learner > margin * sqrt(p (1 - p) / n)

with p the learner's score limited to [0, 1] and n the number of labels. The student that counts is taught by the leader until the next
check. The learner learns from the credit of that student in any case. With ``reward_ce``, the pilots are taught the labels of one half of
the reward examples and are scored on the other half.

After racing (Maron and Moore 1994, *Hoeffding Races*), which compares candidates on held-out examples while they run. The method is our
own. It gains from the reward what a rule gives by supervision, where the rule is better than the learner.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from agents import saving
from agents.crossfit_credit import CrossfitCredit
from agents.entropy import normalized_entropy
from agents.saving import Stateful
from agents.schedule import checked_rules, rule_weights
from kd_env import spec
from kd_env.envs.actions import from_weights
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext, Transition, registry
from kd_env.policies.own_students import OwnStudents
from kd_env.types import Observation

KEEP = 0.5
"""Weight of the earlier scores in a score."""


class Piloted:
    """Learns while it teaches. The result is the student that the run trains."""

    access = "reward labels"
    learns_from = "as its learner; and scores of its own students on reward labels"
    paper = ""
    any_student = True
    env_options: dict[str, Any] = CrossfitCredit.env_options

    def __init__(
        self,
        context: PolicyContext,
        seed: int = 0,
        learner: str = "crossfit_credit",
        rules: str = "taught_stacking",
        margin: float = 0.5,
        checks: int = 20,
    ) -> None:
        """Fit the learner's start and the rules.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: of the learner, the rules and the pilots.
            learner: a policy with a method ``weigh(batch)``; options as in ``crossfit_credit(rate=1.0)``.
            rules: names of rules that return weights of the teachers, separated by semicolons.
            margin: lead that a rule needs, in standard errors of a score.
            checks: number of times in a run that the pilots are scored.

        Raises:
            InputError: the learner cannot weigh mini-batches of other students, or a rule does not exist or cannot have a pilot.
        """
        spec.numbers("piloted", least=0, margin=margin)
        spec.numbers("piloted", whole=True, least=1, checks=checks)
        self.options = {"seed": seed, "learner": learner, "rules": rules, "margin": margin, "checks": checks}
        self.context, self.seed, self.margin, self.checks = context, seed, margin, checks
        policy = registry.find(learner)
        if not callable(getattr(policy.make, "weigh", None)):
            raise InputError(f"piloted: learner={learner!r} has no method weigh(batch); use crossfit_credit")
        self.learner = spec.call_plugin(f"policy {learner!r}", policy.make, policy.options, context, seed)
        self.names = checked_rules("piloted", rules, context.num_teachers)
        rule_policies = [registry.find(name) for name in self.names]
        self.rules = [spec.call_plugin(f"policy {policy.name!r}", policy.make, policy.options, context, seed) for policy in rule_policies]
        rows = context.reward_rows
        taught_labels = context.settings.distillation.reward_ce > 0.0
        if taught_labels and len(rows) < 2:
            raise InputError(f"reward_labels={len(rows)}: piloted teaches pilots and scores them on different labels; use at least 2")
        self.fit_rows, self.score_rows = (rows[::2], rows[1::2]) if taught_labels else (rows, rows)
        self.begin_episode(learning=True)

    def begin_episode(self, learning: bool) -> None:
        """Begin with new pilots. The learner keeps what it has learned."""
        self.pilots: OwnStudents | None = None
        self.scores = np.zeros(0)
        self.leader = 0
        self.history: list[dict[str, Any]] = []

    def act(self, observation: Observation) -> np.ndarray:
        """Return the weights of all slots as actions, and teach each pilot one mini-batch."""
        update = int(self.context.batch().update[0])
        self._teach_pilots()
        updates = self.context.settings.distillation.updates
        if (update + 1) * self.checks // updates > update * self.checks // updates:
            self._check((update + 1) / updates)
        self._actions: np.ndarray = self.learner.act(observation)  # also when a rule leads: then update() has what it needs
        if self.leader:
            weights = self._rule_weights(self.leader - 1, self.context.batch())
            self._actions = from_weights(weights.float().cpu().numpy())
        return self._actions

    def update(self, transition: Transition) -> None:
        """Let the learner learn from the credit of the step."""
        self.learner.update(transition)

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy over ln K of the weights that :meth:`act` returned last, ``[num_envs]``."""
        return normalized_entropy(self.context.action.decode(self._actions, len(self._actions)).weights)

    def _teach_pilots(self) -> None:
        if self.pilots is None:
            self.pilots = self._new_pilots()
        of_learner = torch.from_numpy(self.learner.weigh(self.pilots.batch([0]))).to(self.context.device, self.context.dtype)
        of_rules = [self._rule_weights(rule, self.pilots.batch([rule + 1])) for rule in range(len(self.rules))]
        self.pilots.teach(self.context.decision(dict.fromkeys(self.context.terms, torch.cat([of_learner, *of_rules]))))

    def _new_pilots(self) -> OwnStudents:
        return self.context.with_reward_rows(self.fit_rows).own_students(1 + len(self.rules), self.seed)

    def _rule_weights(self, rule: int, batch: PolicyBatch) -> Tensor:
        weights = rule_weights("piloted", self.names[rule], self.rules[rule], batch)
        return weights.to(self.context.device, self.context.dtype)

    def _check(self, progress: float) -> None:
        """Score the pilots and choose the leader."""
        assert self.pilots is not None
        metrics = self.pilots.evaluate(self.score_rows)
        self.scores = KEEP * self.scores + (1.0 - KEEP) * metrics if len(self.scores) else metrics
        expected = float(np.clip(self.scores[0], 0.0, 1.0))
        lead = self.margin * (expected * (1.0 - expected) / len(self.score_rows)) ** 0.5
        best = 1 + int(self.scores[1:].argmax())
        self.leader = best if self.scores[best] > self.scores[0] + lead else 0
        name = self.names[self.leader - 1] if self.leader else "learner"
        self.history.append({"progress": progress, "leader": name, "metrics": [float(m) if np.isfinite(m) else None for m in metrics]})

    def learned_summary(self) -> list[dict[str, Any]]:
        """Return leader and metrics of the pilots (learner, then rules) at every check, for records."""
        return self.history

    def state(self) -> dict[str, Any]:
        """Return learner, rules, pilots and scores."""
        return {
            "learner": self.learner.state(),
            "rules": [rule.state() if isinstance(rule, Stateful) else None for rule in self.rules],
            "pilots": None if self.pilots is None else self.pilots.state(),
            "scores": self.scores,
            "leader": self.leader,
            "history": self.history,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.learner.load_state(state["learner"])
        for rule, value in zip(self.rules, state["rules"], strict=True):
            if isinstance(rule, Stateful):
                rule.load_state(value)
        self.pilots = None
        if state["pilots"] is not None:
            self.pilots = self._new_pilots()
            self.pilots.load_state(state["pilots"])
        self.scores, self.leader, self.history = np.asarray(state["scores"]), state["leader"], state["history"]

    def save(self, path: str) -> None:
        """Write the agent to a file."""
        saving.save(path, self)

    @classmethod
    def load(cls, path: str, context: PolicyContext) -> Self:
        """Read an agent."""
        return saving.load(path, cls, context)
