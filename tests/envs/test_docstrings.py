"""The docstrings of the environments: Gymnasium's sections are there, and their tables are true."""

import inspect
import pkgutil
import re

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from pairwise import pairwise
from playing import ACTIONS_OF, CLASSES, EVERY, GRANULARITIES, JOINT, KNOWLEDGE, TEACHERS, batch, granularities, slots

from kd_env.envs.registration import ENVIRONMENTS
from kd_env.envs.settings import Settings

SECTIONS = [
    "Description",
    "Action Space",
    "Observation Space",
    "Rewards",
    "Starting State",
    "Episode End",
    "Information",
    "Arguments",
    "Version History",
]
SIZE, STUDENT_WIDTH, CLASSES_OF_DIGITS = 3, 6, 10
SMALL = {"batch_size": SIZE, "student": f"mlp(width={STUDENT_WIDTH},depth=2)", "updates": 4, "kd_weight": 0.5}


def sections(name):
    parts = re.split(r"^## (.*)\n", inspect.cleandoc(CLASSES[name].__doc__), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(text):
    """Header and rows of a markdown table, as lists of cells."""
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line.startswith("|")]
    assert set("".join(rows[1])) <= set("|-"), "the second line is the ruler"
    return rows[0], rows[2:]


def plain(text):
    return text.replace("``", "")


def size(formula, known):
    """``K * C``, ``2 K`` or ``D_1 + ... + D_K`` in numbers."""
    formula = re.sub(r"(\d) (\w)", r"\1 * \2", formula.replace("D_1 + ... + D_K", "sum(D_k)"))
    return eval(formula, {"__builtins__": {}, "sum": sum}, known)


def widths(cell, labels, known):
    """The number of columns in a cell of the observation table, or ``None``."""
    if cell == "-":
        return None
    base, more = re.fullmatch(r"(.*?)(?: \(\+ (.*?)(?: with observe_labels)?\))?", plain(cell)).groups()
    return size(base, known) + (size(more, known) if labels and more else 0)


@pytest.mark.parametrize("name", CLASSES)
def test_every_section_is_there_in_gymnasium_s_order(name):
    texts = sections(name)
    assert list(texts) == SECTIONS
    assert all(text.strip() for text in texts.values())


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_are_those_of_the_constructor(name):
    listed, settings = re.split(r",\s+and\s+the\s+fields\s+of", sections(name)["Arguments"])
    signature = inspect.signature(CLASSES[name]).parameters.items()
    parameters = [name for name, parameter in signature if parameter.kind is not parameter.VAR_KEYWORD]
    values = ("rgb_array", "ansi", "full", "minimal")
    assert [word for word in re.findall(r"``(\w+)``", listed) if word not in values] == parameters
    (group,) = re.findall(r":class:`([\w.]+)`", settings)
    assert pkgutil.resolve_name(group) is Settings


@pytest.mark.parametrize("name", CLASSES)
def test_the_vector_form_refers_to_the_other(name):
    vector = load_env_creator(ENVIRONMENTS[name][1])
    assert f":class:`{CLASSES[name].__name__}`" in vector.__doc__
    assert (vector.action_base, vector.defaults) == (CLASSES[name].action_base, CLASSES[name].defaults)


@pytest.mark.parametrize("name", CLASSES)
def test_action_spaces_are_those_of_the_docstring(name, untrained):
    text = sections(name)["Action Space"]
    pool = untrained("image", 3)
    known = {"K": 3, "B": SIZE, "M": 4 if name != TEACHERS else 2, **vars(spaces)}
    known["A"] = 3 + known["K"] + known["M"]
    whole = text.partition("``granularity=")[2]
    listed = re.findall(r"``((?:Multi|Discrete|Box)[^`]*)``", whole)
    for action, granularity in [decided[1:] for decided in EVERY if decided[0] == name]:
        if name == JOINT:
            stated = re.search(r"^``(Box[^`]*)``", text)[1] if granularity == "instance" else listed[0]
        elif granularity == "batch" and name == TEACHERS:
            stated = listed[ACTIONS_OF[name].index(action)]
        else:
            stated = re.search(rf'``(?:action=)?"{action}"``:\s*``([^`]*)``', text)[1]
        env = batch(name, action=action, granularity=granularity, **pool, **SMALL)
        assert env.action_space == eval(stated, {}, known), stated


def test_factors_are_those_of_the_docstring(untrained):
    header, rows = table(sections(JOINT)["Action Space"])
    layout = batch(JOINT, **untrained("image", 3), **SMALL).unwrapped.selection.layout
    assert header == ["factor", "numbers", "meaning"]
    assert {plain(factor): eval(numbers, {"K": 3, "M": 4}) for factor, numbers, _ in rows} == layout.widths
    assert [plain(row[0]) for row in rows] == list(layout.widths)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("num_teachers", [1, 4])
