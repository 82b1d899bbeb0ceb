"""Find and check the files of a checkpoint. In: a folder or a hub id. Out: a folder with the needed files, or an input error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from kd_env.errors import InputError
from kd_env.paths import require_file

FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""Files that are downloaded from the hub: configuration, weights, vocabulary; no pickle and no code."""


def find_folder(text: str) -> Path:
    """Return the local folder ``text``, or download it from the hub if it does not exist locally.

    Raises:
        InputError: ``text`` is neither a local folder nor on the hub, or it is not a checkpoint.
    """
    path = Path(text).expanduser()
    if not path.is_dir():
        return _fetch(text)
    if not (path / "config.json").is_file():
        raise InputError(
            f"{path}: no config.json, so this is not a Transformers checkpoint; name a folder that save_pretrained or kd-env teach wrote"
        )
    for file in (file for pattern in FILES for file in path.glob(pattern)):
        require_file(file)
    return path.resolve()


@lru_cache(maxsize=64)
def _fetch(text: str) -> Path:
    from huggingface_hub import is_offline_mode, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(text, allow_patterns=FILES, ignore_patterns=["*/*"]))
    except (OSError, ValueError, HfHubHTTPError) as error:
        if is_offline_mode():
            raise InputError(
                f"checkpoint {text!r}: no such local folder, it is not in the hub's cache, and HF_HUB_OFFLINE is set; check the name"
            ) from None
        raise InputError(
            f"checkpoint {text!r}: no such local folder, and the download from the hub failed ({first_line(error)}); "
            "check the name and the network"
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        InputError: the file cannot be read, or it does not contain an object.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}); save or download it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a JSON {type(content).__name__}, expected an object; save or download it again")
    return content


def require_weights(folder: Path) -> None:
    """Check that a folder has weights as safetensors.

    Raises:
        InputError: it has none.
    """
    if any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise InputError(
            f"{folder}: the weights are a pickle, which can run any code when it is opened; if you trust it, load it yourself and "
            "call save_pretrained(), which writes model.safetensors"
        )
    raise InputError(f"{folder}: no model.safetensors; name a folder that save_pretrained or kd-env teach wrote")


def require_layers(folder: Path, config: Any) -> None:
    """Check that a configuration has no more layers than there are tensors: to build very many would take hours.

    Raises:
        InputError: it has more.
    """
    layers, tensors = getattr(config, "num_hidden_layers", 0), _num_tensors(folder)
    if isinstance(layers, int) and tensors is not None and layers > tensors:
        raise InputError(f"{folder}/config.json: {layers} layers, and the weights are {tensors} tensors; save or download it again")


def require_whole(folder: Path, model: Any, report: dict[str, Any], new_head: bool) -> None:
    """Check that a model has all its weights, and that they are finite.

    Args:
        folder: folder of the checkpoint.
        model: a Transformers model.
        report: what ``from_pretrained`` says about missing and unexpected weights.
        new_head: whether the classifier is replaced by a new one, so that its weights do not matter.

    Raises:
        InputError: weights are missing, do not fit, or are not finite.
    """

    def of_body(name: str) -> bool:
        return name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in f".{name}"

    missing = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    missing = [name for name in missing if of_body(name) or not new_head]
    if missing:
        body = any(map(of_body, missing))
        problem = "the file is incomplete, or has another architecture" if body else "its classifier is not trained"
        raise InputError(
            f"{folder}: {len(missing)} tensors are missing or have another shape, for example {missing[0]}: {problem}; "
            "use a checkpoint of a classifier, or make one with kd-env teach"
        )
    unexpected = sorted(name for name in report["unexpected_keys"] if ".pooler." not in f".{name}")
    if unexpected and not new_head:
        problem = f"{len(unexpected)} tensors that a {type(model).__name__} does not have, for example {unexpected[0]}"
        raise InputError(f"{folder}: {problem}; use another checkpoint")
    bad = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    bad = [name for name in bad if not new_head or name.startswith(f"{model.base_model_prefix}.")]
    if bad:
        raise InputError(f"{folder}: tensor {bad[0]} has NaN or infinite values; save or download that checkpoint again")


def _num_tensors(folder: Path) -> int | None:
    """Return the number of tensors of a checkpoint, from the headers of its files; ``None`` where they cannot be read."""
    try:
        if (index := folder / "model.safetensors.index.json").is_file():
            return len(json.loads(index.read_text())["weight_map"])
        with (folder / "model.safetensors").open("rb") as file:
            return len(json.loads(file.read(int.from_bytes(file.read(8), "little"))))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError, RecursionError):
        return None


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and reports of Transformers inside the context. The caller reports missing weights."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def first_line(error: Exception) -> str:
    """Return the first line of the message of ``error``."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def teacher_name(text: str) -> str:
    """Return the name of the teacher of a folder or hub id: the last part of ``text``."""
    return Path(text).name or Path(text).resolve().name  # "." has no last part


def require_single_label(folder: Path, config: Any) -> None:
    """Check that the checkpoint in ``folder`` gives each example one class.

    Raises:
        InputError: it is of another kind.
    """
    problem = getattr(config, "problem_type", None)
    if problem == "multi_label_classification":
        raise InputError(
            f"{folder}/config.json: problem_type is {problem}: it answers yes or no for each class by itself, and a teacher gives each "
            "example one class; use a classifier of one class for each example"
        )
    if problem == "regression" or config.num_labels == 1:
        raise InputError(
            f"{folder}/config.json: it gives numbers, not classes (outputs: {config.num_labels}, problem_type: {problem}); "
            "use a classifier with two classes or more"
        )
