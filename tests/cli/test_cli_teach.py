"""``kd-env teach``: which options go together. What is trained is tested beside the teachers."""

import pytest
from commands import error_line

from kd_env.cli import invoke


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "teach: give either --model M, or --pool FILE with a model for each of its teachers"),
        (["--model", "tiny-bert", "--pool", "pool.json"], "teach: give either --model M, or --pool FILE"),
        (["--pool", "pool.json", "--epochs", "3"], "--pool pool.json: its file says how each teacher is made; leave out the other options"),
        (["--pool", "pool.json", "--groups", "a"], "--pool pool.json: its file says how each teacher is made; leave out the other options"),
        (["--pool", "pool.json", "--folds", "2"], "--pool pool.json: its file says how each teacher is made; leave out the other options"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message, tmp_path, capsys):
    assert message in error_line(capsys, invoke(["teach", "--task", "digits", "--out", str(tmp_path / "out"), *options]))
    assert not (tmp_path / "out").exists()
