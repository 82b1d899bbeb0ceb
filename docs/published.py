"""Write docs/published.md from the committed records: ``python docs/published.py``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

from kd_env.benchmark.records import Record, read
from kd_env.benchmark.report import make_report, markdown
from kd_env.benchmark.report_text import interval, number
from kd_env.benchmark.statistics import PairedDifference, holm, mean_interval, paired_difference

ROOT = Path(__file__).parent.parent
FOLDER = "docs/records/published"
POOLS = ("digits/experts", "digits/mixed")

Setting = dict[str, object]
CA_MKD: Setting = {"kd_weight": 0.5, "temperature": 4.0, "knowledge": None}
CA_MKD_LABELS: Setting = {"kd_weight": 0.2, "temperature": 4.0}
MTKD_RL: Setting = {"kd_weight": 0.5, "temperature": 4.0, "knowledge": "response,hint(strength=5)"}
AMTML: Setting = {"kd_weight": 0.7, "temperature": 5.0}
AMTML_LABELS: Setting = {"kd_weight": 0.32, "temperature": 5.0}
RL_KD: Setting = {"kd_weight": 0.5, "temperature": 5.0, "reward": "mixed", "observe_labels": True}
REINFORCE = "reinforce(baseline=False,initial_log_odds=0,learning_rate=0.01,selector_warmup=100,student_warmup=100,window=4)"
SHOWN = {REINFORCE: "reinforce as published", "fitnet_mkd(scale=released)": "AVER as released"}


class Policy(NamedTuple):
    """A policy in a setting other than that of the claim."""

    name: str
    setting: Setting


Name = str | Policy
CLAIMS: list[tuple[str, Setting, list[tuple[Name, Name]]]] = [
    ("CA-MKD is better than the plain average (AVER), EBKD, AEKD and FitNet-MKD", CA_MKD, [
        ("camkd(scale=released)", "fitnet_mkd(scale=released)"),
        ("camkd(scale=released)", "ebkd"),
        ("camkd(scale=released)", "aekd"),
        ("camkd(scale=released)", Policy("uniform", CA_MKD_LABELS)),
        (Policy("camkd_logits", CA_MKD_LABELS), Policy("uniform", CA_MKD_LABELS)),
        ("camkd", "uniform"),
        ("camkd", "fitnet_mkd"),
    ]),
    ("MMKD is better than CA-MKD and the plain average", CA_MKD, [
        ("mmkd(scale=released)", "camkd(scale=released)"),
        ("mmkd(scale=released)", "fitnet_mkd(scale=released)"),
        ("mmkd", "camkd"),
        ("mmkd", "uniform"),
    ]),
    ("MTKD-RL is better than CA-MKD and MMKD", MTKD_RL, [
        ("mtkd_rl", "camkd"),
        ("mtkd_rl", "mmkd"),
        ("mtkd_rl_released(scale=released)", "camkd"),
        ("mtkd_rl_released(scale=released)", "mmkd"),
        ("mtkd_rl", "uniform"),
        ("mmkd", "uniform"),
        ("camkd", "uniform"),
    ]),
    ("AMTML's weights are better than the plain average", AMTML, [
        ("amtml", "uniform"),
        ("amtml(scale=released)", "uniform"),
        ("amtml(scale=released)", Policy("uniform", AMTML_LABELS)),
    ]),
    ("RL-KD is better than each of its baselines", RL_KD, [
        (REINFORCE, "uniform"),
        (REINFORCE, "random_single"),
        (REINFORCE, "dev_weighted"),
        (REINFORCE, "lr_ensemble"),
        (REINFORCE, "lr_dev"),
        (REINFORCE, "best_single"),
            *((REINFORCE, f"single:{teacher}") for teacher in range(4)),
    ]),
]  # fmt: skip
"""Claims of papers, the setting of each, and the pairs of policies that decide it: the first is claimed to be better."""

INTRODUCTION = """# Published systems in their own settings

Most tables of this project have one pinned setting: distillation alone, temperature 2. Published systems were made for others:
their loss has labels, their temperature is 4 or 5, and their hints have a weight of their own. In another setting a ranking can be
another one. This page compares each system in its own setting with what its paper compared it with. The records are made by one
command, and the page by another:

```sh
kd-env bench published --out {folder}
python docs/published.py
```

The student has 24 hidden units and 1,500 updates, with five seeds. The papers' students are convolutional networks on CIFAR-100 or
BERT on GLUE; here features are vectors of a perceptron on 8x8 digits. So this page can show whether the *direction* of a claim
holds on two pools of another task. It is no reproduction of the papers' numbers. `scale=released` is the loss as the released code adds it
up, see the page of each [system](methods.md).

"""
READING = """## How to read it

A row is the mean difference in test accuracy of two policies, paired by seed, with its 95 % interval. ▲ and ▼ mark p < .05 of a
paired t test after Holm's adjustment over all such rows of the page, for each pool. In the last table, marks are not adjusted.
`digits/experts` has one expert for each of four domains: no fixed mixture of them is right in all domains. `digits/mixed` has one
good teacher, a weak one, one with noisy labels and an overconfident one. "AVER as released" is `fitnet_mkd(scale=released)`;
"reinforce as published" has no baseline, both warm-ups (100 updates each) and windows of 4 mini-batches. Hints have the published
strength of each policy (CA-MKD 50, MMKD and FitNet-MKD 100), and 5 for all policies in MTKD-RL's setting.

