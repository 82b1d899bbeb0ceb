"""The card of a quantised student says its bits; that of another student does not mention them."""

from kd_env import tasks
from kd_env.benchmark.low_bit_card import low_bit_section
from kd_env.models.networks import build


def test_each_width_has_its_layers_and_sizes():
    network = build("mlp(width=20,depth=3,bits=4)", tasks.load("digits"), 0)
    section = low_bit_section(network, "kd-env")
    assert "| 4 | 2 | 800 | 0.000 |\n| 8 | 2 | 1,480 | 0.001 |\n" in section
    assert "Transformers" not in section


def test_transformers_needs_two_lines_more():
    network = build("tiny-vit(width=8,layers=1,bits=4)", tasks.load("digits"), 0)
    assert 'restore(classify.model, "PATH OF THIS FOLDER")' in low_bit_section(network, "transformers")


def test_a_student_in_float32_has_no_such_section():
    assert low_bit_section(build("mlp", tasks.load("digits"), 0), "kd-env") == ""
