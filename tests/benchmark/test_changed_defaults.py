"""A folder whose records were made with other defaults is not continued: its report would mix both."""

import dataclasses
import json

import pytest

from kd_env.benchmark import records
from kd_env.benchmark.changed_defaults import require_same_defaults
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.run import run
from kd_env.benchmark.trial import Trial
from kd_env.benchmark.tuning.configuration import Configuration
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.tasks import loading

SETTINGS = {"updates": 4, "reward_labels": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one record of ``gradient_credit``, as an earlier version with ``credit=head`` would have written it."""
    directory = tmp_path_factory.mktemp("earlier")
    run([trial()], directory, Progress())
    line = json.loads((directory / records.FILE).read_text())
    line["env"] |= {"credit": "head", "observation": "full", "label_seed": 7}  # the observation is that of the default
    line["trial"] = "earlier"
    (directory / records.FILE).write_text(json.dumps(line) + "\n")
    return directory


def trial(policy="gradient_credit", seed=0, teachers=None, **settings):
    return Trial("digits", policy, seed, teachers=teachers, settings={**SETTINGS, **settings})


@pytest.mark.parametrize(("seed", "teachers"), [(0, None), (1, None), (1, "digits/experts")])
def test_another_default_is_refused_for_every_seed(folder, seed, teachers):
    message = r"its trials of gradient_credit were run with credit=head; by default they now have credit=first_order, .* another --out"
    with pytest.raises(InputError, match=message):
        run([trial(seed=seed, teachers=teachers)], folder, Progress())
    assert len(records.read(folder)) == 1


@pytest.mark.parametrize(
    "other",
    [
        trial("uniform"),
        trial(teachers="digits/mixed"),
        trial(credit="first_order"),  # named by the user, so a report tells them apart
        trial(updates=5),
    ],
    ids=str,
)
def test_other_policies_and_settings_are_not_affected(folder, other):
    require_same_defaults([other], folder)


def test_finished_trials_and_new_folders_are_not_affected(folder, tmp_path):
    require_same_defaults([], folder)
    require_same_defaults([trial()], tmp_path)


@pytest.mark.parametrize(
    "changes",
    [None, {"credit": "first_order", "temperature": 2, "reward": "dev_improvement"}, {"smoothing": 0.1}],
    ids=["not recorded", "written in another way", "a setting that is no more"],
)
def test_what_cannot_be_compared_and_what_is_equal_is_not_refused(folder, tmp_path, changes):
    line = json.loads((folder / records.FILE).read_text())
    line["env"] = changes and line["env"] | changes
    line |= {"seed": 1, "trial": trial(seed=1).id}
    (tmp_path / records.FILE).write_text(json.dumps(line) + "\n")
    require_same_defaults([trial()], tmp_path)


def test_a_suite_is_refused_before_its_first_part(folder, tmp_path, capsys):
    suite = tmp_path / "mine.toml"
    part = '[[part]]\ntask = "digits"\npolicies = ["{}"]\nupdates = 4\nset = {{ reward_labels = 16 }}\n'
    suite.write_text('seeds = "0"\n' + part.format("uniform") + part.format("gradient_credit"))
    assert invoke(["bench", str(suite), "--out", str(folder), "--workers", "1"]) == 2
    assert "by default they now have credit=first_order" in capsys.readouterr().err
    assert len(records.read(folder)) == 1


def test_another_test_split_is_refused_also_for_finished_trials(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    lines = [f"{'good' if number % 2 else 'bad'} film {number},{number % 2}" for number in range(300)]
    (data / "train.csv").write_text("\n".join(["sentence,label", *lines]))
    (data / "test.csv").write_text("\n".join(["sentence,label", "good plot,1", "bad plot,0"]))
    own = {"task": f"folder:{data}", "policy": "uniform", "settings": {"updates": 2, "student": "tiny-bert(width=8,layers=1)"}}
    run([Trial(seed=0, **own)], out, Progress(quiet=True))
    (data / "test.csv").write_text("\n".join(["sentence,label", "good plot,0", "bad plot,1"]))
    loading._loaded.cache_clear()  # as in another process
    for seed in (0, 1):
        with pytest.raises(InputError, match=r"the test split of folder:.* has changed since its trials were run; give another --out"):
            run([Trial(seed=seed, **own)], out, Progress(quiet=True))
    require_same_defaults([Trial(seed=1, test=False, **own)], out)
    line = json.loads((out / records.FILE).read_text())
    del line["test_split"]  # as an earlier version wrote it
    (out / records.FILE).write_text(json.dumps(line) + "\n")
    require_same_defaults([Trial(seed=1, **own)], out)


def test_other_content_is_refused_for_every_seed(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    lines = [f"{'good' if number % 2 else 'bad'} film {number},{number % 2}" for number in range(300)]
    own = {"task": f"folder:{data}", "policy": "uniform", "settings": {"updates": 2, "student": "tiny-bert(width=8,layers=1)"}}
    (data / "train.csv").write_text("\n".join(["sentence,label", *lines]))
    run([Trial(seed=0, **own)], tmp_path / "out", Progress(quiet=True))
    (data / "train.csv").write_text("\n".join(["sentence,label", *lines, "bad film again,0"]))
    loading._loaded.cache_clear()  # as in another process
    for seed in (0, 1):
        with pytest.raises(InputError, match=r"were run with other content of the task, the teachers or the student, .* another --out"):
            run([Trial(seed=seed, **own)], tmp_path / "out", Progress(quiet=True))
    assert len(records.read(tmp_path / "out")) == 1


def test_another_tuned_configuration_of_a_policy_is_refused(tmp_path):
    first, second = (
        dataclasses.replace(trial("uniform", seed), tuned=Configuration({}, {"temperature": temperature}, 4))
        for seed, temperature in ((0, 2.0), (1, 3.0))
    )
    run([first], tmp_path, Progress(quiet=True))
    with pytest.raises(InputError, match="its trials of uniform, tuned 4 have another tuned configuration; give another --out"):
        require_same_defaults([second], tmp_path)
    require_same_defaults([dataclasses.replace(first, seed=1)], tmp_path)
    require_same_defaults([dataclasses.replace(second, settings={**SETTINGS, "updates": 5})], tmp_path)  # a setting of its own
