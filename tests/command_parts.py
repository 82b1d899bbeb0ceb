"""What a command ``kd-env run`` names, without running it."""

from kd_env.benchmark.suite_parts import Part
from kd_env.cli.options import named_task, read_settings


def part_of(words):
    """What ``kd-env WORDS`` runs, as the part of a suite, which :func:`kd_env.benchmark.suite_checks.check` checks."""
    assert words[0] == "run"
    options = {}
    for name, value in zip(words[1::2], words[2::2], strict=True):
        assert name.startswith("--")
        options.setdefault(name.removeprefix("--"), []).append(value)
    (task,) = options["task"]
    folder = options.get("data-dir", [None])[0]
    student, teachers = (options.get(name, [None])[0] for name in ("student", "teachers"))
    task = named_task(task, folder, None, None, None, None, None)
    return Part(task, tuple(options["policy"]), teachers, student=student, settings=read_settings(options.get("set")))
