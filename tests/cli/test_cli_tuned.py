"""``kd-env bench --tune`` from one end to the other, and ``kd-env run --tuned``."""

import tomllib

import pytest
from commands import error_line

from kd_env.benchmark.records import read
from kd_env.cli import invoke

pytestmark = pytest.mark.long

SUITE = """
seeds = [0]
[[part]]
task = "digits"
policies = ["uniform", "amtml", "reinforce"]
updates = 4
population = 2
"""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned")
    (out / "mine.toml").write_text(SUITE)
    assert invoke(["bench", str(out / "mine.toml"), "--tune", "3", "--out", str(out), "--workers", "1", "--quiet"]) == 0
    return out


def test_the_table_has_each_policy_by_default_and_tuned_on_fresh_seeds(tuned):
    trials = [(record["policy"], record["seed"], "tuned" in record["config"]) for record in read(tuned)]
    names = ("uniform", "amtml", "reinforce")
    assert trials == [*((name, 0, False) for name in names), *((f"{name}, tuned 3", 0, True) for name in names)]
    tuning = read(tuned / "tuning")
    searched = [record["seed"] for record in tuning if record["seed"] in (100, 101)]
    compared = [record["seed"] for record in tuning if record["seed"] not in (100, 101)]
    assert len(searched) == 3 * 3 * 2
    assert set(compared) == {102, 103, 104, 105}
    assert 3 * 4 <= len(compared) <= 3 * 4 * 2, "the best configuration, and the default where that is another"
    assert {record["test"] for record in tuning} == {None}
    assert not (tuned / "tuning" / "traces").exists()
    assert "### Tuned policies" in (tuned / "report.md").read_text()
    configurations = tomllib.loads((tuned / "tuned" / "digits-experts.toml").read_text())
    assert list(configurations["policies"]) == list(names)


def test_records_of_tuned_policies_can_be_checked(tuned, capsys):
    assert invoke(["replay", str(tuned)]) == 0, capsys.readouterr()
    for trace in (tuned / "traces").glob("*.parquet"):
        trace.unlink()
    assert invoke(["replay", str(tuned)]) == 0, capsys.readouterr()


def test_the_same_command_does_nothing_again(tuned, capsys):
    before = (tuned / "results.jsonl").read_bytes(), (tuned / "tuning" / "results.jsonl").read_bytes()
    assert invoke(["bench", str(tuned / "mine.toml"), "--tune", "3", "--out", str(tuned), "--workers", "1"]) == 0
    assert "0 trials to run, 6 finished already" in capsys.readouterr().err
    assert ((tuned / "results.jsonl").read_bytes(), (tuned / "tuning" / "results.jsonl").read_bytes()) == before


def test_a_run_uses_what_was_tuned(tuned, tmp_path, capsys):
    words = ["run", "--task", "digits", "--policy", "uniform", "--seeds", "0", "--workers", "1", "--out", str(tmp_path)]
    assert invoke([*words, "--updates", "4", "--tuned-from", str(tuned / "tuned")]) == 0
    (record,) = read(tmp_path)
    (other,) = (each for each in read(tuned) if each["policy"] == "uniform, tuned 3")
    assert record["policy"] == "uniform, tuned 3"
    assert (record["config"]["tuned"], record["test"]) == (other["config"]["tuned"], other["test"])
    capsys.readouterr()
    assert invoke([*words, "--updates", "5", "--tuned-from", str(tuned / "tuned")]) == 0
    note = "these policies are tuned for student mlp(width=24) and 4 updates, not for student mlp(width=24) and 5 updates"
    assert note in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--policy router --tuned-from {}", "unknown tuned policy for task 'digits', pool 'digits/experts': 'router'"),
        ("--policy uniform --teachers digits/capacity --tuned", "no policy is tuned for task 'digits', pool 'digits/capacity', but for"),
        ("--policy uniform --tuned-from {}/nowhere.toml", "nowhere.toml: No such file or directory; check the path"),
        ("--policy-from {} --tuned", "--tuned: a saved policy is used as it was saved"),
    ],
)
def test_a_run_that_has_nothing_tuned(words, says, tuned, tmp_path, capsys):
    status = invoke(["run", "--task", "digits", *words.format(tuned / "tuned").split(), "--out", str(tmp_path / "out")])
    assert says in error_line(capsys, status)


def test_tuning_seeds_and_few_trials_are_refused(tuned, tmp_path, capsys):
    words = ["bench", str(tuned / "mine.toml"), "--out", str(tmp_path / "out")]
    assert "seed 100: policies are tuned with seeds 100, 101" in error_line(capsys, invoke([*words, "--seeds", "99-100", "--tune", "2"]))
    assert "--tune" in error_line(capsys, invoke([*words, "--tune", "1"]))
