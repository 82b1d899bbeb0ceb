"""Quantised layers: LSQ's formulas, which layers have how many bits, first steps, and what is refused."""

import math

import pytest
import torch
from torch.autograd import forward_ad

from kd_env.errors import InputError
from kd_env.models.low_bit import EXAMPLES, LowBit, LowBitConv2d, Quantizer, is_low_bit, layers_of, quantize, split_options
from kd_env.models.networks import MLP, bit_widths, build, reader

VALUES = [-2.0, -0.6, -0.2, 0.3, 0.6, 2.0]


def step_of(quantizer):
    return math.exp(float(quantizer.log_step.detach()))


def test_two_signed_bits_have_four_levels():
    quantizer = Quantizer(2, signed=True, log_step=math.log(0.5))
    quantised = quantizer(torch.tensor(VALUES), count=6)
    torch.testing.assert_close(quantised.detach(), torch.tensor([-1.0, -0.5, 0.0, 0.5, 0.5, 0.5]))
    assert quantizer.integers(torch.tensor(VALUES)).tolist() == [-2, -1, 0, 1, 1, 1]


def test_two_unsigned_bits_have_four_levels():
    quantised = Quantizer(2, signed=False, log_step=math.log(0.5))(torch.tensor(VALUES), count=6)
    torch.testing.assert_close(quantised.detach(), torch.tensor([0.0, 0.0, 0.0, 0.5, 0.5, 1.5]))


def test_quantised_values_stay_the_same_bit_for_bit():
    quantizer, values = Quantizer(4, signed=True, log_step=-2.3456), torch.randn(1000, generator=torch.Generator().manual_seed(0))
    once = quantizer(values, count=1000)
    assert torch.equal(quantizer(once, count=1000), once)
    assert torch.equal(quantizer.integers(values) * quantizer.log_step.exp(), once)


