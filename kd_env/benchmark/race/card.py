"""Write the model card of the best student of a race. In: its folder and the race. Out: README.md there, in the format of the hub."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment

from kd_env.benchmark.card import network_row
from kd_env.benchmark.card_metadata import front_matter, library_of
from kd_env.benchmark.low_bit_card import low_bit_section
from kd_env.benchmark.race.prepare import PreparedRace
from kd_env.benchmark.race.report import RaceFacts, candidate_table, selection_rules, verdict
from kd_env.benchmark.race.results import RaceResult
from kd_env.benchmark.report_text import interval, number
from kd_env.tasks.task import SPLITS
from kd_env.teachers.checkpoint import CheckpointTeacher


def write_card(folder: Path, race: PreparedRace, result: RaceResult, facts: RaceFacts) -> None:
    """Write the card of the student in ``folder``."""
    task, kept_result = race.task, result.last_result(result.kept)
    student = CheckpointTeacher(str(folder), task.development(), "this student")
    view = {
        "front_matter": front_matter(task, race.student, facts.test and facts.test[0], library_of(folder)),
        "library": library_of(folder),
        "low_bit": low_bit_section(student.network, library_of(folder)),
        "task": task,
        "student": race.student,
        "kept": result.kept,
        "seed": result.seed,
        "updates": result.plan.updates,
        "teachers": race.setup.pool.names,
        "verdict": verdict(task, result),
        "test": interval(*facts.test) if facts.test else None,
        "score": number(kept_result.score),
        "candidates": candidate_table(task, result),
        "rules": selection_rules(task, result, facts),
        "rows": [network_row(network, task) for network in (student, *race.setup.pool.teachers)],
        "sizes": {split: len(getattr(task, split)) for split in SPLITS if getattr(task, split) is not None},
        "pipeline": "text-classification" if task.kind == "text" else "image-classification",
        "command": race.command,
    }
    template = files("kd_env.benchmark.race").joinpath("card.md.jinja").read_text()
    (folder / "README.md").write_text(Environment(trim_blocks=True, lstrip_blocks=True).from_string(template).render(view))
