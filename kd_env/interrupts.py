"""Handle Ctrl-C and SIGTERM reliably.

Python raises ``KeyboardInterrupt`` at any point of the program. In a destructor or in the callback of a weak reference it is printed and
dropped ("Exception ignored in ..."), and libraries may turn it into another error. So this module records the signal. Work that saves its
state before it ends checks for the signal where its state is complete, see :func:`deferred_interrupts`.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CHECKPOINT_MINUTES = 5.0
"""Default time between two saves of unfinished work."""
MAX_SAVE_SHARE = 0.01
"""Largest share of the time that is spent on saving. After a slow save, the next one is due later."""

_received = 0  # the number of the signal; 0 before it
_deferred = False


class Terminated(KeyboardInterrupt):
    """Raised for SIGTERM, as ``KeyboardInterrupt`` is for Ctrl-C."""


@contextmanager
def remember_interrupts() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` at the end of the block after Ctrl-C or SIGTERM, even if it was dropped or turned into another error.

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
        sys.unraisablehook = lambda error: None if _is_interrupt(error.exc_type) else hook(error)  # it is recorded, not ignored
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
    """Record the first Ctrl-C or SIGTERM of the block without raising it; raise the second at once.

    The block calls :func:`interrupted` or :meth:`SaveSchedule.save_if_due` often.
    """
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
    """Raise ``KeyboardInterrupt`` after Ctrl-C, and :class:`Terminated` after SIGTERM. Call this often in long work.

    Does nothing outside the main thread, and in a block of :func:`deferred_interrupts`.
    """
    if interrupted() and not _deferred:
        raise _error()


class SaveSchedule:
    """Decides when unfinished work saves its state: after some minutes, and before Ctrl-C or SIGTERM ends it."""

    def __init__(self, minutes: float) -> None:
        """Start the clock.

        Args:
            minutes: minutes between two saves.
        """
        self._wait = 60.0 * minutes
        self._due = time.monotonic() + self._wait

    def save_if_due(self, save: Callable[[], None]) -> None:
        """Call ``save`` if it is due. Call this often, where the state is complete, in a block of :func:`deferred_interrupts`.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed, or SIGTERM received; the state is saved.
        """
        started, stop = time.monotonic(), interrupted()
        if stop or started >= self._due:
            save()
            now = time.monotonic()
            self._due = now + max(self._wait, (now - started) / MAX_SAVE_SHARE)
        if stop:
            raise _error()


def _receive(signum: int, frame: Any) -> None:
    global _received
    defer = _deferred and not _received
    _received = signum  # a plain number: the lock of an Event could be held by the very code that the signal interrupts
    if not defer:
        raise _error()


def _error() -> KeyboardInterrupt:
    return Terminated() if _received == signal.SIGTERM else KeyboardInterrupt()


def _is_interrupt(kind: type[BaseException] | None) -> bool:
    return kind is not None and issubclass(kind, KeyboardInterrupt)
