"""Folders of images with links to nothing, images that are too large together, and files that Pillow fails on in its own ways."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import folders, image_folders
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


def test_images_that_are_too_large_together_are_refused_before_they_are_read(folder, monkeypatch):
    with pytest.raises(InputError, match=r"280 images of 99999 x 99999 pixels need 10,431 GiB of memory, more than the limit of 16 GiB"):
        tasks.load(f"images:{folder}(size=99999)")
    monkeypatch.setattr(image_folders, "MAX_BYTES", 4 * 280 * 6 * 5 - 1)
    with pytest.raises(InputError, match=r"280 images of 5 x 6 pixels need .*scale them to a smaller size, as with images:PATH\(size=32\)"):
        tasks.load(f"images:{folder}")
    monkeypatch.setattr(image_folders, "MAX_BYTES", 4 * 280 * 6 * 5)
    assert tasks.load(f"images:{folder}").train.inputs.shape[1:] == (1, 6, 5)
