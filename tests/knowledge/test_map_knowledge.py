"""Types that compare maps of named stages: which stages are paired, their sum, their regressors, and runs on a bank of stages."""

import dataclasses

import numpy as np
import pytest
import torch
from comparing import draw
from torch import nn

from kd_env.bank.bank import open_bank
from kd_env.distillation import Distillation, EncodedTask
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.distillation.settings import distillation_settings
from kd_env.envs import credit
from kd_env.errors import InputError
from kd_env.knowledge import LossContext
from kd_env.knowledge.attention_transfer import AttentionTransfer, attention_map
from kd_env.knowledge.map_ensemble import MapEnsemble
from kd_env.knowledge.map_hint import MapHint
from kd_env.knowledge.map_knowledge import paired
from kd_env.knowledge.map_similarity import MapSimilarity
from kd_env.knowledge.terms import extra_outputs, parse_terms
from kd_env.models.networks import build
from kd_env.models.stages import requested
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.types import Batch, Decision, ModelOutput

NETWORKS = ("resnet8(width=3)", "vgg8(width=2)")


def pool_of(task):
    """Two untrained teachers, of three and of five stages."""
    return Pool("staged", tuple(NetworkTeacher(f"teacher{k}", build(text, task, k), task) for k, text in enumerate(NETWORKS)))


@pytest.fixture(scope="module")
def few(digits_data):
    task = digits_data.task
    return dataclasses.replace(task, train=task.train.take(np.arange(32)), reward=task.reward.take(np.arange(40)))


@pytest.fixture(scope="module")
def start(few):
    """A function that starts a run with the bank that its knowledge needs."""

    def started(knowledge, **keywords):
        bank = open_bank(few, pool_of(few), keep=extra_outputs(parse_terms(knowledge)))
        settings = {"student": "resnet8(width=2)", "batch_size": 8, "updates": 20, "precision": "float64", **keywords}
        return Distillation(EncodedTask.of(few, bank), distillation_settings(few, knowledge=knowledge, **settings), 0)

    return started


def test_stages_of_the_same_name_are_paired():
    assert paired(("all",), ["stage1", "stage2", "stage3"], ["stem", "stage1", "stage2", "stage3", "stage4", "last"]) == [
        "stage1", "stage2", "stage3",
    ]  # fmt: skip
    assert paired(("all",), ["stem", "stage2"], ["stem", "stage1", "stage2"]) == ["stage2"]
    assert paired(("last", "stem"), [], []) == ["last", "stem"]


def test_what_a_type_asks_for():
    for text, expected in {
        "attention_transfer": {"maps"},
        "attention_transfer(stages=all)": {"maps.all"},
        "attention_transfer(stages=stage1;last)": {"maps.stage1", "maps"},
        "map_hint(stage=stage2),map_similarity": {"maps.stage2", "maps"},
        "map_ensemble(stage=stem),response": {"maps.stem"},
    }.items():
        assert extra_outputs(parse_terms(text)) == expected


