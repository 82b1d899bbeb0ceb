"""Readers of files and texts return or raise InputError, whatever they read. Deterministic, and small enough for every run."""

import json
import pickle
import warnings
from contextlib import suppress

import numpy as np
import pytest
from any_content import JSON, QUICK, flipped
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_env import spec
from kd_env.benchmark import records, saved_policies, suites
from kd_env.benchmark.report import make_report, markdown
from kd_env.benchmark.tuning import files
from kd_env.errors import InputError
from kd_env.models.convolutional.checkpoint import MODEL_TYPE, open_folder
from kd_env.tasks.array_pickle import ALLOWED, read_pickle
from kd_env.tasks.columns import text_columns
from kd_env.tasks.labels import class_names_of, normalised_labels
from kd_env.tasks.tables import READERS, read_table
from kd_env.teachers import pool_files

ODD_TEXT = st.text(alphabet=st.sampled_from("ab1,;\t\r\n\"'\\{}[]()=:. \0\ufeff\u2028é"), max_size=40)
POOL_KEYS = st.sampled_from(["name", "model", "groups", "classes", "lr"])
STARTS = st.sampled_from([b"", b"sentence,label\n", b"sentence\tlabel\na\t1\n"])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


def record():
    """Return a record with a value of the right type in each field."""
    texts = dict.fromkeys(("trial", "suite", "task", "policy", "access", "student", "pool", "metric", "device"), "x")
    numbers = dict.fromkeys(("test", "validation", "reward_split", "seed", "updates", "reward_labels", "wall_s", "peak_rss_mb"), 1)
    return dict.fromkeys(records.FIELDS) | texts | numbers | {
        "versions": {}, "config": {}, "teachers": ["p"], "curve": [{"update": 1, "validation": 0.5}], "diverged": False,
    }  # fmt: skip


@QUICK
@given(ODD_TEXT)
def test_a_spec(text):
    with suppress(InputError):
        assert spec.parse(str(parsed := spec.parse(text))).name == parsed.name


@QUICK
@given(st.text(alphabet=st.sampled_from("ab1,;()[]{}='\"\\ "), max_size=30))
def test_a_split_text_loses_nothing_but_commas_and_empty_parts(text):
    assert "".join("".join(spec.split(text)).split()) in "".join(text.split()) or "," in text


@pytest.mark.parametrize("suffix", READERS)
@QUICK
@given(content=st.binary(max_size=80) | ODD_TEXT.map(str.encode), start=STARTS)
def test_a_table_of_any_bytes(suffix, content, start, place):
    (file := place / f"any{suffix}").write_bytes(start + content)
    with suppress(InputError):
        columns = text_columns(read_table(file), strict=False)
        assert len(columns.inputs) == len(columns.labels) == len(columns.table.lines)
        normalised_labels(columns, class_names_of(columns))


@pytest.mark.long
@QUICK
@given(rows=st.lists(st.dictionaries(st.sampled_from(["sentence", "label", "group", "x"]), JSON, max_size=4), max_size=4))
def test_a_table_of_any_objects(rows, place):
    (file := place / "objects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with suppress(InputError):
        columns = text_columns(read_table(file), strict=False)
        normalised_labels(columns, class_names_of(columns))


@pytest.mark.long
@QUICK
@given(content=JSON | st.fixed_dictionaries({"teachers": st.lists(st.dictionaries(POOL_KEYS, JSON))}))
def test_a_pool_file(content, place):
    (file := place / "pool.json").write_text(json.dumps(content))
    with suppress(InputError):
        assert pool_files.read(file)


@pytest.mark.parametrize("suffix", [".json", ".toml"])
@QUICK
@given(content=st.binary(max_size=60) | ODD_TEXT.map(str.encode))
def test_a_pool_file_of_any_bytes(suffix, content, place):
    (file := place / f"pool{suffix}").write_bytes(content)
    with suppress(InputError):
        pool_files.read(file)


TOML = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "digits", "uniform", "@a", "0-2", "x(y=1"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["task", "policies", "name", "set", "a"]), inner, max_size=3)
    ),
)
"""Any value of a suite file; its texts are names, or nearly."""
SUITE_KEYS = st.sampled_from(["about", "seeds", "lists", "part", "prat"])
PART_KEYS = st.sampled_from(["task", "policies", "teachers", "student", "updates", "population", "seeds", "set", "polices"])
PARTS = st.lists(st.dictionaries(PART_KEYS, TOML, max_size=4), max_size=2)


