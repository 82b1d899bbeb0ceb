"""Run command lines in processes of their own, which can be killed, and compare what they leave."""

import multiprocessing
import sys

from kd_env.benchmark import records
from kd_env.benchmark.race import race
from kd_env.benchmark.rerun import COMPARED
from kd_env.benchmark.suite_parts import Part, Suite
from kd_env.benchmark.suites import SUITES
from kd_env.cli import invoke

PRELOADED = ["kd_env.benchmark.run", "kd_env.benchmark.report", "kd_env.benchmark.distilled", "kd_env.teachers.finetune"]
TINY = Suite("two policies in two parts", tuple(Part("digits", (policy,), updates=200) for policy in ("uniform", "reinforce")), range(2))


def child(words, errors):
    """Run a command line in a new process."""
    SUITES["tiny"] = TINY
    race.SECONDS_BETWEEN_SAVES = 1.0  # at a kill, some students are saved and others are not
    sys.stderr = sys.stdout = open(errors, "w", buffering=1)  # noqa: SIM115 (open until the process ends)
    sys.exit(invoke(words))


def start(command, data, out, errors=None):
    """Start a command that writes to ``out``, with its messages in ``errors``, by default beside it."""
    context = multiprocessing.get_context("forkserver")  # imports take longer than these commands; they are done once
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=child, args=([*command.replace("DATA", str(data)).split(), "--out", str(out)], errors or f"{out}.err"))
    process.start()
    return process


def errors_of(out):
    with open(f"{out}.err") as file:
        return file.read()


def content(out):
    """Return all that a command leaves and that must be equal: files by name, records without times."""
    kept = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix in (".parquet", ".agent", ".safetensors", ".npy") or path.name in ("teaching.json", "bank.json"):
            kept[name] = path.read_bytes()
        elif path.name == records.FILE:
            kept[name] = {record["trial"]: {field: record[field] for field in COMPARED} for record in records.read(path.parent)}
    return kept
