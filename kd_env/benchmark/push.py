"""Upload a finished student to the Hugging Face Hub. In: its folder and a repository ``ORG/NAME``. Out: the address of the repository.

This is the only code of the package that writes to the network. A new repository is private.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import first_line

NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?/[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", re.IGNORECASE | re.ASCII)
MAX_LENGTH = 96
"""Characters of the name of a repository, a limit of the Hub."""


def require_repository(name: str) -> None:
    """Check the name of a repository, without the network.

    Raises:
        InputError: it is not a name such as ``org/name``.
    """
    if not NAME.fullmatch(name) or ".." in name or "--" in name or len(name) > MAX_LENGTH:
        raise InputError(f"--push {name}: expected ORG/NAME, such as my-name/my-student, in letters, digits and -_.")


def upload_problem() -> str:
    """Return why an upload would fail now, as far as that is known without the network; empty if nothing is known."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set; unset it"
    return "" if get_token() else "no token of the Hub on this machine; log in with hf auth login"


def push(folder: Path, name: str) -> str:
    """Upload a folder to the repository ``name``, which is made if it does not exist, and return its address.

    Raises:
        InputError: there is no network or no token, or the Hub refuses the upload. The folder stays as it is.
    """
    from huggingface_hub import HfApi

    try:
        if reason := upload_problem():
            raise OSError(reason)
        api = HfApi()
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Student distilled by kd-env", ignore_patterns="*.lock")
    except Exception as error:  # the library and those under it raise many types of error
        by_hand = f"hf upload {name} {shlex.quote(str(folder))} . --private"
        raise InputError(f"--push {name}: {first_line(error)}; the student is ready in {folder}, upload it by hand: {by_hand}") from None
    return str(address)