def toml(value):
    """Return a value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


@QUICK
@given(content=st.dictionaries(SUITE_KEYS, TOML | PARTS, max_size=4))
def test_a_suite_of_any_values(content, place):
    (file := place / "suite.toml").write_text("\n".join(f"{key} = {toml(value)}" for key, value in content.items()))
    with suppress(InputError):
        suite = suites.read(file)
        trials = [trial for part in suite.parts for trial in part.trials("any", part.seeds or suite.seeds, "")]
        assert len(trials) == sum(len(part.policies) * len(part.seeds or suite.seeds) for part in suite.parts) > 0


@QUICK
@given(content=st.binary(max_size=60) | ODD_TEXT.map(str.encode))
def test_a_suite_of_any_bytes(content, place):
    (file := place / "bytes.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"bytes\.toml"):
        suites.read(file)


TUNED_KEYS = st.sampled_from(["task", "teachers", "student", "updates", "trials", "seeds", "command", "policies", "x"])


@QUICK
@given(changed=TUNED_KEYS, value=TOML, policy=TOML)
def test_a_file_of_tuned_policies_of_any_values(changed, value, policy, place):
    texts = dict.fromkeys(("task", "teachers", "student", "command"), "x")
    content = texts | {"updates": 1, "trials": 1, "seeds": [1], "policies": {"uniform": policy}} | {changed: value}
    (file := place / "tuned.toml").write_text("\n".join(f"{key} = {toml(inner)}" for key, inner in content.items()))
    with suppress(InputError):
        assert files.read(file).policies.keys() <= {"uniform", *(value if isinstance(value, dict) else ())}


@settings(QUICK, max_examples=30)
@given(field=st.sampled_from(records.FIELDS), value=JSON)
def test_a_record(field, value, place):
    changed = json.dumps(record() | {"trial": "y", field: value})
    (place / records.FILE).write_text(f"{json.dumps(record())}\n{changed}\n")
    with warnings.catch_warnings(), suppress(InputError):
        warnings.simplefilter("ignore")
        markdown(make_report(place, records.read(place))).encode()


@QUICK
@given(content=st.binary(max_size=60))
def test_records_of_any_bytes(content, place):
    (place / records.FILE).write_bytes(content + b"\n")
    with suppress(InputError):
        records.read(place)


@QUICK
@given(content=JSON)
def test_where_a_saved_policy_comes_from(content, place):
    (place / "policies").mkdir(exist_ok=True)
    (place / "policies" / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError):
        saved_policies.find(place, [], [0])


PICKLE = pickle.dumps({"data": np.arange(24, dtype=np.uint8).reshape(2, 12), b"labels": [1, 2]}, 2)
PLAIN = (dict, list, tuple, set, frozenset, bytes, bytearray, str, int, float, complex, np.ndarray, np.dtype, type(None), *ALLOWED.values())


@QUICK
@given(content=st.binary(max_size=60) | st.builds(flipped, st.just(PICKLE), st.integers(0, 10**6), st.integers(0, 7)))
def test_a_pickle_of_any_bytes(content, place):
    (place / "batch").write_bytes(content)
    with suppress(InputError):
        value = read_pickle(place / "batch")
        assert any(value is kind or type(value) is kind for kind in PLAIN)


CONFIG = {"model_type": MODEL_TYPE, "network": "resnet8(width=2)", "num_channels": 1, "id2label": {"0": "a", "1": "b"}}


@QUICK
@given(field=st.sampled_from(sorted(CONFIG)), value=JSON | st.sampled_from(["wrn(depth=1000)", "vgg8(width=1048576)", {"0": 1}]))
def test_a_configuration_of_a_convolutional_network(field, value, place):
    (place / "config.json").write_text(json.dumps({**CONFIG, field: value}))
    (place / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError):
        open_folder("x", place).classifier()