@pytest.mark.parametrize("students", [1, 2])
def test_attention_transfer_adds_the_losses_of_the_stages(students):
    """The released code adds the losses of all pairs; here of maps of other sizes, and a teacher with one stage more."""
    rows = 3 * students
    student = {f"stage{n}": draw(rows, 2 * n, 8 // n, 8 // n, seed=n) for n in (1, 2)}
    teacher = {f"stage{n}": draw(rows, 3, 4, 4, seed=10 + n) for n in (1, 2, 3)}
    logits = draw(rows, 4)
    output = ModelOutput(logits, logits, stages=student)
    batch = Batch(
        np.zeros(students), np.zeros(students), np.arange(rows), torch.zeros(rows, dtype=torch.long), logits[:, None], (logits,), output,
        teacher_stages=(teacher,),
    )  # fmt: skip
    losses = AttentionTransfer("all").losses(output, batch, LossContext())
    pooled = torch.nn.functional.adaptive_avg_pool2d(student["stage1"], 4)
    first = (attention_map(pooled) - attention_map(teacher["stage1"])).square().mean(1)
    second = (attention_map(student["stage2"]) - attention_map(teacher["stage2"])).square().mean(1)
    torch.testing.assert_close(losses[:, 0], first + second, rtol=1e-12, atol=1e-14)
    alone = AttentionTransfer("stage2").losses(output, batch, LossContext())
    torch.testing.assert_close(alone[:, 0], second, rtol=1e-12, atol=1e-14)


def test_the_losses_of_a_run_are_those_of_its_maps(start):
    run = start("attention_transfer(stages=all),map_hint(stage=stage2,convolutions=3),map_ensemble(stage=stage3)")
    batch, output = run.observe(), run.student_output()
    assert batch.teacher_maps == ()
    assert [list(stages) for stages in batch.teacher_stages] == [
        [f"stage{n}" for n in (1, 2, 3)], [f"stage{n}" for n in (1, 2, 3, 4, 5)],
    ]  # fmt: skip
    for k in range(2):
        maps = batch.teacher_stages[k]
        transfer = sum(AttentionTransfer().loss(output._replace(maps=output.stages[s]), maps[s]) for s in ("stage1", "stage2", "stage3"))
        hint = (output.projections["maps.deep.stage2"][k] - maps["stage2"]).square().mean((1, 2, 3))
        torch.testing.assert_close(run.per_teacher_loss("attention_transfer", 2.0)[:, k], transfer)
        torch.testing.assert_close(run.per_teacher_loss("map_hint", 2.0)[:, k], hint)
    before = [parameter.detach().clone() for parameter in run.student.parameters]
    weights = dict.fromkeys(run.loss.terms, torch.full((8, 2), 0.5, dtype=torch.float64))
    run.apply(Decision(weights, dict.fromkeys(weights, 1.0), 2.0))
    names = [name for name, _ in run.student.network.named_parameters()]
    changed = {name for name, old, new in zip(names, before, run.student.parameters, strict=True) if not torch.equal(old, new)}
    assert {name for name in names if "regressors" in name} <= changed
    assert not {name for name in names if "classifier" in name} & changed, "no term reads the classifier"


STAGED = [
    "attention_transfer(stages=all)", "map_hint(stage=stage2,convolutions=3)", "map_ensemble(stage=stage3)", "map_similarity(stage=stage1)",
]  # fmt: skip


@pytest.mark.parametrize("knowledge", STAGED)
def test_first_order_credit_of_stages_is_the_derivative(start, knowledge):
    run, name = start(knowledge, batch_size=4, optimizer="sgd(lr=0.00001)"), knowledge.partition("(")[0]
    meter = RewardMeter(run.reward_split, run.seeds.tolist(), 20, measure="loss")
    values, exact = (credit.CREDITS[kind](run, meter, [name])[name] for kind in ("first_order", "counterfactual"))
    assert values.any()
    torch.testing.assert_close(values, exact, rtol=0.02, atol=0.02 * float(exact.abs().max()))


@pytest.mark.parametrize("knowledge", STAGED)
def test_a_run_with_stages_is_restored_to_the_bit(start, knowledge):
    def taught(run, updates):
        weights = dict.fromkeys(run.loss.terms, torch.full((8, 2), 0.5, dtype=torch.float64))
        return [float(run.apply(Decision(weights, dict.fromkeys(weights, 1.0), 2.0)).loss[0]) for _ in range(updates) if run.observe()]

    run = start(knowledge)
    taught(run, 2)
    twin, state = run.fork(), run.snapshot()
    losses = taught(run, 3)
    again = start(knowledge)
    again.restore(state)
    assert taught(twin, 3) == taught(again, 3) == losses


class Own(nn.Module):
    """A user's network of two stages without BatchNorm, which returns a mapping."""

    def __init__(self, task):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 3, 2, padding=1)
        self.classifier = nn.Linear(4, task.num_classes)

    def forward(self, pixel_values, extra_outputs=frozenset()):
        first = self.first(pixel_values).relu()
        second = self.second(first).relu()
        features = second.mean((2, 3))
        stages = requested({"stage1": first, "stage2": second}, extra_outputs)
        return {"logits": self.classifier(features), "features": features, "maps": second, "stages": stages}


@pytest.mark.parametrize("students", [1, 2])
def test_a_network_of_one_s_own_has_stages_also_in_a_population(start, students):
    run = start("attention_transfer(stages=all),map_similarity(stage=stage1)", student="test_map_knowledge:Own", num_students=students)
    batch, output = run.observe(), run.student_output()
    assert list(output.stages) == ["stage1", "stage2"]
    for s in range(students):
        rows = slice(8 * s, 8 * s + 8)
        for k in range(2):
            of_student = {stage: output.stages[stage][rows] for stage in ("stage1", "stage2")}
            of_teacher = {stage: batch.teacher_stages[k][stage][rows] for stage in of_student}
            pairs = ((output._replace(maps=of_student[stage]), of_teacher[stage]) for stage in of_student)
            transfer = sum(AttentionTransfer().loss(*pair) for pair in pairs)
            torch.testing.assert_close(run.per_teacher_loss("attention_transfer", 2.0)[rows, k], transfer)
            similarity = MapSimilarity().loss(output._replace(maps=of_student["stage1"]), of_teacher["stage1"].flatten(1))
            torch.testing.assert_close(run.per_teacher_loss("map_similarity", 2.0)[rows, k], similarity)


def test_the_last_stage_by_its_own_name_is_the_last_map(start):
    named, last = start("attention_transfer(stages=stage3)"), start("attention_transfer")
    assert torch.equal(named.per_teacher_loss("attention_transfer", 2.0)[:, 0], last.per_teacher_loss("attention_transfer", 2.0)[:, 0])


def test_regressors_of_three_convolutions_have_half_of_the_student_s_channels(start):
    run = start("map_hint(convolutions=3)")
    of_first = ((name.partition("regressors.0.")[2], parameter) for name, parameter in run.student.network.named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in of_first if name}
    assert [shapes[f"{layer}.weight"] for layer in (0, 3, 6)] == [(4, 8, 1, 1), (4, 4, 3, 3), (12, 4, 1, 1)]
    assert list(run.student_output().projections) == ["maps.deep"]


@pytest.mark.parametrize(
    ("knowledge", "message"),
    [
        (
            "map_hint(stage=stage4)",
            r"teacher 'teacher0' has no feature map of stage 'stage4'; it has stem, stage1, stage2, stage3, last; name one",
        ),
        (
            "map_hint(stage=stem)",
            r"teacher 'teacher1' has no feature map of stage 'stem'; it has stage1, .*, stage5, last; name one of these",
        ),
    ],
)
def test_a_stage_that_a_teacher_has_not_is_refused(start, knowledge, message):
    with pytest.raises(InputError, match=message):
        start(knowledge)


def test_a_student_without_the_stage_is_refused(few, start):
    for student, knowledge, problem in (
        ("mlp", "attention_transfer(stages=all)", "student 'mlp' has no numbered stage of feature maps in common with each teacher"),
        ("mlp", "map_hint(stage=stage1)", "student 'mlp' has no feature map of stage 'stage1', which map_hint compares"),
        ("mlp", "map_ensemble", "student 'mlp' has no maps, which map_ensemble compares"),
    ):
        with pytest.raises(InputError, match=problem):
            start(knowledge, student=student)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("map_hint(stage=all)", r"map_hint\(stage=all\): expected the name of one stage, such as last or stage2"),
        ("map_hint(stage=2)", r"map_hint\(stage=2\): expected the name of one stage"),
        ("map_hint(convolutions=2)", r"map_hint\(convolutions=2\): expected 1 or 3"),
        ("map_similarity(stage=stage1;stage2)", r"map_similarity\(stage=stage1;stage2\): expected the name of one stage"),
        ("map_ensemble(stage=)", r"map_ensemble\(stage=\): expected the name of one stage"),
        ("attention_transfer(stages=all;last)", r"attention_transfer\(stages=all\): expected the name of one stage"),
        ("attention_transfer(stages=3)", r"attention_transfer\(stages=3\): expected last, all, or names such as stage2;stage3"),
        ("attention_transfer(stages=)", r"attention_transfer\(stages=\): expected last, all, or names such as stage2;stage3"),
        ("attention_transfer(stages=last;last)", "a stage is named twice"),
        ("hint(stage=stage2)", r"knowledge 'hint\(stage=stage2\)': got an unexpected keyword argument 'stage'; options: normalized"),
        ("feature_ensemble(stage=last)", r"got an unexpected keyword argument 'stage'; options: none"),
        ("similarity(stage=last)", r"got an unexpected keyword argument 'stage'; options: kind"),
    ],
)
def test_options_are_checked_and_types_of_vectors_refuse_stages(text, message):
    with pytest.raises(InputError, match=message):
        parse_terms(text)


def test_names_of_projectors_do_not_clash():
    kinds = (MapHint(), MapHint("stage2"), MapHint(convolutions=3), MapHint("stage2", 3), MapEnsemble(), MapEnsemble("stage1"))
    names = [kind.projector.name for kind in kinds]
    assert names == ["maps", "maps.stage2", "maps.deep", "maps.deep.stage2", "maps.nonlinear", "maps.nonlinear.stage1"]
    assert MapHint("stage2").projector is MapHint("stage2").projector
    assert MapSimilarity().projector is AttentionTransfer().projector is None
