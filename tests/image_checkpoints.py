"""Small untrained checkpoints of Transformers' convolutional classifiers."""

import json

import torch
import transformers
from transformers.utils import logging

from kd_env.randomness import seeded

STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 24], "depths": [1, 2, 1, 1]}
PATCHES = {
    "hidden_sizes": [8, 16, 16, 24],
    "depths": [1, 2, 1, 1],
    "patch_size": 2,
    "layer_scale_init_value": 1.0,
    "initializer_range": 0.2,
}
MOBILE = {"depth_multiplier": 0.25, "classifier_dropout_prob": 0.1}
EFFICIENT = {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320, "drop_connect_rate": 0.0, "initializer_range": 0.2}
CONFIGS = {
    "resnet": (transformers.ResNetConfig, transformers.ResNetForImageClassification, {**STAGES, "layer_type": "basic"}),
    "regnet": (transformers.RegNetConfig, transformers.RegNetForImageClassification, {**STAGES, "groups_width": 8}),
    "convnext": (transformers.ConvNextConfig, transformers.ConvNextForImageClassification, PATCHES),
    "convnextv2": (transformers.ConvNextV2Config, transformers.ConvNextV2ForImageClassification, PATCHES),
    "mobilenet_v1": (transformers.MobileNetV1Config, transformers.MobileNetV1ForImageClassification, MOBILE),
    "mobilenet_v2": (transformers.MobileNetV2Config, transformers.MobileNetV2ForImageClassification, MOBILE),
    "efficientnet": (transformers.EfficientNetConfig, transformers.EfficientNetForImageClassification, EFFICIENT),
}
"""Class of the configuration, class of the model and settings, by ``model_type``."""
NORMALISED = ("convnext", "convnextv2")
"""Architectures whose features are not the means of the last map."""


def write_image_checkpoint(folder, architecture, task, side=32, channels=3, seed=0):
    """Save a checkpoint with the classes of ``task`` and its preprocessing, and return the folder as text."""
    logging.disable_progress_bar()
    config_class, model_class, settings = CONFIGS[architecture]
    config = config_class(num_channels=channels, **settings)
    config.id2label = dict(enumerate(task.class_names))
    config.label2id = {name: number for number, name in enumerate(task.class_names)}
    with seeded(seed):
        model = model_class(config).train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the mean over the passes; without statistics of images, the outputs vanish
        with torch.no_grad():
            for _ in range(2):
                model(torch.randn(16, channels, side, side))
        model.save_pretrained(folder)
    size, statistics = {"height": side, "width": side}, {"image_mean": [0.4] * channels, "image_std": [0.3] * channels}
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": size, "do_normalize": True, **statistics}))
    return str(folder)
