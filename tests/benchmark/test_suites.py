"""Suites: what their files may hold, the trials that they name, and a run of several parts."""

import re
from pathlib import Path

import pytest

from kd_env.benchmark import suites
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.records import read
from kd_env.benchmark.run import run
from kd_env.benchmark.run_trial import make_env, policy_of
from kd_env.benchmark.suite_parts import Part, Suite
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.teachers import POOLS

RIVALS = ["uniform", "router", "reward_supervised", "uniform_reward_ce"]
SYSTEMS = [
    *RIVALS, "random_single", "most_confident", "best_single", "dev_weighted", "lr_ensemble", "lr_dev", "camkd",
    "camkd_logits", "fitnet_mkd", "ebkd", "aekd", "mt_bert", "amtml", "mmkd", "mmkd(meta_split=reward)",
    "uncertainty", "entropy_dkd", "majority_sign", "correlation", "lookahead", "pkd", "distilbert", "all_knowledge", "random_hard",
    "random_soft", "mutual_learning", "peer_ensemble", "pcl", "ctsl_mkt", "ikd", "ital", "self_stacking", "stacking",
    "reinforce", "gradient_credit", "akd", "akd_hard", "mtkd_rl", "mtkd_rl_released",
    "exp3", "linucb", "sliding_ucb", "sb3:PPO", "actor_critic", "ppo", "crossfit_credit",
]  # fmt: skip
SINGLES = [f"single:{teacher}" for teacher in range(4)]
KNOWN = ["uniform", "most_confident", "self_stacking", "router", "stacking", "gradient_credit", "held_credit", "reinforce", "oracle"]
DEMO = ["uniform", "camkd_logits", "most_confident", "router", "reward_supervised", "oracle", "reinforce", "gradient_credit", "sb3:PPO"]
BEFORE = {
    "demo": [("digits", None, DEMO, {}, 3)],
    "systems": [
        ("digits", "digits/experts", [*SINGLES, *SYSTEMS, "oracle"], {"updates": 1500}, 5),
        ("digits", "digits/mixed", [*SINGLES, *SYSTEMS, "oracle"], {"updates": 1500}, 5),
        ("digits", "digits/capacity", [*SINGLES[:3], *SYSTEMS], {"updates": 1500}, 5),
        ("domains", "domains/experts", [*SINGLES, *SYSTEMS, "oracle"], {"updates": 500}, 5),
    ],
    "oracle": [
        ("digits", f"digits/{pool}", KNOWN, {"updates": 1500}, 5)
        for pool in ("complementary", "overconfident", "duplicated", "systematic", "drift")
    ],
}
"""The trials of some suites: task, pool, policies, settings and number of seeds of each part."""
PART = '[[part]]\ntask = "digits"\npolicies = ["uniform"]\n'
WRONG = {
    "": "no [[part]] in it",
    "part = 1": "part: 1, expected an array",
    "part = [1]": "part 1: 1, expected a table",
    "about = 1": "about: 1, expected a text",
    "abuot = 'x'": "unknown key 'abuot'; did you mean 'about'?",
    "[[part]]\ntask = 'digits'": "part 1, policies: missing",
    "[[part]]\npolicies = ['uniform']": "part 1, task: missing",
    "[lists]\na = []\n[[part]]\ntask = 'digits'\npolicies = ['@a']": "part 1, policies: ['@a'] names none",
    "[[part]": "(at line 1",
    "[part]\ntask = 'digits'": "write [[part]], in two brackets",
    "[lists]\na = ['uniform']\nb = ['@a']\n" + PART: "lists.b: '@a' is a list, which a list cannot hold",
    "lists = 1": "lists: 1, expected a table",
    "[lists]\na = 'uniform'\n" + PART: "lists.a: 'uniform', expected an array",
    "[lists]\na = [{name = 'uniform', set = {}}]\n" + PART: "lists.a: 'uniform' has settings of its own",
    PART + "polices = []": "part 1: unknown key 'polices'; did you mean 'policies'?",
    PART + "updates = '9'": "part 1, updates: '9', expected a whole number",
    PART + "updates = true": "part 1, updates: True, expected a whole number",
    PART + "population = 0": "part 1, population: 0; must be at least 1",
    PART + "seeds = '3-1'": "part 1, seeds: '3-1'",
    PART + "seeds = [0.5]": "part 1, seeds: [0.5] names no seeds",
    PART + "seeds = []": "part 1, seeds: [] names no seeds",
    "seeds = [-1]\n" + PART: "suite wrong.toml, seeds: '-1'",
    PART + "set = {updates = 0}": "part 1, set: updates=0",
    PART + "set = {temprature = 2}": "part 1, set: unknown setting 'temprature'; did you mean 'temperature'?",
    PART + "set = {knowledge = 'response,hnt'}": "part 1, set: unknown knowledge type 'hnt'",
    PART + "set = {strength = 1}": "part 1, set: setting 'strength' is now called 'kd_weight'",
    PART + "set = {temperature = 1979-05-27}": "part 1, set: temperature=",
    PART + "teachers = 'digits/expert'": "part 1, teachers: unknown pool 'digits/expert'; did you mean 'digits/experts'?",
    PART + "student = 5": "part 1, student: 5, expected a text",
    PART + "student = 'mpl(width=8)'": "part 1, student: unknown network 'mpl'",
    PART + "student = 'mlp(width=0)'": "part 1, student: student mlp(width=0): expected a whole number of at least 1",
    PART + "teachers = 'domains/experts'": "part 1, teachers: pool 'domains/experts' is for another task than 'digits'",
    PART + "teachers = ''": "part 1, teachers: unknown pool ''",
    PART
    + PART.replace("uniform", "reinforce(windw=4)"): "part 2, policies: policy 'reinforce(windw=4)': got an unexpected keyword argument",
    PART + PART.replace("digits", "digit"): "part 2, task: unknown task 'digit'; did you mean 'digits'?",
    PART.replace("uniform", "unifrom"): "part 1, policies: unknown policy 'unifrom'; did you mean 'uniform'?",
    PART.replace("uniform", "no_teacher"): "part 1, policies: policy 'no_teacher' learns from hard labels",
    PART.replace("uniform", "@all"): "part 1, policies: unknown list 'all'",
    PART.replace('"uniform"', '"uniform", "uniform"'): "part 1, policies: 'uniform' is named twice",
    PART.replace('"uniform"', "1"): "part 1, policies: 1, expected a table",
    PART.replace('"uniform"', "{set = {}}"): "part 1, policies: {'set': {}} has no name",
    PART.replace('"uniform"', "{name = 'uniform', sets = {}}"): "part 1, policies: unknown key 'sets'; did you mean 'set'?",
    PART.replace('"uniform"', "{name = 'uniform', set = {updates = -1}}"): "part 1, set: updates=-1",
    PART.replace('"digits"', "[]"): "part 1, task: missing",
    PART.replace('"digits"', "[1]"): "part 1, task: [1]; expected a text, or an array of texts",
    PART + "teachers = []": "part 1, teachers: []; expected a text, or an array of texts",
    PART + PART + "teachers = ['digits/mixed', 'digits/expert']": "part 2, teachers: unknown pool 'digits/expert'",
    "default = 1\n" + PART: "default: 1, expected a table",
    "[default]\nupdate = 1\n" + PART: "default: unknown key 'update'; did you mean 'updates'?",
    "[default]\nset = {updates = 0}\n" + PART: "part 1, set: updates=0",
}
"""Files that are no suites, and what is said of them."""


