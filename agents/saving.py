"""What an agent keeps in a file: tensors and the options it was made with (safetensors)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def write(path: str, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> None:
    """Write both to ``path``."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"options": json.dumps(dict(options))})


def read(path: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and options that :func:`write` wrote."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["options"])  # noqa: SIM118 (not a dict)
