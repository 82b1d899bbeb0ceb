"""Compare with libraries: Stable-Baselines3's PPO on an environment without a student, and bare forward passes of Transformers.

In: a device, the number of turns. Out: rows of a comparison.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
from transformers.utils import logging

from agents.sb3 import PPO
from kd_env.bank import open_bank
from kd_env.models.encode import take
from kd_env.tasks import Task
from kd_env.teachers import Pool
from kd_env.teachers.checkpoint import FORWARD_BATCH, CheckpointTeacher
from speed.measure import Row, Subject, compare
from speed.random_data import Sizes, random_task
from speed.updates import slots


class NullVecEnv(VecEnv):
    """An environment that always returns the same observation and reward, and never ends."""

    def __init__(self, num_envs: int, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        """Draw the observation."""
        super().__init__(num_envs, observation_space, action_space)
        samples = [observation_space.sample() for _ in range(num_envs)]
        self.observation: VecEnvObs = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def reset(self) -> VecEnvObs:
        """Return the observation."""
        return self.observation

    def step_async(self, actions: np.ndarray) -> None:
        """Do nothing."""

    def step_wait(self) -> VecEnvStepReturn:
        """Return the observation."""
        return self.observation, np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, bool), [{} for _ in range(self.num_envs)]

    def close(self) -> None:
        """Do nothing."""

    def get_attr(self, attr_name: str, indices: object = None) -> list[Any]:
        """Return nothing for each slot."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: object = None) -> None:
        """Do nothing."""

    def env_method(self, method_name: str, *arguments: Any, indices: object = None, **keywords: Any) -> list[Any]:
        """Return nothing for each slot."""
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: object, indices: object = None) -> list[bool]:
        """Return that no slot is wrapped."""
        return [False] * self.num_envs


def stable_baselines3(task: str, device: torch.device, turns: int, count: int) -> list[Row]:
    """Compare ``sb3:PPO`` on the slots with the same PPO on a :class:`NullVecEnv`, followed by as many steps of the slots."""
    options = {name: value for name, value in PPO.env_options.items() if name != "granularity"}
    learning, stepped = (slots(task, device, autoreset_mode="same_step", reward_every=1, **options) for _ in range(2))
    on_slots, on_nothing = PPO(learning, 0), PPO(learning, 0)
    model = on_nothing.model
    model.set_env(NullVecEnv(learning.num_envs, learning.single_observation_space, learning.single_action_space))
    stepped.action_space.seed(0)
    actions = [stepped.action_space.sample() for _ in range(count)]

    def apart() -> None:
        model.learn(count * learning.num_envs)
        stepped.reset(seed=0)
        for action in actions:
            stepped.step(action)

    title = f"Stable-Baselines3 on the slots: {task}"
    subjects = [
        Subject("PPO on a null environment, then steps of the slots", apart, count),
        Subject("sb3:PPO on the slots", lambda: on_slots.learn(learning, count), count),
    ]
    return compare(title, subjects, "ms/update", turns)


def transformers_bank(turns: int, examples: int) -> list[Row]:
    """Compare building a bank from a Transformers checkpoint with its forward passes over the same batches, already encoded.

    The batches are the same for at most 4,096 ``examples``; a bank sorts the texts of each part of that size by length.
    """
    with tempfile.TemporaryDirectory(prefix="kd-env-speed-") as folder:
        task = random_task(Sizes(words=30, shortest=4, classes=4, examples=examples))
        teacher = CheckpointTeacher(str(_checkpoint(Path(folder) / "teacher", task)), task)
        places = (Path(folder) / f"bank{number}" for number in range(turns + 1))
        splits = [task.train, task.reward, task.validation]
        subjects = [
            Subject("forward passes alone", _forward_passes(teacher, [split.inputs for split in splits]), sum(map(len, splits))),
            Subject("building the bank", lambda: open_bank(task, Pool("own", (teacher,)), next(places)), sum(map(len, splits))),
        ]
        return compare("Building a bank from a Transformers teacher: BERT, 4 layers of 256", subjects, "examples/s", turns)


def _forward_passes(teacher: CheckpointTeacher, inputs: Sequence[np.ndarray]) -> Callable[[], object]:
    """Return a function that runs the teacher on batches of texts that are sorted by length."""
    model = teacher.network.eval()
    device, batches = next(model.parameters()).device, []
    for encoded in map(teacher.read, inputs):
        order = encoded["attention_mask"].sum(1).argsort(stable=True).numpy()
        batches += [take(encoded, order[start : start + FORWARD_BATCH], device) for start in range(0, len(order), FORWARD_BATCH)]

    @torch.no_grad()
    def run() -> None:
        for batch in batches:
            model(**batch)

    return run


def _checkpoint(folder: Path, task: Task) -> Path:
    """Write a classifier with random weights, and a tokenizer of the task's words."""
    words = sorted({word for text in task.train.inputs.tolist() for word in text.split()})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, pad_token="[PAD]")  # type: ignore[no-untyped-call]
    fast.save_pretrained(folder)
    config = BertConfig(vocab_size=len(vocabulary), hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512)
    config.id2label = dict(enumerate(task.class_names))
    config.label2id = {name: number for number, name in enumerate(task.class_names)}
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder
