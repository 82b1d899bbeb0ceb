"""A student that starts from a checkpoint of images is saved with the preprocessing that it was taught with."""

import json

import pytest

from kd_env import tasks
from kd_env.benchmark import records
from kd_env.cli import invoke
from kd_env.teachers.checkpoint import CheckpointTeacher

pytestmark = pytest.mark.long


@pytest.mark.parametrize(("mean", "side"), [(0.0, 8), (0.5, 16)])
def test_a_student_from_a_vision_checkpoint_keeps_its_preprocessing(make_checkpoint, mean, side, tmp_path):
    labels, folder, out = [str(digit) for digit in range(10)], tmp_path / "vit", tmp_path / "student"
    make_checkpoint(folder, "vit", labels=labels, image_size=side, patch_size=4)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": side, "width": side}, "do_rescale": True}
    normal = {"do_normalize": True, "image_mean": [mean] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps({**processor, **normal}))
    options = ["--task", "digits", "--teachers", "digits/experts/upright", "--policy", "uniform", "--updates", "30", "--quiet"]
    assert invoke(["distill", *options, "--student", str(folder), "--out", str(out)]) == 0
    task = tasks.load("digits")
    classes = CheckpointTeacher(str(out), task)(task.test.inputs).logits.argmax(1).numpy()
    assert float((classes == task.test.labels).mean()) == pytest.approx(records.read(out / "distillation")[0]["test"])
    saved = json.loads((out / "preprocessor_config.json").read_text())
    assert (saved["image_mean"], saved["size"]) == ([mean] * 3, {"height": side, "width": side})
