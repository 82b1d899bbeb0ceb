"""Bad values of keywords, specs and command lines: each is refused in one line that names the value or its place."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import torch

from kd_env import spec, tasks
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.teachers.finetune_config import FinetuneConfig

NAN, INF = float("nan"), float("inf")
KEYWORDS = {
    "updates": [0, -1, 1.5, "x", True, np.float64(2), 10**30, NAN, [1]],
    "batch_size": [0, -1, "x", 2.5],
    "kd_weight": [-0.1, 1.1, NAN, "x", [1], 1j],
    "temperature": [0, -1, INF, NAN, "hot"],
    "optimizer": [
        "adam(lr=0)", "adam(lr=nan)", "adam(lr=x)", "rmsprop", "adam(", "adam(decay=cubic)", "adam(warmup=1)", "adam(foo=1)",
        "adam(weight_decay=-1)", "adam(lr=1e400)", "adam(name=sgd)", 5,
    ],
    "knowledge": [
        "", "respons", "response,response", "response(strength=0)", "response(strength=nan)", "label", "feature", "response(", "a:b",
        "response(foo=1)", "attention", "layer(strength=x)", "peer", "decoupled(alpha=x)", "hint(x=1)", 5,
        "map_hint", "attention_transfer", "map_hint(stage=all)", "map_hint(stage=2)", "map_hint(convolutions=2)",
        "attention_transfer(stages=5)", "attention_transfer(stages=a;a)", "attention_transfer(stages=)", "map_similarity(stage=a.b)",
        "map_ensemble", "map_ensemble(stage=stage1)", "hint(stage=last)",
        "response(skip_epochs=-1)", "response(skip_epochs=x)", "response(skip_epochs=0.5)",
    ],
    "auxiliary_module": ["nope", "a:b", "builtins:int", 5],
    "num_students": [0, -1, 1.5, "x", 3],
    "calibrate_teachers": ["yes", 1, 2],
    "reward_ce": [-1, INF, "x"],
    "teacher_answers": ["lively", "", 5],
    "augmentation": ["flip", "crop(padding=0)", "nope", 5],
    "block_swap": ["review", "uniform(p=2)", "nope", 5],
    "teacher_learning": ["feedback", "feedback(lr=0)", "nope", 5],
    "device": ["gpu", "cuda:99", "tpu", "meta", "cpu:x", 5],
    "precision": ["half", "float16", 5],
    "student": [
        "mlp(", "mlp(width=0)", "mlp(width=x)", "mlp(foo=1)", "tiny-bert", "tiny-vit(patch=3)", "nope", "no/such", "a:b", "builtins:dict",
        "mlp(dropout=2)", "mlp(width=1e9)", "mlp(depth=1.5)", "mlp(depth=1000000)", "mlp(width=[1])", "", "mlp(width=-1)", 5,
        "tiny-vit(heads=7)", "tiny-vit(width=0)", "tiny-vit(layers=99999)",
        "resnet20(width=0)", "resnet20(depth=8)", "resnet21", "wrn(depth=15)", "wrn(widen=x)", "vgg8(width=1.5)", "vgg16",
        "mobilenetv2(width=0)", "shufflenetv2(width=3)", "shufflenetv2(width=x)", "resnet8x4(width=2)",
        "mlp(bits=1)", "mlp(bits=x)", "resnet8(bits=4.5)", "tiny-vit(bits=4,outer_bits=9)", "mlp(outer_bits=8)",
    ],
    "reward": ["x", "a:b", "mixed(", "", 5],
    "measure": ["x", 5],
    "reward_mix": [-1, 2, NAN],
    "reward_every": [-1, 1.5],
    "reward_examples": [0, "x"],
    "reward_labels": [-1, "x", 10**9],
    "label_seed": [-1, "x", 2**70],
    "credit": [
        "x", "first_order(smoothing=x)", "first_order(foo=1)", "a:b", "head(x=1)", "first_order(smoothing=nan)", 5, "head(decay=1)",
        "difference(examples=-1)", "difference(examples=1.5)", "counterfactual(examples=8)", "difference(decay=-0.1)",
    ],
    "credit_refresh": [0, -1],
    "normalize_credit": ["x"],
    "teacher_cost": [-1, INF, "x"],
    "exploration_bonus": [-1, 1, "x"],
    "action": ["x", "soft", "joint", "a:b", "builtins:int", 5],
    "granularity": ["x", 5],
    "factors": ["x", "", "teachers,strength", 5],
    "updates_per_phase": [0, 2, "x"],
    "observation": ["x", "a:b", "builtins:int", 5],
    "observe_labels": ["x", 1],
    "validation_every": [-1, "x"],
    "teachers": [
        5, ["digits/experts"], [5], "nope", "digits/experts,digits/experts", "domains/experts", [], "a:b", "builtins:len", "heads(", ",",
        {"a": 1}, object(), "", "digits/experts(x=1)", np.zeros(3),
    ],
    "bank": [5, "/dev/null", object()],
    "data_dir": ["/nope", 5],
    "task": [
        "nope", "digits(x=1)", "folder:/nope", "folder:", "images:/nope", "a:b", "builtins:len", "domains(difficulty=2)", "",
        "folder:/dev/null",
        "domains(num_classes=1)", "domains(x", "domains(train=1e9)", "glue/sst2", "glue/stsb", "glue/nope", "digits(max_length=5)",
        "domains(max_length=2)", "domains(seed=-1)", "domains(train=x)", "clinc150", "fdu-mtl", "fashion-mnist", 5, None, object(),
        "mnist", "cifar10(data_dir=/nope)", "cifar100(data_dir=/dev)", "tiny-imagenet(size=3)", "tiny-imagenet(data_dir=/nope)",
    ],
    "render_mode": ["human", 5],
    "strength": [1], "features": ["x"], "companion": ["x"], "foo": [1],
    "max_episode_steps": [0, -1, "x", 2.5, True],
    "num_envs": [0, -1, 7.5, "x", None, True],
    "autoreset_mode": ["x", 5, None, [1]],
}  # fmt: skip
TEACHERS = {
    "returned NoneType": lambda inputs: None,
    "returned str": lambda inputs: "s",
    "returned dict": lambda inputs: {"labels": 1},
    "returned torch.complex128 numbers": lambda inputs: np.zeros((len(inputs), 10), dtype=complex),
    "are not finite": lambda inputs: np.full((len(inputs), 10), np.nan),
    r"have the shape \[64, 3\], expected \[64, 10\]": lambda inputs: np.zeros((len(inputs), 3)),
    r"have the shape \[65, 10\]": lambda inputs: np.zeros((len(inputs) + 1, 10)),
    r"have the shape \[\]": lambda inputs: 1.0,
    r"have the shape \[64, 1, 8, 8\]": torch.nn.Identity(),
    r"ZeroDivisionError: division by zero \(.*test_bad_inputs.py, line \d+\); fix it there": lambda inputs: 1 / 0,
    r"sys.exit\(0\) \(.*test_bad_inputs.py, line \d+\); fix it there": lambda inputs: sys.exit(0),
}
SPECS = [
    "mlp(",
    "mlp(width=24",
    "(x=1)",
    "mlp(x)",
    "mlp(=3)",
    "mlp(2x=3)",
    "mlp(a b=1)",
    "a(b=1,b=2)",
    "a(b=1)c",
    "a(é-=1)",
    "a(,x)",
    "a((b=1)",
]
POLICIES = [
    "nope", "sb3:XYZ", "sb3:", "a:b", "builtins:nope", "single:x:y(", "", "reinforce(window=)x", "uniform(a=1,a=2)", ":", "os:",
    "kd_env:nope",
]  # fmt: skip
FINETUNE = [
    {"epochs": 0}, {"seed": -1}, {"seed": 2**70}, {"lr": NAN}, {"lr": -1}, {"label_noise": 2}, {"label_noise": NAN}, {"batch_size": 0},
    {"fraction": 0}, {"fraction": NAN}, {"max_length": 2}, {"max_length": 10**12}, {"model": "mlp"}, {"model": "a:b"},
    {"model": "tiny-bert("}, {"model": "resnet20("},
    {"groups": ("zz",)},
]  # fmt: skip
COMMANDS = {
    "run --task digits --policy uniform --set updates=99999999999 --out x": "updates=99999999999: expected at most",
    "run --task digits --policy uniform --set updates --out x": "'updates': expected key=value",
    "run --task digits --policy uniform --seeds 4-0 --out x": "--seeds '4-0'",
    "run --task digits --policy uniform --student \udcff --out x": "'\\udcff' is not UTF-8; use another name",
    f"run --task digits --policy uniform --set kd_weight={'-' * 9000}1 --out x": "expected float, got str",
    "run --task digits --policy uniform --workers x --out x": "'--workers'",
    "teach --task domains --model tiny-bert --folds 1000000000 --out x": "folds=1000000000: must be at least 2, at most 100",
    "distill --task digits --budget nan --out x": "--budget 'nan'",
    "distill --out x": "Missing option '--task': name a task of kd-env list tasks, or give the results of kd-env run with --from",
    "distill --from nowhere --out x": "nowhere/results.jsonl: no records; name a folder that `kd-env run`",
    "distill --from nowhere --policy uniform --out x": "--policy: --from nowhere takes a student as it was taught; leave --policy out",
    "distill --from nowhere --teachers digits/experts --out x": "--teachers: --from nowhere takes a student as it was taught",
    "distill --from nowhere --updates 5 --out x": "--updates: --from nowhere takes a student as it was taught",
    "distill --from nowhere --budget 9 --out x": "--budget: --from nowhere takes a student as it was taught",
    "distill --from nowhere --seeds 0 --out x": "--seeds: --from nowhere takes a student as it was taught",
    "distill --from nowhere --set kd_weight=1 --out x": "--set: --from nowhere takes a student as it was taught",
    "distill --from nowhere --bank b --out x": "--bank: --from nowhere takes a student as it was taught",
    "distill --from nowhere --text column --out x": "--text: it is an option of a task; name the task with --task",
    "distill --task digits --trim-vocabulary --student tiny-vit --out x": "--trim-vocabulary: task 'digits' has images",
    "distill --task domains --student tiny-bert --push nowhere --out x": "--push nowhere: expected ORG/NAME, such as my-name/my-student",
    "distill --task domains --student tiny-bert --push a/b/c --out x": "--push a/b/c: expected ORG/NAME",
    "distill --task domains --student tiny-bert --push a/..b --out x": "--push a/..b: expected ORG/NAME",
    "run --task digits --policy uniform --keep some --out x": "run(keep='some'): expected best or all or none",
    "run --task digits --policy uniform --keep best --out x": "student 'mlp(width=24)' is not a Transformers model",
    "run --task digits --policy uniform --keep all --out x": "use --student tiny-vit, or a checkpoint; or --keep none",
    "bench demoo --out x": "unknown suite 'demoo'; did you mean 'demo'? (or name a .toml file of your own)",
    "bench nowhere.toml --out x": "suite nowhere.toml: No such file or directory; check the path",
    "bench demo --seeds 1-0 --out x": "--seeds '1-0'",
    "bench demo --data-dir nowhere --out x": "suite demo, part 1, task: ",
    "bench demo --tune 1 --out x": "'--tune'",
    "bench demo --gpus-per-trial 0.5 --out x": "gpus_per_trial=0.5: only Ray reserves GPUs; use executor=ray, or leave it out",
    "bench demo --executor dask --out x": "run(executor='dask'): expected local or process or ray",
    "run --task digits --policy uniform --gpus-per-trial -1 --out x": "'--gpus-per-trial'",
    "bench demo --tune 2 --seeds 101 --out x": "seed 101: policies are tuned with seeds 100, 101",
    "run --task digits --policy uniform --tuned-from nowhere --out x": "tuned folder nowhere: holds no .toml files",
    "run --task digits --policy uniform --tuned-from nowhere.toml --out x": "tuned file nowhere.toml: No such file or directory",
    "run --task domains --policy uniform --tuned --out x": "no policy is tuned for task 'domains', pool 'domains/experts'",
    "report /dev/null": "/dev/null/results.jsonl: no records",
    "replay nowhere --seed x": "'--seed'",
    "bank --task nope": "unknown task 'nope'",
}


def cases(table):
    def shown(value):
        return "object" if type(value) is object else str(value)[:40]  # the text of an object has its address

    return [pytest.param(name, value, id=f"{name}={shown(value)}") for name, values in table.items() for value in values]


def refused(function, *arguments, **options):
    """Return the message of the InputError that a call raises, which is one line."""
    with pytest.raises(InputError) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def make(**options):
    return gym.make_vec(
        "kd_env/TeacherSelection-v0",
        vectorization_mode="vector_entry_point",
        **({"num_envs": 8, "task": "digits", "updates": 4} | options),
    )


@pytest.mark.parametrize(("name", "value"), cases(KEYWORDS))
def test_a_keyword_of_an_environment(name, value):
    message = refused(make, **{name: value})
    assert name in message or str(value) in message


@pytest.mark.parametrize("says", TEACHERS)
def test_what_a_teacher_returns(says):
    with pytest.raises(InputError, match=rf"teacher '\w+'.*{says}"):
        make(teachers=[TEACHERS[says]])


@pytest.mark.parametrize("text", SPECS)
def test_a_spec(text):
    message = refused(spec.parse, text)
    assert text in message or "is given twice" in message or "expected key=value" in message


@pytest.mark.parametrize("text", POLICIES)
def test_a_policy(text):
    assert text.partition(":")[2] in (message := refused(registry.find, text)) or "given twice" in message


@pytest.mark.parametrize("options", FINETUNE, ids=str)
def test_how_a_teacher_is_trained(options):
    ((name, value),) = options.items()
    message = refused(FinetuneConfig(**({"model": "tiny-bert"} | options)).filled, tasks.load("domains"))
    assert f"{name}={value}" in message or "zz" in message or value in message


@pytest.mark.parametrize("command", COMMANDS, ids=lambda text: ascii(text)[1:60])
def test_a_command_line(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke(command.split(" ")) == 2
    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert errors.startswith("kd-env: ")
    assert COMMANDS[command] in errors
    assert list(tmp_path.iterdir()) == []
