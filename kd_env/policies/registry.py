"""Find a policy by name and build it: built-in, ``single:k``, ``sb3:PPO(...)``, or ``module:Class`` of your own, with options.

In: ``"reinforce(window=4)"``. Out: the class, its options and what it declares. ``kd_env`` imports no policy; names are resolved on use.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kd_env import spec
from kd_env.envs.registration import ENVIRONMENTS
from kd_env.errors import InputError
from kd_env.plugins import resolve
from kd_env.policies.access import ACCESS, DEFAULT_ACCESS
from kd_env.policies.context import PolicyContext
from kd_env.policies.protocol import Rule
from kd_env.policies.rules import RulePolicy

POLICIES = {
    "actor_critic": "agents.actor_critic:ActorCriticAgent",
    "aekd": "baselines.aekd:AEKD",
    "akd": "agents.knowledge_actor_critic:KnowledgeActorCritic",
    "akd_hard": "agents.knowledge_actor_critic:HardKnowledgeActorCritic",
    "all_knowledge": "baselines.all_knowledge:AllKnowledge",
    "amtml": "baselines.amtml:AMTML",
    "cmt_kd": "baselines.cmt_kd:CMTKD",
    "best_single": "baselines.best_single:BestSingle",
    "camkd": "baselines.camkd:CAMKD",
    "camkd_logits": "baselines.camkd:CAMKDLogits",
    "correlation": "baselines.correlation:Correlation",
    "crossfit_credit": "agents.crossfit_credit:CrossfitCredit",
    "ctsl_mkt": "baselines.ctsl_mkt:CTSLMKT",
    "dev_weighted": "baselines.dev_weighted:DevWeighted",
    "distilbert": "baselines.distilbert:DistilBERT",
    "ebkd": "baselines.ebkd:EBKD",
    "entropy_dkd": "baselines.entropy_dkd:EntropyDKD",
    "exp3": "agents.exp3:EXP3",
    "fitnet_mkd": "baselines.fitnet_mkd:FitNetMKD",
    "gradient_credit": "agents.gradient_credit:GradientCredit",
    "held_credit": "agents.held_credit:HeldCredit",
    "iakd": "baselines.iakd:IAKD",
    "ikd": "baselines.ikd:IKD",
    "ital": "baselines.ital:ITAL",
    "linucb": "agents.linucb:LinUCB",
    "lookahead": "baselines.lookahead:Lookahead",
    "lr_dev": "baselines.lr_dev:LRDev",
    "lr_ensemble": "baselines.lr_ensemble:LREnsemble",
    "majority_sign": "baselines.majority_sign:MajoritySign",
    "mmkd": "baselines.mmkd:MMKD",
    "most_confident": "baselines.most_confident:MostConfident",
    "mt_bert": "baselines.mt_bert:MTBert",
    "mtkd_rl": "agents.mtkd_rl:MTKDRL",
    "mtkd_rl_released": "agents.mtkd_rl_released:MTKDRLReleased",
    "mutual_learning": "baselines.mutual_learning:MutualLearning",
    "no_teacher": "baselines.no_teacher:NoTeacher",
    "oracle": "baselines.oracle:Oracle",
    "pcl": "baselines.pcl:PCL",
    "peer_ensemble": "baselines.peer_ensemble:PeerEnsemble",
    "piloted": "agents.piloted:Piloted",
    "pkd": "baselines.pkd:PKD",
    "population": "agents.population:Population",
    "ppo": "agents.ppo:PPO",
    "random_hard": "baselines.random_knowledge:RandomHard",
    "random_single": "baselines.single:RandomSingle",
    "random_soft": "baselines.random_knowledge:RandomSoft",
    "reinforce": "agents.reinforce:Reinforce",
    "reward_supervised": "baselines.reward_supervised:RewardSupervised",
    "router": "baselines.router:Router",
    "scorer_credit": "agents.scorer_credit:ScorerCredit",
    "self_stacking": "baselines.self_stacking:SelfStacking",
    "single": "baselines.single:Single",
    "sliding_ucb": "agents.sliding_ucb:SlidingUCB",
    "stacking": "baselines.stacking:Stacking",
    "taught_stacking": "baselines.taught_stacking:TaughtStacking",
    "uncertainty": "baselines.uncertainty:Uncertainty",
    "uniform": "baselines.uniform:Uniform",
    "uniform_reward_ce": "baselines.uniform_reward_ce:UniformRewardCE",
}
TEACHER_SELECTION = "kd_env/TeacherSelection-v0"
STABLE_BASELINES3 = ("PPO", "A2C", "DQN", "SAC", "TD3", "DDPG")
SB3_CONTRIB = ("TRPO", "QRDQN", "TQC", "MaskablePPO", "RecurrentPPO")
"""Algorithms of the optional package sb3-contrib."""


@dataclass(frozen=True)
class PolicyClass:
    """A policy's class with its options and declarations.

    Attributes:
        name: canonical text, as reports show it.
        make: the class.
        options: its hyperparameters.
        access: one of :data:`~kd_env.policies.access.ACCESS`.
        env_options: env keywords that it needs.
        environment: the id of the environment it acts in.
        paper: authors, year, arXiv id; empty where there is none.
        learns_from: what it learns from or is fitted on; empty for a formula.
        supports_population: whether students with such policies can be taught together.
    """

    name: str
    make: Any
    options: dict[str, Any]
    access: str
    env_options: dict[str, Any]
    environment: str
    paper: str = ""
    learns_from: str = ""
    supports_population: bool = True

    @property
    def owns_loop(self) -> bool:
        """Whether it drives the environment itself, with ``learn``."""
        return callable(getattr(self.make, "learn", None))

    @property
    def training_episodes(self) -> int:
        """Number of students that it learns on before the one that counts: an option, or declared by the class; 0 by default."""
        parameter = inspect.signature(self.make).parameters.get("training_episodes")
        declared_number = getattr(self.make, "training_episodes", 0) if parameter is None else parameter.default
        number = self.options.get("training_episodes", declared_number)
        return number if isinstance(number, int) else 0

    def build(self, env: Any, seed: int, student: int | None = None) -> Any:
        """Return the policy for ``env``, a vector environment.

        Args:
            student: the student of a population that it teaches; by default it acts for all slots.

        Raises:
            InputError: the class does not take an option, or is not a policy.
        """
        name = f"policy {self.name!r}"
        if self.owns_loop:
            return self._checked(spec.call_plugin(name, self.make, self.options, env, seed))
        context = PolicyContext(env, self.name, self.access, student)
        policy = spec.call_plugin(name, self.make, self.options, context, seed)
        return RulePolicy(policy, context) if isinstance(policy, Rule) else self._checked(policy)

    def _checked(self, policy: Any) -> Any:
        if not callable(getattr(policy, "act", None)):
            raise InputError(
                f"policy {self.name!r}: a {type(policy).__name__} has neither act(observation) nor decide(batch); define one of them "
                "(see kd_env.policies.protocol)"
            )
        policy.access = self.access  # the episode view enforces it
        return policy


def find(text: str) -> PolicyClass:
    """Look up a policy.

    Raises:
        InputError: the policy does not exist, or declares an unknown access class.
    """
    name, options = spec.parse(text)
    head, _, argument = name.partition(":")
    shown = str(spec.Spec(name, options))
    if head == "single":
        if argument and "teacher" in options:
            raise InputError(f"policy {text!r} names two teachers; write single:{argument}, or single(teacher={options['teacher']})")
        options = {"teacher": int(argument) if argument.isdecimal() else argument, **options} if argument else options
        path = POLICIES["single"]
    elif head == "sb3":
        if argument not in (*STABLE_BASELINES3, *SB3_CONTRIB):
            raise spec.unknown("Stable-Baselines3 algorithm", argument, (*STABLE_BASELINES3, *SB3_CONTRIB))
        path = f"agents.{'sb3_contrib' if argument in SB3_CONTRIB else 'sb3'}:{argument}"
    elif ":" in name:
        path = name
    elif name in POLICIES:
        path = POLICIES[name]
    else:
        raise spec.unknown("policy", name, [*POLICIES, *(f"sb3:{algorithm}" for algorithm in (*STABLE_BASELINES3, *SB3_CONTRIB))])
    return declared(shown, resolve(path, "policy"), options)


def declared(name: str, make: Any, options: dict[str, Any]) -> PolicyClass:
    """Read what a policy class declares; without a declared access it is :data:`~kd_env.policies.access.DEFAULT_ACCESS`."""
    access = getattr(make, "access", DEFAULT_ACCESS)
    if callable(access_for := getattr(make, "access_for", None)):
        access = spec.call_plugin(f"policy {name!r}", access_for, options)
    supports_population = getattr(make, "supports_population", True)
    if callable(supports_population_for := getattr(make, "supports_population_for", None)):
        supports_population = bool(spec.call_plugin(f"policy {name!r}", supports_population_for, options))
    if access not in ACCESS:
        raise InputError(f"policy {name!r}: access={access!r}; expected one of {', '.join(ACCESS)}")
    env_options, episodes = getattr(make, "env_options", {}), getattr(make, "training_episodes", 0)
    if not isinstance(env_options, Mapping):
        raise InputError(f"policy {name!r}: env_options={env_options!r}; expected a dict of environment keywords")
    if isinstance(episodes, bool) or not isinstance(episodes, int | property) or (isinstance(episodes, int) and episodes < 0):
        raise InputError(f"policy {name!r}: training_episodes={episodes!r}; expected a whole number of at least 0")
    environment = getattr(make, "environment", TEACHER_SELECTION)
    if environment not in ENVIRONMENTS:
        raise InputError(f"policy {name!r}: environment={environment!r}; expected one of {', '.join(ENVIRONMENTS)}")
    return PolicyClass(
        name,
        make,
        options,
        access,
        dict(env_options),
        environment,
        getattr(make, "paper", ""),
        getattr(make, "learns_from", ""),
        supports_population,
    )


def make_policy(policy: str | type, env: Any, seed: int = 0, **options: Any) -> Any:
    """Return a policy for ``env``, a vector environment, built with what its access allows.

    Args:
        policy: a name, as ``"reinforce(window=4)"``, or a class.
        env: a vector environment of this package.
        seed: seed of the policy.
        options: options of the policy.

    Raises:
        InputError: the policy or an option does not exist, or the environment has other settings than the policy needs.
    """
    policy_class = find(policy) if isinstance(policy, str) else declared(policy.__name__, policy, options)
    if not callable(getattr(policy_class.make, "decide", None)):  # rules decide for any environment
        interface = env.unwrapped.selection.settings.interface
        for name in ("action", "granularity", "observation"):
            needed, actual = policy_class.env_options.get(name), getattr(interface, name)
            if needed not in (None, actual):
                raise InputError(f"policy {policy_class.name!r} needs {name}={needed}, and the environment has {name}={actual}")
    return policy_class.build(env, seed)
