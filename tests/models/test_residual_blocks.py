"""Blocks of a teacher in a student: which stand for which, that a mixture is the networks' own blocks in a row, and what is refused."""

import pytest
import torch
from torch import nn

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.models.encode import encode
from kd_env.models.networks import build
from kd_env.models.residual_blocks import BlockIndex, matching_blocks, stages, swapped

NAMES = ("student", "teacher")
TEXT = "domains(train=160,reward=48,validation=32,test=16)"
PAIRS = {
    "resnet": ("digits", "resnet14(width=4)", "resnet32(width=4)"),
    "wrn": ("digits", "wrn(depth=10,widen=1)", "wrn(depth=16,widen=1)"),
    "bert": (TEXT, "tiny-bert(width=16,layers=2,dropout=0)", "tiny-bert(width=16,layers=5,heads=4)"),
    "vit": ("digits", "tiny-vit(width=8,layers=1)", "tiny-vit(width=8,layers=2)"),
}


def networks(case):
    task_name, student, teacher = PAIRS[case]
    task = tasks.load(task_name)
    student, teacher = build(student, task, 0), build(teacher, task, 1)
    for module in (*student.modules(), *teacher.modules()):  # running statistics that matter
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(3))
    if task.kind == "image":
        return student, teacher, {"pixel_values": torch.from_numpy(task.train.inputs[:3])}
    tokens = task.tokenizer()([str(text) for text in task.train.inputs[:3]], return_tensors="pt", padding=True)
    return student, teacher, {name: tokens[name] for name in ("input_ids", "attention_mask")}


def matched(case):
    student, teacher, inputs = networks(case)
    return student, teacher, inputs, matching_blocks(student, teacher, {name: values[:1] for name, values in inputs.items()}, NAMES)


def test_blocks_of_a_stage_stand_for_equal_parts_of_the_teacher_s():
    _, teacher, _, blocks = matched("resnet")  # 2 and 5 blocks in each stage
    assert list(blocks) == [BlockIndex(stage, block) for stage in range(3) for block in range(2)]
    for stage, others in enumerate(stages(teacher)):
        parts = [*blocks[BlockIndex(stage, 0)].blocks, *blocks[BlockIndex(stage, 1)].blocks]
        assert [len(blocks[BlockIndex(stage, block)].blocks) for block in range(2)] == [2, 3]
        for copied, own in zip(parts, others, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(copied.state_dict().values(), own.state_dict().values(), strict=True))


@pytest.mark.parametrize("case", PAIRS)
def test_without_its_own_blocks_the_student_is_the_teacher_between_its_ends(case):
    """With all blocks swapped, and the ends of the teacher, the student computes what the teacher does."""
    student, teacher, inputs, blocks = matched(case)
    rest = {name: value for name, value in teacher.state_dict().items() if name in student.state_dict()}
    own = student.state_dict()
    inside = ("stage", "encoder.layer", "vit.layers")
    student.load_state_dict({name: own[name] if any(part in name for part in inside) else rest[name] for name in own})
    student.eval(), teacher.eval()
    with swapped(student, blocks):
        mixture = student(**inputs).logits
    torch.testing.assert_close(mixture, teacher(**inputs).logits)
    assert not torch.allclose(student(**inputs).logits, mixture), "outside the context the student is alone"


def test_a_mixture_runs_the_drawn_blocks_alone():
    student, teacher, inputs, blocks = matched("resnet")
    student.eval(), teacher.eval()
    with swapped(student, {BlockIndex(1, 0): blocks[BlockIndex(1, 0)]}):
        mixture = student(**inputs).logits
    maps = student.stage1(student.stem((inputs["pixel_values"] - student.mean) / student.deviation))
    for block in (teacher.stage2[0], teacher.stage2[1], student.stage2[1]):
        maps = block(maps)
    torch.testing.assert_close(mixture, student.classifier(student.stage3(maps).mean((2, 3))))


@pytest.mark.parametrize("case", PAIRS)
def test_names_and_parameters_stay_and_only_blocks_that_ran_get_a_gradient(case):
    student, _, inputs, blocks = matched(case)
    names, place = [name for name, _ in student.named_parameters()], next(iter(blocks))
    with swapped(student, {place: blocks[place]}):
        student(**inputs).logits.sum().backward()
        assert [name for name, _ in student.named_parameters()] == names
    replaced = list(stages(student)[place.stage][place.block].parameters())
    assert all(parameter.grad is None for parameter in replaced)
    assert all(parameter.grad is None for block in blocks.values() for parameter in block.parameters())
    for first_or_last in (next(student.parameters()), student.classifier.weight):
        assert first_or_last.grad.abs().sum() > 0, "a gradient passes through the teacher's blocks"
    assert not any(block.training for block in blocks.values())
    assert not student._forward_hooks
    assert not student._forward_pre_hooks


def test_an_error_in_a_pass_leaves_the_student_its_blocks():
    student, _, inputs, blocks = matched("resnet")
    own = [block for stage in stages(student) for block in stage]
    with swapped(student, blocks), pytest.raises(RuntimeError):
        student(pixel_values=inputs["pixel_values"][:, :, :, :0])
    assert [block for stage in stages(student) for block in stage] == own


@pytest.mark.parametrize(
    ("task", "student", "teacher", "message"),
    [
        ("digits", "resnet8(width=4)", "resnet8(width=8)", "have blocks of other widths in stage 1; use networks of equal widths"),
        ("digits", "resnet20(width=4)", "resnet14(width=4)", "the teacher has 2 blocks in stage 1 and the student 3; use a deeper teacher"),
        ("digits", "resnet8(width=16)", "wrn(depth=10,widen=1)", "have no blocks of one kind; use two resnets, two wrn, or two encoders"),
        ("digits", "mlp", "mlp", "have no blocks of one kind"),
        ("digits", "tiny-vit", "resnet8", "have no blocks of one kind"),
        (TEXT, "tiny-bert(width=16)", "tiny-bert(width=8)", "have blocks of other widths in stage 1"),
    ],
)
def test_networks_that_do_not_match_are_refused(task, student, teacher, message):
    task = tasks.load(task)
    example = {name: values[:1] for name, values in encode(task, task.train.inputs[:1]).items()}
    with pytest.raises(InputError, match=f"^block_swap: student 'student' and teacher 'teacher'.*{message}"):
        matching_blocks(build(student, task, 0), build(teacher, task, 1), example, NAMES)
