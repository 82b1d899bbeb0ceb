"""Define a trial: one policy on one task with one seed. In: the user's request. Out: checked settings, env keywords and an id.

A :class:`Trial` is the plain description. ``trial.resolved`` looks up the task and the policy and checks the settings, once per trial. All
later code reads ``trial.resolved``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kd_env import spec, tasks
from kd_env.benchmark.records import trial_id
from kd_env.benchmark.saved_policies import described
from kd_env.benchmark.tuning.configuration import Configuration
from kd_env.envs.registration import ENVIRONMENTS
from kd_env.envs.settings import Settings
from kd_env.envs.settings import settings as make_settings
from kd_env.errors import InputError
from kd_env.knowledge.terms import parse_terms
from kd_env.plugins import resolve
from kd_env.policies import registry
from kd_env.policies.registry import PolicyClass
from kd_env.tasks import Task
from kd_env.teachers import faculty, heads
from kd_env.teachers.file_hashes import content_hash
from kd_env.teachers.load import split_options


@dataclass(frozen=True)
class Trial:
    """A trial as the user requests it. Equal trials give equal records.

    Attributes:
        task: name of the task.
        policy: name of the policy, with options.
        seed: seed of student and policy.
        teachers: pool of teachers. Default: the task's.
        bank: folder of a bank that was built before. Default: the bank in the cache.
        suite: name of the suite, or ``run``.
        settings: env keywords that the user set.
        command: command line of the user. The report shows it. It is not part of the trial's identity.
        test: whether the finished student is scored on the test split. It is false while settings are tuned.
        policy_from: file of a saved policy to begin with, see :mod:`kd_env.benchmark.saved_policies`. Default: a new policy.
        policy_from_name: what the name of the policy in the record shows after ``from``.
        frozen: whether the saved policy teaches without learning.
        tuned: configuration of the policy that was chosen on validation, which overrides ``settings``. Default: the policy as it is.
        save_policy: whether to save the policy, if it can be saved. It is not part of the trial's identity.
        tensorboard: whether to log the trial for TensorBoard. It is not part of the trial's identity.
        keep: which finished students to keep, see :mod:`kd_env.benchmark.kept_students`. It is not part of the trial's identity.
        again: whether to run although the trial is finished, to keep its student. It is not part of the trial's identity.
    """

    task: str
    policy: str
    seed: int
    teachers: str | None = None
    bank: str | None = None
    suite: str = "run"
    settings: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    test: bool = True
    policy_from: str | None = None
    policy_from_name: str = ""
    frozen: bool = False
    tuned: Configuration | None = None
    save_policy: bool = False
    tensorboard: bool = False
    keep: str = "none"
    again: bool = False

    @cached_property
    def resolved(self) -> ResolvedTrial:
        """The trial with its task, its policy and its checked settings.

        Raises:
            InputError: the user's settings contradict the policy's, or the policy would read labels that the settings leave out.
        """
        task = tasks.load(self.task)
        policy = registry.find(self.policy if self.tuned is None else self.tuned.of_policy(self.policy))
        if self.test and task.test is None:
            raise InputError(f"task {task.name!r} has no test split to score students on; give it one, or run with --no-test")
        options = _env_options(self, task, policy)
        settings = make_settings(task, **options)
        env_keywords = {"task": self.task, "teachers": self.teachers, "bank": self.bank, **options}
        if self.tuned is not None:
            policy = replace(policy, name=self.tuned.tuned_name(self.policy))
        if self.policy_from is not None:
            policy = replace(policy, name=f"{policy.name} from {self.policy_from_name}{', frozen' if self.frozen else ''}")
        return ResolvedTrial(task, policy, settings, env_keywords, _id(self, task, policy, settings))

    @property
    def id(self) -> str:
        """File-safe name of the trial, see :attr:`ResolvedTrial.id`."""
        return self.resolved.id

    @property
    def updates(self) -> int:
        """Number of updates of all students that the policy teaches, one after the other."""
        students = 1 if self.frozen else 1 + self.resolved.policy.training_episodes
        return students * self.resolved.settings.distillation.updates

    @property
    def config(self) -> dict[str, Any]:
        """The user's settings in the form in which a record stores them."""
        source = {"policy_from": described(Path(self.policy_from)), "frozen": self.frozen} if self.policy_from else {}
        tuned = {} if self.tuned is None else {"tuned": self.tuned.as_dict()}
        return {**self.settings, **_test_option(self), **source, **tuned, "command": self.command}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle without the resolved trial, which contains the task's data; another process loads that itself."""
        return {name: value for name, value in vars(self).items() if name != "resolved"}


