"""Write the metadata of a model card, as the hub reads them. In: a task, a student and its score. Out: YAML between two lines of ``---``.

What is not known is left out: the licence and the hub's name of a checkpoint are read from its files, if they say them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import find_folder
from kd_env.models.networks import begins_as_checkpoint
from kd_env.tasks import Task

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
DATASETS = {"glue": "nyu-mll/glue", "clinc150": "clinc/clinc_oos", "fashion-mnist": "zalando-datasets/fashion_mnist"}
"""Names on the hub of the published data that built-in tasks read."""


def front_matter(task: Task, student: str, test: float | None) -> str:
    """Return the metadata of a student.

    Args:
        task: the task that the student was taught.
        student: architecture or checkpoint that the student started from.
        test: its score on test.
    """
    kind = "text-classification" if task.kind == "text" else "image-classification"
    dataset, origin = DATASETS.get(re.split(r"[/(]", task.name)[0]), _origin(student)
    metric = re.split(r"[(_]", task.metric)[0]
    metric = {"mcc": "matthews_correlation"}.get(metric, metric)
    lines = ["library_name: transformers", f"pipeline_tag: {kind}", "tags:", "- knowledge-distillation"]
    lines += [f"{name}: {json.dumps(value)}" for name, value in origin.items()]
    lines += ["datasets:", f"- {dataset}"] if dataset else []
    lines += ["metrics:", f"- {metric}"]
    if test is not None:
        described = [f"      name: {json.dumps(task.name)}", f"      type: {json.dumps(dataset or 'own data')}"]
        lines += ["model-index:", "- name: student", "  results:", "  - task:", f"      type: {kind}", "    dataset:", *described]
        lines += ["    metrics:", f"    - type: {metric}", f"      value: {test:.4f}"]
    return "\n".join(["---", *lines, "---"])


def _origin(student: str) -> dict[str, Any]:
    """Return ``base_model`` and ``license`` of the checkpoint that a student starts from, where they are known."""
    if not begins_as_checkpoint(student):
        return {}
    text = student if Path(student).expanduser().is_dir() else student.partition("(")[0]
    try:
        folder = find_folder(text)
    except InputError:
        return {}
    said = _said_by(folder)
    name = text if not Path(text).expanduser().exists() and HUB_NAME.fullmatch(text) else said.get("base_model")
    return {key: value for key, value in (("base_model", name), ("license", said.get("license"))) if value}


def _said_by(folder: Path) -> dict[str, str]:
    """Return ``license`` and ``base_model`` of a checkpoint's own files."""
    said = {}
    try:
        found = re.search(r"\A---\n.*?^license:\s*(\S+)\s*$.*?^---$", (folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)
        if found:
            said["license"] = found[1].strip("'\"")
    except (OSError, UnicodeDecodeError):
        pass
    try:
        name = json.loads((folder / "config.json").read_text()).get("_name_or_path", "")
        if HUB_NAME.fullmatch(str(name)):
            said["base_model"] = name
    except (OSError, ValueError):
        pass
    return said
