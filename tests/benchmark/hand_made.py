"""Hand-made records of one setting."""

from kd_env.benchmark.records import FIELDS

NOISE = [0.0, 0.01, -0.01, 0.02, -0.02]


def record(policy, access, seed, test, **changes):
    known = {
        "suite": "small", "task": "domains", "policy": policy, "access": access, "seed": seed, "student": "mlp", "teachers": ["p", "q"],
        "pool": "experts", "updates": 100, "metric": "accuracy", "test": test, "validation": test, "reward_split": test,
        "reward_labels": 64, "wall_s": 2.0, "peak_rss_mb": 500.0, "device": "cpu",
        "student_forward_examples": 3200, "reward_forward_examples": 0, "teacher_forward_examples": 0,
        "versions": {"numpy": "2.4"}, "config": {"kd_weight": 1.0, "command": "kd-env bench small --out results/small"},
        "trial": f"{policy}-{seed}", "diverged": False, "curve": [{"update": u, "validation": test * u / 100} for u in (0, 50, 100)],
    }  # fmt: skip
    return dict.fromkeys(FIELDS) | known | changes


def runs(policy, access, mean, seeds=5, **changes):
    return [record(policy, access, seed, mean + NOISE[seed], **changes) for seed in range(seeds)]


def setting(seeds=5):
    return [
        *runs("uniform", "nothing", 0.4, seeds),
        *runs("router", "reward labels", 0.7, seeds),
        *runs("lr_dev(c=1)", "reward labels", 0.5, seeds),
        *[record("learner", "reward gradient", s, 0.75 + NOISE[s] + [0, 0.01, 0, 0.01, 0][s], reward_split=0.8) for s in range(seeds)],
        *runs("entropy", "teacher outputs", 0.45, seeds),
        *runs("oracle", "privileged", 0.8, seeds),
    ]


def other_setting(policy, **changes):
    return [run | {"trial": f"other-{run['trial']}"} for run in runs(policy, "nothing", 0.2, **changes)]
