"""Files of tuned configurations: what is written is read, and what ships with the package can be used."""

import dataclasses
import re

import pytest

from kd_env.benchmark.trial import Trial
from kd_env.benchmark.tuning import files
from kd_env.benchmark.tuning.configuration import Configuration
from kd_env.errors import InputError

TUNED = files.Tuned(
    "digits", "digits/mixed", "mlp(width=24)", 600, 12, (100, 101), "kd-env bench 'x \"é\" \\ \x7f' --tune 12",
    {
        "uniform": Configuration({}, {"temperature": 3.5, "optimizer": "adam(lr=1e-05)"}, 12),
        'camkd(detach=True,x="y")': Configuration({"detach": True, "rate": 1e-05, "n": 3}, {}, 12),
    },
    {"uniform": (0.5, 0.25), 'camkd(detach=True,x="y")': (-1e9, 0.0)},
)  # fmt: skip


def test_what_is_written_is_read(tmp_path):
    files.write(tmp_path / "a" / "b.toml", TUNED)
    assert files.read(tmp_path / "a" / "b.toml") == TUNED


def test_a_policy_is_found_by_any_way_to_write_it(tmp_path):
    text = "reinforce(learning_rate=1e-2)"
    files.write(tmp_path / "a.toml", dataclasses.replace(TUNED, policies={text: TUNED.policies["uniform"]}, scores={text: (0.5, 0.4)}))
    tuned = files.read(tmp_path / "a.toml")
    for written in (text, "reinforce(learning_rate=0.01)"):
        assert files.configuration(tuned, written, {}) == TUNED.policies["uniform"]


def test_a_file_is_found_by_task_and_pool(tmp_path):
    files.write(tmp_path / "one.toml", TUNED)
    assert files.find("digits", "digits/mixed", tmp_path) == files.find("digits", "digits/mixed", tmp_path / "one.toml") == TUNED
    with pytest.raises(InputError, match="no policy is tuned for task 'digits', pool 'digits/experts', but for digits, pool digits/mixed"):
        files.find("digits", "digits/experts", tmp_path)
    with pytest.raises(InputError, match=r"holds no .toml files; make them with kd-env bench"):
        files.find("digits", "digits/mixed", tmp_path / "nowhere")
    files.write(tmp_path / "two.toml", TUNED)
    with pytest.raises(InputError, match="several files for task 'digits', pool 'digits/mixed'; name one of them"):
        files.find("digits", "digits/mixed", tmp_path)


def test_a_policy_that_is_not_tuned_or_a_setting_that_is_tuned_and_given():
    assert files.configuration(TUNED, "uniform", {"updates": 3}) == TUNED.policies["uniform"]
    with pytest.raises(InputError, match=r"unknown tuned policy for task 'digits', pool 'digits/mixed': 'unifrom'; did you mean 'uniform'"):
        files.configuration(TUNED, "unifrom", {})
    with pytest.raises(InputError, match=r"temperature=2: this setting of policy 'uniform' is tuned; leave it or --tuned out"):
        files.configuration(TUNED, "uniform", {"temperature": 2})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: "task = [", "tuned file"),
        (lambda text: text.replace("updates = 600", ""), "updates: None, expected int"),
        (lambda text: text.replace("600", '"600"'), "updates: '600', expected int"),
        (lambda text: text.replace("score = 0.5", ""), "policy 'uniform': expected options, settings, score and untuned_score"),
        (lambda text: text.replace("options = {}", "options = 1"), "policy 'uniform': expected options, settings, score"),
    ],
)
def test_a_file_that_cannot_be_used(change, says, tmp_path):
    files.write(path := tmp_path / "x.toml", TUNED)
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=re.escape(says)) as error:
        files.read(path)
    assert "\n" not in str(error.value)


def test_names_of_files():
    assert files.file_name("digits", "digits/experts") == "digits-experts.toml"
    assert files.file_name("glue/rte", "text/sizes") == "glue-rte-text-sizes.toml"
    assert files.file_name("digits", "digits/experts", 2) == "digits-experts-2.toml"


@pytest.mark.parametrize("path", sorted(files.FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_configurations_of_the_package_can_be_used_and_are_no_worse_on_validation(path):
    tuned = files.read(path)
    assert files.find(tuned.task, tuned.teachers) == tuned
    assert path.name == files.file_name(tuned.task, tuned.teachers)
    assert tuned.command.startswith("kd-env bench ")
    assert "uniform" in tuned.policies
    assert len(tuned.policies) >= 12
    for policy, configuration in tuned.policies.items():
        best, untuned = tuned.scores[policy]
        assert best >= untuned
        assert Trial(tuned.task, policy, 0, tuned.teachers, tuned=configuration).resolved.policy.name == f"{policy}, tuned {tuned.trials}"
