"""Rows of texts, the files that hold them, and the tasks that folders of such files become."""

import json

from kd_env.tasks import text_files
from kd_env.tasks.task import SPLITS

ROWS = [(f"number {i} {'fine' if i % 2 else 'dull'}", i % 2) for i in range(300)]


def write(folder, name, rows=ROWS, columns=("sentence", "label"), end="\n", mark=""):
    """One file, in the format its suffix names."""
    if name.endswith(".jsonl"):
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    else:
        lines = [("," if name.endswith(".csv") else "\t").join(map(str, row)) for row in [columns, *rows]]
    (folder / name).write_bytes((mark + end.join(lines) + end).encode())


def load(folder, **options):
    return text_files.load(str(folder), **options)


def examples(task):
    """All texts with their class and group, as names."""
    groups = task.group_names or ("",)
    return sorted(
        (text, task.class_names[label], groups[group])
        for split in (getattr(task, name) for name in SPLITS)
        for text, label, group in zip(split.inputs, split.labels, split.groups if task.group_names else [0] * len(split), strict=True)
    )