"""


def scores(records: list[Record], pool: str, name: Name, setting: Setting) -> dict[int, float]:
    """Return the test scores of a policy in a setting by seed."""
    policy, wanted = name if isinstance(name, Policy) else (name, setting)
    return {
        record["seed"]: record["test"]
        for record in records
        if record["pool"] == pool and record["policy"] == policy and all(record["config"].get(key) == wanted[key] for key in wanted)
    }


def shown(name: Name) -> str:
    """Return a policy as tables name it."""
    if isinstance(name, Policy):
        return f"`{name.name}`, kd_weight {name.setting['kd_weight']}"
    return SHOWN.get(name, f"`{name}`")


def differences(records: list[Record], pool: str) -> list[list[str]]:
    """Return the cells of one pool, by claim and pair."""
    results = [
        [paired(scores(records, pool, first, setting), scores(records, pool, second, setting)) for first, second in pairs]
        for _, setting, pairs in CLAIMS
    ]
    adjusted = iter(holm([result.p for row in results for result in row]))
    return [[cell(result, next(adjusted)) for result in row] for row in results]


def paired(first: dict[int, float], second: dict[int, float]) -> PairedDifference:
    """Return the difference of two policies, paired by seed."""
    return paired_difference(*zip(*((first[seed], second[seed]) for seed in sorted(first)), strict=True))


def cell(result: PairedDifference, p: float) -> str:
    """Return a difference with its interval and its mark."""
    mark = (" ▲" if result.mean > 0.0 else " ▼") if p < 0.05 else ""
    return f"{number(result.mean, '+')} [{number(result.low, '+')}, {number(result.high, '+')}]{mark}"


def mean(tests: list[float]) -> str:
    """Return the mean of test scores with its interval."""
    low, high = mean_interval(tests)
    return interval(sum(tests) / len(tests), low, high)


def table(head: str, rows: list[list[str]]) -> str:
    """Return a table with a column per pool."""
    lines = [f"| {head} | {' | '.join(POOLS)} |", "|---" * (1 + len(POOLS)) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the text of the page."""
    records = read(ROOT / FOLDER)
    cells = [differences(records, pool) for pool in POOLS]
    parts = [INTRODUCTION.format(folder=FOLDER), FINDINGS, READING]
    for claim, (text, setting, pairs) in enumerate(CLAIMS):
        settings = ", ".join(f"`{name}={str(value).lower()}`" for name, value in setting.items() if value is not None)
        rows = [
            [f"{shown(first)} − {shown(second)}", *(of_pool[claim][place] for of_pool in cells)]
            for place, (first, second) in enumerate(pairs)
        ]
        named: list[Name] = [*itertools.chain(*pairs), "no_teacher"]
        names = [name for place, name in enumerate(named) if name not in named[:place]]
        means = [[shown(name), *(mean(list(scores(records, pool, name, setting).values())) for pool in POOLS)] for name in names]
        parts += [
            f"## Claim: {text}\n\nSetting: {settings}.\n\n",
            table("difference in test accuracy", rows),
            "\n",
            table("mean", means),
            "\n",
        ]
    parts += ["## All policies\n\n", f"<!-- kd-env report {FOLDER} -->\n", overview(records)]
    return "".join(parts).rstrip() + "\n"


def overview(records: list[Record]) -> str:
    """Return the table of all settings from the report."""
    lines = markdown(make_report(ROOT / FOLDER, records)).splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("| access | policy | paper |"))
    return "\n".join(itertools.takewhile(bool, lines[first:])) + "\n"


FINDINGS = """## What it shows

- **CA-MKD**: as released it is far above AVER on the experts, and not told apart from it on the mixed pool. But its release also
  gives the labels four times the weight of the teachers. An average with that weight of labels (`uniform`, kd_weight 0.2) is as
  good or better on both pools. So what the release gains here is the weight of the labels, not the weights of the teachers. With
  kd_weight 0.2 for both, CA-MKD's response weights alone (`camkd_logits`) are two points above the average on the experts, with an
  interval that includes 0. With the published hints, `camkd` is below the average on the mixed pool.
- **MMKD**: with the strengths of the setting and the published hints it is above CA-MKD on the experts, and with hints of 5 instead
  of 100 also far above the average. As released it is far below CA-MKD there. On the mixed pool neither holds.
- **MTKD-RL** is below CA-MKD and MMKD on the experts, and not told apart from the average. As released it is below both on either
  pool.
- **AMTML**'s weights are above the average on the experts, and below it on the mixed pool (not significant after the adjustment),
  where its gating network follows the teacher that is easiest to imitate. As with CA-MKD, most of the gain of `scale=released` is the
  weight of the labels: an average with it (kd_weight 0.32) is far above the other average.
- **RL-KD** holds up best: it is above the plain average, random teachers and fixed weights by dev score on both pools, and above
  the logistic regressions on the experts. There it is eleven points below `best_single`, which takes for each instance the teacher
  with the lowest cross-entropy on the training label (not significant after the adjustment). On the mixed pool two single teachers
  have higher means.
- **The student without a teacher** (`no_teacher`) has the highest mean in all of these settings: with labels for all examples,
  these teachers do not help. A comparison of rules that select says nothing about whether to distil.

"""

if __name__ == "__main__":
    (ROOT / "docs" / "published.md").write_text(page())
