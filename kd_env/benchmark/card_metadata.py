"""Write the metadata of a model card for the hub. In: a task, a student and its score. Out: YAML between two lines of ``---``.

The licence and the hub id of the checkpoint that a student starts from are read from its files. Unknown fields are left out.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import find_folder, read_json
from kd_env.models.convolutional.checkpoint import is_convolutional
from kd_env.models.networks import begins_as_checkpoint
from kd_env.tasks import Task

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DATASETS = {
    "glue": "nyu-mll/glue",
    "clinc150": "clinc/clinc_oos",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "mnist": "ylecun/mnist",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "tiny-imagenet": "zh-plus/tiny-imagenet",
}
"""Hub ids of the published data sets of built-in tasks."""


def front_matter(task: Task, student: str, test: float | None, library: str = "transformers") -> str:
    """Return the metadata of a student as YAML.

    Args:
        task: the task.
        student: architecture or checkpoint that the student starts from.
        test: score on the test split; ``None`` without one.
        library: library that opens the student, from :func:`library_of`.
    """
    kind = "text-classification" if task.kind == "text" else "image-classification"
    dataset, origin = DATASETS.get(re.split(r"[/(]", task.name)[0]), _origin(student)
    metric = re.split(r"[(_]", task.metric)[0]
    metric = {"mcc": "matthews_correlation"}.get(metric, metric)
    lines = [f"library_name: {library}", f"pipeline_tag: {kind}", "tags:", "- knowledge-distillation"]
    lines += [f"{name}: {json.dumps(value)}" for name, value in origin.items()]
    lines += ["datasets:", f"- {dataset}"] if dataset else []
    lines += ["metrics:", f"- {metric}"]
    if test is not None:
        dataset_lines = [f"      name: {json.dumps(task.name)}", f"      type: {json.dumps(dataset or 'own data')}"]
        lines += ["model-index:", "- name: student", "  results:", "  - task:", f"      type: {kind}", "    dataset:", *dataset_lines]
        lines += ["    metrics:", f"    - type: {metric}", f"      value: {test:.4f}"]
    return "\n".join(["---", *lines, "---"])


def library_of(folder: Path) -> str:
    """Return the library that opens the checkpoint in a folder."""
    return "kd-env" if is_convolutional(read_json(folder / "config.json")) else "transformers"


def _origin(student: str) -> dict[str, Any]:
    """Return ``base_model`` and ``license`` of the checkpoint that a student starts from, if they are known."""
    if not begins_as_checkpoint(student):
        return {}
    checkpoint = student if Path(student).expanduser().is_dir() else student.partition("(")[0]
    try:
        folder = find_folder(checkpoint)
    except InputError:
        return {}
    metadata = _checkpoint_metadata(folder)
    is_hub_id = HUB_ID.fullmatch(checkpoint) and not Path(checkpoint).expanduser().exists()
    base_model = checkpoint if is_hub_id else metadata.get("base_model")
    return {key: value for key, value in (("base_model", base_model), ("license", metadata.get("license"))) if value}


def _checkpoint_metadata(folder: Path) -> dict[str, str]:
    """Return ``license`` and ``base_model`` from the files of a checkpoint, if they contain them."""
    metadata = {}
    try:
        match = re.search(r"\A---\n.*?^license:\s*(\S+)\s*$.*?^---$", (folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)
        if match:
            metadata["license"] = match[1].strip("'\"")
    except (OSError, UnicodeDecodeError):
        pass
    try:
        name = json.loads((folder / "config.json").read_text()).get("_name_or_path", "")
        if HUB_ID.fullmatch(str(name)):
            metadata["base_model"] = name
    except (OSError, ValueError):
        pass
    return metadata
