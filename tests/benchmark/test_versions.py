"""Records name the processor, and where numbers differ, both checks of a record say if it was another one."""

import pytest

from kd_env.benchmark import records
from kd_env.benchmark.replay import replay_record
from kd_env.benchmark.rerun import differences
from kd_env.benchmark.run_trial import run_trial
from kd_env.benchmark.trial import Trial
from kd_env.benchmark.versions import explained, processor, versions

pytestmark = pytest.mark.long

ELSEWHERE = f"the record was made on Example 9000, AVX2, this is {processor()}, and other processors round differently (see --tolerance)"


@pytest.fixture(scope="module")
def made_here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made_here")
    records.append(folder, run_trial(Trial("digits", "random_single", 0, settings={"updates": 4}), folder))
    return folder, records.read(folder)[0]


def of(record, name):
    """The same record as if a processor of this name had made it; None if it names none."""
    return {**record, "versions": versions() | ({"processor": name} if name else {})}


def test_a_record_names_the_processor(made_here):
    assert made_here[1]["versions"] == versions() | {"processor": processor()}


@pytest.mark.parametrize("name", ["Example 9000, AVX2", None])
def test_equal_numbers_need_no_reason(made_here, name):
    folder, record = made_here
    assert differences(of(record, name), record) == []
    assert replay_record(folder, of(record, name)) == []


def test_the_reason_comes_before_the_differences(made_here):
    folder, record = made_here
    changed = of(record, "Example 9000, AVX2") | {"validation": 0.5}
    for lines in (differences(changed, record), replay_record(folder, changed)):
        assert lines[0] == ELSEWHERE
        assert lines[1].startswith("validation: recorded 0.5, ")
        assert len(lines) == 2


def test_a_difference_on_the_same_processor_has_no_reason(made_here):
    folder, record = made_here
    (line,) = replay_record(folder, {**record, "validation": 0.5})
    assert line.startswith("validation: recorded 0.5, ")


def test_a_record_that_names_no_processor():
    assert explained(["test: 1"], {}) == [
        f"the record does not name its processor, this is {processor()}, and other processors round differently (see --tolerance)",
        "test: 1",
    ]
