"""``reinforce``: RL-KD, Reinforced Multi-Teacher Selection (Yuan et al. 2021, arXiv 2012.06048).

State of instance i and teacher k: ``F_ik = [R(x_i); p_k(x_i); c_k]``, c_k only with ``observe_labels``. One logistic policy per teacher:
``pi_k(a=1|F) = sigmoid(A_k F + b_k)``. Update ``theta += beta sum r grad log pi(a|s)``.

Schedule: warm the student up on all teachers, warm the selector up with the student fixed, then alternate: teach ``window``
mini-batches, make one policy update with their rewards, and forget them.

Deviations that are options: the reward is the env's ``reward``, by default held-out improvement, which needs no training labels
(``reward=student_loss`` and so on are the paper's); c_k is observed with ``observe_labels`` only; rewards have a baseline
(``baseline=False`` is the paper); the warm-ups have length 0 by default; every teacher is likely to be selected at first
(``initial_log_odds``; the paper states no initialisation). Other deviations: the policy is trained with Adam; the state is
standardised by running moments, without which the growing R(x) dominates the policy; the gradient is a mean over a mini-batch's instances;
a stored mini-batch is paid right after its own update, in the paper at the end of the episode (the same at ``window=1``); the selector's
warm-up updates the policy after every mini-batch; a window that the budget cuts short is dropped.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.entropy import bernoulli_entropy
from agents.logistic_policies import LogisticPolicies, objective
from agents.moments import RunningMoments
from agents.reinforce_stack import ReinforceStack, StoredStep
from agents.saving import SavedAgent
from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import PolicyContext, Range, SearchSpace, Transition
from kd_env.types import Observation

COLUMNS_AT_EVEN_ODDS = 5


class Reinforce(SavedAgent):
    """Learns while it teaches. The result is the student that the run trains."""

    access = "reward scalar"
    learns_from = "the reward"
    paper = "Yuan et al. 2021, arXiv 2012.06048"
    env_options: dict[str, Any] = {"granularity": "instance", "action": "subset", "observation": "full"}
    stack = ReinforceStack
    search_space: SearchSpace = {"step": Range(0.03, 3.0, log=True), "window": Range(1, 8)}

    @staticmethod
    def supports_population_for(selector_warmup: int = 0, **_options: object) -> bool:
        """Return whether it can be taught with others: the selector's warm-up needs a copy of the environment, of one student."""
        return not selector_warmup

    def __init__(
        self,
        context: PolicyContext,
        seed: int = 0,
        learning_rate: float | None = None,
        window: int = 1,
        baseline: bool = True,
        student_warmup: int = 0,
        selector_warmup: int = 0,
        initial_log_odds: float | None = None,
        step: float = 0.3,
    ) -> None:
        """Make the policies.

        Args:
            learning_rate: beta, of Adam. ``None`` is ``step`` divided by the number of columns of F.
            window: number of mini-batches taught between two policy updates (the paper's episode).
            baseline: whether to subtract the running mean of the reward and divide by its running deviation.
            student_warmup: number of first updates that all teachers teach with equal weights.
            selector_warmup: number of mini-batches that the selector then learns from while the student is fixed; needs a reward that does
                not depend on an update (the paper's ``student_and_distillation_loss`` or ``mixed``).
            initial_log_odds: log-odds with which every teacher is selected at first. Until the policies have learned, leaving teachers
                out costs the student, and more columns take longer to learn. So ``None`` is ln(columns / 5): odds of 7 for the 34 columns
                of the digits, of 107 for 534 columns of text. With 0, half of the teachers are left out at first.
            step: change of a log-odds by one update, where every standardised column is 1; the same for states of few and of many columns.
                It has no effect with ``learning_rate``.
        """
        spec.numbers("reinforce", above=0.0, step=step)
        if learning_rate is not None:
            spec.numbers("reinforce", above=0.0, learning_rate=learning_rate)
        spec.numbers("reinforce", least=1, whole=True, window=window)
        spec.numbers("reinforce", least=0, whole=True, student_warmup=student_warmup, selector_warmup=selector_warmup)
        reward = context.settings.reward.reward
        budget = context.settings.distillation.updates
        if selector_warmup and reward not in ("student_and_distillation_loss", "mixed"):
            raise InputError(
                f"reinforce(selector_warmup={selector_warmup}): with the student fixed reward={reward!r} does not "
                "depend on the selection; use reward=student_and_distillation_loss or mixed, or selector_warmup=0"
            )
        if selector_warmup > budget - student_warmup:
            raise InputError(
                f"reinforce(student_warmup={student_warmup},selector_warmup={selector_warmup}): more than the {budget} updates of the "
                "budget; give shorter ones"
            )
        self.context = context
        self.seed, self.window, self.student_warmup, self.selector_warmup = seed, window, student_warmup, selector_warmup
        columns, num_teachers = context.columns, context.num_teachers
        num_columns = columns["instance"] + columns["teachers"] // num_teachers
        learning_rate = step / num_columns if learning_rate is None else learning_rate
        initial_log_odds = math.log(num_columns / COLUMNS_AT_EVEN_ODDS) if initial_log_odds is None else initial_log_odds
        spec.numbers("reinforce", initial_log_odds=initial_log_odds)
        self.options = {
            "seed": seed,
            "learning_rate": learning_rate,
            "window": window,
            "baseline": baseline,
            "student_warmup": student_warmup,
            "selector_warmup": selector_warmup,
            "initial_log_odds": initial_log_odds,
            "step": step,
        }
        self.policy = LogisticPolicies(num_teachers, num_columns, initial_log_odds)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=learning_rate)
        self.generator = torch.Generator().manual_seed(seed)
        self.baseline = RunningMoments() if baseline else None
        self.begin_episode(learning=True)

    def begin_episode(self, learning: bool) -> None:
        """Begin the schedule again with a new student."""
        self.learning, self.updates, self._rehearsed = learning, 0, False
        self.stored: list[StoredStep] = []

    def act(self, observation: Observation) -> np.ndarray:
        """Return a sampled subset for every slot; all teachers while the student is warmed up."""
        if not self.learning:
            return self.sample(observation)
        if self.updates == self.student_warmup and self.selector_warmup and not self._rehearsed:
            self._rehearsed = True
            self._warm_selector()
        self.policy.adapt(observation)
        if self.updates < self.student_warmup:
            return np.ones((len(observation["progress"]), self.context.num_teachers), dtype=np.int8)
        return self.sample(observation)

    @torch.no_grad()
    def sample(self, observation: Observation) -> np.ndarray:
        """Return a sampled subset for every slot."""
        selected: np.ndarray = torch.bernoulli(self.policy(observation).sigmoid(), generator=self.generator).numpy().astype(np.int8)
        return selected

    @torch.no_grad()
    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the mean entropy of the K selections over ln 2, ``[num_envs]``."""
        return bernoulli_entropy(self.policy(observation).sigmoid().numpy())

    def update(self, transition: Transition) -> None:
        """Store the step, and update the policies after ``window`` steps."""
        assert isinstance(transition.action, np.ndarray)
        self.store(transition.observation, transition.action, transition.reward)
        if len(self.stored) == self.window:
            self.reinforce(self.stored)
            self.stored.clear()

    def store(self, observation: Observation, action: np.ndarray, reward: np.ndarray) -> None:
        """Count a step, and store it unless the student is being warmed up."""
        if self.updates >= self.student_warmup:
            self.stored.append((observation, action, reward))
        self.updates += 1

    def reinforce(self, stored: list[StoredStep]) -> None:
        """Make one policy update with stored (state, action, reward) of whole mini-batches."""
        values = [
            objective(self.policy(observation), torch.from_numpy(action), self.returns(reward)) for observation, action, reward in stored
        ]
        self.optimizer.zero_grad()
        (-torch.stack(values).sum()).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def returns(self, reward: np.ndarray) -> Tensor:
        """Return the rewards ``[B]``, standardised if there is a baseline, to which they are added."""
        returns = torch.from_numpy(reward).float()
        return returns if self.baseline is None else self.baseline.standardise(returns)

    def _warm_selector(self) -> None:
        """Update the policies with ``selector_warmup`` mini-batches that the student does not learn from."""
        rehearsal = self.context.rehearsal()
        for _ in range(self.selector_warmup):
            observation = rehearsal.observation()
            self.policy.adapt(observation)
            action = self.sample(observation)
            self.reinforce([(observation, action, rehearsal.pay(action))])

    def state(self) -> dict[str, Any]:
        """Return policies, moments, random state, and where in the schedule the agent is."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "baseline": None if self.baseline is None else self.baseline.state(),
            "schedule": (self.learning, self.updates, self._rehearsed),
            "stored": self.stored,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        if self.baseline is not None:
            self.baseline.load_state(state["baseline"])
        self.learning, self.updates, self._rehearsed = state["schedule"]
        self.stored = state["stored"]