@dataclass(frozen=True)
class ResolvedTrial:
    """A trial with its task, policy and settings.

    Attributes:
        task: task of the trial.
        policy: class of the policy with its options.
        settings: checked settings of the run and its environment.
        env_keywords: keywords of ``gymnasium.make_vec``: task, teachers, bank, the policy's env options and the user's settings.
        id: file-safe name. It depends on everything that determines the result except the code: policy, settings, content of the task,
            pool, files of teachers and student, seed.
    """

    task: Task
    policy: PolicyClass
    settings: Settings
    env_keywords: dict[str, Any]
    id: str


ADDED_LATER = {"teacher_answers": "bank", "augmentation": "", "teacher_learning": "", "block_swap": ""}
"""Settings that are left out of a trial's id at these values, so that folders from before they existed are continued."""


def default_options(environment: str) -> dict[str, Any]:
    """Return the keywords that an environment of this package sets by default."""
    kind = resolve(ENVIRONMENTS[environment][0], "environment")
    return dict(kind.defaults)


def _env_options(trial: Trial, task: Task, policy: PolicyClass) -> dict[str, Any]:
    """Merge the environment's defaults, the policy's env options and the user's settings, and check them against each other."""
    chosen = trial.settings if trial.tuned is None else {**trial.settings, **trial.tuned.settings}
    needed_options = {**policy.env_options, **(getattr(policy.make, "frozen_env_options", {}) if trial.frozen else {})}
    options = {**default_options(policy.environment), **needed_options, **chosen}
    settings = make_settings(task, **{**options, "kd_weight": chosen.get("kd_weight")})  # before the policy sets its own kd_weight
    for name in ("action", "granularity", "observation"):
        needed = policy.env_options.get(name)
        if name in chosen and needed not in (None, chosen[name]):
            raise InputError(f"{name}={chosen[name]}: policy {policy.name!r} needs {name}={needed}; leave {name} out")
    if settings.distillation.kd_weight == 1.0 and policy.env_options.get("kd_weight", 1.0) < 1.0:
        raise InputError(
            f"policy {policy.name!r} learns from hard labels, which this setting does not use (kd_weight=1); "
            "add --set kd_weight=0.5, or leave the policy out"
        )
    is_rule = callable(getattr(policy.make, "decide", None))  # piloted, a learner, can do without reward_ce
    if is_rule and policy.env_options.get("reward_ce") and settings.distillation.reward_ce == 0.0 and "reward_ce" in chosen:
        raise InputError(f"reward_ce=0: policy {policy.name!r} learns from this loss term; set it above 0, or leave reward_ce out")
    for name in ("teacher_learning", "teacher_answers"):
        if policy.env_options.get("teacher_learning") and name in chosen and chosen[name] in ("", "bank"):
            raise InputError(f"{name}={chosen[name]!r}: policy {policy.name!r} has teachers that learn; leave {name} out")
    if policy.env_options.get("block_swap") and chosen.get("block_swap") == "":
        raise InputError(f"block_swap='': policy {policy.name!r} swaps blocks; leave block_swap out")
    terms = parse_terms(settings.distillation.knowledge)
    if settings.distillation.num_students > 1 and not any(term.knowledge.uses_peers for term in terms):
        raise InputError(
            f"num_students={settings.distillation.num_students}: a trial keeps one student, and with "
            f"knowledge={settings.distillation.knowledge!r} it learns nothing from the others; add --set knowledge=response,peer, or leave "
            "num_students out"
        )
    if "kd_weight" in policy.env_options:  # this weight is part of the policy's definition; the user's value is for other policies
        options["kd_weight"] = policy.env_options["kd_weight"]
    return {"label_seed": trial.seed, **options}


def _id(trial: Trial, task: Task, policy: PolicyClass, settings: Settings) -> str:
    pool = trial.teachers or task.defaults.pool
    named = {name: value for name, value in settings.flat().items() if ADDED_LATER.get(name) != value}
    config: dict[str, Any] = {**named, "suite": trial.suite, "content": task.fingerprint, **_test_option(trial)}
    names = [split_options(heads.parse(name) or faculty.parse(name) or name)[0] for name in spec.split(pool)]
    files = {name: content_hash(name) for name in (*names, settings.distillation.student, settings.distillation.student.rpartition("(")[0])}
    if any(files.values()):
        config["files"] = files
    if trial.policy_from is not None:
        config |= {"policy_from": described(Path(trial.policy_from))["sha256"], "frozen": trial.frozen}
    if trial.tuned is not None:
        config["tuned"] = dict(trial.tuned.options)  # its settings are among the others
    return trial_id(
        trial.task,
        pool,
        policy.name,
        settings.distillation.student,
        settings.distillation.updates,
        settings.reward.reward_labels,
        trial.seed,
        config,
    )


def _test_option(trial: Trial) -> dict[str, bool]:
    """Return the option that identifies a trial without a test score."""
    return {} if trial.test else {"test": False}
