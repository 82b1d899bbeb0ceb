"""The table of formats has the score, size and latency of each file; tables of earlier versions are read."""

import json

import pytest
import torch

from kd_env import tasks
from kd_env.benchmark import formats
from kd_env.benchmark.shipping import Shipping
from kd_env.errors import InputError
from kd_env.models.low_bit import is_low_bit
from kd_env.models.networks import build, reader
from kd_env.models.saving import reader_to_save, save
from kd_env.teachers.checkpoint import CheckpointTeacher


@pytest.fixture(scope="module")
def digits():
    return tasks.load("digits")


@pytest.fixture
def folder(digits, tmp_path):
    save(tmp_path, build("resnet8(width=4)", digits, 0).eval(), digits, reader("resnet8(width=4)", digits))
    (tmp_path / "README.md").write_text("# A student\n")
    return tmp_path


@pytest.mark.long
def test_each_format_has_its_latency(folder, digits):
    lines = formats.write_formats(folder, digits, dtype="bfloat16")
    rows = json.loads((folder / formats.FILE).read_text())
    assert list(rows) == ["float32", "bfloat16"]
    assert all(len(cells) == formats.NUM_CELLS and 0 < float(cells[3]) < 1000 for cells in rows.values())
    assert lines[0] == f"float32: accuracy {rows['float32'][0]}, {rows['float32'][1]} MB, {rows['float32'][3]} ms"
    card = (folder / "README.md").read_text()
    assert "| largest difference of a logit | ms per example |\n" in card
    assert f"| bfloat16 | model.safetensors | {' | '.join(rows['bfloat16'])} |\n" in card
    assert "Milliseconds are medians of 31 runs on an image of test alone, without reading the image, on one thread" in card


@pytest.mark.long
def test_a_table_without_latency_is_read(folder, digits):
    (folder / formats.FILE).write_text(json.dumps({"float32": ["0.950", "0.1", "–"]}))
    formats.write_formats(folder, digits, dtype="float16")
    rows = json.loads((folder / formats.FILE).read_text())
    assert rows["float32"] == ["0.950", "0.1", "–", "–"]
    assert float(rows["float16"][3]) > 0
    assert "| float32 | replaced by the rounded weights | 0.950 | 0.1 | – | – |\n" in (folder / "README.md").read_text()


@pytest.mark.long
def test_weights_are_rounded_once(folder, digits):
    formats.write_formats(folder, digits, dtype="float16")
    with pytest.raises(InputError, match=r"--dtype bfloat16: the weights in .* are rounded to float16 already; name a new --out"):
        formats.write_formats(folder, digits, dtype="bfloat16")
    with pytest.raises(InputError, match=r"--dtype float32: the weights in .* are rounded to float16 already; name a new --out"):
        formats.write_formats(folder, digits, dtype="float32")
    assert formats.write_formats(folder, digits) == [], "the format is kept"
    assert list(json.loads((folder / formats.FILE).read_text())) == ["float32", "float16"]


@pytest.mark.long
def test_a_stop_after_rounding_does_not_make_up_a_difference(folder, digits, monkeypatch):
    whole = json.loads((write_stopped(folder, digits, monkeypatch) / formats.FILE).read_text())
    assert list(whole) == ["float32"]
    formats.write_formats(folder, digits, dtype="float16")
    rows = json.loads((folder / formats.FILE).read_text())
    assert rows["float32"] == whole["float32"]
    assert rows["float16"][2] == "–", "the unrounded weights are gone"


def write_stopped(folder, digits, monkeypatch):
    """Write float16 weights, and stop before their row is written."""
    with monkeypatch.context() as patch:
        patch.setattr(formats, "_largest_difference", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            formats.write_formats(folder, digits, dtype="float16")
    return folder


@pytest.mark.long
def test_texts_are_timed_with_the_longest(own_task, tmp_path):
    student = "tiny-bert(width=16,layers=1,dropout=0)"
    with torch.no_grad():
        save(tmp_path, build(student, own_task, 0).eval(), own_task, reader_to_save(own_task, own_task.max_length))
    (tmp_path / "README.md").write_text("# A student\n")
    formats.write_formats(tmp_path, own_task, dtype="bfloat16")
    assert "runs on the longest text of test alone, without the tokenizer" in (tmp_path / "README.md").read_text()


LOW_BIT = "resnet8(width=4,bits=4)"


@pytest.fixture
def low_bit_folder(digits, tmp_path):
    save(tmp_path, build(LOW_BIT, digits, 0).eval(), digits, reader(LOW_BIT, digits))
    (tmp_path / "README.md").write_text("# A student\n")
    return tmp_path


@pytest.mark.long
def test_a_quantised_student_runs_as_integers_with_its_latency(low_bit_folder, digits):
    pytest.importorskip("onnxruntime")
    import onnx

    formats.write_formats(low_bit_folder, digits, dtype="int8")
    rows = json.loads((low_bit_folder / formats.FILE).read_text())
    assert list(rows) == ["float32", "onnx", "int8"]
    assert len({cells[0] for cells in rows.values()}) == 1, "equal scores"
    assert all(0 < float(cells[3]) < 1000 for cells in rows.values())
    operators = {node.op_type for node in onnx.load(low_bit_folder / "model_int8.onnx").graph.node}
    assert {"QuantizeLinear", "ConvInteger", "MatMulInteger"} <= operators
    assert not operators & {"Conv", "Gemm", "MatMul", "DynamicQuantizeLinear"}


@pytest.mark.parametrize("dtype", formats.ROUNDED)
def test_a_quantised_student_is_not_rounded_again(low_bit_folder, digits, dtype):
    with pytest.raises(
        InputError, match=f"--dtype {dtype}: the student in .* is quantised already; leave the option out, or use --dtype int8"
    ):
        formats.write_formats(low_bit_folder, digits, dtype=dtype)
    with pytest.raises(InputError, match=r"the student 'resnet8\(width=4,bits=4\)' is quantised already"):
        Shipping(dtype=dtype).check_student(LOW_BIT, digits)
    Shipping(dtype=dtype).check_student("resnet8(width=4)", digits)


@pytest.mark.long
def test_the_vocabulary_of_a_quantised_student_can_be_trimmed(own_task, tmp_path):
    student, folder = "tiny-bert(width=16,layers=1,dropout=0,bits=3)", tmp_path / "student"
    save(folder, build(student, own_task, 0).eval(), own_task, reader_to_save(own_task, own_task.max_length))
    (folder / "README.md").write_text("# A student\n\n| this student | 0.5 | 1 | 0.0 | 0.1 |\n")
    before = CheckpointTeacher(str(folder), own_task)(own_task.validation.inputs).logits
    steps = (folder / "low_bit.json").read_text()
    list(Shipping(trim_vocabulary=True).run(folder, own_task))
    assert (folder / "low_bit.json").read_text() == steps
    trimmed = CheckpointTeacher(str(folder), own_task)
    assert is_low_bit(trimmed.network)
    torch.testing.assert_close(trimmed(own_task.validation.inputs).logits, before, rtol=0, atol=1e-6)
