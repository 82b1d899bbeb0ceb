"""Published sets from a folder of their files: clinc150, fdu-mtl, fashion-mnist."""

import gzip

import numpy as np
import pytest

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import clinc150, fashion_mnist, fdu_mtl
from kd_env.tasks.task import SPLITS
from kd_env.testing import check_task


def sizes(task):
    return {name: len(getattr(task, name)) for name in SPLITS}


def refused(load, *arguments):
    with pytest.raises(InputError) as error:
        load(*arguments)
    return str(error.value)


@pytest.mark.parametrize("name", ["clinc150", "fdu-mtl", "fashion-mnist"])
def test_without_a_folder_the_mend_is_said(name, tmp_path):
    assert refused(tasks.load, name) == f"task {name!r} is read from a folder; name it, as --data-dir PATH or {name}(data_dir=PATH)"
    assert f"{tmp_path}/none does not exist" in refused(tasks.load, name, f"{tmp_path}/none")
    assert str(tmp_path) in refused(tasks.load, name, str(tmp_path))


INTENTS = [("translate", "travel"), ("book", "travel"), ("balance", "banking"), ("pay", "banking")]


@pytest.fixture
def clinc(tmp_path):
    for part, count in (("train", 400), ("dev", 40), ("test", 60)):
        rows = [f"{part} query {i}\t{i % 4}\t{INTENTS[i % 4][0]}\t{INTENTS[i % 4][1]}" for i in range(count)]
        (tmp_path / f"{part}.tsv").write_text("\n".join(["sentence\tlabel\tintent\tdomain", *rows]) + "\n")
        (tmp_path / f"oos_{part}.tsv").write_text("sentence\tintent\nwhat is all this\toos\n")
    return tmp_path


def test_clinc150_has_intents_for_classes_in_the_order_of_their_numbers_and_domains_for_groups(clinc):
    task = tasks.load("clinc150", str(clinc))
    assert task.name == "clinc150"
    assert task.class_names == ("translate", "book", "balance", "pay")
    assert task.group_names == ("banking", "travel")
    assert sizes(task) == {"train": 336, "reward": 64, "validation": 40, "test": 60}
    assert list(task.test.labels) == [i % 4 for i in range(60)]
    for name in SPLITS:
        split = getattr(task, name)
        assert (split.groups == (split.labels < 2)).all()
        assert "what is all this" not in split.inputs
    assert "out-of-scope queries (oos_*.tsv) are left out" in task.notes
    check_task(lambda: tasks.load("clinc150", str(clinc)))


def test_clinc150_names_what_is_wrong(clinc):
    (clinc / "dev.tsv").write_text("sentence\tlabel\nx\t1\n")
    assert f"{clinc}/dev.tsv: no column 'intent', found sentence, label" in refused(clinc150.load, str(clinc))
    (clinc / "dev.tsv").unlink()
    assert f"{clinc}/dev.tsv cannot be read (No such file or directory)" in refused(clinc150.load, str(clinc))
    train = (clinc / "train.tsv").read_text()
    (clinc / "train.tsv").write_text(train.replace("\t2\t", "\ttwo\t", 1))
    (clinc / "dev.tsv").write_text("sentence\tlabel\tintent\tdomain\nx\t1\tfly\ttravel\n")
    assert f"{clinc}/train.tsv, line 4: label 'two' is no intent's number" in refused(clinc150.load, str(clinc))
    (clinc / "train.tsv").write_text(train)
    assert f"{clinc}/dev.tsv, line 2: label 'fly' is not among those of the training file" in refused(clinc150.load, str(clinc))


