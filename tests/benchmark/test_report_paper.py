"""What --paper writes, against expected text."""

import dataclasses
import re

import pytest
from hand_made import record, runs, setting

from kd_env.benchmark.records import append
from kd_env.benchmark.report import make_report, write_report
from kd_env.benchmark.report_latex import escape, overview_latex, scores_latex
from kd_env.benchmark.report_methods import methods, seed_ranges
from kd_env.cli import invoke

pytestmark = pytest.mark.long

NOISE = [0.02, -0.02, 0.01, -0.01, 0.0]
TABLE = r"""% Made by `kd-env report --paper`. The preamble needs \usepackage{booktabs}.
\begin{table}
  \centering
  \caption{Mean test accuracy over $n$ seeds with its 95 \% t interval on domains, pool my\_pool, student mlp, """
TABLE += r"""100 updates, 64 reward labels. Bold: the highest mean of the policies that are not privileged. $^\dagger$: not """
TABLE += r"""distinguishable from it (paired t tests, Holm-adjusted over all 3 pairs, $p \ge 0.05$).}
  \label{tab:01-domains}
  \begin{tabular}{llrll}
    \toprule
    policy & access & $n$ & test accuracy & gap recovered \\
    \midrule
    oracle & privileged & 1 & 0.900 & 1.000 \\
    \textbf{lr\_dev(c=1)} & reward labels & 5 & \textbf{0.700 [0.680, 0.720]} & 0.600 \\
    near$^\dagger$ & nothing & 5 & 0.690 [0.670, 0.710] & 0.620 \\
    uniform & nothing & 5 & 0.400 [0.380, 0.420] & 0.000 \\
    failed & nothing & 1 (1 diverged) & $-$0.200 & -- \\
    \bottomrule
  \end{tabular}
\end{table}
"""


def known_records(**changes):
    return [
        *runs("lr_dev(c=1)", "reward labels", 0.7, pool="my_pool"),
        *[record("near", "nothing", seed, 0.69 + NOISE[seed], pool="my_pool") for seed in range(5)],
        *runs("uniform", "nothing", 0.4, pool="my_pool"),
        record("oracle", "privileged", 0, 0.9, pool="my_pool"),
        record("failed", "nothing", 1, -0.2, pool="my_pool", curve=[]),
        record("failed", "nothing", 2, 0.0, pool="my_pool", curve=[]) | {"test": None, "diverged": True},
    ]


def sections_of(tmp_path, records):
    return make_report(tmp_path, records).sections


def test_the_table_of_known_records(tmp_path):
    (section,) = sections_of(tmp_path, known_records())
    assert scores_latex(section) == TABLE


def test_the_table_of_all_settings(tmp_path):
    other = [run | {"trial": f"other-{run['trial']}"} for run in runs("uniform", "nothing", 0.3, seeds=1, pool="b_c")]
    lines = overview_latex(sections_of(tmp_path, [*setting(), *other])).splitlines()
    assert r"    policy & experts & b\_c \\" in lines
    assert r"    uniform & 0.400 $\pm$ 0.020 & 0.300 \\" in lines
    assert r"    learner & \textbf{0.754 $\pm$ 0.026} & -- \\" in lines


def test_names_are_escaped():
    assert escape(r"a_b%c&d#e$f{g}h\i~j^k<l>") == (
        r"a\_b\%c\&d\#e\$f\{g\}h\textbackslash{}i\textasciitilde{}j\textasciicircum{}k\textless{}l\textgreater{}"
    )
    assert escape("−0.1 ± 2 –") == r"$-$0.1 $\pm$ 2 --"