@pytest.mark.parametrize("signed", [True, False])
def test_gradients_are_those_of_the_paper(signed):
    """Esser et al. 2020, equations 3 and 5 and section 2.2, by hand; a step is an exponential, so its gradient has another factor."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(200, generator=generator, dtype=torch.float64).requires_grad_()
    upstream = torch.randn(200, generator=generator, dtype=torch.float64)
    quantizer = Quantizer(3, signed, math.log(0.31)).double()
    quantizer(values, count=200).backward(upstream)
    lowest, highest = (-4, 3) if signed else (0, 7)
    step = quantizer.log_step.detach().exp()
    scaled = values.detach() / step
    inside = (scaled > lowest) & (scaled < highest)
    by_step = torch.where(inside, scaled.round() - scaled, scaled.clamp(lowest, highest))
    torch.testing.assert_close(values.grad, torch.where(inside, upstream, 0.0), rtol=0, atol=1e-12)
    expected = step * (by_step * upstream).sum() / math.sqrt(200 * highest)
    torch.testing.assert_close(quantizer.log_step.grad, expected, rtol=1e-10, atol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")
def test_forward_mode_agrees_with_backpropagation():
    generator = torch.Generator().manual_seed(2)
    values, tangent = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    quantizer = Quantizer(4, signed=True, log_step=-1.0).double()
    leaf, upstream = values.clone().requires_grad_(), torch.randn(50, generator=generator, dtype=torch.float64)
    quantizer(leaf, count=50).backward(upstream)
    with forward_ad.dual_level(), torch.no_grad():
        step = forward_ad.make_dual(quantizer.log_step.detach(), torch.tensor(0.7, dtype=torch.float64))
        output = torch.func.functional_call(quantizer, {"log_step": step}, (forward_ad.make_dual(values, tangent), 50))
        derivative = forward_ad.unpack_dual(output).tangent
    torch.testing.assert_close((derivative * upstream).sum(), (leaf.grad * tangent).sum() + 0.7 * quantizer.log_step.grad)


@pytest.mark.parametrize(
    ("data", "text", "outer"),
    [
        ("digits_data", "mlp(width=8,depth=3,bits=4)", ["body.0", "classifier"]),
        ("digits_data", "resnet8(width=4,bits=4)", ["stem.0", "classifier"]),
        ("digits_data", "mobilenetv2(width=0.1,bits=4)", ["stages_.0", "classifier"]),
        ("digits_data", "tiny-vit(width=8,layers=1,bits=4)", ["model.vit.embeddings.patch_embeddings.projection", "model.classifier"]),
        ("text_data", "tiny-bert(width=8,layers=1,bits=4)", ["model.classifier"]),
    ],
)
def test_outer_layers_have_eight_bits_and_weights_are_those_of_the_network_in_float32(request, data, text, outer):
    task = request.getfixturevalue(data).task
    network, original = build(text, task, 3), build(text.replace(",bits=4", ""), task, 3)
    bits = {name: (layer.weight_quantizer.bits, layer.input_quantizer.bits) for name, layer in layers_of(network)}
    linear = [name for name, module in original.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    assert list(bits) == linear, "every layer is quantised"
    if text.startswith("mobilenet"):
        outer = [linear[0], linear[-1]]
    assert {name for name, pair in bits.items() if pair == (8, 8)} == set(outer)
    assert set(bits.values()) == {(8, 8), (4, 4)}
    state, expected = network.state_dict(), original.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items()), "no draw, and no statistics move"
    assert all("quantizer" in name for name in state.keys() - expected.keys())
    assert network.training == original.training


def test_the_first_steps_are_those_of_the_paper(digits_data):
    task = digits_data.task
    network, original = build("mlp(width=8,depth=2,bits=4)", task, 0), build("mlp(width=8,depth=2)", task, 0)
    pixels = torch.from_numpy(task.train.inputs[:EXAMPLES]).flatten(1)
    hidden = original.body[1](original.body[0](pixels)).detach()
    first, second = network.requires_grad_(False).body[0], network.body[2]
    assert step_of(first.weight_quantizer) == pytest.approx(2 * float(first.weight.abs().mean()) / math.sqrt(127), rel=1e-5)
    assert step_of(first.input_quantizer) == pytest.approx(2 * float(pixels.mean()) / math.sqrt(255), rel=1e-5)
    assert step_of(second.weight_quantizer) == pytest.approx(2 * float(second.weight.abs().mean()) / math.sqrt(7), rel=1e-5)
    assert step_of(second.input_quantizer) == pytest.approx(2 * float(hidden.mean()) / math.sqrt(15), rel=1e-5)
    assert float(first.input_quantizer.lowest) == float(second.input_quantizer.lowest) == 0.0


def test_inputs_with_negative_values_are_signed(digits_data):
    network = build("resnet8(width=4,bits=4)", digits_data.task, 0)
    assert float(network.stem[0].input_quantizer.lowest) == -128.0, "normalised images"
    assert float(network.stage1[0].body[0].input_quantizer.lowest) == 0.0, "after ReLU"
    assert isinstance(network.stem[0], LowBitConv2d)


def test_inputs_that_are_zero_have_a_step_above_zero():
    network = MLP(3, 2, width=4, depth=2)
    quantize(network, LowBit(4), {"pixel_values": torch.zeros(2, 3)})
    assert 0 < step_of(network.body[0].input_quantizer) < 1e-5


def test_more_bits_are_closer_to_float32(digits_data):
    pixels = torch.from_numpy(digits_data.task.train.inputs[:64])

    def logits(text):
        return build(text, digits_data.task, 0)(pixel_values=pixels).logits.detach()

    expected = logits("mlp(width=32,depth=2)")
    distances = [(logits(f"mlp(width=32,depth=2,bits={bits},outer_bits={bits})") - expected).std() / expected.std() for bits in (8, 4, 2)]
    assert distances[0] < 0.1 < distances[1] < distances[2] < 1.5


def test_a_checkpoint_can_be_quantised(own_task, folders):
    text = f"{folders['bert']}(layers=0;1,dropout=0,bits=4,outer_bits=6)"
    network = build(text, own_task, 0)
    assert {layer.weight_quantizer.bits for _, layer in layers_of(network)} == {4, 6}
    assert bit_widths(text) == LowBit(4, 6)
    assert set(reader(text, own_task)(own_task.train.inputs[:2])) >= {"input_ids", "attention_mask"}
    assert not is_low_bit(build(folders["bert"], own_task, 0))


def test_options_are_split():
    assert split_options("mlp(width=8,bits=4)", {"width": 8, "bits": 4}) == (LowBit(4, 8), {"width": 8})
    assert split_options("mlp(width=8)", {"width": 8}) == (None, {"width": 8})
    assert bit_widths("mlp(width=8,bits=2)") == LowBit(2)
    assert bit_widths("mlp") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mlp(bits=1)", r"student mlp\(bits=1\): expected a whole number of at least 2, at most 8"),
        ("mlp(bits=9)", r"student mlp\(bits=9\)"),
        ("resnet8(bits=2.5)", r"student resnet8\(bits=2.5\)"),
        ("tiny-vit(bits=4,outer_bits=16)", r"student tiny-vit\(outer_bits=16\)"),
        ("mlp(outer_bits=8)", r"student 'mlp\(outer_bits=8\)': outer_bits=8 needs bits"),
        ("mlp(bits=4)", r"student 'mlp\(bits=4\)': all of its layers are outer ones, which have outer_bits=8; add outer_bits=4, or layers"),
    ],
)
def test_other_widths_are_refused(digits_data, text, message):
    with pytest.raises(InputError, match=message):
        build(text, digits_data.task, 0)