@pytest.mark.long
@pytest.mark.parametrize("name", BEFORE)
def test_a_suite_that_became_a_file_names_the_trials_that_it_had(name):
    before = [
        Trial(task, policy, seed, pool, None, name, settings).id
        for task, pool, policies, settings, seeds in BEFORE[name]
        for seed in range(seeds)
        for policy in policies
    ]
    suite = suites.SUITES[name]
    assert [trial.id for part in suite.parts for trial in part.trials(name, part.seeds or suite.seeds, "any")] == before
    assert {part.population for part in suite.parts if part.task == "digits"} == ({1} if name == "demo" else {5})


@pytest.mark.parametrize("content", WRONG)
def test_a_file_that_is_no_suite_is_refused_in_one_line(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.toml").write_text(content)
    with pytest.raises(InputError, match=re.escape(WRONG[content])) as error:
        suites.find("wrong.toml")
    assert str(error.value).startswith("suite wrong.toml")
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_and_other_line_ends_change_nothing(tmp_path):
    (tmp_path / "windows.toml").write_bytes(b"\xef\xbb\xbf" + PART.replace("\n", "\r\n").encode())
    assert suites.read(tmp_path / "windows.toml").parts == (Part("digits", ("uniform",)),)


@pytest.mark.long
def test_the_suite_of_the_guide_runs(tmp_path, capsys):
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "suites.md").read_text()
    content = re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1]
    assert content.count("updates = 300") == 1
    (tmp_path / "mine.toml").write_text(content.replace("updates = 300", "updates = 3"))
    assert invoke(["bench", str(tmp_path / "mine.toml"), "--seeds", "0", "--out", str(tmp_path), "--workers", "1", "--quiet"]) == 0
    names = {(record["suite"], record["pool"], record["policy"], record["student"]) for record in read(tmp_path)}
    assert names == {
        *(("mine", "digits/experts", name, "mlp(width=24)") for name in ("uniform", "router", "gradient_credit", "oracle")),
        *(
            ("mine", pool, name, "mlp(width=16)")
            for pool in ("digits/mixed", "digits/systematic")
            for name in ("uniform", "router", "gradient_credit", "camkd")
        ),
    }
    assert (tmp_path / "report.html").read_text().count("camkd") > 1