def test_blocks_are_those_of_the_docstring(name, num_teachers, untrained):
    header, rows = table(sections(name)["Observation Space"])
    sets = [re.search(r'"(\w+)"', cell)[1] for cell in header[1:]]
    assert set(sets) == {"full", "summary", "cls"}
    assert [("default" in cell) for cell in header[1:]] == [True, False, False]
    pool = untrained("image", num_teachers)
    assert batch(name, **pool, **SMALL).unwrapped.selection.settings.interface.observation == sets[0]
    known = {"K": num_teachers, "C": CLASSES_OF_DIGITS, "D": STUDENT_WIDTH, "D_k": [8 + 2 * (k % 3) for k in range(num_teachers)]}
    possible = granularities(ACTIONS_OF[name][0])
    for observation, labels, granularity in pairwise(sets, [False, True], possible):
        column = sets.index(observation) + 1
        stated = {plain(row[0]): widths(row[column], labels, known) for row in rows}
        stated = {block: columns for block, columns in stated.items() if columns is not None}
        options = {**pool, **SMALL, "observation": observation, "observe_labels": labels, "granularity": granularity}
        rows_at_once = SIZE if granularity == "instance" else 1
        blocks, _ = batch(name, **options).reset(seed=0)
        assert {block: values.shape for block, values in blocks.items()} == {
            block: (rows_at_once * columns,) for block, columns in stated.items()
        }
        many = slots(rows_at_once, name, **options)
        assert {block: box.shape for block, box in many.single_observation_space.items()} == {
            block: (columns,) for block, columns in stated.items()
        }


def stated_shape(value, known, granularity):
    """``[B, K]``, ``[1, K]`` with ``granularity="batch"`` in numbers."""
    shapes = re.findall(r"\[([^\]]*)\]", value)
    return tuple(eval(size, known) for size in shapes[-1 if granularity == "batch" else 0].split(","))


@pytest.mark.parametrize(
    ("name", "granularity", "credit"),
    pairwise(
        CLASSES,
        GRANULARITIES,
        ["shared", "first_order"],
        legal=lambda name, granularity, credit: granularity in granularities(ACTIONS_OF[name][0]),
    ),
)
def test_infos_are_those_of_the_docstring(name, granularity, credit, untrained):
    """In every update of an episode; improvement is measured every second update, validation every third, both at the end."""
    header, rows = table(sections(name)["Information"])
    assert header == ["key", "when", "value"]
    known = {"B": SIZE, "K": 3, "M": 4}
    options = {"granularity": granularity, "credit": credit, "reward_every": 2, "validation_every": 3}
    for cost, labels, bonus in pairwise([0.0, 0.1], [False, True], [0.0, 0.1] if name == KNOWLEDGE else [0.0]):
        options |= {"teacher_cost": cost, "observe_labels": labels, "exploration_bonus": bonus}
        every = {**untrained("image", 3), **SMALL, **options}
        whole, many = batch(name, **every), slots(SIZE if granularity == "instance" else 1, name, **every)
        infos = [(whole.reset(seed=0)[1], many.reset(seed=0)[1])]
        whole.action_space.seed(0)
        for _ in range(4):
            action = whole.action_space.sample()
            infos.append((whole.step(action)[4], many.step(np.reshape(action, many.action_space.shape))[4]))
        for update, (info, info_of_slots) in enumerate(infos):
            holds = {
                "always": True,
                "after a step": update > 0,
                'unless credit="shared"': update > 0 and credit != "shared",
                "with a teacher_cost": update > 0 and cost > 0,
                "with an exploration_bonus": update > 0 and bonus > 0,
                "with observe_labels": update > 0 and labels,
            }
            measured = {"validation": update in (3, 4), 'reward_terms["improvement"]': update in (2, 4) and credit == "shared"}
            stated = {plain(key): plain(value) for key, when, value in rows if holds.get(plain(when), measured.get(plain(key)))}
            assert names(info) == names(info_of_slots) == set(stated)
            for key in {"example_ids", "credit", "knowledge_credit"} & stated.keys():
                assert info[key].shape == stated_shape(stated[key], known, granularity)
            if update > 0:
                assert type(info["diverged"]).__name__ == stated["diverged"]
            if 'reward_terms["student_ce"]' in stated:
                assert info["reward_terms"]["student_ce"].shape == stated_shape(stated['reward_terms["student_ce"]'], known, "instance")
        assert info["validation"] == whole.unwrapped.distillation.validate()[1][0]


def names(info):
    """The keys of an info, those of its inner dict as the table has them; Gymnasium's masks left out."""
    inner = {f'reward_terms["{name}"]' for name in info.get("reward_terms", {})}
    return {name for name in (*info, *inner) if not name.removeprefix('reward_terms["').startswith("_")}
