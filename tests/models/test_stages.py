"""Names of feature maps, and the maps that networks return for them."""

import pytest
import torch

from kd_env.models.convolutional import ImageFormat
from kd_env.models.convolutional.building import build
from kd_env.models.stages import numbered, output_of, request, requested
from kd_env.types import ModelOutput

COLOUR = ImageFormat(3, 10, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
STAGES = {
    "resnet8(width=2)": {"stem": (2, 32), "stage1": (2, 32), "stage2": (4, 16), "stage3": (8, 8)},
    "wrn(depth=10,widen=1)": {"stem": (16, 32), "stage1": (16, 32), "stage2": (32, 16), "stage3": (64, 8)},
    "vgg8(width=2)": {"stage1": (2, 32), "stage2": (4, 16), "stage3": (8, 8), "stage4": (16, 4), "stage5": (16, 4)},
    "mobilenetv2(width=0.5)": {
        "stem": (16, 16), "stage1": (12, 16), "stage2": (16, 8), "stage3": (48, 4), "stage4": (160, 2), "last": (1280, 2),
    },
    "shufflenetv2(width=0.5)": {"stem": (24, 32), "stage1": (48, 16), "stage2": (96, 8), "stage3": (192, 4), "last": (1024, 4)},
}  # fmt: skip
"""Channels and side of the maps for images of 32 x 32, of which the numbered ones are those of RepDistiller."""


def test_names():
    assert [request(stage) for stage in ("last", "stage2", "all")] == ["maps", "maps.stage2", "maps.all"]
    assert [output_of(name) for name in ("maps", "maps.stage2", "layers")] == ["maps", "maps", "layers"]
    stages = {"stem": 0, "stage1": 1, "stage2": 2, "last": 3}
    assert numbered(stages) == ["stage1", "stage2"]
    assert requested(stages, frozenset({"maps", "layers"})) == {}
    assert requested(stages, frozenset({"maps.all", "layers"})) == {"stage1": 1, "stage2": 2}
    assert requested(stages, frozenset({"maps.all", "maps.stem"})) == {"stem": 0, "stage1": 1, "stage2": 2}
    assert requested(stages, frozenset({"maps.stage2", "maps.stage9"})) == {"stage2": 2}


@pytest.mark.parametrize("text", STAGES)
def test_networks_return_the_maps_that_are_asked_for(text):
    network, pixels = build(text, COLOUR).eval(), torch.rand(2, 3, 32, 32)
    everything = network(pixels, extra_outputs=frozenset({"maps", *map(request, STAGES[text])}))
    shapes = {stage: (maps.shape[1], maps.shape[2]) for stage, maps in everything.stages.items()}
    assert shapes == {stage: shape for stage, shape in STAGES[text].items() if stage != "last"}
    output = network(pixels, extra_outputs=frozenset({"maps.all"}))
    assert list(output.stages) == numbered(STAGES[text])
    assert output.maps is None
    assert torch.equal(output.logits, network(pixels).logits)
    last = list(network.stages((pixels - network.mean) / network.deviation).values())[-1]
    assert torch.equal(everything.maps, last)
    assert network(pixels).stages == {}


def test_outputs_are_found_by_the_names_that_ask_for_them():
    maps = torch.ones(2, 1, 1, 1)
    output = ModelOutput(torch.zeros(2, 2), torch.zeros(2, 1), maps=maps, stages={"stage1": 2 * maps})
    assert output.named("maps") is maps
    assert output.named("maps.stage1").flatten().tolist() == [2.0, 2.0]
    assert output.named("maps.stage2") is output.named("layers") is None
    doubled = output.map(lambda tensor: 2 * tensor)
    assert doubled.stages["stage1"].flatten().tolist() == [4.0, 4.0]
