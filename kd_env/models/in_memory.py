"""Save Transformers models from memory to the cache. In: a model or a pipeline, with its tokenizer. Out: a folder with its files.

All other code reads checkpoints from folders. The name of the folder contains a hash of the content, so equal models share a folder.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import first_line, quiet
from kd_env.paths import cache_dir, locked, partial_file


def is_model(value: object) -> bool:
    """Return whether ``value`` is a Transformers model, a pipeline, or a pair of a model and its tokenizer or image processor."""
    model, _ = _model_and_processor(value)
    return callable(getattr(model, "save_pretrained", None)) and hasattr(model, "config")


def name_of(value: object) -> str:
    """Return the name of a model: the last part of what it was loaded from, or its class."""
    model, _ = _model_and_processor(value)
    loaded_from = str(getattr(model, "name_or_path", "") or "")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(loaded_from).name) or type(model).__name__


def save_to_cache(value: object) -> Path:
    """Save a model and its tokenizer or image processor, unless the cache contains them, and return their folder.

    Args:
        value: a model, a pipeline, or a pair of a model and its tokenizer or image processor.

    Raises:
        InputError: a model was given alone, and its tokenizer cannot be loaded.
    """
    model, processor = _model_and_processor(value)
    if processor is None:
        processor = _load_processor(model)
    digest = hashlib.sha256(f"{model.config.to_json_string()}|{_processor_content(processor)}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    folder = cache_dir() / "models" / f"{name_of(value)}-{digest.hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not folder.exists():
            partial = partial_file(folder)
            shutil.rmtree(partial, ignore_errors=True)
            with quiet():
                model.save_pretrained(partial)
                processor.save_pretrained(partial)
            partial.replace(folder)
    return folder


def _model_and_processor(value: Any) -> tuple[Any, Any]:
    if isinstance(value, tuple) and len(value) == 2 and not hasattr(value[1], "state_dict"):  # not two models
        return value[0], value[1]
    if hasattr(value, "model") and (hasattr(value, "tokenizer") or hasattr(value, "image_processor")):  # a pipeline
        return value.model, getattr(value, "tokenizer", None) or getattr(value, "image_processor", None)
    return value, None


def _load_processor(model: Any) -> Any:
    from transformers import AutoImageProcessor, AutoTokenizer

    source = str(getattr(model, "name_or_path", "") or "")
    processor_class = AutoImageProcessor if getattr(model, "main_input_name", "") == "pixel_values" else AutoTokenizer
    try:
        if not source:
            raise OSError("the model does not name the folder it was loaded from")
        with quiet():
            return processor_class.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise InputError(
            f"model {type(model).__name__}: its tokenizer cannot be loaded ({first_line(error)}); give the pair (model, tokenizer)"
        ) from None


def _processor_content(processor: Any) -> str:
    backend = getattr(processor, "backend_tokenizer", None)
    if backend is None:
        return repr(processor)
    options = (processor.model_max_length, processor.padding_side, processor.truncation_side, processor.special_tokens_map)
    return f"{options}|{backend.to_str()}"
