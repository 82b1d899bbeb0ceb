"""Read pickles of arrays, texts, numbers, lists and dicts without running code. In: a file of an old data set. Out: its content.

``pickle.load`` calls whatever the file names. Here a file can name what an array consists of, and nothing else.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kd_env.errors import InputError

_RECONSTRUCT: Any = np.zeros(0, np.uint8).__reduce__()[0]  # the function that makes an empty array, under whatever name it has


def _encode(text: str, encoding: str) -> bytes:
    """Stand for ``_codecs.encode``, by which Python 3 writes bytes in old formats."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in ("core", "_core")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}
"""What a file may name, by module and name."""


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not part of an array")
        return ALLOWED[module, name]


def read_pickle(path: Path) -> Any:
    """Return the content of a pickle; texts that Python 2 wrote are bytes.

    Raises:
        InputError: it is damaged, or holds something else than arrays, texts, numbers, lists and dicts.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    except Exception as error:  # damaged pickles raise errors of many types
        raise InputError(f"{path}: not a pickle of arrays ({type(error).__name__}: {str(error)[:120]}); download the file again") from None
