"""Where the project keeps what it can make again: trained pools and banks."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """``$KD_ENV_CACHE``, else ``kd-env`` under the user's cache folder. Deleting it costs a rebuild and nothing else."""
    chosen = os.environ.get("KD_ENV_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kd-env"
