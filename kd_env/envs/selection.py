"""Connect a distillation with observations, actions and rewards, for all environments of this package.

In: an action for each slot, or a whole decision. Out: observation, reward and info of each slot. A slot decides about one instance, or
about the mini-batch of one student.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from kd_env.distillation import Distillation, EncodedTask
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.distillation.reward_split import RewardSplit
from kd_env.envs import decisions, selection_snapshot
from kd_env.envs.actions import ActionLayout, Hard, make_action, parse_factors
from kd_env.envs.credit_functions import checked_credit, credit_folds, make_credit
from kd_env.envs.credit_rewards import CreditOfStep, CreditReward, slot_means
from kd_env.envs.exploration import ExplorationBonus
from kd_env.envs.measurement import MeasurementSchedule
from kd_env.envs.observations import make_observation_set, observe
from kd_env.envs.rewards import TaughtBatch, checked_reward, make_reward
from kd_env.envs.settings import Settings
from kd_env.envs.step import DIVERGED_REWARD, Step, fill_slots, merge
from kd_env.knowledge.peers import require_peers
from kd_env.knowledge.terms import parse_terms
from kd_env.teachers import Pool
from kd_env.types import Batch, Decision, DecodedAction, Observation


class Selection:
    """A distillation with slots: instances (S * B slots, ``granularity="instance"``) or students (S slots, ``granularity="batch"``).

    Attributes:
        distillation: current run.
        meter: reward meter of its students.
        finished: last ended run of each student, ``None`` before the first.
        listeners: functions that are called with each :class:`~kd_env.envs.step.Step`.
    """

    def __init__(self, data: EncodedTask, pool: Pool, settings: Settings, label_seeds: Sequence[int] | None = None) -> None:
        """Start a run; :meth:`begin` starts another.

        Args:
            label_seeds: seeds of the students' reward labels. Default: ``label_seed`` for all.

        Raises:
            InputError: a part of the setting does not exist, or one student has a knowledge type that needs peers.
        """
        self.data, self.pool, self.settings = data, pool, settings
        interface, num_students = settings.interface, settings.distillation.num_students
        self.num_slots = num_students * (settings.distillation.batch_size if interface.granularity == "instance" else 1)
        knowledge_by_name = {term.name: term.knowledge for term in parse_terms(settings.distillation.knowledge)}
        require_peers(knowledge_by_name, num_students)
        names = (*knowledge_by_name, "label") if settings.distillation.uses_hard_labels else tuple(knowledge_by_name)
        self.layout = ActionLayout(len(pool.teachers), names, parse_factors(interface.factors))
        self.action_kind = make_action(interface.action, self.layout)
        self.observation_set = make_observation_set(interface.observation)
        self.reward_rule = make_reward(settings.reward.reward)
        self.credit_function = make_credit(settings.reward.credit)
        self.measurement = MeasurementSchedule(settings, self.reward_rule.measures and self.credit_function is None)
        self.finished: list[Distillation | None] = [None] * num_students
        self.listeners: list[Callable[[Step], None]] = []
        self.begin(0, [settings.reward.label_seed] * num_students if label_seeds is None else label_seeds)

    @property
    def num_teachers(self) -> int:
        """Number of teachers K."""
        return len(self.pool.teachers)

    @property
    def num_students(self) -> int:
        """Number of students S."""
        return self.settings.distillation.num_students

    @property
    def credit_folds(self) -> int:
        """Number of folds of the reward labels that credit takes in turn."""
        return self.meter.num_folds(credit_folds(self.credit_function))

    @property
    def label_seeds(self) -> list[int]:
        """Seeds that chose the students' reward labels, one per student."""
        return self.distillation.reward_split.label_seeds

    def use_label_seeds(self, label_seeds: Sequence[int]) -> None:
        """Use these label seeds for rewards and the calibration of teachers. If they differ from the present ones, start new students."""
        if list(label_seeds) != self.label_seeds:
            self.begin(0, label_seeds)

    def begin(self, seed: int | Sequence[int], label_seeds: Sequence[int] | None = None) -> None:
        """Start new students from ``seed + s`` or ``seed[s]``; the label seeds stay unless given. :attr:`finished` is kept."""
        split = RewardSplit(self.data, self.settings.reward.reward_labels, self.label_seeds if label_seeds is None else label_seeds)
        self.distillation = Distillation(self.data, self.settings.distillation, seed, split)
        self.meter = self._meter(self.distillation)
        self.exploration = ExplorationBonus(self.settings.reward.exploration_bonus, self.num_students, isinstance(self.action_kind, Hard))

    def reset_student(self, student: int, seed: int) -> None:
        """Replace one student by a new one that starts from ``seed``; the other students are not affected."""
        self.distillation.reset_student(student, seed)
        self.meter.reset_student(student, seed)
        self.exploration.reset_student(student)

    def fork(self) -> Selection:
        """Return an independent copy in the same state, without listeners; data and pool are shared."""
        fork = copy.copy(self)
        fork.distillation, fork.finished, fork.listeners = self.distillation.fork(), list(self.finished), []
        fork.exploration = copy.deepcopy(self.exploration)
        fork.meter = self._meter(fork.distillation)
        fork.meter.load(self.meter.tensors(), self.meter.info(), self.distillation.student.device)
        return fork

    def snapshot(self, generator: np.random.Generator) -> bytes:
        """Return the state as self-contained bytes without pickle, with that of ``generator``, which draws the seeds of later students.

        On CPU, :meth:`restore` continues from it bit-exactly.
        """
        return selection_snapshot.save(self.distillation, self.meter, self.exploration, self.settings, generator)

    def restore(self, state: bytes, generator: np.random.Generator) -> None:
        """Continue from a snapshot of an environment with the same task, pool and settings.

        Raises:
            InputError: ``state`` is not a snapshot, or its task, pool or settings are different.
        """
        run = self.distillation
        self.distillation = run.fork() if run in self.finished else run  # a finished student must not change
        selection_snapshot.load(self.distillation, self.meter, self.exploration, self.settings, generator, state)

    def observation(self) -> Observation:
        """Return the observation of the next mini-batches: blocks by name, each ``[slots, F]``."""
        blocks = observe(self.distillation.observe(), self.observation_set, self.settings.interface.observe_labels)
        if self.num_slots == len(blocks["progress"]):
            return blocks
        return {name: block.reshape(self.num_slots, -1, block.shape[1]).mean(1) for name, block in blocks.items()}

    def advance(self, action: np.ndarray | Decision, active: np.ndarray | None = None) -> Step:
        """Teach each ``active`` student ``updates_per_phase`` mini-batches with ``action``, which has one action per slot; return the step.

        Rewards and terms are sums over the phase, measurements are the last of the phase. A whole decision teaches one mini-batch.

        Raises:
            InputError: the action is not in the space, or the decision does not fit the setting.
        """
        active = ~self.distillation.done if active is None else active & ~self.distillation.done
        if isinstance(action, Decision):
            decisions.require_fits(self.distillation, action)
            decisions.require_accepted(self.settings, self.action_kind, action)
            action = action.to(self.distillation.student.device)
            return self._update(decisions.as_action(self.distillation, action), active, None, action)
        decoded = self.action_kind.decode(action, self.num_slots)
        bonus = self.exploration.pay(decoded)
        step = self._update(decoded, active, bonus)
        for _ in range(self.settings.interface.updates_per_phase - 1):
            remaining = active & ~self.distillation.done
            if not remaining.any():
                break
            step = merge(step, self._update(decoded, remaining, None))
        return step

    def rehearse(self, action: np.ndarray) -> np.ndarray:
        """Return the rewards of ``action``, ``[slots]``, without an update or costs or a bonus, and go on to the next mini-batches."""
        run = self.distillation
        batch, decision = run.observe(), decisions.of_action(run, self.action_kind, self.action_kind.decode(action, self.num_slots))
        self.measurement.before_update(run, self.meter, ~run.done)
        rewards = self._per_slot(checked_reward(self.reward_rule, self._taught_batch(batch, decision, None, updated=False)))
        run.skip()
        return rewards

    def _update(self, decoded: DecodedAction, active: np.ndarray, bonus: np.ndarray | None, whole_decision: Decision | None = None) -> Step:
        run = self.distillation
        batch = run.observe()
        decision = decisions.of_action(run, self.action_kind, decoded) if whole_decision is None else whole_decision
        by_credit = self._reward_by_credit(decision, decoded)
        self.measurement.before_update(run, self.meter, active)
        outcome = run.apply(decision, active)
        improvement = self.measurement.improvement(run, self.meter, active & ~outcome.diverged)
        credit: dict[str, Tensor] = {}
        if by_credit is None:
            reward = checked_reward(self.reward_rule, self._taught_batch(batch, decision, improvement))
        else:
            reward, credit = by_credit
        rewards, terms = self._rewards(reward, decoded, bonus)
        validation = self.measurement.validation(run, active)
        run.mark_diverged(active & ~np.isfinite(rewards.reshape(self.num_students, -1)).all(1))
        step = Step(
            batch=batch,
            action=decoded,
            decision=whole_decision,
            weights=decisions.per_instance(decoded.weights, len(batch.labels)),
            student_ce=outcome.student_ce.float().cpu().numpy(),
            rewards=fill_slots(fill_slots(rewards, run.diverged, DIVERGED_REWARD), ~active, 0.0),
            reward_terms={name: fill_slots(values, ~active, 0.0) for name, values in terms.items()},
            credit={name: fill_slots(self._per_slot(values), run.diverged, 0.0) for name, values in credit.items()},
            credit_fold=None if by_credit is None else np.repeat(self.meter.gradient_fold, self.num_slots // self.num_students),
            improvement=improvement,
            validation=None if validation is None else np.where(run.diverged, np.nan, validation),
            diverged=run.diverged.copy(),
            active=active,
        )
        for student in np.flatnonzero(active & run.done).tolist():
            self.finished[student] = run.of_student(student)
        for listener in self.listeners:
            listener(step)
        return step

    def _reward_by_credit(self, decision: Decision, decoded: DecodedAction) -> CreditReward | None:
        """Return the reward by credit, and the credit; ``None`` with ``credit="shared"``."""
        if self.credit_function is None:
            return None
        run = self.distillation
        names = self.layout.knowledge if self.action_kind.decides_knowledge else tuple(run.loss.terms)
        credit = CreditOfStep(
            by_type=checked_credit(self.credit_function, run, self.meter, names, decision.temperature),
            decision=decision,
            decoded=decoded,
            strengths={name: term.strength for name, term in run.loss.terms.items()},
            kd_weight=run.settings.kd_weight,
            normalize=self.settings.reward.normalize_credit,
            num_slots=self.num_slots,
        )
        return self.action_kind.credit_reward(credit)

    def _taught_batch(self, batch: Batch, decision: Decision, improvement: np.ndarray | None, updated: bool = True) -> TaughtBatch:
        improvements = np.zeros(self.num_students) if improvement is None else np.nan_to_num(improvement)
        return TaughtBatch(self.distillation, batch, decision, improvements, self.meter.metric, self.settings.reward.reward_mix, updated)

    def _rewards(self, reward: Tensor, decoded: DecodedAction, bonus: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the rewards with costs and bonus, ``[slots]``, and these terms."""
        rewards, terms = self._per_slot(reward), {}
        cost = self.settings.reward.teacher_cost
        if cost > 0.0 or (self.action_kind.decides_knowledge and self.action_kind.decides_teachers):
            terms["teacher_calls"] = self._per_slot(torch.from_numpy(np.count_nonzero(decoded.weights, axis=1)))
            rewards = rewards - cost * terms["teacher_calls"]
        if bonus is not None:
            terms["exploration"] = bonus
            rewards = rewards + bonus
        return rewards, terms

    def _per_slot(self, values: Tensor) -> np.ndarray:
        """Return the means over the instances of each slot, ``[S * B, ...]`` or ``[slots, ...]`` -> ``[slots, ...]``, float64."""
        return np.asarray(slot_means(values.double(), self.num_slots).cpu())

    def _meter(self, run: Distillation) -> RewardMeter:
        reward = self.settings.reward
        return RewardMeter(run.reward_split, run.seeds.tolist(), reward.reward_examples, reward.measure, reward.credit_refresh)
