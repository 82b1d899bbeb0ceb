"""Print what feature maps and live teachers cost: ``python -m speed.maps [--turns N] [--batch-size N] [--side N]``.

A ``resnet8`` learns from a bank of three ``resnet20``, on random images and with random weights: what is measured does not depend on them.
The baseline is a hand-written loop with the teachers' logits, see :mod:`speed.plain_loop`.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd_env.bank.bank import open_bank
from kd_env.distillation import Distillation, EncodedTask
from kd_env.distillation.settings import DistillationSettings
from kd_env.knowledge.terms import extra_outputs, parse_terms
from kd_env.models.networks import build
from kd_env.tasks.task import Defaults, Split, Task
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.teachers.live import LiveTeachers
from kd_env.types import Decision
from speed import table
from speed.measure import Row, Subject, at_least_one, compare
from speed.plain_loop import PlainLoop

STUDENT, TEACHER, NUM_TEACHERS, CLASSES = "resnet8", "resnet20", 3, 10
KNOWLEDGE = (
    "map_hint",
    "map_hint(convolutions=3)",
    "attention_transfer",
    "attention_transfer(stages=all)",
    "map_similarity",
    "map_ensemble",
)
LIVE: dict[str, dict[str, Any]] = {
    "teacher_answers=live": {},
    "live, augmentation=crop(padding=2),flip": {"augmentation": "crop(padding=2),flip"},
    "live, teacher_learning=feedback": {"teacher_learning": "feedback"},
}
"""Settings of live teachers, beside ``teacher_answers=live``."""
ALONE, OPTIMIZER = "response", "sgd(lr=0.05,weight_decay=0.0005)"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m speed.maps", description="What maps and live teachers cost, side by side.")
    parser.add_argument("--turns", type=at_least_one, default=9)
    parser.add_argument("--batch-size", type=at_least_one, default=64)
    parser.add_argument("--side", type=at_least_one, default=32, help="height and width of the images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(table.markdown(maps(arguments.turns, arguments.batch_size, arguments.side)))


def maps(turns: int, batch_size: int, side: int) -> list[Row]:
    """Compare updates with maps or live teachers with ``response`` from a bank, and that with a hand-written loop."""
    task = random_images(4 * batch_size, side)
    pool = Pool("untrained", tuple(NetworkTeacher(f"teacher{seed}", build(TEACHER, task, seed), task) for seed in range(NUM_TEACHERS)))
    base = DistillationSettings(STUDENT, 10**9, 1.0, 4.0, OPTIMIZER, batch_size)
    settings = {name: dataclasses.replace(base, knowledge=f"response,{name}") for name in KNOWLEDGE}
    settings |= {name: dataclasses.replace(base, teacher_answers="live", **options) for name, options in LIVE.items()}
    keep = frozenset().union(*(extra_outputs(parse_terms(each.knowledge)) for each in settings.values()))
    with tempfile.TemporaryDirectory(prefix="kd-env-speed-") as folder:
        data = EncodedTask.of(
            task, open_bank(task, pool, Path(folder) / "bank", keep=keep), STUDENT, LiveTeachers.of(pool, torch.device("cpu"))
        )
        plain = PlainLoop(data, base, 0, torch.device("cpu"))
        alone = Distillation(data, base, 0)
        subjects = [Subject("plain PyTorch loop", plain.update), Subject(ALONE, partial(teach, alone))]
        subjects += [Subject(name, partial(teach, Distillation(data, each, 0)), against=ALONE) for name, each in settings.items()]
        title = f"Feature maps and live teachers: {STUDENT} from {NUM_TEACHERS} {TEACHER}, B={batch_size}, {side} x {side}"
        return compare(title, subjects, "ms/update", turns)


def teach(run: Distillation) -> None:
    """Train the student on one mini-batch, with equal weights of teachers for all types."""
    weights = torch.full((run.settings.batch_size, run.num_teachers), 1.0 / run.num_teachers)
    names = list(run.loss.terms)
    run.apply(Decision(dict.fromkeys(names, weights), dict.fromkeys(names, 1.0), run.settings.temperature))


def random_images(size: int, side: int) -> Task:
    """Return a task of random images with three channels; the held-out splits have a few."""
    generator = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = generator.random((count, 3, side, side), dtype=np.float32)
        return Split(images, np.arange(count) % CLASSES, np.zeros(count, dtype=np.int64))

    return Task(
        name="random-images",
        kind="image",
        train=split(size),
        reward=split(CLASSES),
        validation=split(CLASSES),
        test=split(CLASSES),
        class_names=tuple(map(str, range(CLASSES))),
        group_names=("all",),
        defaults=Defaults(pool="untrained", student=STUDENT, updates=1, kd_weight=1.0, temperature=4.0),
    )


if __name__ == "__main__":
    main()
