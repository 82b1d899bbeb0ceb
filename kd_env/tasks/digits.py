"""``digits``: scikit-learn's handwritten digits seen in four domains; real data that ships with a dependency.

Each of the 1,797 images (8 x 8, 10 classes; Alpaydin and Kaynak, 1998) appears as it is, inverted, mirrored and transposed. All four views
of one image are in the same split.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from kd_env.tasks.task import Defaults, Split, Task

DOMAINS = ("upright", "inverted", "mirrored", "transposed")
IMAGES = {"reward": 300, "validation": 200, "test": 400}
"""Images held out for each split; the other 897 are train. Each image gives four examples."""


def load() -> Task:
    """Load the task, always split the same way: 3,588 train, 1,200 reward, 800 validation and 1,600 test examples."""
    source = load_digits()
    images = (source.images / 16.0).astype(np.float32)  # [N, 8, 8] in [0, 1]
    labels = source.target.astype(np.int64)
    rest = np.arange(len(labels))
    held_out: dict[str, Split] = {}
    for seed, (name, size) in enumerate(IMAGES.items()):
        rest, rows = train_test_split(rest, test_size=size, stratify=labels[rest], random_state=seed)
        held_out[name] = _views(images[rows], labels[rows])
    return Task(
        name="digits",
        kind="image",
        train=_views(images[rest], labels[rest]),
        reward=held_out["reward"],
        validation=held_out["validation"],
        test=held_out["test"],
        class_names=tuple(map(str, range(10))),
        group_names=DOMAINS,
        defaults=Defaults(pool="digits/experts", student="mlp(width=24)", updates=1500, kd_weight=1.0, temperature=2.0),
    )


def _views(images: np.ndarray, labels: np.ndarray) -> Split:
    views = np.stack([images, 1.0 - images, images[:, :, ::-1], images.transpose(0, 2, 1)], axis=1)  # [n, 4, 8, 8]
    return Split(
        inputs=np.ascontiguousarray(views.reshape(-1, 1, 8, 8), dtype=np.float32),
        labels=np.repeat(labels, len(DOMAINS)),
        groups=np.tile(np.arange(len(DOMAINS)), len(labels)),
    )
