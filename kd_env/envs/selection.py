"""Selection as rows: what every environment of this package shows, one object under all of their views.

In: an action for each row (an instance of a student's mini-batch, or a student), or a whole decision. Out: observation, reward and info
of each row.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from kd_env.distillation import Distillation, EncodedTask
from kd_env.distillation.settings import Settings
from kd_env.envs import actions, credit, credit_rewards, decisions, observations
from kd_env.envs.actions import ActionLayout, DecodedAction
from kd_env.envs.credit import CreditOfTypes
from kd_env.envs.rewards import REWARDS, StepRecord, hard_exploration, soft_exploration
from kd_env.envs.step import Step, joined
from kd_env.knowledge import label, response
from kd_env.knowledge.peers import require_peers
from kd_env.knowledge.terms import parse_terms
from kd_env.teachers import Pool
from kd_env.types import Batch, Decision, Observation

DIVERGED_REWARD = -10.0
"""Paid once to every row of a student that diverges; finite, and far below what an update loses in held-out loss."""


class Selection:
    """Distillation behind observations, actions and rewards.

    A row is an instance (``granularity="instance"``: S * B rows) or a student (``"batch"``: S rows).
    """

    def __init__(self, data: EncodedTask, pool: Pool, settings: Settings, label_seeds: Sequence[int] | None = None) -> None:
        """Take the shared material; :meth:`begin` starts a run.

        Raises:
            InputError: a lone student with knowledge that asks peers.
        """
        self.data, self.pool, self.settings, self.label_seeds = data, pool, settings, label_seeds
        self.rows = settings.num_students * (settings.batch_size if settings.granularity == "instance" else 1)
        kinds = {term.name: term.kind for term in parse_terms(settings.knowledge)}
        require_peers(kinds, settings.num_students)
        names = tuple(kinds)
        gated = (*names, "label") if settings.kd_weight < 1.0 else names
        self.layout = ActionLayout(len(pool.teachers), gated, actions.parse_factors(settings.factors))
        self.distillation = Distillation(data, settings, 0, label_seeds)
        self.finished: list[Distillation | None] = [None] * settings.num_students
        self.listeners: list[Callable[[Step], None]] = []

    @property
    def num_teachers(self) -> int:
        """K."""
        return len(self.pool.teachers)

    @property
    def num_students(self) -> int:
        """S."""
        return self.settings.num_students

    def fork(self) -> Selection:
        """An independent copy in the same state; material and pool are shared, listeners stay behind."""
        twin = copy.copy(self)
        twin.distillation, twin.finished, twin.listeners = self.distillation.fork(), list(self.finished), []
        return twin

    def begin(self, seed: int | Sequence[int]) -> None:
        """Start new students, student s from ``seed + s`` or ``seed[s]``; finished ones stay in ``finished``."""
        self.distillation = Distillation(self.data, self.settings, seed, self.label_seeds)

    def observation(self) -> Observation:
        """Blocks ``[rows, F]`` of the mini-batches that the students see next."""
        seen = observations.observe(self.distillation.observe(), self.settings.observation, self.settings.observe_labels)
        if self.rows == len(seen["progress"]):
            return seen
        return {name: block.reshape(self.rows, -1, block.shape[1]).mean(1) for name, block in seen.items()}

    def advance(self, action: np.ndarray | Decision, active: np.ndarray | None = None) -> Step:
        """Teach as ``action`` says (``rows`` actions), ``updates_per_phase`` mini-batches of each ``active`` student, and pay for it.

        The step returned is the last update's; its rewards and their terms are the phase's sums, its measurements those of the phase.

        Args:
            action: or the decision itself, of ``S * B`` rows, for one update.

        Raises:
            InputError: the action is not in the space, or the decision does not fit the setting.
        """
        active = ~self.distillation.done if active is None else active & ~self.distillation.done
        if isinstance(action, Decision):
            return self._update(decisions.shown(self, action), active, None, action)
        choice = actions.decode(self.settings.action, action, self.layout, self.rows)
        bonus = self._exploration(choice)
        step = self._update(choice, active, bonus)
        for _ in range(self.settings.updates_per_phase - 1):
            going = active & ~self.distillation.done
            if not going.any():
                break
            step = joined(step, self._update(choice, going, None))
        return step

    def _update(self, choice: DecodedAction, active: np.ndarray, bonus: np.ndarray | None, given_decision: Decision | None = None) -> Step:
        run, options = self.distillation, self.settings
        features = run.observe()
        decision = self.decision(choice) if given_decision is None else given_decision
        weights = self._instances(choice.weights)
        given = credit.CREDITS[options.credit](run, self._credit_names(), decision.temperature) if options.credit != "shared" else None
        outcome = run.apply(decision, active)
        shown: dict[str, Tensor] = {}
        if given is None:
            paid = REWARDS[options.reward](self._record(features, decision, outcome.improvement))
        else:
            paid, shown = self._credited(given, decision, choice)
        rewards, credits = self._per_row(paid), {name: self._per_row(one) for name, one in shown.items()}
        terms: dict[str, np.ndarray] = {}
        if options.teacher_cost > 0.0 or options.action == "joint":
            terms["teacher_calls"] = self._per_row(torch.from_numpy(np.count_nonzero(choice.weights, axis=1)))
            rewards = rewards - options.teacher_cost * terms["teacher_calls"]
        if bonus is not None:
            terms["exploration"] = bonus
            rewards = rewards + bonus
        metric, healthy = self._validate(active)
        run.diverged |= active & ~(healthy & np.isfinite(rewards.reshape(self.num_students, -1)).all(1))
        if run.diverged.any() or not active.all():
            lost, taught = self._rows(run.diverged), self._rows(active)
            rewards = np.where(taught, np.where(lost, DIVERGED_REWARD, rewards), 0.0)
            terms = {name: np.where(taught, values, 0.0) for name, values in terms.items()}
            credits = {name: np.where(lost[:, None], 0.0, values) for name, values in credits.items()}
        step = Step(
            features=features,
            choice=choice,
            decision=given_decision,
            weights=weights,
            student_ce=outcome.student_ce.float().cpu().numpy(),
            rewards=rewards,
            terms=terms,
            credit=credits,
            improvement=outcome.improvement,
            validation=None if metric is None else np.where(run.diverged, np.nan, metric),
            diverged=run.diverged.copy(),
            active=active,
        )
        for student in np.flatnonzero(active & run.done).tolist():
            self.finished[student] = run.member(student)
        for listener in self.listeners:
            listener(step)
        return step

    def decision(self, choice: DecodedAction) -> Decision:
        """What rows of an action mean for the loss."""
        run, options = self.distillation, self.settings

        def tensor(rows: np.ndarray) -> Tensor:
            return torch.from_numpy(self._instances(rows)).to(run.student.device, run.student.dtype)

        weights = tensor(choice.weights)
        if self.gates_are_strengths:
            kd_weight: float | Tensor = 1.0
        else:
            kd_weight = options.kd_weight if choice.kd_weight is None else tensor(choice.kd_weight)
        strengths = {name: term.strength * kd_weight for name, term in run.terms.items()}
        if run.loss.reads_labels:
            strengths["label"] = 1.0 if self.gates_are_strengths else 1.0 - kd_weight
        if choice.gates is not None:
            strengths = {name: tensor(choice.gates[:, m]) * strengths[name] for m, name in enumerate(self.layout.knowledge)}
        temperature = options.temperature if choice.temperature_scale is None else options.temperature * tensor(choice.temperature_scale)
        return Decision(dict.fromkeys(run.terms, weights), strengths, temperature)

    @property
    def gates_are_strengths(self) -> bool:
        """Whether an action's gates stand alone (AKD), without the setting's kd_weight between teachers and labels."""
        return self.settings.action in ("soft", "hard")

    def _exploration(self, choice: DecodedAction) -> np.ndarray | None:
        """The bonus of each row; what was chosen before is remembered with the run, so that it is part of a snapshot."""
        if self.settings.exploration_bonus == 0.0:
            return None
        assert choice.gates is not None
        memory = self.distillation.memory
        if self.settings.action == "soft":
            previous = [own.get("gates", [0.0] * len(self.layout.knowledge)) for own in memory]
            bonus = soft_exploration(choice.gates, np.array(previous))
            for own, gates in zip(memory, choice.gates, strict=True):
                own["gates"] = gates.tolist()
        else:
            names = ["".join(str(int(gate)) for gate in gates) for gates in choice.gates]
            for own, name in zip(memory, names, strict=True):
                own[name] = own.get(name, 0) + 1
            bonus = hard_exploration(np.array([own[name] for own, name in zip(memory, names, strict=True)]))
        return self.settings.exploration_bonus * bonus

    def _credited(self, given: CreditOfTypes, decision: Decision, choice: DecodedAction) -> tuple[Tensor, dict[str, Tensor]]:
        """What is paid, by instance or by row, and the credit that ``info`` shows."""
        terms, normal = self.distillation.terms, self.settings.normalize_credit
        if self.settings.action not in ("soft", "hard", "joint"):
            return credit_rewards.of_teachers(given, decision, normal)
        by_pair = self._row_means(torch.stack([terms[name].strength * given[name] for name in terms], 1))  # [rows, M, K], without label
        label = self._row_means(given["label"]) if "label" in given else by_pair.new_zeros(self.rows, 0)  # [rows, 1 or 0]
        if normal:
            by_pair, label = credit_rewards.scaled(by_pair, label)
        weights = self._tensor(choice.weights)
        gates = by_pair.new_ones(self.rows, len(self.layout.knowledge)) if choice.gates is None else self._tensor(choice.gates)
        if self.gates_are_strengths:
            return credit_rewards.of_types(by_pair, label, weights, gates)
        kd_weight = by_pair.new_full((self.rows,), self.settings.kd_weight) if choice.kd_weight is None else self._tensor(choice.kd_weight)
        return credit_rewards.of_both(by_pair, label, weights, gates, kd_weight)

    def _credit_names(self) -> tuple[str, ...]:
        """The types that credit is asked for: those that an action decides about."""
        asks_for_types = self.settings.action in ("soft", "hard", "joint")
        return self.layout.knowledge if asks_for_types else tuple(self.distillation.terms)

    def _validate(self, active: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """Metric of the students it is due for (NaN for others, ``None`` if for nobody), and who is not found broken by it, ``[S]``."""
        run, every = self.distillation, self.settings.validation_every or max(self.settings.updates // 20, 1)
        due = active & (run.done | (run.update % every == 0))
        if not due.any():
            return None, np.ones_like(due)
        loss, metric = run.validate()
        return np.where(due, metric, np.nan), ~due | np.isfinite(loss)

    def _record(self, features: Batch, decision: Decision, improvement: np.ndarray | None) -> StepRecord:
        run, options = self.distillation, self.settings
        if options.reward == "dev_improvement":
            gained = np.zeros(self.num_students) if improvement is None else np.nan_to_num(improvement)
            return StepRecord(improvement=torch.from_numpy(np.repeat(gained, options.batch_size)).float())
        after = run.logits_after_update()
        every = response.per_teacher(after, features.teacher_logits, options.temperature)  # [S * B, K]
        return StepRecord(
            dev_metric=torch.from_numpy(np.repeat(run.meter.metric, options.batch_size)).float().to(after.device),
            student_ce=label.ce(after, features.labels),
            distillation=(next(iter(decision.weights.values())) * every).sum(1),
            mix=options.reward_mix,
        )

    def _tensor(self, rows: np.ndarray) -> Tensor:
        student = self.distillation.student
        return torch.tensor(rows, dtype=student.dtype, device=student.device)

    def _row_means(self, values: Tensor) -> Tensor:
        """``[S * B, ...]`` or ``[rows, ...]`` -> ``[rows, ...]``."""
        return values if len(values) == self.rows else values.reshape(self.rows, -1, *values.shape[1:]).mean(1)

    def _per_row(self, values: Tensor) -> np.ndarray:
        found: np.ndarray = self._row_means(values.double()).cpu().numpy()
        return found

    def _rows(self, students: np.ndarray) -> np.ndarray:
        """``[S]`` -> ``[rows]``."""
        return np.repeat(students, self.rows // self.num_students)

    def _instances(self, rows: np.ndarray) -> np.ndarray:
        """``[rows, ...]`` (or what is ``[S * B, ...]`` already) -> ``[S * B, ...]``."""
        instances = self.num_students * self.settings.batch_size
        return rows if len(rows) == instances else np.repeat(rows, instances // len(rows), axis=0)
