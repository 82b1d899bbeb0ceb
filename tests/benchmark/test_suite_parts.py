"""Parts of a suite: what a file says about them, and the trials that they stand for."""

from kd_env.benchmark import suites
from kd_env.benchmark.suite_parts import Part
from kd_env.benchmark.trial import Trial


def test_all_keys_of_a_file(tmp_path):
    (tmp_path / "mine.toml").write_text("""
about = "two parts"
seeds = [4, 2]
[lists]
both = ["uniform", "router"]
[[part]]
task = "digits"
teachers = "digits/mixed"
student = "mlp(width=8)"
updates = 7
population = 2
policies = ["@both", {name = "camkd", set = {knowledge = "response,hint(strength=1)"}}]
set = {kd_weight = 0.5, temperature = 4}
[[part]]
task = "digits"
policies = ["oracle"]
seeds = "0-2"
""")
    name, suite = suites.find(str(tmp_path / "mine.toml"))
    first, second = suite.parts
    assert (name, suite.about, suite.seeds, first.seeds, second.seeds) == ("mine", "two parts", (4, 2), None, (0, 1, 2))
    shared = {"student": "mlp(width=8)", "updates": 7, "kd_weight": 0.5, "temperature": 4}
    assert first.trials("mine", [4], "command") == [
        Trial("digits", "uniform", 4, "digits/mixed", None, "mine", shared, "command"),
        Trial("digits", "router", 4, "digits/mixed", None, "mine", shared, "command"),
        Trial("digits", "camkd", 4, "digits/mixed", None, "mine", {**shared, "knowledge": "response,hint(strength=1)"}, "command"),
    ]
    assert second.trials("mine", [0], "") == [Trial("digits", "oracle", 0, None, None, "mine", {}, "")]


def test_parts_share_the_default_and_an_array_stands_for_several(tmp_path):
    (tmp_path / "mine.toml").write_text("""
[default]
task = "digits"
updates = 7
population = 2
set = {kd_weight = 0.5, temperature = 4}
[[part]]
policies = ["uniform"]
teachers = ["digits/mixed", "digits/experts"]
set = {temperature = 2}
[[part]]
policies = ["router"]
updates = 8
population = 1
""")
    settings = {"kd_weight": 0.5, "temperature": 2}
    assert suites.find(str(tmp_path / "mine.toml"))[1].parts == (
        Part("digits", ("uniform",), "digits/mixed", 7, 2, settings=settings),
        Part("digits", ("uniform",), "digits/experts", 7, 2, settings=settings),
        Part("digits", ("router",), None, 8, 1, settings={"kd_weight": 0.5, "temperature": 4}),
    )
