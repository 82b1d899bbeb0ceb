"""``population``: population-based training of a schedule of rules (Jaderberg et al. 2017, arXiv 1711.09846).

A population of students is taught side by side, each with its own hyper-parameters: a rule, a factor of the teachers' strengths, and a
factor of the temperature. Every ``interval`` updates all members are scored on held-out reward labels. Then each of the worst goes on from
the weights and the optimizer of one of the best (exploit), with changed hyper-parameters (explore). What the best member was taught with,
from the first update to the last, is a schedule. The final student is taught by that schedule from the start.

Half of the reward labels fit the rules that need labels while the population learns, and with ``reward_ce`` they are the labels that the
members are taught. The other half scores the members. In the end the rules are fitted again on all reward labels.

Deviations from the paper: all members begin with the weights of the final student and see its mini-batches, so that they differ by
their hyper-parameters alone; the first population has the rules in turn. All passes of the population are counted as the student's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.inner_policies import checked_rules, make_rule, rule_weights
from agents.saving import SavedAgent, Stateful
from agents.schedule import Hyperparameters, ScheduleEntry
from baselines.rule import WEIGHTS
from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext
from kd_env.policies.own_students import OwnStudents
from kd_env.policies.protocol import Rule
from kd_env.types import Decision, Observation

RULES = "uniform;self_stacking;router;stacking;singles"
BEST_FRACTION = 0.25
"""Part of the members that is replaced, and part from which the replacements are copied."""
STEPS = (0.8, 1.25)
"""Factors of a changed strength or temperature."""
MAX_FACTOR = 4.0
"""Largest factor by which strengths and temperature are multiplied or divided."""
MIN_MEMBERS = 8


class Population(SavedAgent):
    """Learns a schedule with students of its own in one episode, then teaches the final student by it.

    In the first episode the student of the environment is taught as the best member so far.
    """

    access = "reward labels"
    learns_from = "scores of its own students on reward labels"
    paper = "Jaderberg et al. 2017, arXiv 1711.09846"
    env_options: dict[str, Any] = WEIGHTS
    supports_population = False
    any_pool = True
    training_episodes = 1

    def __init__(
        self, context: PolicyContext, seed: int = 0, members: int = 0, interval: int = 100, rules: str = RULES, resample: float = 0.25
    ) -> None:
        """Make the first hyper-parameters.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: of the hyper-parameters and their changes, and of the rules.
            members: number of students in the population; 0 for one for each rule, and at least 8.
            interval: number of updates between two scores. If it is not below the updates of the run, no member is replaced.
            rules: names of rules that return weights of the teachers, separated by semicolons; ``singles`` is each teacher alone.
            resample: probability with which a copy gets another rule.

        Raises:
            InputError: a rule does not exist, or cannot be a member, or there are fewer than 2 reward labels.
        """
        spec.numbers("population", whole=True, least=0, members=members)
        spec.numbers("population", whole=True, least=1, interval=interval)
        spec.numbers("population", least=0, most=1, resample=resample)
        self.options = {"seed": seed, "members": members, "interval": interval, "rules": rules, "resample": resample}
        self.context, self.seed, self.interval, self.resample = context, seed, interval, resample
        context.require_own_students()
        self.names = checked_rules("population", rules, context)
        if members == 1:
            raise InputError("population: members=1; a population has at least 2 members, or 0 for one for each rule")
        members = members or max(len(self.names), MIN_MEMBERS)
        labelled = context.reward_positions
        if len(labelled) < 2:
            raise InputError(
                f"reward_labels={len(labelled)}: population fits rules and scores students on different labels; use at least 2"
            )
        self.fit_positions, self.score_positions = labelled[::2], labelled[1::2]  # the classes are spread evenly
        settings = context.settings.distillation
        self.varies_strength = settings.uses_hard_labels or settings.reward_ce > 0.0  # without another loss term it only scales the loss
        self.rng = np.random.default_rng(seed)
        self.rules: dict[tuple[str, bool], Rule] = {}
        self.lineages = [[ScheduleEntry(0.0, self._first_hyperparameters(member))] for member in range(members)]
        self.best = 0
        self.students: OwnStudents | None = None
        self.begin_episode(learning=True)

    @property
    def schedule(self) -> list[ScheduleEntry]:
        """What the best member was taught with."""
        return self.lineages[self.best]

    def begin_episode(self, learning: bool) -> None:
        """Begin with new students, or with ``learning=False`` with the schedule."""
        self.learning, self.students = learning, None
        if learning:  # the hyper-parameters of a saved population are the first of the next one
            self.lineages = [[ScheduleEntry(0.0, lineage[-1].hyperparameters)] for lineage in self.lineages]

    def act(self, observation: Observation) -> Decision:
        """Return how the student is taught; while the population learns, teach its members one mini-batch each."""
        batch = self.context.batch()
        progress = float(batch.progress[0])
        if self.learning:
            hyperparameters = self.schedule[-1].hyperparameters
            self._teach_members(int(batch.update[0]))
        else:
            hyperparameters = [entry for entry in self.schedule if entry.start <= progress][-1].hyperparameters
        return self._decision(self._weights(hyperparameters.rule, batch), [hyperparameters])

    def _new_students(self) -> OwnStudents:
        """Return students of the members, who are taught other labels than those that score them."""
        taught = np.tile(self.fit_positions, (len(self.lineages), 1))
        return self.context.own_students(len(self.lineages), self.seed, taught)

    def _teach_members(self, update: int) -> None:
        if self.students is None:
            self.students = self._new_students()
        of_members = [lineage[-1].hyperparameters for lineage in self.lineages]
        by_member: dict[int, Tensor] = {}
        for rule in dict.fromkeys(each.rule for each in of_members):
            taught = [member for member, each in enumerate(of_members) if each.rule == rule]
            by_member |= zip(taught, self._weights(rule, self.students.batch(taught)).chunk(len(taught)), strict=True)
        self.students.teach(self._decision(torch.cat([by_member[member] for member in range(len(of_members))]), of_members))
        done, budget = update + 1, self.context.settings.distillation.updates
        if done % self.interval == 0 or done == budget:
            scores = self.students.evaluate(self.score_positions)
            self.best = int(scores.argmax())
            if done < budget:
                self._exploit_and_explore(scores, done / budget)

    def _exploit_and_explore(self, scores: np.ndarray, progress: float) -> None:
        """Replace the worst members by changed copies of the best."""
        assert self.students is not None
        order, count = np.argsort(-scores, kind="stable"), max(int(BEST_FRACTION * len(scores)), 1)
        source = list(range(len(scores)))
        for worst in order[-count:].tolist():
            if scores[worst] < scores[order[0]]:
                source[worst] = int(self.rng.choice(order[:count]))
        self.students.continue_from(source)
        lineages = [self.lineages[origin] for origin in source]
        self.lineages = [
            lineage if origin == member else [*lineage, ScheduleEntry(progress, self._changed(lineage[-1].hyperparameters))]
            for member, (origin, lineage) in enumerate(zip(source, lineages, strict=True))
        ]

    def _first_hyperparameters(self, member: int) -> Hyperparameters:
        """Return the rules in turn. The first member of each rule has factors of 1."""
        hyperparameters = Hyperparameters(self.names[member % len(self.names)])
        return hyperparameters if member < len(self.names) else self._changed(hyperparameters, keep_rule=True)

    def _changed(self, hyperparameters: Hyperparameters, keep_rule: bool = False) -> Hyperparameters:
        others = [name for name in self.names if name != hyperparameters.rule]
        if not keep_rule and others and self.rng.random() < self.resample:
            hyperparameters = replace(hyperparameters, rule=others[int(self.rng.integers(len(others)))])
        factors = self.rng.choice(STEPS, 2)
        changed = factors * [hyperparameters.strength, hyperparameters.temperature]
        strength, temperature = np.clip(changed, 1.0 / MAX_FACTOR, MAX_FACTOR).tolist()
        return replace(hyperparameters, strength=strength if self.varies_strength else 1.0, temperature=temperature)

    def _rule(self, name: str, learning: bool) -> Rule:
        """Return a rule, fitted on half of the labels while the population learns, and on all labels afterwards."""
        if (name, learning) not in self.rules:
            context = self.context.with_reward_positions(self.fit_positions) if learning else self.context
            self.rules[name, learning] = make_rule(name, context, self.seed)
        return self.rules[name, learning]

    def _weights(self, name: str, batch: PolicyBatch) -> Tensor:
        """Return the weights of a rule for a mini-batch, ``[rows, K]``."""
        weights = rule_weights("population", name, self._rule(name, self.learning), batch)
        return weights.to(self.context.device, self.context.dtype)

    def _decision(self, weights: Tensor, hyperparameters: Sequence[Hyperparameters]) -> Decision:
        """Return the decision with ``weights [rows, K]`` and the factors of ``hyperparameters``, one for each part of the rows."""
        plain = self.context.decision(dict.fromkeys(self.context.terms, weights))
        strength: float | Tensor = hyperparameters[0].strength
        temperature: float | Tensor = hyperparameters[0].temperature
        if len(hyperparameters) > 1:
            rows = len(weights) // len(hyperparameters)
            strength, temperature = (
                torch.tensor([getattr(each, name) for each in hyperparameters]).repeat_interleave(rows).to(weights)
                for name in ("strength", "temperature")
            )
        strengths = {name: value if name == "label" else value * strength for name, value in plain.strengths.items()}
        return replace(plain, strengths=strengths, temperature=plain.temperature * temperature)

    def learned_summary(self) -> list[dict[str, Any]]:
        """Return the schedule for records."""
        return [{"start": entry.start, **asdict(entry.hyperparameters)} for entry in self.schedule]

    def state(self) -> dict[str, Any]:
        """Return hyper-parameters, students, rules and random state."""
        return {
            "lineages": [[{"start": entry.start, **asdict(entry.hyperparameters)} for entry in lineage] for lineage in self.lineages],
            "best": self.best,
            "learning": self.learning,
            "rng": self.rng.bit_generator.state,
            "rules": [[*key, rule.state()] for key, rule in self.rules.items() if isinstance(rule, Stateful)],
            "students": None if self.students is None else self.students.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.lineages = [[ScheduleEntry.of(**entry) for entry in lineage] for lineage in state["lineages"]]
        self.best, self.rng.bit_generator.state = state["best"], state["rng"]
        for name, learning, rule_state in state["rules"]:
            if isinstance(rule := self._rule(name, learning), Stateful):
                rule.load_state(rule_state)
        self.learning, self.students = state["learning"], None
        if state["students"] is not None:
            self.students = self._new_students()
            self.students.load_state(state["students"])
