"""Folders of images with links to nothing, images that are too large together, and files that Pillow fails on in its own ways."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import folders, memory
from kd_env.tasks.pictures import read_picture
from kd_env.tasks.task import SPLITS

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(140):
            Image.fromarray(RNG.integers(256, size=(6, 5), dtype=np.uint8)).save(tmp_path / "train" / name / f"{number:03d}.png")
    return tmp_path


def pages_of_tiff():
    """A TIFF with two pages, and the place of the tags of its second page."""
    file = io.BytesIO()
    first, second = (Image.fromarray(RNG.integers(256, size=(6, 5), dtype=np.uint8)) for _ in range(2))
    first.save(file, format="TIFF", save_all=True, append_images=[second])
    content = bytearray(file.getvalue())
    (start,) = struct.unpack_from("<I", content, 4)
    (tags,) = struct.unpack_from("<H", content, start)
    (second_start,) = struct.unpack_from("<I", content, start + 2 + 12 * tags)
    return content, second_start


def change_tag(content, start, tag, number, value):
    """Change the number or the value of a tag."""
    (tags,) = struct.unpack_from("<H", content, start)
    for place in range(start + 2, start + 2 + 12 * tags, 12):
        if struct.unpack_from("<H", content, place)[0] == tag:
            struct.pack_into("<H", content, place, number)
            struct.pack_into("<H", content, place + 8, value)
    return content


@pytest.mark.parametrize(
    ("error", "tag", "number", "value"), [("TypeError", 256, 60000, 5), ("KeyError", 259, 259, 58881)], ids=["no width", "no compression"]
)
def test_a_second_page_that_is_damaged_is_named(error, tag, number, value, tmp_path):
    content, start = pages_of_tiff()
    (tmp_path / "a.tif").write_bytes(content)
    assert read_picture(tmp_path / "a.tif").frames
    (tmp_path / "b.tif").write_bytes(change_tag(content, start, tag, number, value))
    with pytest.raises(InputError, match=rf"b.tif cannot be read as an image \({error}"):
        read_picture(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("links", "says"),
    [
        (["train/cat/200.png"], r"train/cat/200.png: a symbolic link to gone, which does not exist; repair or delete it"),
        (["train/cow"], r"train/cow: a symbolic link to gone, which does not exist; repair"),
        (["test"], r"test: a symbolic link to gone, which"),
        (["train/dog/a.png", "train/cat/b.png"], r"train/cat/b.png: .* does not exist, the first of 2 such links; repair"),
    ],
)
def test_a_link_to_nothing_is_refused(folder, links, says):
    for link in links:
        (folder / link).symlink_to("gone")
    with pytest.raises(InputError, match=says):
        tasks.load(f"images:{folder}")


def test_links_to_images_are_read_and_hidden_links_are_not(folder):
    Image.fromarray(RNG.integers(256, size=(6, 5), dtype=np.uint8)).save(folder / "elsewhere.png")
    (folder / "train" / "cat" / "200.png").symlink_to(folder / "elsewhere.png")
    (folder / "train" / "cat" / ".gone").symlink_to("gone")
    (folder / "train" / "loop").symlink_to(folder / "train")
    assert len(folders.content_stamp([folder])) == 64
    (folder / "train" / "loop").unlink()
    task = tasks.load(f"images:{folder}")
    assert sum(len(getattr(task, split)) for split in SPLITS) == 281


def test_a_link_to_nothing_in_place_of_a_table_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"text {row},{row % 2}\n" for row in range(300)))
    (tmp_path / "test.csv").symlink_to("gone.csv")
    with pytest.raises(InputError, match=r"test.csv: a symbolic link to gone.csv, which does not exist; repair or delete it"):
        tasks.load(f"folder:{tmp_path}")


def test_links_between_folders_end(tmp_path):
    for number in range(20):  # each folder leads to all others: far more paths than can be visited
        (tmp_path / f"{number}").mkdir()
        for other in range(20):
            (tmp_path / f"{number}" / f"to{other}").symlink_to(tmp_path / f"{other}")
    before = folders.content_stamp([tmp_path])
    (tmp_path / "7" / "new.png").touch()
    with_file = folders.content_stamp([tmp_path])
    (tmp_path / "3" / "to5").unlink()
    assert len({before, with_file, folders.content_stamp([tmp_path])}) == 3


def test_images_that_need_more_memory_than_the_machine_has_are_refused_before_they_are_read(folder, monkeypatch):
    grey = 4 * 280 * 6 * 5
    monkeypatch.setattr(memory, "machine_memory", lambda: 2**34)
    message = (
        r"280 images of 99999 x 99999 pixels need 10,430.6 GiB of memory in float32, and this machine has 16.0 GiB; "
        r"scale them to a smaller size, as with images:PATH\(size=32\)"
    )
    with pytest.raises(InputError, match=message):
        tasks.load(f"images:{folder}(size=99999)")
    monkeypatch.setattr(memory, "machine_memory", lambda: grey - 1)
    with pytest.raises(InputError, match=r"280 images of 5 x 6 pixels need .*; scale them"):
        tasks.load(f"images:{folder}")
    monkeypatch.setattr(memory, "machine_memory", lambda: grey)
    assert tasks.load(f"images:{folder}").train.inputs.shape[1:] == (1, 6, 5)


def test_a_colour_image_anywhere_in_train_makes_three_channels(folder, monkeypatch):
    Image.fromarray(RNG.integers(256, size=(6, 5, 3), dtype=np.uint8)).save(folder / "train" / "dog" / "139.png")
    colour = 4 * 280 * 3 * 6 * 5
    monkeypatch.setattr(memory, "machine_memory", lambda: colour - 1)
    with pytest.raises(InputError, match=r"280 images of 5 x 6 pixels need .*; scale them"):
        tasks.load(f"images:{folder}")
    for limit in (colour, None):
        monkeypatch.setattr(memory, "machine_memory", lambda limit=limit: limit)
        assert tasks.load(f"images:{folder}").train.inputs.shape[1:] == (3, 6, 5)


def test_the_first_image_of_another_size_is_refused_before_the_rest_is_read(folder):
    Image.fromarray(RNG.integers(256, size=(60, 50), dtype=np.uint8)).save(folder / "train" / "cat" / "001.png")
    (folder / "train" / "dog" / "139.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cat/001.png: 50 x 60 pixels, expected 5 x 6"):
        tasks.load(f"images:{folder}")


def test_the_images_of_a_split_are_listed_once(folder, monkeypatch):
    listings, glob = [], Path.glob
    monkeypatch.setattr(Path, "glob", lambda path, pattern: listings.append((path.name, pattern)) or glob(path, pattern))
    tasks.load(f"images:{folder}")
    assert listings == [("train", "*/*")]
