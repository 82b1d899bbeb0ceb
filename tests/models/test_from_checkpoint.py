"""A student that starts from a checkpoint: its own body and tokenizer, a new head, some of the layers."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from kd_env.bank.bank import open_bank
from kd_env.distillation import Distillation, EncodedTask
from kd_env.distillation.settings import distillation_settings
from kd_env.errors import InputError
from kd_env.models.encode import take, text_lengths
from kd_env.models.modes import draws_in_training, dropout_rates
from kd_env.models.networks import build, reader
from kd_env.teachers import Pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.types import Decision

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(folders, own_task, tmp_path_factory):
    teachers = tuple(CheckpointTeacher(folders[name], own_task) for name in ("bert", "roberta"))
    bank = open_bank(own_task, Pool("two", teachers), tmp_path_factory.mktemp("bank") / "bank", keep=frozenset({"layers", "attention"}))
    return EncodedTask.of(own_task, bank, folders["bert"])


def make(data, folders, num_students=1, seed=0, knowledge="response", **options):
    student = f"{folders['bert']}(layers=0;2,dropout={options.pop('dropout', 0)})"
    chosen = distillation_settings(
        data.task, student=student, updates=6, batch_size=8, num_students=num_students, knowledge=knowledge, **options
    )
    return Distillation(data, chosen, seed)


def teach(run, updates):
    for _ in range(updates):
        run.observe()
        rows = 8 * run.num_students
        weights = {name: torch.full((rows, 2), 0.5) for name in run.loss.terms}
        run.apply(Decision(weights, dict.fromkeys(weights, 1.0), 2.0))
    return run


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
def test_its_body_is_the_checkpoint_s_and_its_head_is_drawn(name, folders, own_task):
    network = build(folders[name], own_task, 0).eval()
    again, other = build(folders[name], own_task, 0), build(folders[name], own_task, 1)
    state = network.state_dict()
    assert all(torch.equal(state[key], again.state_dict()[key]) for key in state)
    head = {key for key in state if not torch.equal(state[key], other.state_dict()[key])}
    assert head
    assert all("classifier" in key for key in head)
    text = own_task.train.inputs[0]
    inputs = take(reader(folders[name], own_task)(own_task.train.inputs[:1]), slice(None), CPU)
    output = network(extra_outputs=frozenset({"layers"}), **inputs)
    tokens = AutoTokenizer.from_pretrained(folders[name])(text, return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folders[name])(**tokens).last_hidden_state[:, 0]
    torch.testing.assert_close(output.layers[:, -1], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network.classifier(output.features), output.logits)


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
def test_it_is_cut_to_the_layers_named_in_their_order(name, folders, own_task):
    whole, cut = build(folders[name], own_task, 0), build(f"{folders[name]}(layers=2;0)", own_task, 0)
    assert cut.model.config.num_hidden_layers == 2
    of_cut = [value for key, value in cut.state_dict().items() if ".layer.0." in key]
    of_whole = [value for key, value in whole.state_dict().items() if ".layer.2." in key]
    assert len(of_cut) > 5
    assert all(torch.equal(new, old) for new, old in zip(of_cut, of_whole, strict=True))
    inputs = take(reader(folders[name], own_task)(own_task.train.inputs[:3]), slice(None), CPU)
    assert cut(extra_outputs=frozenset({"layers"}), **inputs).layers.shape == (3, 3, 16)
    assert build(f"{folders[name]}(layers=1;)", own_task, 0).model.config.num_hidden_layers == 1


def test_an_image_checkpoint_is_cut_too(make_checkpoint, digits_data, tmp_path):
    task = digits_data.task
    folder = make_checkpoint(tmp_path / "vit", "vit", image_size=8, patch_size=4, num_channels=1)
    network = build(f"{folder}(layers=1;)", task, 0)
    output = network(extra_outputs=frozenset({"layers"}), **reader(str(folder), task)(task.train.inputs[:2]))
    assert output.layers.shape == (2, 2, 16)


def test_it_reads_with_its_own_tokenizer_no_more_tokens_than_max_length(folders, own_task):
    read = reader(folders["bert"], own_task)(own_task.train.inputs[:20])
    expected = AutoTokenizer.from_pretrained(folders["bert"])(own_task.train.inputs[:20].tolist(), padding=True, return_tensors="pt")
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[key], expected[key]) for key in read)
    assert reader(f"{folders['bert']}(max_length=5)", own_task)(own_task.train.inputs)["input_ids"].shape[1] == 5


@pytest.mark.long
def test_a_population_evaluates_as_each_would_alone(data, folders):
    together = teach(make(data, folders, num_students=2, precision="float64"), 2)
    inputs, labels = data.inputs["train"], data.labels["train"]
    per_student = type(inputs)({name: torch.cat([tensor, tensor.flip(0)]) for name, tensor in inputs.items()})
    shared = together.student.predict(inputs, shared=True).unflatten(0, (2, -1))
    apart = together.student.predict(per_student).unflatten(0, (2, -1))
    for s in range(2):
        expected = together.of_student(s).student.predict(inputs)
        assert len(expected) == len(labels)
        torch.testing.assert_close(shared[s], expected, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(apart[s], expected.flip(0) if s else expected, rtol=1e-6, atol=1e-8)


def test_a_mini_batch_holds_texts_of_like_length(data, folders):
    run = make(data, folders)
    lengths = text_lengths(data.inputs["train"])
    sorted_gaps, random_gaps = [], []
    for _ in range(20):
        rows = run.observe().example_ids
        sorted_gaps.append(np.ptp(lengths[rows]))
        random_gaps.append(np.ptp(np.random.default_rng(len(sorted_gaps)).choice(lengths, len(rows), replace=False)))
        run.skip()
    assert np.mean(sorted_gaps) < 0.7 * np.mean(random_gaps)


@pytest.mark.parametrize("knowledge", ["response", "layer,attention"])
def test_a_snapshot_is_bit_exact_dropout_included(knowledge, data, folders):
    run = teach(make(data, folders, knowledge=knowledge, dropout=0.2), 2)
    state = run.snapshot()
    expected = teach(run, 3).student.state()
    fresh = make(data, folders, knowledge=knowledge, dropout=0.2)
    fresh.restore(state)
    state = teach(fresh, 3).student.state()
    assert all(torch.equal(expected[name], state[name]) for name in expected)


def test_a_population_of_them_learns_as_each_would_alone(data, folders):
    together = teach(make(data, folders, num_students=2), 4)
    alone = [teach(make(data, folders, seed=seed), 4) for seed in range(2)]
    for s, run in enumerate(alone):
        state, alone_state = together.student.state_of(s), run.student.state()
        # another padding and other sums: equal up to rounding, which Adam's first steps magnify where a gradient is near 0
        gaps = [float((state[name] - alone_state[name]).abs().max()) for name in alone_state if name.startswith("network.")]
        assert max(gaps) < 2e-3
    loss, _ = together.validate()
    np.testing.assert_allclose(loss, [float(run.validate()[0][0]) for run in alone], atol=2e-3)


def test_its_dropout_option_is_the_rate_of_all_dropout(make_checkpoint, tmp_path, digits_data):
    """A ViT's attention has a rate, and no layer for it."""
    rates = {"attention_probs_dropout_prob": 0.5, "hidden_dropout_prob": 0.1}
    folder = make_checkpoint(tmp_path / "vit", "vit", image_size=8, patch_size=4, num_channels=1, **rates)
    assert draws_in_training(build(str(folder), digits_data.task, 0))
    for rate in (0.0, 0.2):
        network = build(f"{folder}(dropout={rate})", digits_data.task, 0)
        places = dropout_rates(network)
        assert {name for _, name in places} == {"p", "attention_dropout"}
        assert {getattr(module, name) for module, name in places} == {rate}
        assert draws_in_training(network) == (rate > 0.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("layers=0;3", "layer 3 does not exist; the checkpoint has layers 0 to 2"),
        ("layers=2", "list the layers to keep, such as 0;2 or, for one, 2;"),
        ("layers=first", "list the layers to keep"),
        ("layers=;", "list the layers to keep"),
        ("dropout=1", r"dropout=1\): expected a number of at least 0, below 1"),
        ("max_length=2", r"max_length=2\): expected a whole number of at least 3"),
        ("width=3", "unknown option of student .* 'width'; known: bits, dropout, layers, max_length, outer_bits"),
    ],
)
def test_options_it_has_not_are_refused(options, says, folders, own_task):
    text = f"{folders['bert']}({options})"
    with pytest.raises(InputError, match=says):
        reader(text, own_task), build(text, own_task, 0)
