"""Random mini-batches, and what an observation set shows of them."""

from dataclasses import replace

import numpy as np
import torch

from kd_env.envs.observations import make_observation_set, observe
from kd_env.types import Batch, ModelOutput


def batch_of(num_teachers, size, num_classes=4, width=6, scale=3.0, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return scale * torch.randn(*shape, generator=generator)

    batch = Batch(
        update=np.array([3]),
        progress=np.array([0.25]),
        example_ids=np.arange(size),
        labels=torch.randint(num_classes, (size,), generator=generator),
        teacher_logits=draw(size, num_teachers, num_classes),
        teacher_features=tuple(draw(size, 7) for _ in range(num_teachers)),
        student=ModelOutput(draw(size, num_classes), draw(size, width)),
    )
    return replace(batch, **changes)


def observed(batch, name, labels):
    return observe(batch, make_observation_set(name), labels)