def test_data_of_a_suite_s_tasks_come_from_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"suite glue, part 1, task: .*nowhere"):
        suites.find("glue", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"suite demo, part 1, task: .*data_dir"):
        suites.find("demo", str(tmp_path))


def test_a_task_replaces_that_of_a_suite_of_one_task(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[[part]]\ntask = "domains"\npolicies = ["uniform"]\n\n[[part]]\ntask = "domains"\npolicies = ["router"]\n')
    assert [part.task for part in suites.find(str(file))[1].parts] == ["domains", "domains"]
    assert [part.task for part in suites.find(str(file), task="digits")[1].parts] == ["digits", "digits"]
    with pytest.raises(InputError, match=r"suite systems has several tasks \(digits, domains\); --task replaces"):
        suites.find("systems", task="digits")
    with pytest.raises(InputError, match="unknown task 'digit'"):
        suites.find(str(file), task="digit")


@pytest.mark.parametrize("name", sorted(suites.SUITES.keys() - {"glue", "vision"}))  # which need their data
def test_suites_name_existing_policies_and_pools(name):
    assert suites.find(name) == (name, suites.SUITES[name])
    for part in suites.SUITES[name].parts:
        assert part.teachers is None or part.teachers in POOLS
        for trial in part.trials(name, [0], ""):
            assert part.updates in (None, trial.resolved.settings.distillation.updates)


@pytest.mark.long
def test_a_suite_runs_its_parts_into_one_folder_and_resumes(monkeypatch, tmp_path, capsys):
    small = Suite("small", (Part("digits", ("uniform", "single:1"), None, 3, 2), Part("digits", ("uniform",), "digits/mixed", 3)), range(2))
    monkeypatch.setitem(suites.SUITES, "small", small)
    assert invoke(["bench", "small", "--out", str(tmp_path), "--workers", "1"]) == 0
    records = read(tmp_path)
    assert [(r["pool"], r["policy"], r["seed"]) for r in records] == [
        ("digits/experts", "uniform", 0),
        ("digits/experts", "uniform", 1),
        ("digits/experts", "single:1", 0),
        ("digits/experts", "single:1", 1),
        ("digits/mixed", "uniform", 0),
        ("digits/mixed", "uniform", 1),
    ]
    assert "## All settings" in (tmp_path / "report.md").read_text()
    assert "<h2>All settings</h2>" in (tmp_path / "report.html").read_text()
    assert invoke(["bench", "small", "--out", str(tmp_path), "--seeds", "0-2", "--workers", "1"]) == 0
    assert len(read(tmp_path)) == 9, "finished trials are not run again"
    assert invoke(["bench", "nothing", "--out", str(tmp_path)]) == 2
    assert "unknown suite 'nothing'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("fit_stacks_once")
@pytest.mark.parametrize("name", sorted(suites.SUITES.keys() - {"glue", "vision"}))
def test_every_policy_of_a_suite_can_be_built_on_its_pool(name):
    for part in suites.SUITES[name].parts:
        for trial in part.trials(name, [0], ""):
            policy_of(trial, make_env(trial))


@pytest.mark.usefixtures("fit_stacks_once")
@pytest.mark.parametrize("policy", [name for name in SYSTEMS if not name.startswith(("sb3", "akd"))])
def test_every_system_trains_two_seeds_as_a_population_or_declares_that_it_runs_alone(policy, tmp_path):
    trials = [Trial("digits", policy, seed, settings={"updates": 1, "validation_every": 1, "reward_labels": 32}) for seed in (0, 1)]
    run(trials, tmp_path, Progress(quiet=True), population=2)
    assert [record["seed"] for record in read(tmp_path)] == [0, 1]
    policy_class, students = registry.find(policy), trials[0].resolved.settings.distillation.num_students
    alone = policy_class.owns_loop or not policy_class.supports_population or students > 1
    assert all(("population" in record["config"]) != alone for record in read(tmp_path))
