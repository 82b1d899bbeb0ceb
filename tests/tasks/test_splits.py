"""The split rule: what becomes test, how much is carved, and that equal inputs stay in one split."""

import numpy as np
import pytest
from text_data import GOOD, TEST, check_defect, lines, tsv

from kd_env.errors import InputError
from kd_env.tasks.splits import MAX_EXAMPLES, MIN_EXAMPLES, four_splits, in_held_out_splits
from kd_env.tasks.task import SPLITS, Split

FILES = {role: f"{role}.tsv" for role in (*SPLITS, "dev")}


def numbered(count, num_classes=2, start=0, num_groups=0, text="{} text"):
    texts = np.array([text.format(i) for i in range(start, start + count)], dtype=object)
    numbers = np.arange(count)
    return Split(texts, numbers % num_classes, numbers // num_classes % num_groups if num_groups else None)


def sizes(splits):
    return {role: len(splits[role]) for role in SPLITS}


def texts(split):
    return set(map(str, split.inputs))


@pytest.mark.parametrize(
    ("roles", "from_dev", "carved"),
    [
        (("train",), None, ("reward", "validation", "test")),
        (("train", "dev"), "test", ("reward", "validation")),
        (("train", "test"), None, ("reward", "validation")),
        (("train", "dev", "test"), "validation", ("reward",)),
        (("train", "validation", "dev"), "test", ("reward",)),
        (("train", "reward", "validation", "test"), None, ()),
    ],
)
def test_where_each_split_comes_from(roles, from_dev, carved):
    source = {role: numbered(1000 if role == "train" else 200, start=10_000 * at) for at, role in enumerate(roles)}
    splits, notes = four_splits("t", source, FILES)
    assert set(splits) == set(SPLITS)
    for role in roles:
        if role not in ("train", "dev"):
            assert splits[role] is source[role]
    if from_dev:
        assert splits[from_dev] is source["dev"]
        assert any(note.startswith(f"{from_dev} is dev.tsv") for note in notes)
    assert all(len(splits[role]) == 100 for role in carved)
    assert len(splits["train"]) == 1000 - 100 * len(carved)
    together = [text for role in ("train", *carved) for text in splits[role].inputs]
    assert sorted(together) == sorted(source["train"].inputs), "carving loses nothing and doubles nothing"
    assert bool(carved) == any(note.startswith("carved from train: ") for note in notes)


def test_texts_that_differ_in_unicode_form_alone_are_equal():
    available = {"train": numbered(400, text="caf\u00e9 {}"), "test": numbered(100, text="Cafe\u0301  {}")}
    splits, notes = four_splits("t", available, FILES)
    assert "100 of 400 train examples left out: they are also in test" in notes
    assert not texts(available["train"].take(np.arange(100))) & set.union(*(texts(splits[role]) for role in SPLITS[:3]))


def test_a_note_counts_equal_inputs_with_different_labels():
    train = numbered(400)
    again = Split(np.array([text.upper() for text in train.inputs[:3]], dtype=object), train.labels[:3].copy())
    again.labels[:2] = 1 - again.labels[:2]
    both = Split(np.concatenate([train.inputs, again.inputs]), np.concatenate([train.labels, again.labels]))
    assert "2 training texts occur several times, with different labels" in four_splits("t", {"train": both}, FILES)[1]
    assert not [note for note in four_splits("t", {"train": train}, FILES)[1] if "different labels" in note]


def test_a_note_says_that_a_dev_that_no_split_needs_is_left_out():
    source = {role: numbered(500, start=10_000 * at) for at, role in enumerate(("train", "validation", "dev", "test"))}
    splits, notes = four_splits("t", source, FILES)
    assert "dev.tsv is not used, since there are test.tsv and validation.tsv" in notes
    assert all(texts(source["dev"]).isdisjoint(texts(splits[role])) for role in SPLITS)


@pytest.mark.parametrize(
    ("count", "size"), [(256, MIN_EXAMPLES), (640, 64), (650, 65), (5000, 500), (20_000, MAX_EXAMPLES), (30_000, MAX_EXAMPLES)]
)
def test_a_tenth_but_no_less_than_64_and_no_more_than_2000(count, size):
    splits, _ = four_splits("t", {"train": numbered(count)}, FILES)
    assert sizes(splits) == {"train": count - 3 * size, "reward": size, "validation": size, "test": size}


def test_carving_is_the_same_every_time_and_a_shuffle():
    first, second = (four_splits("t", {"train": numbered(1000)}, FILES)[0] for _ in range(2))
    for role in SPLITS:
        assert list(first[role].inputs) == list(second[role].inputs)
    rows = [int(text.split()[0]) for text in first["reward"].inputs]
    assert np.diff(rows).max() < 60, "spread over the file"
    assert np.diff(rows).std() > 3, "not at equal distances"


@pytest.mark.parametrize("num_groups", [0, 4])
def test_labels_and_groups_keep_their_shares(num_groups):
    rng = np.random.default_rng(0)
    count = 4000
    labels = (rng.random(count) < 0.2).astype(np.int64)
    groups = rng.choice(4, size=count, p=[0.7, 0.1, 0.1, 0.1]) if num_groups else None
    train = Split(numbered(count).inputs, labels, groups)
    splits, _ = four_splits("t", {"train": train}, FILES)
    for role in SPLITS:
        split = splits[role]
        assert split.labels.mean() == pytest.approx(labels.mean(), abs=0.005)
        if num_groups:
            for group in range(4):
                assert (split.groups == group).mean() == pytest.approx((groups == group).mean(), abs=0.006)
                assert split.labels[split.groups == group].mean() == pytest.approx(labels[groups == group].mean(), abs=0.03)


def test_a_class_of_one_example_stays_in_train():
    train = numbered(3000)
    labels = train.labels.copy()
    labels[7] = 2
    splits, _ = four_splits("t", {"train": Split(train.inputs, labels)}, FILES)
    assert (splits["train"].labels == 2).sum() == 1


def test_texts_that_differ_in_case_and_spacing_alone_stay_in_one_split():
    rng = np.random.default_rng(0)
    content = np.array([f"word{i} again" for i in rng.integers(400, size=2000)], dtype=object)
    content[::3] = [f"  {text.upper()}\t" for text in content[::3]]
    splits, _ = four_splits("t", {"train": Split(content, rng.integers(2, size=2000))}, FILES)
    seen = [{text.lower().strip() for text in splits[role].inputs} for role in SPLITS]
    assert sum(map(len, seen)) == len(set.union(*seen))
    assert sizes(splits) == {"train": 1400, "reward": 200, "validation": 200, "test": 200}


def test_a_text_repeated_more_often_than_a_split_is_large_stays_in_train():
    content = np.array(["the same"] * 150 + [f"text {i}" for i in range(850)], dtype=object)
    splits, _ = four_splits("t", {"train": Split(content, np.arange(1000) % 2)}, FILES)
    assert (splits["train"].inputs == "the same").sum() == 150


def test_pairs_are_equal_if_both_texts_are():
    pairs = np.array([[f"a{i % 50}", f"b{i // 50 % 20}"] for i in range(2000)], dtype=object)
    splits, _ = four_splits("t", {"train": Split(pairs, np.arange(2000) % 2)}, FILES)
    seen = [{tuple(pair) for pair in splits[role].inputs} for role in SPLITS]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 1000


def test_images_are_equal_if_their_bytes_are():
    images = np.repeat(np.random.default_rng(0).random((250, 1, 2, 2), dtype=np.float32), 2, axis=0)
    splits, _ = four_splits("t", {"train": Split(images, np.arange(500) // 2 % 2)}, FILES)
    seen = [{image.tobytes() for image in splits[role].inputs} for role in SPLITS]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 250


def test_copies_of_held_out_examples_are_left_out_and_test_stays_whole():
    available = {
        "train": numbered(1000),
        "reward": numbered(100, start=990),
        "validation": numbered(100, start=1080),
        "test": numbered(100, start=1170, text="  {} TEXT"),
    }
    splits, notes = four_splits("t", available, FILES)
    assert sizes(splits) == {"train": 990, "reward": 90, "validation": 90, "test": 100}
    assert notes == [
        "10 of 100 validation examples left out: they are also in test",
        "10 of 100 reward examples left out: they are also in test or validation",
        "10 of 1000 train examples left out: they are also in test or validation or reward",
    ]


def test_too_few_to_carve_from_is_an_error():
    with pytest.raises(InputError, match="task 't': 255 training examples are too few to carve reward, validation, test"):
        four_splits("t", {"train": numbered(255)}, FILES)


def test_examples_of_held_out_splits_are_found():
    splits = {role: numbered(10, start=100 * number) for number, role in enumerate(SPLITS)}
    texts = Split(np.array(["5 text", "105  TEXT", "305 text", "999 text"], dtype=object), np.full(4, -1))
    assert in_held_out_splits(splits, texts).tolist() == [False, True, True, False]


DEFECTS = {
    "too few to carve three splits": (
        {"train.tsv": tsv(*lines(255))},
        "255 training examples are too few to carve reward, validation, test from; give at least 256",
    ),
    "too few to carve two": (
        {"train.tsv": tsv(*lines(191)), "test.tsv": TEST},
        "191 training examples are too few to carve reward, validation from",
    ),
    "too few different texts": (
        {"train.tsv": tsv(*(lines(2) * 200))},
        "too few different training texts to carve reward, validation, test from",
    ),
    "train that is test": ({"train.tsv": GOOD, "test.tsv": GOOD}, "every example of train is also in test; give it examples of its own"),
    "validation that is test": (
        {"train.tsv": GOOD, "validation.tsv": TEST, "test.tsv": TEST},
        "every example of validation is also in test",
    ),
    "a class whose examples are all in test": (
        {"train.tsv": tsv("amber\t2", *lines()[1:]), "test.tsv": tsv("Amber \t2")},
        "all training examples of class '2' are in the other splits; give more of that class",
    ),
    "a class that carving takes whole": (
        {"train.tsv": tsv(*lines(), "amber\t2")},
        "all training examples of class '2' are in the other splits",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_files_that_do_not_fit_together_are_refused_in_one_line(defect, tmp_path):
    check_defect(tmp_path / "own", *DEFECTS[defect])
