"""What a trial is: a policy, a task, a seed, settings. In: what a user gave. Out: env keywords, and an id of all that decides it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from kd_env import tasks
from kd_env.benchmark.records import trial_id
from kd_env.distillation.settings import Settings
from kd_env.distillation.settings import settings as make_settings
from kd_env.envs.registration import ENVIRONMENTS
from kd_env.errors import InputError
from kd_env.knowledge.terms import parse_terms
from kd_env.plugins import resolve
from kd_env.policies import registry
from kd_env.teachers import heads
from kd_env.teachers.file_hashes import content_hash


@dataclass(frozen=True)
class Trial:
    """What a trial is; equal trials give equal records.

    Attributes:
        settings: env keywords the user set.
        command: how it was asked for; shown in the report, not part of the identity.
        test: whether the finished student is scored on test, for the report; off while something is tuned.
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

    def env_options(self) -> dict[str, Any]:
        """Env keywords: what the policy needs, and what the user set.

        Raises:
            InputError: the two contradict each other, or the policy would read labels that the setting leaves out.
        """
        task, policy = tasks.load(self.task), registry.find(self.policy)
        options = {**defaults_of(policy.environment), **policy.env_options, **self.settings}
        setting = make_settings(task, **{**options, "kd_weight": self.settings.get("kd_weight")})  # as it is without the policy's own
        for name in ("action", "granularity", "observation"):
            needed = policy.env_options.get(name)
            if name in self.settings and needed not in (None, self.settings[name]):
                raise InputError(f"{name}={self.settings[name]}: policy {policy.name!r} needs {name}={needed}; leave {name} out")
        if setting.kd_weight == 1.0 and policy.env_options.get("kd_weight", 1.0) < 1.0:
            raise InputError(
                f"policy {policy.name!r} learns from hard labels, which are not part of this setting (kd_weight=1); "
                "add --set kd_weight=0.5, or leave it out"
            )
        if policy.env_options.get("reward_ce") and setting.reward_ce == 0.0 and "reward_ce" in self.settings:
            raise InputError(f"reward_ce=0: policy {policy.name!r} is the one that learns from it; give another strength or leave it out")
        if setting.num_students > 1 and not any(term.kind.of_peers for term in parse_terms(setting.knowledge)):
            raise InputError(
                f"num_students={setting.num_students}: a trial keeps one student, which learns nothing from others with "
                f"knowledge={setting.knowledge!r}; add --set knowledge=response,peer, or leave num_students out"
            )
        own = {name: value for name, value in policy.env_options.items() if name == "kd_weight"}
        return {"label_seed": self.seed, **options, **own}

    def sources(self) -> dict[str, Any]:
        """Env keywords: what is taught, by whom."""
        return {"task": self.task, "teachers": self.teachers, "bank": self.bank}

    def chosen(self) -> Settings:
        """The settings that all of this comes to."""
        return make_settings(tasks.load(self.task), **self.env_options())

    def untested(self) -> dict[str, bool]:
        """What sets a trial without test apart from one with it."""
        return {} if self.test else {"test": False}

    @property
    def id(self) -> str:
        """File-safe name, of all that decides the result but the code: policy, settings, the task's content, the pool's name, the seed."""
        task, chosen = tasks.load(self.task), self.chosen()
        pool, policy = self.teachers or task.defaults.pool, registry.find(self.policy).name
        config = {**asdict(chosen), "suite": self.suite, "content": task.fingerprint, **self.untested()}
        named = [heads.parse(one) or one for one in pool.split(",")]
        files = {name: content_hash(name) for name in (*named, chosen.student, chosen.student.rpartition("(")[0])}
        if any(files.values()):
            config["files"] = files
        return trial_id(self.task, pool, policy, chosen.student, chosen.updates, chosen.reward_labels, self.seed, config)


def defaults_of(environment: str) -> dict[str, Any]:
    """The keywords that an environment of this package sees to itself."""
    kind = resolve(ENVIRONMENTS[environment][0], "environment")
    return {"action": kind.action_kinds[0], **kind.defaults}
