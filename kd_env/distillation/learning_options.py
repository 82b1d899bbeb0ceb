"""Define the setting ``teacher_learning``. In: ``"feedback(lr=0.0001,exam=reward)"``. Out: checked :class:`LearningOptions`."""

from __future__ import annotations

from dataclasses import dataclass

from kd_env import spec
from kd_env.errors import InputError


@dataclass(frozen=True)
class LearningOptions:
    """Options of the setting ``teacher_learning``, such as ``feedback(lr=0.0001,label_weight=1,exam=reward)``.

    Attributes:
        lr: learning rate of Adam on the teachers.
        label_weight: weight of the teachers' own cross-entropy on the labels of the exam.
        feedback_weight: weight of the student's exam loss; 0 for teachers that learn from labels alone.
        exam: split of the exam's examples, ``reward`` (its labelled examples) or ``train``, as in the paper.
        every: number of updates between two exam steps.
    """

    lr: float = 1e-4
    label_weight: float = 1.0
    feedback_weight: float = 1.0
    exam: str = "reward"
    every: int = 1

    @classmethod
    def of(cls, text: str) -> LearningOptions:
        """Return the options of a spec.

        Raises:
            InputError: the name or an option is unknown, or a value is out of range.
        """
        name, options = spec.parse(text)
        if name != "feedback":
            raise spec.unknown("teacher_learning", name, ("feedback",))
        parsed: LearningOptions = spec.call(f"teacher_learning={text!r}", cls, options)
        spec.numbers("feedback", above=0, lr=parsed.lr)
        spec.numbers("feedback", least=0, label_weight=parsed.label_weight, feedback_weight=parsed.feedback_weight)
        spec.numbers("feedback", least=1, whole=True, every=parsed.every)
        spec.one_of("feedback", "reward", "train", exam=parsed.exam)
        if parsed.label_weight == parsed.feedback_weight == 0:
            raise InputError(f"teacher_learning={text!r}: teachers learn from nothing; set label_weight or feedback_weight above 0")
        return parsed
