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

_received = threading.Event()


@contextmanager
def remember_interrupts() -> Iterator[None]:
    """Remember Ctrl-C within the block, and leave the block by ``KeyboardInterrupt`` if an error follows it.

    Does nothing outside the main thread, or if the program handles the signal itself.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _received.clear()
    hook = sys.unraisablehook
    signal.signal(signal.SIGINT, _receive)
    sys.unraisablehook = lambda error: None if error.exc_type is KeyboardInterrupt else hook(error)  # it is remembered, not ignored
    try:
        yield
        raise_if_interrupted()
    except Exception as error:
        if _received.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _received.clear()


def raise_if_interrupted() -> None:
    """Raise ``KeyboardInterrupt`` if Ctrl-C was pressed. Long work calls this often. Does nothing outside the main thread."""
    if _received.is_set() and threading.current_thread() is threading.main_thread():
        _received.clear()
        raise KeyboardInterrupt


def _receive(signum: int, frame: Any) -> None:
    _received.set()
    raise KeyboardInterrupt
