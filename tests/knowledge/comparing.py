"""What the tests of knowledge types share: random outputs, outputs of plain numbers, and losses."""

import torch

from kd_env.knowledge import LossContext
from kd_env.types import ModelOutput


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


def random_output(seed=0, batch=5, width=4, depth=3, tokens=4, real=None, dtype=torch.float64):
    """Random outputs; ``real`` is the number of tokens of each example that are no padding."""
    mask = torch.ones(batch, 1, tokens, dtype=dtype)
    for b, count in enumerate(real or []):
        mask[b, :, count:] = 0.0
    scores = draw(batch, 2, tokens, tokens, seed=seed + 3, dtype=dtype).exp() * mask[:, :, None]
    return ModelOutput(
        logits=2 * draw(batch, 4, seed=seed, dtype=dtype),
        features=draw(batch, width, seed=seed + 1, dtype=dtype),
        layers=draw(batch, depth, width, seed=seed + 2, dtype=dtype),
        attention=scores / scores.sum(3, keepdim=True) * mask[..., None],
    )


def random_context(batch=5, temperature=1.5):
    """A temperature, and labels 0, 1, 2, 3, 0, ..."""
    return LossContext(temperature, torch.arange(batch) % 4)


def with_compared(kind, values, output):
    """``output`` with ``values`` as what ``kind`` compares."""
    return output._replace(**{kind.compares: values})


def output_of(**outputs):
    """The outputs given, and zeros as logits and features of two classes and one dimension."""
    size = len(next(iter(outputs.values())))
    return ModelOutput(**{"logits": torch.zeros(size, 2), "features": torch.zeros(size, 1), **outputs})


def loss_of(kind, student, teacher):
    """Losses of a student whose compared output is ``student`` against a teacher's, both plain numbers or tensors."""
    sides = [output_of(**{kind.compares: tensor(values)}) for values in (student, teacher)]
    return kind.loss(sides[0], kind.target(sides[1]))
