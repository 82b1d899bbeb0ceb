"""The generated task: domains and meanings can be read from its texts, and no text is in two splits."""

import re

import numpy as np
import pytest

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import domains
from kd_env.tasks.task import SPLITS
from kd_env.teachers.pool_recipes import POOLS

SMALL = {"train": 320, "reward": 32, "validation": 64, "test": 64}


def splits_of(task):
    return {name: getattr(task, name) for name in SPLITS}


def most_frequent(kind, text, size):
    """The number that most words of a kind carry."""
    return np.bincount([int(number) for number in re.findall(rf"{kind}(\d+)", text)], minlength=size).argmax()


def reading(split, num_domains, num_classes):
    """Domain and meaning of each text, by majority."""
    pairs = [(most_frequent("field", text, num_domains), most_frequent("cue", text, num_classes)) for text in split.inputs]
    return np.array(pairs).T


def tables(split, num_domains, num_classes):
    """The class of each meaning in each domain ``[num_domains, C]``, learned by counting."""
    _, meanings = reading(split, num_domains, num_classes)
    counts = np.zeros((num_domains, num_classes, num_classes), dtype=int)
    np.add.at(counts, (split.groups, meanings, split.labels), 1)
    return counts.argmax(2)


def ideal_accuracy(task):
    """Accuracy on test of majority votes over fields and cues, with tables counted on train."""
    sizes = len(task.group_names), task.num_classes
    group, meaning = reading(task.test, *sizes)
    return (tables(task.train, *sizes)[group, meaning] == task.test.labels).mean()


def test_equal_options_give_equal_tasks():
    first, second = domains.load(**SMALL, seed=3), domains.load(**SMALL, seed=3)
    assert first.fingerprint == second.fingerprint
    assert first.name == second.name
    assert list(first.test.inputs) == list(second.test.inputs)
    assert first.fingerprint != domains.load(**SMALL, seed=4).fingerprint


@pytest.mark.parametrize("difficulty", [0.0, 0.9])
def test_no_text_occurs_twice(difficulty):
    task = domains.load(difficulty=difficulty)
    texts = [text for split in splits_of(task).values() for text in split.inputs]
    assert len(set(texts)) == len(texts) == 4000 + 500 + 800 + 1600


def test_sizes_are_as_given_and_that_of_reward_changes_no_other_split():
    few, many = domains.load(**SMALL | {"reward": 7}), domains.load(**SMALL)
    assert {name: len(split) for name, split in splits_of(few).items()} == SMALL | {"reward": 7}
    assert list(few.reward.inputs) == list(many.reward.inputs[:7])
    for name in ("train", "validation", "test"):
        assert list(splits_of(few)[name].inputs) == list(splits_of(many)[name].inputs)


def test_every_label_is_equally_frequent_in_every_domain():
    train = domains.load(**SMALL).train
    counts = np.zeros((4, 4), dtype=int)
    np.add.at(counts, (train.groups, train.labels), 1)
    assert (counts == 320 // 16).all()


def test_texts_are_short():
    lengths = [len(text.split()) for text in domains.load(**SMALL).train.inputs]
    assert (min(lengths), max(lengths)) == (12, 15)


@pytest.mark.parametrize(("num_domains", "num_classes"), [(2, 2), (3, 3), (4, 4), (7, 4), (4, 10), (12, 12)])
def test_the_mapping_of_a_domain_is_right_in_its_texts_and_wrong_in_all_others(num_domains, num_classes):
    pairs = num_domains * num_classes
    task = domains.load(
        difficulty=0.0, num_domains=num_domains, num_classes=num_classes, train=pairs, reward=1, validation=1, test=2 * pairs
    )
    table = tables(task.train, num_domains, num_classes)
    group, meaning = reading(task.test, num_domains, num_classes)
    assert (group == task.test.groups).all()
    assert (np.sort(table, 1) == np.arange(num_classes)).all(), "each domain gives every class one meaning"
    for domain in range(num_domains):
        right = table[domain, meaning] == task.test.labels
        assert right[group == domain].all()
        for other in set(range(num_domains)) - {domain}:
            assert right[group == other].mean() <= 0.25


def test_difficulty_lowers_the_best_possible_accuracy_but_not_to_chance():
    accuracy = [ideal_accuracy(domains.load(difficulty=d, train=800, test=800, reward=1, validation=1)) for d in (0.0, 0.1, 0.4, 0.7)]
    assert accuracy[0] == 1.0
    assert accuracy[1] > 0.96
    assert accuracy[1] > accuracy[2] + 0.1 > accuracy[3] + 0.2
    assert accuracy[3] > 0.3


@pytest.mark.parametrize(
    "options",
    [
        {"difficulty": 1.0},
        {"difficulty": -0.1},
        {"difficulty": float("nan")},
        {"difficulty": True},
        {"difficulty": "hard"},
        {"num_domains": 1},
        {"num_domains": 3.0},
        {"num_domains": 8},
        {"num_classes": 1},
        {"num_classes": True},
        {"num_classes": 3},
        {"train": 15},
        {"train": -4},
        {"reward": 0},
        {"validation": "many"},
        {"test": 2.5},
        {"test": None},
        {"seed": -1},
        {"seed": False},
    ],
)
def test_bad_options_are_named(options):
    (name,) = options
    with pytest.raises(InputError, match=rf"domains[(:].*{name}="):
        domains.load(**options)


def test_the_name_carries_what_is_not_the_default():
    assert tasks.load("domains").name == tasks.load("domains(difficulty=0.1,num_domains=4)").name == "domains"
    assert tasks.load("domains(seed=2,difficulty=0,train=64)").name == "domains(difficulty=0.0,seed=2,train=64)"


def test_every_domain_has_its_expert():
    recipe = POOLS["domains/experts"].fitted(domains.load(**SMALL, num_domains=3))
    assert [teacher.groups for teacher in recipe.teachers] == [("domain0",), ("domain1",), ("domain2",)]
    assert recipe.best_for_group == (0, 1, 2)


@pytest.mark.parametrize("sizes", [{}, {"num_domains": 12, "num_classes": 12}])
def test_the_tokenizer_knows_every_word(sizes):
    task = domains.load(**SMALL, **sizes, difficulty=0.5)
    tokenizer = task.tokenizer()
    assert task.tokenizer() is tokenizer
    texts = [text for split in splits_of(task).values() for text in split.inputs]
    encoded = tokenizer(texts)["input_ids"]
    assert tokenizer.unk_token_id not in {token for row in encoded for token in row}
    assert tokenizer.batch_decode(encoded, skip_special_tokens=True) == texts
    assert tokenizer.convert_ids_to_tokens(encoded[0])[:: len(encoded[0]) - 1] == ["[CLS]", "[SEP]"]
    assert tokenizer.pad_token_id == 0
    assert tokenizer("elsewhere")["input_ids"][1] == tokenizer.unk_token_id
