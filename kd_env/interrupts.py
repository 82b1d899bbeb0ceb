"""Ctrl-C and SIGTERM that are not lost.

Python raises ``KeyboardInterrupt`` wherever the program happens to be. In a destructor or in the callback of a weak reference it is printed
and dropped ("Exception ignored in ..."), and libraries may turn it into another error. So the signal is remembered here. Work that saves
its state before it ends asks for the signal at moments of its own choice, see :func:`deferred_interrupts`.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MINUTES = 5.0
"""Time between two saves of work that is under way, by default."""
SHARE = 0.01
"""Largest share of the time that saving takes: after a slow save, the next one waits longer."""

_received = 0  # the signal
_deferred = False


class Terminated(KeyboardInterrupt):
    """Raised for SIGTERM, as ``KeyboardInterrupt`` is for Ctrl-C."""


@contextmanager
def remember_interrupts() -> Iterator[None]:
    """Leave the block by ``KeyboardInterrupt`` after Ctrl-C or SIGTERM, also if it was dropped or turned into another error.

    Does nothing outside the main thread, or if the program handles the signal itself.
    """
    global _received
    in_main_thread = threading.current_thread() is threading.main_thread()
    defaults: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    handled = [number for number, default in defaults.items() if in_main_thread and signal.getsignal(number) is default]
    if not handled:
        yield
        return
    hook = sys.unraisablehook
    try:
        sys.unraisablehook = lambda error: None if _is_interrupt(error.exc_type) else hook(error)  # it is remembered, not ignored
        for number in handled:
            signal.signal(number, _receive)
        yield
        raise_if_interrupted()
    except Exception as error:
        if _received:
            raise _error() from error
        raise
    finally:
        for number in handled:
            signal.signal(number, defaults[number])  # first: from here on, the signal no longer calls `_receive`
        sys.unraisablehook = hook
        _received = 0


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Only remember the first Ctrl-C or SIGTERM of the block, which asks :func:`interrupted` often; the second is raised at once."""
    global _deferred
    outer = _deferred
    _deferred = True
    try:
        yield
    finally:
        _deferred = outer


def interrupted() -> bool:
    """Return whether Ctrl-C was pressed or SIGTERM received. False outside the main thread."""
    return bool(_received) and threading.current_thread() is threading.main_thread()


def raise_if_interrupted() -> None:
    """Raise ``KeyboardInterrupt`` if Ctrl-C was pressed, :class:`Terminated` after SIGTERM. Long work calls this often.

    Does nothing outside the main thread, and in a block of :func:`deferred_interrupts`.
    """
    if interrupted() and not _deferred:
        raise _error()


class SaveTimes:
    """When work that is under way saves its state: after some minutes, and before Ctrl-C or SIGTERM ends it."""

    def __init__(self, minutes: float) -> None:
        """Begin to count."""
        self._wait = 60.0 * minutes
        self._due = time.monotonic() + self._wait

    def check(self, save: Callable[[], None]) -> None:
        """Call ``save`` if it is time. The work calls this often, where it can be carried on, in :func:`deferred_interrupts`.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed, or SIGTERM received; the state is saved.
        """
        started, ends = time.monotonic(), interrupted()
        if ends or started >= self._due:
            save()
            now = time.monotonic()
            self._due = now + max(self._wait, (now - started) / SHARE)
        if ends:
            raise _error()


def _receive(signum: int, frame: Any) -> None:
    global _received
    waits = _deferred and not _received
    _received = signum  # a plain number: the lock of an Event could be held by the very code that the signal interrupts
    if not waits:
        raise _error()


def _error() -> KeyboardInterrupt:
    return Terminated() if _received == signal.SIGTERM else KeyboardInterrupt()


def _is_interrupt(kind: type[BaseException] | None) -> bool:
    return kind is not None and issubclass(kind, KeyboardInterrupt)
