"""Records are checked: their trials are run again where there is no trace, and their decisions are taken again where there is one."""

import gzip
import json
import shutil

import pytest

from kd_env.benchmark import records
from kd_env.benchmark.check import checks
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.rerun import COMPARED, differences, rerun, trial_of, units
from kd_env.benchmark.run import run
from kd_env.benchmark.run_trial import run_trials
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.errors import InputError

DEFINE_OR_DESCRIBE = {"trial", "suite", "seed", "config", "wall_s", "peak_rss_mb", "device", "versions"}
"""Fields that are not compared: they define the trial, or say when, where and by which version it ran."""


def trial(policy, seed):
    return Trial("digits", policy, seed, settings={"updates": 4, "student": "mlp(width=8)"}, command="kd-env run")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Five records: three seeds of ``reinforce`` that were taught as one population, and two trials of ``camkd``."""
    folder = tmp_path_factory.mktemp("original")
    run([trial("reinforce", seed) for seed in range(3)], folder, Progress(quiet=True), population=3)
    run([trial("camkd", seed) for seed in range(2)], folder, Progress(quiet=True))
    return folder


@pytest.fixture
def copy(original, tmp_path):
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def without_traces(copy):
    """The records alone, compressed, as they are committed."""
    shutil.rmtree(copy / "traces")
    (copy / records.COMPRESSED).write_bytes(gzip.compress((copy / records.FILE).read_bytes()))
    (copy / records.FILE).unlink()
    return copy


def change(folder, number, **fields):
    """Change fields of one of the records of a folder."""
    written = records.read(folder)
    written[number].update(fields)
    (folder / records.COMPRESSED).unlink(missing_ok=True)
    (folder / records.FILE).write_text("".join(json.dumps(record) + "\n" for record in written))
    return written


def replay(capsys, *arguments):
    """Return exit status, lines of output and lines of progress of the command."""
    status = invoke(["replay", *map(str, arguments)])
    output = capsys.readouterr()
    return status, output.out.splitlines(), output.err.splitlines()


# units


def test_records_of_a_population_are_one_unit(original):
    written = records.read(original)
    shuffled = [written[number] for number in (3, 0, 1, 4, 2)]
    assert units(written) == [written[:3], [written[3]], [written[4]]]
    assert units(shuffled) == [[written[3]], written[:3], [written[4]]]


def test_two_populations_of_one_setting_are_two_units(original):
    written = records.read(original)[:3]
    later = [{**record, "seed": record["seed"] + 3, "env": {**record["env"], "label_seed": record["seed"] + 3}} for record in written]
    assert units([*written, *later]) == [written, later]
    other = [{**record, "suite": "other"} for record in written]
    assert units([*written, *other]) == [written, other]


def test_the_trial_of_a_record_is_the_one_that_made_it(original):
    trials = [*(trial("reinforce", seed) for seed in range(3)), *(trial("camkd", seed) for seed in range(2))]
    assert [trial_of(record) for record in records.read(original)] == trials
    without_test = Trial("digits", "camkd", 0, settings={"updates": 4}, test=False)
    assert trial_of({**records.read(original)[3], "config": without_test.config}) == without_test


# differences


@pytest.fixture(scope="module")
def made_again(original, tmp_path_factory):
    unit = records.read(original)[:3]
    return unit[1], run_trials([trial_of(record) for record in unit], tmp_path_factory.mktemp("again"), lambda _trial: None)[1]


def test_all_fields_but_those_that_define_or_describe_a_trial_are_compared():
    assert set(COMPARED) == set(records.FIELDS) - DEFINE_OR_DESCRIBE
    assert len(COMPARED) == len(set(COMPARED))


def test_a_record_of_an_older_version_has_another_trial_id_and_is_equal(made_again):
    record, again = made_again
    assert differences({**record, "trial": f"{record['trial']}-of-an-older-version"}, again) == []


@pytest.mark.parametrize("field", COMPARED)
def test_a_change_of_any_compared_field_is_found(field, made_again):
    record, again = made_again
    assert differences(record, again) == []
    values = {
        bool: lambda value: not value,
        int: lambda value: value + 1,
        float: lambda value: value + 1e-9,
        str: lambda value: value + "x",
    }
    changed = values.get(type(record[field]), lambda value: {**value, "x": 1} if isinstance(value, dict) else value[:-1])(record[field])
    (line,) = differences({**record, field: changed}, again)
    assert line.startswith(f"{field}: recorded ")
    assert ", again " in line
    assert len(line) < 220, "long values are cut"
    if field != "selection_entropy":
        assert len(differences({**record, field: None}, again)) == 1
    else:
        assert differences({**record, field: None}, again) == [], "old records do not know it"


def test_an_incomplete_population_says_why_it_may_differ(original):
    first, *_ = records.read(original)
    lines = rerun([{**first, "test": first["test"] + 0.05}])[first["trial"]]
    assert lines[0] == "only 1 of the 3 records of its population are here; it can differ in the last digits"
    assert any(line.startswith("test: recorded ") for line in lines)


# the command


def test_a_folder_without_traces_is_run_again(without_traces, capsys):
    names = [record["trial"] for record in records.read(without_traces)]
    status, lines, progress = replay(capsys, without_traces)
    assert lines == [*(f"{name}: equal" for name in names), "5 of 5 records are equal"]
    assert status == 0
    assert progress == [f"[{number}/5] {name}: no trace, running the trial again" for number, name in enumerate(names, start=1)]


def test_a_folder_with_traces_is_replayed_and_what_has_none_is_run_again(copy, capsys):
    names = [record["trial"] for record in records.read(copy)]
    for number in (1, 3):
        (copy / "traces" / f"{names[number]}.parquet").unlink()
    status, lines, progress = replay(capsys, copy)
    assert (status, sorted(lines)) == (0, sorted([*(f"{name}: equal" for name in names), "5 of 5 records are equal"]))
    actions = dict(line.partition("] ")[2].split(": ", 1) for line in progress)
    assert [actions[name] for name in names] == [
        "teaching with the recorded decisions",
        "no trace, running the trial again, together with 2 more of its population",
        "teaching with the recorded decisions",
        "no trace, running the trial again",
        "teaching with the recorded decisions",
    ]
    assert [line.partition(" ")[0] for line in progress] == [f"[{number}/5]" for number in range(1, 6)]


@pytest.mark.parametrize("number", [1, 4], ids=["of a population", "alone"])
def test_a_record_changed_in_one_field_is_found(number, without_traces, capsys):
    written = records.read(without_traces)
    change(without_traces, number, reward_sum=written[number]["reward_sum"] + 1e-6)
    status, lines, _ = replay(capsys, without_traces)
    assert status == 1
    assert lines.pop() == "4 of 5 records are equal"
    assert lines.pop(number).startswith(f"{written[number]['trial']}: reward_sum: recorded ")
    assert all(line.endswith(": equal") for line in lines)


def test_a_trace_that_differs_is_found_in_a_folder(copy, capsys):
    written = change(copy, 3, validation=0.5)
    status, lines, _ = replay(capsys, copy, "--quiet")
    assert status == 1
    assert [line for line in lines if ": validation: recorded 0.5, replayed 0." in line] == [lines[3]]
    assert lines[3].startswith(written[3]["trial"])
    assert lines[-1] == "4 of 5 records are equal"


def test_a_record_that_cannot_be_checked_does_not_stop_the_others(without_traces, capsys):
    written = records.read(without_traces)
    change(without_traces, 3, env={**written[3]["env"], "teachers": "digits/none"})
    status, lines, _ = replay(capsys, without_traces, "--policy", "camkd")
    assert status == 1
    assert lines[0].startswith(f"{written[3]['trial']}: cannot be checked: unknown pool 'digits/none'")
    assert lines[1:] == [f"{written[4]['trial']}: equal", "1 of 2 records are equal"]


def test_one_trial_without_a_trace_is_run_again_with_its_population(without_traces, capsys):
    name = records.read(without_traces)[2]["trial"]
    status, lines, progress = replay(capsys, without_traces, "digits-reinforce-s2")
    assert (status, lines) == (0, [f"{name}: equal"])
    assert progress == [f"{name}: no trace, running the trial again, together with 2 more of its population"]
    change(without_traces, 2, diverged=True)
    status, lines, progress = replay(capsys, without_traces, name, "--quiet")
    assert (status, lines, progress) == (1, ["diverged: recorded true, again false"], [])


def test_policies_and_seeds_restrict_the_check(copy, capsys):
    status, lines, _ = replay(capsys, copy, "--policy", "camkd", "--policy", "reinforce", "--seed", "1")
    assert status == 0
    assert [line.rpartition("-")[0] for line in lines[:-1]] == ["digits-reinforce-s1", "digits-camkd-s1"]
    assert lines[-1] == "2 of 2 records are equal"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "camdk"], "unknown policy in DIR 'camdk'; did you mean 'camkd'?"),
        (["--seed", "7"], "unknown seed in DIR '7'; known: 0, 1, 2"),
        (["--policy", "camkd", "--seed", "2"], "DIR: no record has these policies and these seeds; leave out --policy or --seed"),
        (["digits-camkd-s0", "--seed", "0"], "trial 'digits-camkd-s0' is one record; leave out --policy and --seed"),
        (["digits-camkd-s7"], "unknown trial in DIR 'digits-camkd-s7'; "),
        (["--seed", "one"], "Invalid value for '--seed'"),
    ],
)
def test_what_is_not_in_the_folder_is_one_line(arguments, message, original, capsys):
    status, lines, errors = replay(capsys, original, *arguments)
    assert (status, lines, len(errors)) == (2, [], 1)
    assert message.replace("DIR", str(original)) in errors[0]


def test_records_are_checked_in_the_order_of_their_units(original):
    written = records.read(original)
    planned = checks(original, written, [written[4], written[1]])
    assert [check.records for check in planned] == [[written[1]], [written[4]]]
    assert all(check.has_trace for check in planned)
    planned = checks(original / "elsewhere", written, [written[4], written[2], written[1]])
    assert [(check.records, check.unit) for check in planned] == [(written[1:3], written[:3]), ([written[4]], [written[4]])]


def test_a_trace_that_cannot_be_read_is_refused(copy):
    written = records.read(copy)
    (check,) = checks(copy, written, written[:1])
    (copy / "traces" / f"{written[0]['trial']}.parquet").write_text("not a trace")
    with pytest.raises(InputError, match="trace"):
        check.differences()
