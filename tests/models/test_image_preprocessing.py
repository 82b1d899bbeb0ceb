"""Preprocessing of image checkpoints, compared with the image processors of Transformers that wrote it."""

import json
import re

import numpy as np
import pytest
import torch
import transformers

from kd_env.errors import InputError
from kd_env.models.image_preprocessing import image_reader

GREY = 51
STATISTICS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
EFFICIENTNET = (transformers.EfficientNetImageProcessorPil, transformers.EfficientNetConfig)
VIT = (transformers.ViTImageProcessorPil, transformers.ViTConfig)
SAVED = [
    (*EFFICIENTNET, {}),
    (*EFFICIENTNET, {"size": 224, **STATISTICS}),
    (*EFFICIENTNET, {"size": 224, "include_top": False, **STATISTICS}),
    (*EFFICIENTNET, {"size": 224, "do_normalize": False, **STATISTICS}),
    (*EFFICIENTNET, {"size": 224, "rescale_offset": True, "rescale_factor": 1 / 127.5, **STATISTICS}),
    (*EFFICIENTNET, {"size": 64, "do_center_crop": True, "crop_size": 48}),
    (*VIT, {"size": 224, **STATISTICS}),
    (*VIT, {"do_normalize": False}),
    (*VIT, {"rescale_factor": 1 / 127.5}),
    (transformers.ConvNextImageProcessorPil, transformers.ConvNextConfig, {"size": {"shortest_edge": 224}, **STATISTICS}),
    (transformers.MobileNetV2ImageProcessorPil, transformers.MobileNetV2Config, {}),
    (transformers.BeitImageProcessorPil, transformers.BeitConfig, {"size": 384, "crop_size": 224}),
]


def write(folder, **settings):
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(("processor_class", "config_class", "settings"), SAVED)
def test_size_and_pixels_are_those_of_the_processor(processor_class, config_class, settings, tmp_path):
    processor = processor_class(**settings)
    processor.save_pretrained(tmp_path)
    expected = processor(np.full((40, 40, 3), GREY, np.uint8), return_tensors="pt")["pixel_values"]
    read = image_reader(tmp_path, config_class(), any_size=True)(np.full((1, 3, 40, 40), GREY / 255, np.float32))["pixel_values"]
    assert read.shape == expected.shape
    torch.testing.assert_close(read, expected.to(read.dtype), atol=1e-5, rtol=1e-5)


def test_files_that_name_no_processor_are_those_of_the_architecture(tmp_path):
    write(tmp_path, crop_size=48, size=64, include_top=True, **STATISTICS)
    efficientnet, resnet = (
        image_reader(tmp_path, config, True) for config in (transformers.EfficientNetConfig(), transformers.ResNetConfig())
    )
    assert efficientnet.std == pytest.approx((0.04, 0.09, 0.16))
    assert (efficientnet.mean, resnet.mean) == ((0.4, 0.5, 0.6),) * 2
    assert resnet.std == (0.2, 0.3, 0.4)
    assert (efficientnet.side, resnet.side) == (48, 48)


def test_null_is_missing_and_a_number_is_for_each_channel(tmp_path):
    reader = image_reader(write(tmp_path, image_mean=None, image_std=0.25, do_normalize=None), transformers.ResNetConfig(), True)
    assert (reader.mean, reader.std) == ((0.5,) * 3, (0.25,) * 3)
    assert image_reader(write(tmp_path, image_mean=0, image_std=1), transformers.ResNetConfig(num_channels=1), True).mean == (0.0,)


@pytest.mark.parametrize(
    "statistics", [0, "0.5", [0.5], [0.5, 0.5, None], [0.5, 0.5, True], [0.5, 0.5, float("nan")], {"r": 1}, False, -1, 10**400]
)
def test_other_deviations_are_refused(statistics, tmp_path):
    message = re.escape(
        f"{tmp_path}/preprocessor_config.json: image_mean and image_std must have 3 numbers each, image_std above 0; correct"
    )
    with pytest.raises(InputError, match=message):
        image_reader(write(tmp_path, image_std=statistics), transformers.ResNetConfig(), True)


@pytest.mark.parametrize("factor", [0, "1/255", [1, 2]])
def test_other_scales_are_refused(factor, tmp_path):
    with pytest.raises(InputError, match="rescale_factor must be a number above 0; correct the file"):
        image_reader(write(tmp_path, rescale_factor=factor), transformers.ResNetConfig(), True)


def test_entries_that_are_not_used_are_not_checked(tmp_path):
    unused = {"do_normalize": False, "image_mean": [0.5], "image_std": 0, "do_rescale": False, "rescale_factor": 0}
    reader = image_reader(write(tmp_path, **unused), transformers.ResNetConfig(), True)
    assert (reader.mean, reader.std) == ((0.0,) * 3, (1.0,) * 3)
