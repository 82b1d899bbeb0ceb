"""Names that hold commas, in lists of names."""

import pytest

from kd_env.cli import invoke
from kd_env.teachers import load_pool
from kd_env.teachers.names import split_names
from kd_env.teachers.pool_recipes import POOLS, PoolRecipe
from kd_env.teachers.train_recipe import TeacherRecipe

GROUPS = ("Arts, Crafts & Sewing", "Arts", "Toys")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Arts, Crafts & Sewing", ["Arts, Crafts & Sewing"]),
        ("Toys,Arts, Crafts & Sewing", ["Toys", "Arts, Crafts & Sewing"]),
        ("Arts,Toys", ["Arts", "Toys"]),
        ("a, b", ["a", "b"]),
        ("x(classes=a=b,c),y", ["x(classes=a=b,c)", "y"]),
        ("", []),
    ],
)
def test_the_longest_known_name_is_taken(text, names):
    assert split_names(text, GROUPS) == names


def test_a_teacher_of_a_built_in_pool_may_have_a_comma_in_its_name(own_data, tmp_path, monkeypatch, capsys):
    text = (own_data / "train.tsv").read_text().replace("\ta\n", "\tArts, Crafts & Sewing\n").replace("\tb\n", "\tToys\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.tsv").write_text(text)
    quick = TeacherRecipe("expert", "tiny-bert(width=8,layers=1)", epochs=1)
    monkeypatch.setitem(POOLS, "text/experts", PoolRecipe("quick", expert=quick))
    options = ["--teachers", "text/experts/Arts, Crafts & Sewing", "--teachers", "text/experts/Toys"]
    assert invoke(["bank", "--task", f"folder:{tmp_path}/data", *options, "--quiet", "--out", f"{tmp_path}/bank"]) == 0
    assert f"bank {tmp_path}/bank: Arts, Crafts & Sewing, Toys; fingerprint " in capsys.readouterr().out


def test_a_pool_may_be_a_list_that_a_function_returns(own_task, tmp_path, monkeypatch):
    (tmp_path / "pool_of_two.py").write_text(
        "import numpy as np\n"
        "def short(texts):\n    return np.array([[len(text) < 40, len(text) >= 40] for text in texts], dtype=float)\n"
        "def pool(task):\n    return [short, lambda texts: np.zeros((len(texts), task.num_classes))]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    pool = load_pool("pool_of_two:pool", own_task)
    assert (pool.name, pool.names) == ("pool_of_two:pool", ("short", "function"))
