"""A saved quantised student is the one that was measured; plain readers get its quantised weights."""

import json

import numpy as np
import pytest
import torch

from kd_env.errors import InputError
from kd_env.models.convolutional import load
from kd_env.models.low_bit import is_low_bit, layers_of
from kd_env.models.low_bit_files import FILE, plain, restore
from kd_env.models.networks import build, reader
from kd_env.models.pretrained import open_checkpoint
from kd_env.models.saving import reader_to_save, save
from kd_env.teachers.checkpoint import CheckpointTeacher

TEXT = "tiny-bert(width=8,layers=1,dropout=0,bits=3)"


def saved(folder, text, task):
    """A network with steps that are not the first ones, and the folder it is saved in."""
    network = build(text, task, 0).eval()
    with torch.no_grad():
        for number, (_, layer) in enumerate(layers_of(network)):
            layer.weight_quantizer.log_step.add_(0.01 * number)
            layer.input_quantizer.log_step.sub_(0.013 * number)
    save(folder, network, task, reader_to_save(task, task.max_length))
    return network


@pytest.mark.parametrize("text", ["resnet8(width=4,bits=4)", "wrn(depth=10,widen=1,bits=2)"])
def test_a_convolutional_student_is_read_as_it_was(digits_data, tmp_path, text):
    network = saved(tmp_path, text, digits_data.task)
    pixels = torch.from_numpy(digits_data.task.validation.inputs[:50])
    assert torch.equal(load(tmp_path)(pixels).logits, network(pixels).logits)
    weights = load(tmp_path).stem[0].weight if text.startswith("resnet") else load(tmp_path).classifier.weight
    assert len(weights.unique()) <= 256


def test_a_transformer_is_read_as_it_was(own_task, tmp_path):
    network = saved(tmp_path, TEXT, own_task)
    inputs = reader(TEXT, own_task)(own_task.validation.inputs[:20])
    logits = CheckpointTeacher(str(tmp_path), own_task)(own_task.validation.inputs[:20]).logits
    with torch.no_grad():
        torch.testing.assert_close(logits, network(**inputs).logits, rtol=0, atol=1e-6)


def test_an_image_transformer_for_grey_images_is_read_as_it_was(digits_data, tmp_path):
    task = digits_data.task
    network = saved(tmp_path, "tiny-vit(width=8,layers=1,bits=4)", task)
    logits = CheckpointTeacher(str(tmp_path), task)(task.validation.inputs[:50]).logits
    with torch.no_grad():
        expected = network(pixel_values=torch.from_numpy(task.validation.inputs[:50])).logits
    assert float((logits - expected).abs().median()) < 1e-6


def test_transformers_reads_the_quantised_weights(own_task, tmp_path):
    from transformers import AutoModelForSequenceClassification

    network = saved(tmp_path, TEXT, own_task)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, attn_implementation="eager")
    inputs = dict(reader(TEXT, own_task)(own_task.validation.inputs[:20]))
    assert not is_low_bit(model)
    query = model.bert.encoder.layer[0].attention.self.query.weight
    assert len(query.unique()) <= 8
    with torch.no_grad():
        expected = network(**inputs).logits
        assert (model(**inputs).logits - expected).abs().max() > 1e-4, "inputs are not quantised"
        restored = restore(model, tmp_path)
        assert restored is model
        torch.testing.assert_close(model.eval()(**inputs).logits, expected, rtol=0, atol=1e-6)


def test_a_saved_student_starts_the_next_one_in_float32_or_quantised(digits_data, tmp_path):
    task = digits_data.task
    network = saved(tmp_path, "resnet8(width=4,bits=4)", task)
    first = build(str(tmp_path), task, 0)
    assert not is_low_bit(first)
    assert torch.equal(first.stem[0].weight, plain(network).stem[0].weight)
    again = build(f"{tmp_path}(bits=5)", task, 0)
    assert {layer.weight_quantizer.bits for _, layer in layers_of(again)} == {5, 8}


def test_a_network_in_float32_has_no_such_file(digits_data, tmp_path):
    network = build("resnet8(width=4)", digits_data.task, 0)
    assert plain(network).state_dict().keys() == network.state_dict().keys()
    save(tmp_path, network, digits_data.task, reader_to_save(digits_data.task, 8))
    assert not (tmp_path / FILE).exists()


def test_other_steps_are_another_teacher(digits_data, tmp_path):
    saved(tmp_path, "resnet8(width=4,bits=4)", digits_data.task)
    before = CheckpointTeacher(str(tmp_path), digits_data.task).fingerprint
    content = json.loads((tmp_path / FILE).read_text())
    content["layers"]["classifier"]["log_input_step"] += 0.1
    (tmp_path / FILE).write_text(json.dumps(content))
    assert CheckpointTeacher(str(tmp_path), digits_data.task).fingerprint != before


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.pop("bits"),
        lambda entry: entry.update(bits=9),
        lambda entry: entry.update(log_weight_step=float("nan")),
        lambda entry: entry.update(log_input_step="x"),
    ],
)
def test_a_damaged_file_is_refused(digits_data, tmp_path, change):
    saved(tmp_path, "resnet8(width=4,bits=4)", digits_data.task)
    content = json.loads((tmp_path / FILE).read_text())
    change(content["layers"]["classifier"])
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"{FILE} cannot be used .*; save or teach that network again"):
        open_checkpoint(str(tmp_path), digits_data.task).classifier()


def test_steps_of_another_network_are_refused(digits_data, tmp_path):
    saved(tmp_path, "resnet8(width=4,bits=4)", digits_data.task)
    content = json.loads((tmp_path / FILE).read_text())
    content["layers"]["stage9"] = content["layers"]["classifier"]
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match="stage9"):
        load(tmp_path)


def test_values_are_multiples_of_the_step(digits_data, tmp_path):
    network = saved(tmp_path, "resnet8(width=4,bits=2)", digits_data.task)
    weights = load(tmp_path).stage2[0].body[0].weight.detach().numpy()
    step = np.exp(float(network.stage2[0].body[0].weight_quantizer.log_step.detach()))
    assert set(np.round(weights / step, 4).ravel().tolist()) <= {-2.0, -1.0, 0.0, 1.0}
