"""Teachers that learn: the gradient of the exam step is that of finite differences and of a hand-written step, and a run restores them."""

from dataclasses import replace

import pytest
import torch
from small_runs import decide, digest, drive, start
from torch.nn.functional import cross_entropy, log_softmax, relu

from kd_env.distillation.learning_options import LearningOptions
from kd_env.distillation.teacher_learning import Exam, LearningTeachers, StudentStep
from kd_env.errors import InputError
from kd_env.teachers import load_pool
from kd_env.teachers.live import LiveTeachers
from kd_env.types import Decision

CPU = torch.device("cpu")
FEEDBACK = "feedback(lr=0.01)"


@pytest.fixture(scope="module")
def live_data(digits_data):
    return replace(digits_data, live=LiveTeachers.of(load_pool("digits/experts", digits_data.task), CPU))


def begin(data, seed=0, **keywords):
    options = {"teacher_answers": "live", "teacher_learning": FEEDBACK, "student": "mlp(width=8)", "precision": "float64"}
    return start(data, seed, **(options | keywords))


def exam_of(data, count=6):
    images = data.task.reward.inputs[:count]
    return Exam({"pixel_values": torch.from_numpy(images).double()}, images, data.labels["reward"][:count])


def course_of(run, decision):
    batch = run.observe()
    return StudentStep(run.student, run.loss, run.student_output(), batch, decision, run.data.task.train.inputs[batch.example_ids])


def feedback_only(run):
    return LearningTeachers(run.data.live, LearningOptions(label_weight=0.0), CPU, torch.float64)


@pytest.mark.parametrize("optimizer", ["sgd(lr=0.3)", "adam(lr=0.02)"])
@pytest.mark.parametrize("knowledge", ["response", "response,hint(strength=3)"])
def test_the_gradient_is_that_of_central_differences_in_float64(live_data, optimizer, knowledge):
    run = begin(live_data, optimizer=optimizer, knowledge=knowledge, kd_weight=0.7)
    drive(run, 4)
    learning, decision, exam = feedback_only(run), decide(run), exam_of(live_data)
    course = course_of(run, decision)
    scales, rate = run.student.preconditioner(), run.student.options.rate(float(run.observe().progress[0]))

    def exam_loss():
        """CE of the student after the step, whose gradient is computed once: no second derivative."""
        loss = run.loss.per_example(decision, run.student_output(), learning._with_answers(course)).mean()
        slopes = torch.autograd.grad(loss, run.student.parameters, retain_graph=True)
        stepped = [p - rate * scale * slope for p, scale, slope in zip(run.student.parameters, scales, slopes, strict=True)]
        return cross_entropy(run.student.forward_at(stepped, exam.inputs).logits, exam.labels).item()

    gradient = learning.gradient(course, exam)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in learning.parameters]
        values = []
        for sign in (1.0, -2.0, 1.0):
            with torch.no_grad():
                for parameter, step in zip(learning.parameters, direction, strict=True):
                    parameter += sign * 1e-5 * step
            values.append(exam_loss())
        difference = (values[0] - values[1]) / 2e-5
        expected = sum((values * step).sum() for values, step in zip(gradient, direction, strict=True)).item()
        assert difference == pytest.approx(expected, rel=2e-4, abs=1e-9)
        assert abs(expected) > 1e-7


def test_the_exam_step_equals_a_hand_written_one(live_data):
    """One teacher step of Liu et al. for K teachers with weights w, on an MLP of 8 units, all written out."""
    run = begin(live_data, optimizer="sgd(lr=0.3)", kd_weight=0.7, temperature=3.0, batch_size=8)
    batch, exam, rate = run.observe(), exam_of(live_data), 0.3
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).expand(8, 4)
    options = LearningOptions(lr=0.01, label_weight=0.5, feedback_weight=2.0)
    learning = LearningTeachers(live_data.live, options, CPU, torch.float64)

    networks = live_data.live.copied(CPU, torch.float64).teachers
    images = torch.from_numpy(live_data.task.train.inputs[batch.example_ids]).double()
    theta = [parameter.detach().clone().requires_grad_() for parameter in run.student.network.parameters()]

    def student(parameters, pixels):
        hidden = relu(pixels.flatten(1) @ parameters[0].T + parameters[1])
        return hidden @ parameters[2].T + parameters[3]

    teacher_logits = [t.scale * t.network.eval()(pixel_values=images).logits for t in networks]
    z = student(theta, images)
    q = log_softmax(z / 3.0, 1)
    kl = [9.0 * ((log_softmax(logits / 3.0, 1).exp()) * (log_softmax(logits / 3.0, 1) - q)).sum(1) for logits in teacher_logits]
    loss = (0.7 * sum(w * k for w, k in zip(weights[0], kl, strict=True)) + 0.3 * cross_entropy(z, batch.labels, reduction="none")).mean()
    slopes = torch.autograd.grad(loss, theta, create_graph=True)
    after = [parameter - rate * slope for parameter, slope in zip(theta, slopes, strict=True)]
    own = sum(cross_entropy(t.scale * t.network(pixel_values=exam.inputs["pixel_values"]).logits, exam.labels) for t in networks)
    objective = 2.0 * cross_entropy(student(after, exam.inputs["pixel_values"]), exam.labels) + 0.5 * own
    phi = [parameter for t in networks for parameter in t.network.parameters()]
    expected = torch.autograd.grad(objective, phi)

    course = course_of(run, Decision.response(weights, 0.7, 3.0))
    for computed, value in zip(learning.gradient(course, exam), expected, strict=True):
        torch.testing.assert_close(computed, value, atol=1e-10, rtol=1e-8)
    learning.exam_step(course, exam)
    for parameter, old, slope in zip(learning.parameters, phi, expected, strict=True):
        adam = old - 0.01 * slope / (slope.abs() + 1e-8)  # the first step of Adam
        torch.testing.assert_close(parameter, adam, atol=1e-5, rtol=0.0)


