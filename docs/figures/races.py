"""Measure races for docs/how-to/distill.md: ``python docs/figures/races.py FOLDER STUDENT NAME ...`` adds rows to races.csv.

``FOLDER/NAME`` holds train.csv, test.csv and teachers/, see docs/how-to/distill.md. For each NAME, a race and one candidate alone are run
and timed, and each candidate is taught to the end. Rows that races.csv has are not measured again.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kd_env import tasks
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.race.candidate_run import CandidateRun, RaceSetup
from kd_env.benchmark.race.candidates import EXTRA_COST, Candidate
from kd_env.benchmark.race.defaults import PRETRAINED_OPTIMIZER
from kd_env.benchmark.race.prepare import prepare_race
from kd_env.benchmark.race.score import score_interval
from kd_env.randomness import reproducible
from kd_env.tasks import Task

TABLE = Path(__file__).with_name("races.csv")
COLUMNS = ["data", "layers", "measurement", "candidate", "updates", "test", "low", "high", "seconds"]
OPTIONS = {"text": "text", "label": "label", "max_length": 32}


def main() -> None:
    """Measure what is missing and write it after each measurement."""
    folder, student, *names = sys.argv[1:]
    table = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame(columns=COLUMNS)
    layers = student.rpartition("layers=")[2].rstrip(")")
    for measure, name in itertools.product((races, ends), names):
        known = {(row.measurement, row.candidate) for row in table[table["data"] == name].itertuples()}
        for values in measure(Path(folder) / name, student, known):
            row = pd.DataFrame([{"data": name, "layers": layers, **values}], columns=COLUMNS)
            table = pd.concat([table, row], ignore_index=True) if len(table) else row
            table.round(4).to_csv(TABLE, index=False)
            print(values, flush=True)


def races(folder: Path, student: str, known: set[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Run a race and one candidate alone; yield their rows, and that of the student that is kept (``end``)."""
    command = ["--task", f"folder:{folder}", "--text", "text", "--label", "label", "--max-length", "32"]
    command += ["--teachers", str(folder / "teachers"), "--student", student, "--bank", str(folder / "bank")]
    seconds = {}
    if not (folder / "race").exists():
        seconds["race"] = processor_seconds([*command, "--out", str(folder / "race")])
    race = json.loads((folder / "race" / "race.json").read_text())
    updates, kept = race["rungs"][-1][0], race["candidates"][0]["candidate"]
    test = dict(zip(("test", "low", "high"), race["test"], strict=True))
    if "race" in seconds:
        yield {"measurement": "race", "candidate": kept, "updates": race["updates"], **test, "seconds": seconds["race"]}
    if ("end", kept) not in known:
        yield {"measurement": "end", "candidate": kept, "updates": updates, **test}
    if not any(measurement == "alone" for measurement, _ in known):
        settings = [f"optimizer={PRETRAINED_OPTIMIZER}", "kd_weight=0.5", f"validation_every={updates}"]
        sets = [part for setting in settings for part in ("--set", setting)]
        alone = [*command, "--policy", "uniform", "--updates", str(updates), *sets, "--out", str(folder / "alone")]
        yield {"measurement": "alone", "candidate": "uniform", "updates": updates, "seconds": processor_seconds(alone)}


def ends(folder: Path, student: str, known: set[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield the row of each teacher, and of each candidate when it is taught to the end by itself (``end``)."""
    race = json.loads((folder / "race" / "race.json").read_text())
    updates = race["rungs"][-1][0]
    task = tasks.load(tasks.with_options(f"folder:{folder}", **OPTIONS))
    with reproducible(), Progress(quiet=True) as progress:
        setup = prepare_race(task, str(folder / "teachers"), student, None, 0, folder / "bank", {}, progress).setup
        setup = replace(setup, settings={**setup.settings, "updates": updates, "validation_every": updates})
        for teacher in setup.pool.teachers:
            if ("teacher", teacher.name) not in known:
                yield {"measurement": "teacher", "candidate": teacher.name, **test_score(task, teacher)}
        for row in sorted(race["candidates"], key=lambda row: str(row["policy"]) in EXTRA_COST):  # the slow one last
            if ("end", row["candidate"]) not in known:
                yield {"measurement": "end", "candidate": row["candidate"], "updates": updates, **end(task, setup, row, updates)}


def processor_seconds(arguments: list[str]) -> float:
    """Run ``kd-env distill`` and return its processor time in seconds."""
    process = subprocess.Popen(["kd-env", "distill", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime


def end(task: Task, setup: RaceSetup, row: dict[str, Any], updates: int) -> dict[str, float]:
    """Teach a candidate to the end; return its test score and its processor time."""
    started = time.process_time()
    run = CandidateRun(setup, Candidate(row["policy"], row["settings"]), [0])
    run.teach(updates, lambda _: None)
    seconds, distillation = time.process_time() - started, run.student(0)
    return {**test_score(task, lambda inputs: distillation.student.predict(distillation.data.read(inputs))), "seconds": seconds}


def test_score(task: Task, network: Callable[[np.ndarray], Any]) -> dict[str, float]:
    """Return the score on test and its 95 % interval."""
    assert task.test is not None
    output = network(task.test.inputs)
    classes = getattr(output, "logits", output).argmax(1).cpu().numpy()
    return dict(zip(("test", "low", "high"), score_interval(task, task.test.labels, classes), strict=True))


if __name__ == "__main__":
    main()
