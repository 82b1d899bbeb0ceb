"""``kd-env bank``: where the bank is, and folders that are refused."""

import re

import pytest
from commands import TEACHER, error_line, run

from kd_env.bank.bank import KnowledgeBank
from kd_env.benchmark import records
from kd_env.cli import invoke


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.long
def test_it_prints_the_folder_the_teachers_and_their_scores(out, capsys):
    assert invoke(["bank", "--task", "digits", "--teachers", "digits/experts/upright", "--out", str(out), "--quiet"]) == 0
    output = capsys.readouterr().out
    assert re.fullmatch(
        rf"bank {re.escape(str(out))}: upright; fingerprint [0-9a-f]{{16}}\n  upright: validation accuracy 0\.\d{{3}}\n", output
    )
    assert invoke(run("--out", out.parent / "results", "--bank", out, "--teachers", "digits/experts/upright")) == 0
    assert records.read(out.parent / "results")[0]["env"]["bank"] == str(out)


def test_it_keeps_what_is_asked_for(out, capsys):
    words = ["bank", "--task", "digits", "--teachers", TEACHER, "--out", str(out), "--quiet"]
    assert invoke([*words, "--layers", "--half"]) == 0
    assert KnowledgeBank(out).keeps == {"layers"}
    assert KnowledgeBank(out).half
    capsys.readouterr()
    assert "holds no attention; name another folder or delete it" in error_line(capsys, invoke([*words, "--attention"]))


def test_a_bank_that_is_there_keeps_its_precision_and_says_so(out, capsys):
    words = ["bank", "--task", "digits", "--teachers", TEACHER, "--out", str(out), "--quiet"]
    assert invoke(words) == 0
    assert invoke([*words, "--half"]) == 0
    assert not KnowledgeBank(out).half
    assert "was there already, in float32, and is kept; delete it to store float16" in capsys.readouterr().err


def test_workers_need_ray(out, capsys):
    line = error_line(capsys, invoke(["bank", "--task", "digits", "--out", str(out), "--workers", "2"]))
    assert "--workers 2: this process runs the teachers one after the other; add --executor ray" in line


def test_it_keeps_the_stages_that_are_named(out, capsys):
    words = ["bank", "--task", "digits", "--teachers", TEACHER, "--out", str(out), "--quiet"]
    line = error_line(capsys, invoke([*words, "--stages", "stage1"]))
    assert "has no feature map of stage 'stage1'; leave out the knowledge types that compare stages" in line
    assert not out.exists()
    line = error_line(capsys, invoke([*words, "--maps", "--stages", "stage1;last"]))
    assert "has no maps; leave out" in line


def test_an_unknown_pool_is_refused(out, capsys):
    line = error_line(capsys, invoke(["bank", "--task", "digits", "--teachers", "x", "--out", str(out), "--quiet"]))
    assert "unknown pool 'x'" in line
    assert not out.exists()


def test_a_folder_with_something_else_in_it_is_refused(out, capsys):
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    line = error_line(capsys, invoke(["bank", "--task", "digits", "--out", str(out), "--quiet"]))
    assert "holds something that is not a bank" in line
    assert (out / "thesis.txt").read_text() == "years of work"