def test_repeated_exam_steps_lower_the_loss_of_the_student_that_takes_the_course(live_data):
    run = begin(live_data, optimizer="sgd(lr=0.5)")
    learning = LearningTeachers(live_data.live, LearningOptions(lr=0.02, label_weight=0.0), CPU, torch.float64)
    course, exam = course_of(run, decide(run)), exam_of(live_data, 40)

    def exam_loss():
        loss = run.loss.per_example(course.decision, course.output, learning._with_answers(course)).mean()
        slopes = torch.autograd.grad(loss, run.student.parameters, retain_graph=True)
        stepped = [p - 0.5 * slope for p, slope in zip(run.student.parameters, slopes, strict=True)]
        return cross_entropy(run.student.forward_at(stepped, exam.inputs).logits, exam.labels).item()

    before = exam_loss()
    for _ in range(10):
        learning.exam_step(course, exam)
    assert exam_loss() < before - 0.05


def test_the_student_takes_its_step_before_the_teachers_change_their_answers(live_data):
    run, fixed = begin(live_data, precision="float32"), begin(live_data, precision="float32", teacher_learning="")
    assert drive(run, 1) == drive(fixed, 1)
    assert digest(run)[0] == digest(fixed)[0]
    assert not torch.allclose(run.observe().teacher_logits, fixed.observe().teacher_logits)
    assert drive(run, 2) != drive(fixed, 2)


def test_the_pool_itself_does_not_change(live_data):
    images = live_data.task.train.inputs[:4]
    before = [output.logits.detach().clone() for output in live_data.live(images)]
    drive(begin(live_data), 3)
    for old, output in zip(before, live_data.live(images), strict=True):
        assert torch.equal(old, output.logits)


CASES = {
    "adam, exam on reward labels": {},
    "exam on train, every other update": {"teacher_learning": "feedback(exam=train,every=2)"},
    "augmented, dropout": {"augmentation": "flip", "student": "mlp(width=8,dropout=0.3)", "precision": "float32"},
    "BatchNorm": {"student": "resnet8(width=2)", "precision": "float32"},
}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_a_restored_run_has_the_same_teachers(live_data, case):
    run, undisturbed = begin(live_data, 2, **CASES[case]), begin(live_data, 2, **CASES[case])
    drive(run, 3)
    drive(undisturbed, 3)
    run.observe()
    state, outcomes = run.snapshot(), drive(run, 4)
    other = begin(live_data, 9, **CASES[case])
    drive(other, 2)
    other.restore(state)
    assert other.snapshot() == state
    twin = other.fork()
    assert drive(other, 4) == drive(twin, 4) == drive(undisturbed, 4) == outcomes
    assert other.snapshot() == twin.snapshot() == run.snapshot() == undisturbed.snapshot()
    run.restore(state)  # back in time, too
    assert drive(run, 4) == outcomes


def test_a_new_student_starts_with_the_teachers_of_the_pool(live_data):
    run = begin(live_data)
    drive(run, 3)
    run.reset_student(0, 0)
    assert drive(run, 3) == drive(begin(live_data), 3)


def test_exam_examples_are_labelled_ones_and_passes_are_counted(live_data):
    run = begin(live_data, teacher_learning="feedback(every=2)", reward_labels=5)
    drive(run, 3)
    assert run.answers.forward_examples(run.update).tolist() == [4 * (3 * 8 + 2 * (8 + 5))], "answers, and two exams of 5 examples"
    assert run.state.forward_examples.tolist() == [3 * 8 + 2 * 5]


def test_what_cannot_learn_is_refused(live_data):
    with pytest.raises(InputError, match=r"^teacher_learning='feedback': a bank holds fixed answers .* add teacher_answers=live$"):
        begin(live_data, teacher_answers="bank", teacher_learning="feedback")
    with pytest.raises(InputError, match=r"^num_students=2: teachers that learn have one student; use num_students=1$"):
        begin(live_data, num_students=2)
    for text in ("feedback(exam=test)", "feedback(every=0)", "feedback(label_weight=-1)", "feedback(rate=1)", "follow"):
        with pytest.raises(InputError):
            begin(live_data, teacher_learning=text)
    nothing = "feedback(label_weight=0,feedback_weight=0)"
    with pytest.raises(InputError, match=r"teachers learn from nothing; set label_weight or feedback_weight above 0$"):
        begin(live_data, teacher_learning=nothing)
