"""Measure races for docs/how-to/distill.md: ``python docs/figures/races.py FOLDER STUDENT NAME ...`` adds rows to races.csv.

``FOLDER/NAME`` holds train.csv, test.csv and teachers/, see docs/how-to/distill.md. For each NAME, a race and one candidate alone are run
and timed, and each candidate is taught to the end. Rows that races.csv has are not measured again.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from kd_env import tasks
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.race.candidate_run import CandidateRun
from kd_env.benchmark.race.candidates import Candidate
from kd_env.benchmark.race.defaults import PRETRAINED_OPTIMIZER
from kd_env.benchmark.race.prepare import prepare_race
from kd_env.benchmark.race.score import score_interval
from kd_env.randomness import one_thread

TABLE = Path(__file__).with_name("races.csv")
COLUMNS = ["data", "layers", "measurement", "candidate", "updates", "test", "low", "high", "seconds"]
OPTIONS = {"text": "text", "label": "label", "max_length": 32}


def main() -> None:
    """Measure what is missing and write it after each measurement."""
    folder, student, *names = sys.argv[1:]
    table = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame(columns=COLUMNS)
    layers = student.rpartition("layers=")[2].rstrip(")")
    for name in names:
        known = {(row.measurement, row.candidate) for row in table[table["data"] == name].itertuples()}
        for values in rows(Path(folder) / name, student, known):
            row = pd.DataFrame([{"data": name, "layers": layers, **values}], columns=COLUMNS)
            table = pd.concat([table, row], ignore_index=True) if len(table) else row
            table.round(4).to_csv(TABLE, index=False)
            print(values, flush=True)


def rows(folder: Path, student: str, known: set[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield a row for the race (``race``), for one candidate by itself (``alone``), and for each candidate at the end (``end``)."""
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
    missing = [row for row in race["candidates"] if ("end", row["candidate"]) not in known and row["candidate"] != kept]
    yield from ends(folder, student, updates, missing)


def processor_seconds(arguments: list[str]) -> float:
    """Run ``kd-env distill`` and return its processor time in seconds."""
    process = subprocess.Popen(["kd-env", "distill", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime


def ends(folder: Path, student: str, updates: int, candidates: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Teach candidates to the end, and yield their rows."""
    task = tasks.load(tasks.with_options(f"folder:{folder}", **OPTIONS))
    assert task.test is not None
    with one_thread(), Progress(quiet=True) as progress:
        setup = prepare_race(task, str(folder / "teachers"), student, None, 0, folder / "bank", {}, progress).setup
        setup = replace(setup, settings={**setup.settings, "updates": updates, "validation_every": updates})
        for row in sorted(candidates, key=lambda row: str(row["policy"]) == "held_credit"):
            started = time.process_time()
            run = CandidateRun(setup, Candidate(row["policy"], row["settings"]), [0])
            run.teach(updates, lambda _: None)
            seconds, distillation = time.process_time() - started, run.student(0)
            classes = distillation.student.predict(distillation.data.read(task.test.inputs)).argmax(1).cpu().numpy()
            test = dict(zip(("test", "low", "high"), score_interval(task, task.test.labels, classes), strict=True))
            yield {"measurement": "end", "candidate": row["candidate"], "updates": updates, **test, "seconds": seconds}


if __name__ == "__main__":
    main()
