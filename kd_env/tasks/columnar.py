"""Read ``.parquet`` files, whole or in shards, and folders that ``datasets.save_to_disk`` wrote, into a :class:`Table`.

Classes that the file stores as numbers with names (``ClassLabel``) become names; -1, which stands for no label, becomes a missing value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_env.errors import InputError
from kd_env.paths import require_file
from kd_env.tasks.tables import Table

SUFFIX = ".parquet"
SHARD = re.compile(r"(.+)-\d+-of-(\d+)\.parquet")
STATE_FILE = "state.json"
"""In a folder that ``save_to_disk`` wrote: the names of its files."""
DATASET_FILES = (STATE_FILE, "dataset_info.json", "*.arrow")
"""Patterns of all files that ``save_to_disk`` writes."""


def read_parquet(path: Path) -> Table:
    """Read a Parquet file, or all shards if ``path`` is one of ``NAME-00000-of-00003.parquet`` and so on.

    Raises:
        InputError: the file cannot be read, a shard is missing, or there are no rows.
    """
    import pyarrow as pa
    from pyarrow import parquet

    shard = SHARD.fullmatch(path.name)
    paths = sorted(path.parent.glob(f"{shard[1]}-*-of-{shard[2]}.parquet")) if shard else [path]
    if shard and len(paths) != int(shard[2]):
        raise InputError(f"{path.parent}: {len(paths)} of {int(shard[2])} shards {shard[1]}-*{SUFFIX}; copy the missing ones")
    tables = []
    for part in paths:
        require_file(part)
        try:
            tables.append(parquet.read_table(part))
        except (OSError, pa.ArrowException) as error:
            message = str(error).splitlines()[0][:150]
            raise InputError(f"{part} cannot be read as Parquet ({message}); save or download it again") from None
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"{path}: its shards have different columns ({str(error).splitlines()[0][:150]}); save them again") from None
    return _table(path, table, _class_names((tables[0].schema.metadata or {}).get(b"huggingface")))


def read_dataset(folder: Path) -> Table:
    """Read a folder that ``Dataset.save_to_disk`` wrote.

    Raises:
        InputError: the folder cannot be read, or has no rows.
    """
    from datasets import load_from_disk

    try:
        return dataset_table(folder, load_from_disk(str(folder)))
    except InputError:
        raise
    except Exception as error:  # the library raises many types of error for damaged files
        message = (str(error).splitlines() or [""])[0][:150]
        raise InputError(f"{folder} cannot be read as a dataset ({type(error).__name__}: {message}); save it again") from None


def dataset_table(path: Path, dataset: Any) -> Table:
    """Return a ``datasets.Dataset`` as a table.

    Args:
        path: name of the dataset, for messages.

    Raises:
        InputError: the dataset has no rows.
    """
    from datasets import ClassLabel

    classes = {name: list(feature.names) for name, feature in dataset.features.items() if isinstance(feature, ClassLabel)}
    return _table(path, dataset.with_format("arrow")[:], classes)


def is_dataset(folder: Path) -> bool:
    """Return whether ``folder`` is what ``Dataset.save_to_disk`` wrote."""
    return (folder / STATE_FILE).is_file()


def _table(path: Path, table: Any, classes: Mapping[str, list[str]]) -> Table:
    if len(set(table.column_names)) < table.num_columns:
        duplicate = next(name for name in table.column_names if table.column_names.count(name) > 1)
        raise InputError(f"{path}: column {duplicate!r} is there twice; name every column once")
    if table.num_rows == 0:
        raise InputError(f"{path}: no rows; add some, or delete it")
    columns = {str(name): _cells(table.column(name), classes.get(name)) for name in table.column_names}
    return Table(path, columns, list(range(1, table.num_rows + 1)), unit="row")


def _cells(column: Any, class_names: list[str] | None) -> list[Any]:
    values = [None if isinstance(value, float) and math.isnan(value) else value for value in column.to_pylist()]
    if class_names is None:
        return values
    return [class_names[value] if isinstance(value, int) and 0 <= value < len(class_names) else None for value in values]


def _class_names(metadata: bytes | None) -> dict[str, list[str]]:
    """Return the names of the classes of each column that has them, from what ``datasets`` writes into a Parquet file."""
    try:
        features = json.loads(metadata or b"{}")["info"]["features"]
        return {
            name: list(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # not written by datasets
        return {}
