"""Run trials in processes that share one student. In: the results folder. Out: the folder that each process writes to.

``accelerate launch`` and ``torchrun`` start such processes. All run the same trials with the same seeds. The first one writes the results.
Each other writes to a temporary folder, which begins as a copy of the results, so that all agree on what is finished and resume the same
checkpoints.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from kd_env.errors import InputError

NOT_READ = ("traces", "figures", "paper", "tensorboard", "*.lock", "*.html", "*.md")
"""Results that a run does not read, which are not copied."""


def num_processes() -> int:
    """Return the number of processes that the launcher of this one started for the same run."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_first() -> bool:
    """Return whether this process is the first of them, which writes the results."""
    return num_processes() == 1 or os.environ["RANK"] == "0"


@contextmanager
def joined(directory: Path) -> Iterator[Path]:
    """Join the other processes, if there are any, and yield the folder that this one writes to.

    Args:
        directory: the results folder, which all processes can read.

    Raises:
        InputError: Accelerate is not installed.
    """
    if num_processes() == 1:
        yield directory
        return
    import torch  # here, since the command line asks for the number of processes before it loads torch

    try:
        from accelerate import PartialState
    except ImportError:
        raise InputError("several processes: the package accelerate is not installed; install kd-env[accelerate]") from None
    state = PartialState(cpu=not torch.cuda.is_available())
    state.wait_for_everyone()  # the first process has written everything of an earlier run
    if is_first():
        state.wait_for_everyone()
        yield directory
        return
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "results"
        if directory.exists():
            shutil.copytree(directory, folder, ignore=shutil.ignore_patterns(*NOT_READ))
        state.wait_for_everyone()
        yield folder
