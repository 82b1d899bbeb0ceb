"""``domains``: generated text in several domains, where the best teacher of every instance is known.

A text is a shuffled bag of words of three kinds: ``field2a`` marks domain 2, ``cue1c`` carries meaning 1, ``noiseq`` carries nothing. All
domains use the same cues, but each maps meanings to classes in its own order, so that an expert of one domain is confidently wrong in the
others. Only the fields tell which expert is right.
"""

from __future__ import annotations

import inspect
from functools import lru_cache, partial
from string import ascii_lowercase
from typing import Any

import numpy as np

from kd_env import spec
from kd_env.errors import InputError
from kd_env.tasks.task import Defaults, Split, Task, task_name

FIELDS, CUES, NOISE = 4, 5, (3, 6)
"""Words of each kind in a text; the number of noise words is between two bounds, both included."""

SYNONYMS, NOISE_WORDS = 3, 24
"""Different words that mark each domain or carry each meaning; different noise words."""


def load(
    difficulty: float = 0.1,
    num_domains: int = 4,
    num_classes: int = 4,
    train: int = 4000,
    reward: int = 500,
    validation: int = 800,
    test: int = 1600,
    seed: int = 0,
) -> Task:
    """Generate the task; equal options give equal texts, and no text occurs twice in all four splits.

    Each split repeats all pairs of domain and label in turn. A smaller split is a prefix of a larger one, and the size of ``reward`` does
    not change the other splits.

    Args:
        difficulty: in [0, 1), the probability that a field is of a random domain, and that a cue is of a random meaning.
        num_domains: at least 2, and no more than can disagree: 2, 3, 7 and 15 with 2, 3, 4 and 5 classes.
        num_classes: C, at least 2.
        train: number of training examples, at least one of each label in each domain.
        reward: number of examples that pay policies.
        validation: number of examples that choose hyper-parameters.
        test: number of examples for the report.
        seed: of the texts; the meaning of the words is the same for every seed.

    Raises:
        InputError: an option has the wrong type or is outside its range.
    """
    sizes = {"train": train, "validation": validation, "test": test, "reward": reward}
    spec.numbers("task domains", least=0, below=1, difficulty=difficulty)
    spec.numbers("task domains", least=2, whole=True, num_classes=num_classes, num_domains=num_domains)
    spec.numbers("task domains", least=0, whole=True, seed=seed)
    spec.numbers("task domains", least=num_domains * num_classes, whole=True, train=train)
    spec.numbers("task domains", least=1, whole=True, **sizes)
    seen: set[str] = set()
    splits = {
        name: _split(size, float(difficulty), num_domains, num_classes, np.random.default_rng([seed, stream]), seen)
        for stream, (name, size) in enumerate(sizes.items())
    }
    options = {"difficulty": float(difficulty), "num_classes": num_classes, "num_domains": num_domains, **sizes, "seed": seed}
    defaults = {name: parameter.default for name, parameter in inspect.signature(load).parameters.items()}
    return Task(
        name=task_name("domains", options, defaults),
        kind="text",
        class_names=tuple(f"class{label}" for label in range(num_classes)),
        group_names=tuple(f"domain{domain}" for domain in range(num_domains)),
        defaults=Defaults(
            pool="domains/experts",
            student="tiny-bert(width=64,layers=2,dropout=0)",
            updates=500,
            kd_weight=1.0,
            temperature=2.0,
            optimizer="adam(lr=0.001)",
        ),
        tokenizer=partial(_tokenizer, num_domains, num_classes),
        train=splits["train"],
        reward=splits["reward"],
        validation=splits["validation"],
        test=splits["test"],
    )


def _split(size: int, difficulty: float, num_domains: int, num_classes: int, rng: np.random.Generator, seen: set[str]) -> Split:
    rows = np.arange(size)
    groups, labels = rows % num_domains, rows // num_domains % num_classes
    meanings = np.argsort(_classes(num_domains, num_classes))[groups, labels]  # argsort inverts the permutations
    texts = np.empty(size, dtype=object)
    for row in rows:
        while not texts[row] or texts[row] in seen:
            fields = _with_replacements(groups[row], num_domains, FIELDS, difficulty, rng)
            cues = _with_replacements(meanings[row], num_classes, CUES, difficulty, rng)
            noise = rng.integers(NOISE_WORDS, size=rng.integers(NOISE[0], NOISE[1], endpoint=True))
            synonyms = rng.integers(SYNONYMS, size=FIELDS + CUES)
            words = [_field(d, i) for d, i in zip(fields, synonyms[:FIELDS], strict=True)]
            words += [_cue(m, i) for m, i in zip(cues, synonyms[FIELDS:], strict=True)]
            words += [_noise(i) for i in noise]
            texts[row] = " ".join(words[i] for i in rng.permutation(len(words)))
        seen.add(texts[row])
    return Split(texts, labels, groups)


@lru_cache(maxsize=8)
def _classes(num_domains: int, num_classes: int) -> np.ndarray:
    """Return the class of each meaning ``[num_domains, C]``: permutations of which any two agree on at most a quarter of the meanings."""
    rng = np.random.default_rng(num_classes)
    tables = [np.arange(num_classes)]
    for _ in range(2000):  # more than enough to find all that differ this much
        if len(tables) == num_domains:
            return np.stack(tables)
        table = rng.permutation(num_classes)
        if all(4 * (table == other).sum() <= num_classes for other in tables):
            tables.append(table)
    raise InputError(
        f"task domains: num_domains={num_domains} domains cannot disagree on three quarters of the cues with num_classes={num_classes}; "
        f"use at most {len(tables)} domains, or more classes"
    )


def _with_replacements(value: int, num_values: int, count: int, difficulty: float, rng: np.random.Generator) -> np.ndarray:
    """Return ``count`` times ``value``, each replaced by a random one of ``range(num_values)`` with probability ``difficulty``."""
    return np.where(rng.random(count) < difficulty, rng.integers(num_values, size=count), value)


def _field(domain: int, index: int) -> str:
    return f"field{domain}{ascii_lowercase[index]}"


def _cue(meaning: int, index: int) -> str:
    return f"cue{meaning}{ascii_lowercase[index]}"


def _noise(index: int) -> str:
    return f"noise{ascii_lowercase[index]}"


@lru_cache(maxsize=8)
def _tokenizer(num_domains: int, num_classes: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors  # Transformers takes seconds to import
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    words = [_field(domain, i) for domain in range(num_domains) for i in range(SYNONYMS)]
    words += [_cue(meaning, i) for meaning in range(num_classes) for i in range(SYNONYMS)]
    words += [_noise(i) for i in range(NOISE_WORDS)]
    vocabulary = {word: index for index, word in enumerate([*special.values(), *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special)  # type: ignore[no-untyped-call]
