"""A folder whose records were made with other defaults is not continued: its report would mix both."""

import json

import pytest

from kd_env.benchmark import records
from kd_env.benchmark.changed_defaults import require_same_defaults
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.run import run
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError

SETTINGS = {"updates": 4, "reward_labels": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one record of ``gradient_credit``, from before its credit was another."""
    directory = tmp_path_factory.mktemp("earlier")
    run([trial()], directory, Progress())
    line = json.loads((directory / records.FILE).read_text())
    line["env"]["credit"], line["trial"] = "head", "earlier"
    (directory / records.FILE).write_text(json.dumps(line) + "\n")
    return directory


def trial(policy="gradient_credit", seed=0, teachers=None, **settings):
    return Trial("digits", policy, seed, teachers=teachers, settings={**SETTINGS, **settings})


@pytest.mark.parametrize("seed", [0, 1])
def test_another_default_is_refused_for_every_seed(folder, seed):
    message = r"it holds trials of gradient_credit with credit=head, and the default is now credit=first_order; .* another --out"
    with pytest.raises(InputError, match=message):
        run([trial(seed=seed)], folder, Progress())
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
