"""Where the project keeps files that it can make again: trained pools, banks and tokenizers."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return ``$KD_ENV_CACHE`` or, where that is not set, ``kd-env`` in the user's cache folder.

    Deleting the folder costs a rebuild and nothing else.
    """
    own_folder = os.environ.get("KD_ENV_CACHE")
    return Path(own_folder) if own_folder else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kd-env"
