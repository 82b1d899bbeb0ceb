"""Say why a worker process ended. In: the exit codes of all workers. Out: a message."""

from __future__ import annotations

import signal
from collections.abc import Sequence

TERMINATED = 143
"""Exit status of a worker that SIGTERM stopped within a trial."""


def was_killed(exit_codes: Sequence[int | None]) -> bool:
    """Return whether a signal that this program does not send ended a worker. The others were terminated after that."""
    return any(code is not None and code < 0 and code != -signal.SIGTERM for code in exit_codes)


def worker_died(exit_codes: Sequence[int | None]) -> str:
    """Return a message about the first worker that ended by itself; the others were terminated after that.

    Args:
        exit_codes: the exit codes of all workers, negative for a signal.
    """
    terminated = (None, 0, TERMINATED, -signal.SIGTERM)
    code = next((code for code in exit_codes if code not in terminated), None) or -signal.SIGTERM
    if code > 0:
        return f"a plug-in or a library ended a worker process with status {code} (--executor local shows where); finished trials are kept"
    names = {number.value: f" ({number.name})" for number in signal.Signals}
    cause = ", perhaps because memory was short; give fewer --workers" if code == -signal.SIGKILL else ""
    return f"a worker process was killed by signal {-code}{names.get(-code, '')}{cause}; finished trials are kept"
