"""Ctrl-C that is not lost.

Python raises ``KeyboardInterrupt`` wherever the program happens to be. In a destructor or in the callback of a weak reference it is printed
and dropped ("Exception ignored in ..."), and libraries may turn it into another error. So the signal is remembered here.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_received = False


@contextmanager
def remember_interrupts() -> Iterator[None]:
    """Leave the block by ``KeyboardInterrupt`` after Ctrl-C, also if Ctrl-C was dropped or turned into another error.

    Does nothing outside the main thread, or if the program handles the signal itself.
    """
    global _received
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    hook = sys.unraisablehook
    try:
        sys.unraisablehook = lambda error: None if error.exc_type is KeyboardInterrupt else hook(error)  # it is remembered, not ignored
        signal.signal(signal.SIGINT, _receive)
        yield
        raise_if_interrupted()
    except Exception as error:
        if _received:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # first: from here on, Ctrl-C no longer calls `_receive`
        sys.unraisablehook = hook
        _received = False


def raise_if_interrupted() -> None:
    """Raise ``KeyboardInterrupt`` if Ctrl-C was pressed. Long work calls this often. Does nothing outside the main thread."""
    if _received and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def _receive(signum: int, frame: Any) -> None:
    global _received
    _received = True  # a plain flag: the lock of an Event could be held by the very code that the signal interrupts
    raise KeyboardInterrupt
