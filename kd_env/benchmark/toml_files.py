"""Read TOML files of the user. In: a path. Out: the content, or an error of one line that names the file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from kd_env.errors import InputError
from kd_env.paths import require_file


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return the content of a TOML file; it may begin with a byte order mark.

    Args:
        path: the file.
        what: what the file is, for messages, as ``suite``.

    Raises:
        InputError: the file cannot be read, or it is not TOML.
    """
    require_file(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{what} {path}: {error.strerror}; check the path") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} {path}: {error}; fix it there") from None
