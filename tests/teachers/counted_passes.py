"""A teacher with layers, and a count of its forward passes."""

from kd_env.teachers import NetworkTeacher
from kd_env.teachers.train_recipe import TeacherRecipe, train_network


def deep_network(digits):
    """A trained network of three hidden layers, as a teacher of ``digits``."""
    recipe = TeacherRecipe("deep", "mlp(width=48,depth=3)", epochs=12, seed=1)
    return NetworkTeacher("deep", train_network(recipe, digits), digits.development())


class Counted:
    """A teacher that records the batch sizes it is run with."""

    def __init__(self, teacher):
        self.teacher, self.name, self.calls = teacher, teacher.name, []

    def fingerprint(self):
        return self.teacher.fingerprint()

    def __call__(self, inputs):
        self.calls.append(len(inputs))
        return self.teacher(inputs)
