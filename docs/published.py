"""Write docs/published.md from the committed records: ``python docs/published.py``."""

from __future__ import annotations

from pathlib import Path

from kd_env.benchmark.records import Record, read
from kd_env.benchmark.report_text import number
from kd_env.benchmark.statistics import holm, mean_interval, paired_difference

ROOT = Path(__file__).parent.parent
FOLDER = "docs/records/published"
POOLS = ("digits/experts", "digits/mixed")
RL_KD = "reinforce(baseline=False,selector_warmup=100,student_warmup=100,window=4)"

CA_MKD_SETTING = {"kd_weight": 0.5, "temperature": 4.0, "knowledge": None}
MTKD_RL_SETTING = {"kd_weight": 0.5, "temperature": 4.0, "knowledge": "response,hint(strength=5)"}
AMTML_SETTING = {"kd_weight": 0.7, "temperature": 5.0}
RL_KD_SETTING = {"kd_weight": 0.5, "temperature": 5.0}

CLAIMS = [
    ("CA-MKD is better than the plain average (AVER), EBKD, AEKD and FitNet-MKD", CA_MKD_SETTING, [
        ("camkd(scale=released)", "fitnet_mkd(scale=released)"),
        ("camkd(scale=released)", "ebkd"),
        ("camkd(scale=released)", "aekd"),
        ("camkd", "uniform"),
        ("camkd", "fitnet_mkd"),
    ]),
    ("MMKD is better than CA-MKD and the plain average", CA_MKD_SETTING, [
        ("mmkd(scale=released)", "camkd(scale=released)"),
        ("mmkd(scale=released)", "fitnet_mkd(scale=released)"),
        ("mmkd", "camkd"),
        ("mmkd", "uniform"),
    ]),
    ("MTKD-RL is better than CA-MKD and MMKD", MTKD_RL_SETTING, [
        ("mtkd_rl", "camkd"),
        ("mtkd_rl", "mmkd"),
        ("mtkd_rl_released(scale=released)", "camkd"),
        ("mtkd_rl_released(scale=released)", "mmkd"),
        ("mtkd_rl", "uniform"),
    ]),
    ("AMTML's weights are better than the plain average", AMTML_SETTING, [
        ("amtml", "uniform"),
        ("amtml(scale=released)", "uniform"),
    ]),
    ("RL-KD is better than each of its baselines", RL_KD_SETTING, [
        (RL_KD, "uniform"),
        (RL_KD, "random_single"),
        (RL_KD, "dev_weighted"),
        (RL_KD, "lr_ensemble"),
        (RL_KD, "lr_dev"),
        (RL_KD, "best_single"),
    ]),
]  # fmt: skip
"""Claims of papers, the setting of each, and the pairs of policies that decide it: the first is claimed to be better."""

INTRODUCTION = """# Published systems in their own settings

Most tables of this project have one pinned setting: distillation alone, temperature 2. Published systems were made for others: their loss has
labels, their temperature is 4 or 5, and their hints have a weight of their own. In another setting a ranking can be another one. This page
compares each system in its own setting with what its paper compared it with. The records are made by one command, and the page by another:

```sh
kd-env bench published --out {folder}
python docs/published.py
```

The student has 24 hidden units and 1,500 updates, with five seeds. The papers' students are convolutional networks on CIFAR-100 or BERT on
GLUE; here features are vectors of a perceptron on 8x8 digits. So this page can show whether the *direction* of a claim holds on two other
problems. It is no reproduction of the papers' numbers. `scale=released` is the loss as the released code adds it up, see the page of each
[system](methods.md). `fitnet_mkd(scale=released)` is AVER with the label at strength 1.

"""
READING = """## How to read it

A row is the mean difference in test accuracy of two policies, paired by seed, with its 95 % interval. ▲ and ▼ mark p < .05 of a paired t test
after Holm's adjustment over all rows of the page and the pool. `digits/experts` has one expert for each of four domains: only selection by instance can
win there. `digits/mixed` has one good teacher, a weak one, one with noisy labels and an overconfident one.

"""


def scores(records: list[Record], pool: str, setting: dict[str, object]) -> dict[str, dict[int, float]]:
    """Return the test scores by policy and seed of one setting."""
    found: dict[str, dict[int, float]] = {}
    for record in records:
        if record["pool"] == pool and all(record["config"].get(name) == value for name, value in setting.items()):
            found.setdefault(record["policy"], {})[record["seed"]] = record["test"]
    return found


def page() -> str:
    """Return the text of the page."""
    records = read(ROOT / FOLDER)
    cells: dict[tuple[int, int, str], str] = {}
    for pool in POOLS:
        differences = {}
        for claim, (_, setting, pairs) in enumerate(CLAIMS):
            by_policy = scores(records, pool, setting)
            for number_of_pair, (first, second) in enumerate(pairs):
                seeds = sorted(by_policy[first])
                differences[claim, number_of_pair] = paired_difference(
                    [by_policy[first][seed] for seed in seeds], [by_policy[second][seed] for seed in seeds]
                )
        adjusted = holm([difference.p for difference in differences.values()])
        for place, difference, p in zip(differences, differences.values(), adjusted, strict=True):
            mark = (" ▲" if difference.mean > 0.0 else " ▼") if p < 0.05 else ""
            low, high = number(difference.low, "+"), number(difference.high, "+")
            cells[(*place, pool)] = f"{number(difference.mean, '+')} [{low}, {high}]{mark}"
    parts = [INTRODUCTION.format(folder=FOLDER), READING]
    for claim, (text, setting, pairs) in enumerate(CLAIMS):
        shown = ", ".join(f"`{name}={value}`" for name, value in setting.items() if value is not None)
        parts.append(f"## {text}\n\nSetting: {shown}.\n\n| first − second | {' | '.join(POOLS)} |\n|---|---|---|\n")
        for index, (first, second) in enumerate(pairs):
            parts.append(f"| `{first}` − `{second}` | {' | '.join(cells[claim, index, pool] for pool in POOLS)} |\n")
        parts.append("\n" + means(records, setting, pairs) + "\n\n")
    return "".join(parts).rstrip() + "\n\n" + FINDINGS


def means(records: list[Record], setting: dict[str, object], pairs: list[tuple[str, str]]) -> str:
    """Return a sentence with the mean scores of the policies of a claim and of the student without a teacher."""
    names = list(dict.fromkeys([name for pair in pairs for name in pair] + ["no_teacher"]))
    sentences = []
    for pool in POOLS:
        by_policy = scores(records, pool, setting)
        values = [(name, list(by_policy[name].values())) for name in names]
        texts = []
        for name, tests in values:
            low, high = mean_interval(tests)
            texts.append(f"`{name}` {number(sum(tests) / len(tests))} [{number(low)}, {number(high)}]")
        sentences.append(f"Means on `{pool}`: {', '.join(texts)}.")
    return "\n\n".join(sentences)


FINDINGS = """## What it shows

"""

if __name__ == "__main__":
    (ROOT / "docs" / "published.md").write_text(page())
