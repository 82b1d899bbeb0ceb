"""Networks of timm, with a stand-in for timm that has the functions in use."""

import json
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from kd_env.errors import InputError
from kd_env.models.convolutional import checkpoint
from kd_env.models.encode import take
from kd_env.models.networks import build
from kd_env.models.pretrained import open_checkpoint

CPU = torch.device("cpu")


class Body(nn.Module):
    """Two convolutions. The features are not the mean over positions, and a buffer is not saved."""

    head_hidden_size = 6
    pretrained_cfg = {"mean": (0.25,), "std": (0.5,)}

    def __init__(self, channels):
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.register_buffer("factor", torch.tensor(2.0), persistent=False)

    def forward_intermediates(self, pixels):
        if pixels.shape[2] == 5:
            raise AssertionError("Input height (5) doesn't match model")
        first = self.first(pixels)
        return self.second(first), [first, self.second(first)]

    def forward_features(self, pixels):
        return self.forward_intermediates(pixels)[0]

    def forward_head(self, maps, pre_logits):
        assert pre_logits
        return self.factor * maps.amax((2, 3))


@pytest.fixture
def timm(monkeypatch):
    module, layers, fused = ModuleType("timm"), ModuleType("timm.layers"), []

    def create_model(model, pretrained, num_classes, in_chans):
        if model != "small":
            raise RuntimeError(f"Unknown model ({model})")
        assert num_classes == 0
        return Body(in_chans)

    module.create_model, layers.set_fused_attn = create_model, fused.append
    monkeypatch.setitem(sys.modules, "timm", module)
    monkeypatch.setitem(sys.modules, "timm.layers", layers)
    return fused


def test_timm_pools_the_features_and_its_intermediate_maps_are_the_stages(digits_data, timm):
    network = build("timm(model=small)", digits_data.task, 3).eval()
    pixels = take(digits_data.inputs["train"], slice(0, 4), CPU)["pixel_values"]
    output = network(pixels, frozenset({"maps", "maps.all"}))
    mean, deviation = (values[0] for values in digits_data.task.channel_statistics)
    first = network.body.first((pixels - mean) / deviation)
    last = network.body.second(first)
    torch.testing.assert_close(output.features, 2.0 * last.amax((2, 3)))
    torch.testing.assert_close(output.logits, network.classifier(output.features))
    torch.testing.assert_close(output.stages["stage1"], first)
    torch.testing.assert_close(output.maps, last)
    assert list(output.stages) == ["stage1", "stage2"]
    plain = network(pixels)
    assert plain.maps is None
    assert not plain.stages
    assert torch.equal(plain.logits, output.logits)
    assert timm == [False]
    assert build("timm(model=small,size=0)", digits_data.task, 3).text == "timm(model=small,size=0)"


def test_pretrained_networks_normalise_as_timm_says_and_images_are_scaled(digits_data, timm):
    network = build("timm(model=small,pretrained=true,size=16)", digits_data.task, 3).eval()
    pixels = torch.full((2, 1, 8, 8), 0.75)
    assert network(pixels, frozenset({"maps.stage1"})).stages["stage1"].shape == (2, 4, 8, 8)
    assert (network.mean.item(), network.deviation.item()) == (0.25, 0.5)
    assert network.text == "timm(model=small,size=16)"


def test_a_saved_network_is_opened_with_its_buffers_and_without_the_published_weights(digits_data, timm, tmp_path):
    network = build("timm(model=small,pretrained=true)", digits_data.task, 3).eval()
    checkpoint.save(tmp_path, network, digits_data.task.class_names)
    opened = open_checkpoint(str(tmp_path), digits_data.task).classifier()
    pixels = take(digits_data.inputs["train"], slice(0, 4), CPU)["pixel_values"]
    assert torch.equal(opened(pixels).logits, network(pixels).logits)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"network": "timm(model=small,pretrained=true)"}))
    with pytest.raises(InputError, match=r"network 'timm\(model=small,pretrained=true\)', .* cannot be used; save or teach it again"):
        open_checkpoint(str(tmp_path), digits_data.task)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("timm(model=nosuch)", r"timm\(model=nosuch\) cannot be built: Unknown model \(nosuch\)"),
        ("timm(model=small,size=5)", r"does not read images of 8 x 8 pixels \(Input height .* set size, as size=224"),
        ("timm(model=small,size=2.5)", r"size=2.5"),
        ("timm(model=small,pretrained=1)", r"pretrained=1\): expected true or false"),
        ("timm(model=hf-hub:somebody/something)", r"expected a name of timm.list_models\(\), such as resnet18"),
        ("timm(model=18)", r"expected a name of timm.list_models\(\)"),
        ("timm", "missing a required argument: 'model'"),
    ],
)
def test_what_cannot_be_built_is_named(digits_data, timm, text, says):
    with pytest.raises(InputError, match=says):
        build(text, digits_data.task, 0)


def test_without_timm_the_message_says_what_to_install(digits_data, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"needs timm \(.*\); install the extra 'timm', and torchvision"):
        build("timm(model=resnet18)", digits_data.task, 0)
