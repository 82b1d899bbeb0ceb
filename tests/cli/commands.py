"""Command lines and checks that several tests of this folder use."""

import subprocess
import sys

TEACHER = "digits/experts/upright"


def start_command(*arguments, **options):
    """Start ``kd-env`` with these arguments in a process of its own."""
    script = "import sys; from kd_env.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def run(*arguments, task="digits", policy="uniform"):
    """A command line that works, and what is added to it; the last of two equal flags wins."""
    return ["run", "--task", task, "--policy", policy, "--seeds", "0", "--updates", "5", "--workers", "1", "--quiet", *map(str, arguments)]


def error_line(capsys, status):
    """The one line on stderr of a command that refused its input."""
    output = capsys.readouterr()
    assert status == 2, output.err
    assert output.out == ""
    assert output.err.count("\n") == 1, output.err
    assert output.err.startswith("kd-env: ")
    return output.err