def test_the_methods_name_every_setting_of_real_records(tmp_path):
    command = "run --task digits --policy uniform --policy reinforce --updates 3 --seeds 0,2 --set temperature=3 --quiet --workers 1 --out"
    assert invoke([*command.split(), str(tmp_path)]) == 0
    assert invoke(["report", str(tmp_path), "--paper"]) == 0
    text = (tmp_path / "paper" / "methods.md").read_text()
    for sentence in (
        "On the task digits, the pool digits/experts (upright, inverted, mirrored, transposed) teaches the student mlp(width=24) "
        "for 3 updates with a batch size of 32.",
        "The weight of the teachers in the loss (kd_weight) is 1.0, and the temperature is 3.0.",
        "Policies that use the reward split have 1,200 reward labels.",
        "Each policy runs with the seeds 0, 2;",
        "action = weights (subset for reinforce)",
        "reinforce (reward scalar), uniform (nothing).",
        "Diverged trials: 0 of 4.",
    ):
        assert sentence in text, sentence
    from kd_env import tasks
    from kd_env.envs.settings import settings

    places = {
        "student": "student",
        "updates": "updates",
        "batch_size": "batch size",
        "reward_labels": "reward labels",
        "label_seed": "seed",
    }
    for name in settings(tasks.load("digits")).flat():
        assert places.get(name, name) in text or name == "num_students", name
    for name in ("torch", "numpy", "gymnasium", "python"):
        assert re.search(rf"{name} \d", text)


def test_the_methods_of_a_task_that_cannot_be_loaded_name_what_was_recorded(tmp_path):
    changes = {"task": "elsewhere:load", "env": {"id": "x", "num_envs": 16, "kd_weight": 0.5}}
    text = " ".join(methods(sections_of(tmp_path, runs("uniform", "nothing", 0.4, seeds=2, **changes))))
    assert "On the task elsewhere:load, the pool experts (p, q)" in text
    assert "(kd_weight) is 0.5" in text, "what the trial ran with, not what the command said"
    assert "the temperature is the task's default" in text
    assert "Settings that are not named are at the task's defaults." in text


def test_the_methods_of_a_saved_policy_name_settings_alone(tmp_path):
    source = {
        "file": "a.agent",
        "sha256": "0",
        "policy": "scorer_credit",
        "trial": "t",
        "task": "digits",
        "pool": "p",
        "seed": 0,
        "updates": 9,
    }
    changes = {"task": "digits", "config": {"kd_weight": 0.5, "policy_from": source, "frozen": True, "command": "kd-env run"}}
    text = " ".join(methods(sections_of(tmp_path, runs("scorer_credit from a, frozen", "nothing", 0.4, seeds=2, **changes))))
    assert "policy_from" not in text
    assert "frozen =" not in text
    assert "the temperature is 2.0" in text, "the task's default"


def test_a_value_that_differs_names_the_policies(tmp_path):
    records = [*setting(), *runs("strong", "nothing", 0.4, env={"temperature": 9.0})]
    (section,) = sections_of(tmp_path, records)
    assert "(9.0 for strong)" in methods([section])[0]
    assert dataclasses.is_dataclass(section)


def test_seeds_are_written_as_ranges():
    assert seed_ranges([4, 0, 1, 1, 2, 7]) == "0-2, 4, 7"


@pytest.mark.parametrize("paper", [False, True])
def test_the_folder_has_the_figures_twice_and_the_texts(tmp_path, paper):
    for each in setting():
        append(tmp_path, each)
    write_report(tmp_path, paper)
    names = sorted(path.name for path in (tmp_path / "paper").glob("*"))
    figures = [f"01-domains-{figure}.{suffix}" for figure in ("curves", "pairs", "scores") for suffix in ("pdf", "svg")]
    assert names == (sorted([*figures, "01-domains-scores.tex", "methods.md", "methods.tex"]) if paper else [])
    if paper:
        before = {name: (tmp_path / "paper" / name).read_bytes() for name in names}
        assert before["01-domains-scores.pdf"].startswith(b"%PDF")
        write_report(tmp_path, paper)
        assert {name: (tmp_path / "paper" / name).read_bytes() for name in names} == before


def test_the_methods_name_the_seeds_of_each_policy_and_what_chooses_the_labels(tmp_path):
    written = [*runs("uniform", "nothing", 0.4), *runs("router", "reward labels", 0.5, seeds=2)]
    for run in written:
        run["config"] = {**run["config"], "label_seed": 7, "num_students": 2}
    text = " ".join(methods(sections_of(tmp_path, written)))
    assert "The policies run with the seeds 0-4 (uniform), 0-1 (router); the seed sets the student's initial parameters" in text
    assert "the policy; label_seed 7 chooses the reward labels." in text
    assert "num_students = 2" in text
