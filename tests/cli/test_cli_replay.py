"""``kd-env replay``: a trial is named by its id or by the beginning of its id."""

import json

import pytest
from commands import error_line, run, start_command

from kd_env.benchmark import records
from kd_env.cli import invoke


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("replay") / "out"
    assert invoke([*run("--out", out, "--seeds", "0-1"), "--policy", "most_confident"]) == 0
    return out


@pytest.mark.long
def test_the_beginning_of_an_id_is_enough(results, capsys):
    record = next(record for record in records.read(results) if (record["policy"], record["seed"]) == ("uniform", 1))
    for name in (record["trial"], "digits-uniform-s1"):
        capsys.readouterr()
        assert invoke(["replay", str(results), name]) == 0
        assert capsys.readouterr().out == f"{record['trial']}: equal\n"


def test_a_beginning_of_several_ids_and_one_of_none_are_refused(results, capsys):
    line = error_line(capsys, invoke(["replay", str(results), "digits-uniform"]))
    assert "trial 'digits-uniform' could be digits-uniform-s0-" in line
    assert "; give more of the id" in line
    assert "unknown trial in" in error_line(capsys, invoke(["replay", str(results), "digits-uniform-s7"]))


def test_a_difference_is_status_1(results, capsys, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "traces").symlink_to(results / "traces")
    changed = [{**record, "validation": 0.5} for record in records.read(results)]
    (copy / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in changed))
    capsys.readouterr()
    assert invoke(["replay", str(copy), "digits-uniform-s0"]) == 1
    assert "validation" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [{"env": None}, {"env": {}}, {"env": {"id": "CartPole-v1"}}, {"seed": -1}],
)
def test_a_record_that_was_edited_does_not_end_the_check_of_the_others(results, capsys, tmp_path, changes):
    first, *others = records.read(results)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "traces").symlink_to(results / "traces")
    (copy / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in [{**first, **changes}, *others[:1]]))
    capsys.readouterr()
    assert invoke(["replay", str(copy)]) == 1
    output = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{first['trial']}: ") and not line.endswith(": equal") for line in output)
    assert f"{others[0]['trial']}: equal" in output
    assert f"{first['trial']}: " in error_line(capsys, invoke(["replay", str(copy), first["trial"]]))


def test_a_record_that_is_left_out_is_not_equal(results, capsys, tmp_path):
    first, second, *_ = records.read(results)
    (tmp_path / "traces").symlink_to(results / "traces")
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in (first, {**second, "test": "high"})))
    capsys.readouterr()
    assert invoke(["replay", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert output.out.splitlines() == [f"{first['trial']}: equal", "1 of 2 records are equal"]
    left_out, _ = output.err.splitlines()
    assert left_out == f"kd-env: {tmp_path}/results.jsonl, line 2: test is 'high', expected int or float or null; the record is left out"
    (tmp_path / "results.jsonl").write_text(json.dumps({**second, "test": "high"}) + "\n")
    assert "line 1: test is 'high'" in error_line(capsys, invoke(["replay", str(tmp_path)]))


@pytest.mark.parametrize("chosen", [["--seed", "0"], ["--policy", "uniform"], ["TRIAL"], ["--quiet", "--seed", "0"]])
def test_a_record_that_is_left_out_is_named_where_it_does_not_count(chosen, results, capsys, tmp_path):
    first, second, *_ = records.read(results)
    (tmp_path / "traces").symlink_to(results / "traces")
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in (first, {**second, "test": "high"})))
    capsys.readouterr()
    assert invoke(["replay", str(tmp_path), *(word.replace("TRIAL", first["trial"]) for word in chosen)]) == 0
    output = capsys.readouterr()
    summary = [] if chosen == ["TRIAL"] else ["1 of 1 records are equal"]
    assert output.out.splitlines() == [f"{first['trial']}: equal", *summary]
    assert "line 2: test is 'high'" in output.err.splitlines()[0]
    assert invoke(["replay", str(tmp_path), second["trial"]]) == 2
    left_out, unknown = capsys.readouterr().err.splitlines()
    assert "line 2: test is 'high'" in left_out
    assert unknown.startswith("kd-env: unknown trial in ")


@pytest.mark.long
def test_a_warning_about_a_record_is_one_line(results, tmp_path):
    first, second, *_ = records.read(results)
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in (first, {**second, "test": "high"})))
    command = start_command("report", tmp_path)
    _, errors = command.communicate(timeout=100)
    assert command.returncode == 0
    assert errors == f"kd-env: {tmp_path}/results.jsonl, line 2: test is 'high', expected int or float or null; the record is left out\n"


@pytest.mark.long
def test_without_a_trial_all_records_are_checked(results, capsys):
    assert invoke(["replay", str(results)]) == 0
    output = capsys.readouterr()
    trials = [record["trial"] for record in records.read(results)]
    assert output.out.splitlines() == [*(f"{trial}: equal" for trial in trials), "4 of 4 records are equal"]
    assert [line.split()[0] for line in output.err.splitlines()] == [f"[{number}/4]" for number in (1, 2, 3, 4)]


def test_a_folder_without_records_and_no_folder_are_refused(tmp_path, capsys):
    assert "no records" in error_line(capsys, invoke(["replay", str(tmp_path), "x"]))
    assert "no records" in error_line(capsys, invoke(["replay", str(tmp_path)]))
    assert "Missing argument 'DIR'" in error_line(capsys, invoke(["replay"]))


@pytest.mark.long
def test_with_a_tolerance_scores_may_differ_and_settings_may_not(results, capsys, tmp_path):
    changes = {
        "uniform": {"test": 0.01, "validation": -0.01, "curve": [], "bank": "other"},  # as on another processor
        "most_confident": {"test": 0.03},
    }
    written = [record for record in records.read(results) if record["seed"] == 0]
    for record in written:
        for name, change in changes[record["policy"]].items():
            record[name] = record[name] + change if name in ("test", "validation") else change
    first, second = (record["trial"] for record in written)
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in written))
    capsys.readouterr()
    assert invoke(["replay", str(tmp_path), "--tolerance", "0.02"]) == 1
    output = capsys.readouterr().out.splitlines()
    assert output[0] == f"{first}: equal within 0.02"
    assert output[1].startswith(f"{second}: test: recorded ")
    assert output[2] == "1 of 2 records are equal within 0.02"
    assert invoke(["replay", str(tmp_path), first]) == 1, "without a tolerance all numbers count"

    for record in written:
        record["updates"] += 1
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in written))
    capsys.readouterr()
    assert invoke(["replay", str(tmp_path), first, "--tolerance", "0.02"]) == 1
    assert "updates: recorded " in capsys.readouterr().out


@pytest.mark.long
def test_with_a_tolerance_traces_are_not_used(results, capsys):
    trial = records.read(results)[0]["trial"]
    capsys.readouterr()
    assert invoke(["replay", str(results), trial, "--tolerance", "0.5"]) == 0
    output = capsys.readouterr()
    assert output.out == f"{trial}: equal within 0.5\n"
    assert output.err == f"{trial}: running the trial again\n"
