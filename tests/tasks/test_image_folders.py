"""``images:PATH``: a folder of images of your own, and the task that it becomes."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks.pictures import read_picture
from kd_env.tasks.task import SPLITS
from kd_env.testing import check_task

RNG = np.random.default_rng(0)


def write(folder, role, count, classes=("cat", "dog"), shape=(6, 5)):
    for i in range(count):
        place = folder / role / classes[i % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(256, size=shape, dtype=np.uint8)).save(place / f"{i:03d}.png")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "train", 200)
    write(tmp_path, "test", 10)
    (tmp_path / "train" / "cat" / ".hidden").touch()
    write(tmp_path, "train", 1, (".ipynb_checkpoints",))
    return tmp_path


def refusal(folder):
    with pytest.raises(InputError) as error:
        tasks.load(f"images:{folder}")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_classes_are_folders_and_pixels_are_what_they_were(folder):
    write(folder, "val", 2)
    task = tasks.load(f"images:{folder}")
    assert {name: len(getattr(task, name)) for name in SPLITS} == {"train": 72, "reward": 64, "validation": 64, "test": 10}
    assert task.class_names == ("cat", "dog")
    assert task.test.inputs.shape == (10, 1, 6, 5)
    assert list(task.test.labels) == [0] * 5 + [1] * 5
    with Image.open(folder / "test" / "dog" / "001.png") as image:
        assert (np.rint(task.test.inputs[5, 0] * 255) == np.asarray(image)).all()
    assert task.notes == (
        "not read: val (folders are train, reward, validation, dev, test)",
        "carved from train: reward 64, validation 64; left: 72",
        "validation has 64 examples, so an accuracy on it has a standard error of up to 0.062",
    )
    check_task(lambda: tasks.load(f"images:{folder}"))


def test_one_colour_image_makes_the_task_colour(folder):
    write(folder, "train", 1, ("cat",), (6, 5, 3))
    task = tasks.load(f"images:{folder}")
    assert task.train.inputs.shape[1:] == (3, 6, 5)
    assert (task.test.inputs[:, 0] == task.test.inputs[:, 2]).all(), "grey stays grey"


def test_metric_is_an_option(folder):
    task = tasks.load(f"images:{folder}(metric=f1)")
    assert (task.metric, task.name) == ("f1", f"images:{folder}(metric=f1)")


def test_an_image_that_cannot_be_used_is_named(folder):
    assert "none does not exist" in refusal(folder / "none")
    assert "0 classes in train; expected images as train/CLASS/NAME.png" in refusal(folder / "test")
    file = folder / "test" / "dog" / "001.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    assert f"{file} cannot be read as an image (" in refusal(folder)
    file.write_text("not an image")
    assert f"{file} cannot be read as an image (UnidentifiedImageError" in refusal(folder)
    Image.fromarray(np.zeros((6, 6), dtype=np.uint8)).save(file)
    assert f"{file}: 6 x 6 pixels, expected 5 x 6 as {folder}/train/cat/000.png; scale all images to one size" in refusal(folder)
    file.write_bytes(whole)
    write(folder, "test", 1, ("cow",))
    assert "test/cow/000.png: class 'cow' is not among those of train (cat, dog)" in refusal(folder)
    (folder / "test" / "cow" / "000.png").unlink()
    (folder / "dev").mkdir()
    assert f"{folder}/dev: no images; expected dev/CLASS/NAME.png" in refusal(folder)


# images as they come


def save(image, folder, count=4, suffix="png", **options):
    """Save ``count`` different copies of a picture of each of two classes."""
    for number in range(count):
        for kind in ("cat", "dog"):
            place = folder / "train" / kind
            place.mkdir(parents=True, exist_ok=True)
            picture = image(number + 10 * (kind == "dog"))
            picture.save(place / f"{number:03d}.{suffix}", **options)
    return folder


def pixels(folder):
    return read_picture(folder / "train" / "cat" / "000.png").channels(False)


def test_images_of_16_bits_are_scaled(tmp_path):
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    save(lambda seed: Image.fromarray(values + np.uint16(seed)), tmp_path, 130)
    picture = read_picture(tmp_path / "train" / "dog" / "001.png")
    np.testing.assert_allclose(picture.pixels, (values + 11) / 65535, rtol=1e-6)
    task = tasks.load(f"images:{tmp_path}")
    assert task.notes[0] == "260 of 260 images are of 16 bits: their values are divided by 65,535"
    assert len(np.unique(task.train.inputs)) > 100


def png_of_16_bits(values, kind):
    """A PNG of values ``[H, W, channels]``, which Pillow cannot write: ``kind`` 2 is colour, 4 grey with alpha, 6 colour with alpha."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of_16_bits(values):
    """A TIFF of colour, which Pillow cannot write: nine tags, the bits of the three channels, and the values in one strip."""
    height, width = values.shape[:2]
    place = 8 + 2 + 9 * 12 + 4
    numbers = {256: width, 257: height, 259: 1, 262: 2, 277: 3, 278: height}
    entries = [(tag, struct.pack("<HHIHH", tag, 3, 1, number, 0)) for tag, number in numbers.items()]
    places = {258: (3, 3, place), 273: (4, 1, place + 6), 279: (4, 1, values.nbytes)}
    entries += [(tag, struct.pack("<HHII", tag, *entry)) for tag, entry in places.items()]
    tags = b"".join(content for _, content in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, 9) + tags + struct.pack("<I3H", 0, 16, 16, 16) + values.astype("<u2").tobytes()


