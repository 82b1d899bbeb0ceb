"""The script docs/gpu/cifar100.sh: each of its commands is valid. Nothing is trained here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_parts import part_of
from published_files import cifar100

from kd_env.benchmark.suite_checks import check
from kd_env.cli import invoke

pytestmark = pytest.mark.long
SCRIPT = Path(__file__).parent.parent.parent / "docs" / "gpu" / "cifar100.sh"
RECORDER = """#!{python}
import json, sys
with open({file!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
"""
COMPARED = {"no_teacher", "uniform", "ebkd", "aekd", "camkd", "mmkd", "mtkd_rl", "fitnet_mkd", "amtml"}


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """The words of each command that the script runs, with a program in place of ``kd-env`` that writes them down."""
    folder = tmp_path_factory.mktemp("script")
    recorder, file = folder / "bin" / "kd-env", folder / "commands"
    recorder.parent.mkdir()
    recorder.write_text(RECORDER.format(python=sys.executable, file=str(file)))
    recorder.chmod(0o755)
    environment = {"PATH": f"{recorder.parent}:/usr/bin:/bin"}
    subprocess.run(["sh", SCRIPT, cifar100(folder / "data"), folder / "out"], env=environment, check=True)
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_options_of_all_commands_exist(commands, capsys):
    forms = {(words[0], *(word for word in words if word.startswith("--"))): words for words in commands}
    assert {name for name, *_ in forms} == {"teach", "bank", "run", "report"}
    for words in forms.values():
        assert (invoke([*words, "--help"]), capsys.readouterr().err) == (0, "")


def test_what_the_runs_name_exists(commands):
    runs = [part_of(words) for words in commands if words[0] == "run"]
    for number, part in enumerate(runs):
        check(f"run {number}", part)
    assert {policy.partition("(")[0] for part in runs for policy in part.policies} >= COMPARED
    assert {part.student for part in runs} == {"resnet8x4", "vgg8", "mobilenetv2", "shufflenetv2"}


def test_each_system_has_its_loss(commands):
    settings = [(part.policies[0], part.settings) for part in map(part_of, (words for words in commands if words[0] == "run"))]
    of_amtml = [each for policy, each in settings if policy.startswith("amtml")]
    assert {(each["kd_weight"], each["temperature"], each["knowledge"]) for each in of_amtml} == {(0.7, 5, "response")}
    assert ("uniform", "tckd,nckd(strength=8)") in [(policy, each["knowledge"]) for policy, each in settings]
    hints = {each["knowledge"] for policy, each in settings if policy.startswith("fitnet_mkd")}
    assert hints == {"response,map_hint(strength=100)"}
    assert all(
        (each["kd_weight"], each["temperature"]) == (0.5, 4) for policy, each in settings if policy.startswith(("camkd", "mmkd", "mtkd"))
    )