@pytest.fixture
def fdu(tmp_path):
    for domain in ("books", "dvd", "MR"):
        (tmp_path / domain).mkdir()
        for part, count in (("train", 300), ("dev", 30), ("test", 40)):
            rows = [f"{domain} {part} {i}\t{i % 2}" for i in range(count)]
            (tmp_path / domain / f"{part}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return tmp_path


def test_fdu_mtl_has_domains_for_groups(fdu):
    task = tasks.load("fdu-mtl", str(fdu))
    assert task.group_names == ("MR", "books", "dvd")
    assert task.class_names == ("negative", "positive")
    assert sizes(task) == {"train": 810, "reward": 90, "validation": 90, "test": 120}
    for name in SPLITS:
        split = getattr(task, name)
        for text, label, group in zip(split.inputs, split.labels, split.groups, strict=True):
            domain, _, number = text.split()
            assert (task.group_names[group], int(number) % 2) == (domain, label)
    assert (np.bincount(task.reward.groups) == 30).all(), "carving is stratified by domain"
    check_task(lambda: tasks.load("fdu-mtl", str(fdu)))


def test_fdu_mtl_leaves_out_the_rows_listed_of_train_and_dev_and_no_others(fdu):
    (fdu / "overlap_rows.tsv").write_text(
        "domain\tsplit\trow\tsame_text_as\nbooks\ttrain\t0\ttest:1\nbooks\ttrain\t7\ttest:2\ndvd\tdev\t5\ttest:3\ndvd\ttest\t9\ttest:4\n"
    )
    (fdu / "MR" / "train.tsv").write_text((fdu / "MR" / "train.tsv").read_text() + " \t1\n")
    task = fdu_mtl.load(str(fdu))
    texts = {name: set(getattr(task, name).inputs) for name in SPLITS}
    everything = set.union(*texts.values())
    assert {"books train 0", "books train 7", "dvd dev 5"}.isdisjoint(everything)
    assert {"books train 1", "books train 8", "dvd dev 4", "dvd train 0"} <= everything
    assert "dvd test 9" in texts["test"]
    assert len(everything) == 900 - 2 + 90 - 1 + 120
    assert task.notes[:3] == (
        "2 train examples left out: overlap_rows.tsv lists them",
        "1 train examples left out: they have no text",
        "1 dev examples left out: overlap_rows.tsv lists them",
    )


def test_fdu_mtl_names_what_is_wrong(fdu):
    (fdu / "overlap_rows.tsv").write_text("domain\tsplit\trow\nbooks\ttrain\tfirst\n")
    assert f"{fdu}/overlap_rows.tsv, line 2: row 'first' is no number" in refused(fdu_mtl.load, str(fdu))
    (fdu / "overlap_rows.tsv").write_text("domain\trow\nbooks\t1\n")
    assert f"{fdu}/overlap_rows.tsv: no column 'split', found domain, row" in refused(fdu_mtl.load, str(fdu))
    (fdu / "overlap_rows.tsv").unlink()
    (fdu / "dvd" / "dev.tsv").write_text("sentence\tlabel\nx\t2\n")
    assert f"{fdu}/dvd/dev.tsv, line 2: label '2', expected 0 (negative) or 1 (positive)" in refused(fdu_mtl.load, str(fdu))
    assert "0 folders with a train.tsv" in refused(fdu_mtl.load, str(fdu / "dvd"))


def idx(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes(), mtime=0)


@pytest.fixture
def clothing(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 700), ("t10k", 50)):
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(rng.integers(256, size=(count, 6, 6))))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(count) % 10))
    return tmp_path


def test_fashion_mnist_is_read_as_published(clothing):
    task = tasks.load("fashion-mnist", str(clothing))
    assert sizes(task) == {"train": 560, "reward": 70, "validation": 70, "test": 50}
    assert task.test.inputs.shape == (50, 1, 6, 6)
    assert task.test.inputs.dtype == np.float32
    raw = fashion_mnist.read_idx(clothing / "t10k-images-idx3-ubyte.gz", 3)
    assert (np.rint(task.test.inputs[:, 0] * 255) == raw).all()
    assert task.test.inputs.max() == 1.0
    assert list(task.test.labels) == [i % 10 for i in range(50)]
    assert (np.bincount(task.reward.labels) == 7).all()
    check_task(lambda: tasks.load("fashion-mnist", str(clothing)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not gzip", "damaged (Not a gzipped file"),
        (idx(np.zeros((50, 6, 6)))[:-12], "damaged (Compressed file ended"),
        (gzip.compress(b"\0\0\x08\x03", mtime=0), "not an idx file of bytes with 3 axes, or cut off; fetch the file again"),
        (idx(np.zeros(50)), "not an idx file of bytes with 3 axes"),
        (gzip.compress(gzip.decompress(idx(np.zeros((50, 6, 6))))[:-1], mtime=0), "not an idx file of bytes with 3 axes, or cut off"),
        (b"", "not an idx file"),
        (idx(np.zeros((49, 6, 6))), "49 images and 50 labels of t10k; fetch the files again"),
        (None, "t10k-images-idx3-ubyte.gz cannot be read (No such file or directory); the folder holds the four published .gz files"),
    ],
    ids=["not gzip", "cut off", "no sizes", "labels for images", "a byte short", "empty", "one image too few", "missing"],
)
def test_a_damaged_image_file_is_named(content, said, clothing):
    file = clothing / "t10k-images-idx3-ubyte.gz"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    message = refused(fashion_mnist.load, str(clothing))
    assert said in message
    assert str(clothing) in message


def test_a_label_outside_is_named(clothing):
    (clothing / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(50) % 11))
    assert "t10k-labels-idx1-ubyte.gz: label 10 of image 10, expected 0..9" in refused(fashion_mnist.load, str(clothing))