def sgi_of_16_bits(values):
    height, width = values.shape[:2]
    header = struct.pack(">hBBHHHH", 474, 0, 2, 3, width, height, 3).ljust(512, b"\0")
    return header + values.transpose(2, 0, 1).astype(">u2").tobytes()


DEEP = np.full((3, 4, 4), 65535, dtype=np.uint16)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("png", png_of_16_bits(DEEP[..., :3], 2)),
        ("png", png_of_16_bits(DEEP[..., :2], 4)),
        ("png", png_of_16_bits(DEEP, 6)),
        ("ppm", b"P6\n4 3\n65535\n" + DEEP[..., :3].tobytes()),
        ("tif", tiff_of_16_bits(DEEP[..., :3])),
        ("sgi", sgi_of_16_bits(DEEP[..., :3])),
    ],
    ids=["png colour", "png grey and alpha", "png colour and alpha", "ppm", "tiff", "sgi"],
)
def test_colour_and_alpha_of_16_bits_are_refused(suffix, content, tmp_path):
    file = tmp_path / f"deep.{suffix}"
    file.write_bytes(content)
    with Image.open(file) as image:
        assert image.size == (4, 3)
    with pytest.raises(InputError, match=r"deep\.\w+: values of 16 bits, of which Pillow reads 8; save it with 8 bits"):
        read_picture(file)


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm", "jpg", "bmp", "sgi", "jp2", "webp"])
def test_colour_of_8_bits_is_read_from_any_format(suffix, tmp_path):
    file = tmp_path / f"usual.{suffix}"
    Image.fromarray(np.full((3, 4, 3), 200, dtype=np.uint8)).save(file)
    assert np.abs(read_picture(file).pixels.astype(int) - 200).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_refused_and_an_opaque_alpha_channel_is_dropped(mode, tmp_path):
    def picture(alpha):
        def make(seed):
            grey = Image.fromarray(np.full((4, 4), seed, dtype=np.uint8))
            return Image.merge(mode, [grey] * (len(mode) - 1) + [Image.new("L", (4, 4), alpha)])

        return make

    save(picture(255), tmp_path)
    opaque = read_picture(tmp_path / "train" / "dog" / "001.png")
    assert opaque.opaque
    assert opaque.channels(False).tolist() == np.full((1, 4, 4), np.float32(11) / 255).tolist()
    save(picture(200), tmp_path)
    assert f"{tmp_path}/train/cat/000.png: transparency (mode {mode}), and what is behind it is not known" in refusal(tmp_path)


def test_float_images_are_refused_by_name(tmp_path):
    save(lambda seed: Image.fromarray(np.full((4, 4), seed / 100, dtype=np.float32)), tmp_path, suffix="tif")
    assert f"{tmp_path}/train/cat/000.tif: values of 32 bits (mode F), whose range is not known; save it with 8 or 16 bits" in refusal(
        tmp_path
    )


def test_images_are_turned_as_their_exif_orientation_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the picture is to be turned by 90 degrees clockwise
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    save(lambda seed: Image.fromarray(values), tmp_path, exif=exif)
    assert (np.rint(pixels(tmp_path)[0] * 255) == np.rot90(values, -1)).all()


def test_images_are_scaled_to_a_size(tmp_path):
    rng = np.random.default_rng(0)
    save(lambda seed: Image.fromarray(rng.integers(256, size=(6 + seed, 9), dtype=np.uint8)), tmp_path, 130)
    assert "scale all images to one size, as with images:PATH(size=32)" in refusal(tmp_path)
    task = tasks.load(f"images:{tmp_path}(size=8x4)")
    assert task.train.inputs.shape[1:] == (1, 4, 8)
    assert (task.name, task.notes[0]) == (f"images:{tmp_path}(size=8x4)", "260 of 260 images are scaled to another size")
    assert tasks.load(f"images:{tmp_path}(size=5)").train.inputs.shape[1:] == (1, 5, 5)
    with pytest.raises(InputError, match=r"size=big\): expected width and height in pixels, as size=32 or size=32x24"):
        tasks.load(f"images:{tmp_path}(size=big)")


def test_what_a_split_holds_besides_images_of_classes_is_named(folder):
    write(folder, "train/cat", 1, ("young",))
    (folder / "train" / "cow").mkdir()
    Image.new("L", (5, 6)).save(folder / "train" / "loose.png")
    (folder / "test" / ".hidden").mkdir()
    task = tasks.load(f"images:{folder}")
    assert task.class_names == ("cat", "dog")
    assert task.notes[0] == "not read: train/cat/young, train/cow, train/loose.png (images are SPLIT/CLASS/NAME)"


def test_images_of_other_colour_spaces_are_counted(tmp_path):
    colours = np.random.default_rng(0).integers(256, size=(130, 2, 4, 4, 3), dtype=np.uint8)
    save(lambda seed: Image.fromarray(colours[seed % 130, seed // 130]), tmp_path, 130)
    Image.fromarray(colours[0, 0]).convert("CMYK").save(tmp_path / "train" / "cat" / "000.tif")
    assert tasks.load(f"images:{tmp_path}").notes[0] == (
        "1 of 261 images are of another colour space, as CMYK: they are converted to RGB without a colour profile"
    )


def test_notes_and_messages_speak_of_images(tmp_path):
    save(lambda seed: Image.new("L", (4, 4), 7), tmp_path, 200)
    assert "too few different training images to carve" in refusal(tmp_path)
