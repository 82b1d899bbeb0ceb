"""The docstrings of the environments: Gymnasium's sections are there, and their tables say what is returned."""

import inspect
import itertools
import re

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from playing import CLASSES, JOINT, KINDS, KNOWLEDGE, TEACHERS, batch, granularities, slots

from kd_env.envs.registration import ENVIRONMENTS

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
    """What a cell of the observation table says: a number of columns, or ``None``."""
    if cell == "-":
        return None
    base, more = re.fullmatch(r"(.*?)(?: \(\+ (.*?)(?: with observe_labels)?\))?", plain(cell)).groups()
    return size(base, known) + (size(more, known) if labels and more else 0)


@pytest.mark.parametrize("name", CLASSES)
def test_every_section_is_there_in_gymnasium_s_order(name):
    found = sections(name)
    assert list(found) == SECTIONS
    assert all(text.strip() for text in found.values())


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_are_those_of_the_constructor(name):
    said = sections(name)["Arguments"].split(", and the fields of")[0]
    parameters = [name for name, one in inspect.signature(CLASSES[name]).parameters.items() if one.kind is not one.VAR_KEYWORD]
    assert [word for word in re.findall(r"``(\w+)``", said) if word not in ("rgb_array", "ansi")] == parameters


@pytest.mark.parametrize("name", CLASSES)
def test_the_vector_form_refers_to_the_other(name):
    vector = load_env_creator(ENVIRONMENTS[name][1])
    assert f":class:`{CLASSES[name].__name__}`" in vector.__doc__
    assert (vector.action_kinds, vector.defaults) == (CLASSES[name].action_kinds, CLASSES[name].defaults)


@pytest.mark.parametrize(("name", "action"), KINDS)
def test_action_spaces_are_those_said(name, action, of_kind):
    text = sections(name)["Action Space"]
    given = of_kind("image", 3)
    known = {"K": 3, "B": SIZE, "M": 4 if name != TEACHERS else 2, **vars(spaces)}
    known["A"] = 3 + known["K"] + known["M"]
    whole = text.partition("``granularity=")[2]
    listed = re.findall(r"``((?:Multi|Discrete|Box)[^`]*)``", whole)
    for granularity in granularities(action):
        if name == JOINT:
            said = re.search(r"^``(Box[^`]*)``", text)[1] if granularity == "instance" else listed[0]
        elif granularity == "batch" and name == TEACHERS:
            said = listed[CLASSES[name].action_kinds.index(action)]
        else:
            said = re.search(rf'``(?:action=)?"{action}"``:\s*``([^`]*)``', text)[1]
        made = batch(name, action=action, granularity=granularity, **given, **SMALL)
        assert made.action_space == eval(said, {}, known), said


def test_factors_are_those_said(of_kind):
    header, rows = table(sections(JOINT)["Action Space"])
    layout = batch(JOINT, **of_kind("image", 3), **SMALL).unwrapped.selection.layout
    assert header == ["factor", "numbers", "meaning"]
    assert {plain(factor): eval(numbers, {"K": 3, "M": 4}) for factor, numbers, _ in rows} == layout.widths
    assert [plain(row[0]) for row in rows] == list(layout.widths)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("num_teachers", [1, 4])
def test_blocks_are_those_said(name, num_teachers, of_kind):
    header, rows = table(sections(name)["Observation Space"])
    sets = [re.search(r'"(\w+)"', cell)[1] for cell in header[1:]]
    assert set(sets) == {"full", "summary", "cls"}
    assert [("default" in cell) for cell in header[1:]] == [True, False, False]
    given = of_kind("image", num_teachers)
    assert batch(name, **given, **SMALL).unwrapped.selection.settings.interface.observation == sets[0]
    known = {"K": num_teachers, "C": CLASSES_OF_DIGITS, "D": STUDENT_WIDTH, "D_k": [8 + 2 * (k % 3) for k in range(num_teachers)]}
    for (column, features), labels in itertools.product(enumerate(sets, 1), [False, True]):
        said = {plain(row[0]): widths(row[column], labels, known) for row in rows}
        said = {block: columns for block, columns in said.items() if columns is not None}
        for granularity in granularities(CLASSES[name].action_kinds[0]):
            options = {**given, **SMALL, "observation": features, "observe_labels": labels, "granularity": granularity}
            rows_at_once = SIZE if granularity == "instance" else 1
            seen, _ = batch(name, **options).reset(seed=0)
            assert {block: values.shape for block, values in seen.items()} == {
                block: (rows_at_once * columns,) for block, columns in said.items()
            }
            many = slots(rows_at_once, name, **options)
            assert {block: box.shape for block, box in many.single_observation_space.items()} == {
                block: (columns,) for block, columns in said.items()
            }


def shape_said(value, known, granularity):
    """``[B, K]``, ``[1, K]`` with ``granularity="batch"`` in numbers."""
    shapes = re.findall(r"\[([^\]]*)\]", value)
    return tuple(eval(one, known) for one in shapes[-1 if granularity == "batch" else 0].split(","))


@pytest.mark.parametrize(("name", "granularity"), [(name, one) for name in CLASSES for one in granularities(CLASSES[name].action_kinds[0])])
@pytest.mark.parametrize("credit", ["shared", "first_order"])
def test_infos_are_those_said(name, granularity, credit, of_kind):
    """In every update of an episode: what is measured is measured every second (improvement) or third (validation), and at the end."""
    header, rows = table(sections(name)["Information"])
    assert header == ["key", "when", "value"]
    given, known = of_kind("image", 3), {"B": SIZE, "K": 3, "M": 4}
    options = {**given, **SMALL, "granularity": granularity, "credit": credit, "reward_every": 2, "validation_every": 3}
    for cost, labels, bonus in itertools.product([0.0, 0.1], [False, True], [0.0, 0.1] if name == KNOWLEDGE else [0.0]):
        chosen = {**options, "teacher_cost": cost, "observe_labels": labels, "exploration_bonus": bonus}
        one, many = batch(name, **chosen), slots(SIZE if granularity == "instance" else 1, name, **chosen)
        infos = [(one.reset(seed=0)[1], many.reset(seed=0)[1])]
        one.action_space.seed(0)
        for _ in range(4):
            action = one.action_space.sample()
            infos.append((one.step(action)[4], many.step(np.reshape(action, many.action_space.shape))[4]))
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
            said = {plain(key): plain(value) for key, when, value in rows if holds.get(plain(when), measured.get(plain(key)))}
            assert names(info) == names(info_of_slots) == set(said)
            for key in {"example_ids", "credit", "knowledge_credit"} & said.keys():
                assert info[key].shape == shape_said(said[key], known, granularity)
            if update > 0:
                assert type(info["diverged"]).__name__ == said["diverged"]
            if 'reward_terms["student_ce"]' in said:
                assert info["reward_terms"]["student_ce"].shape == shape_said(said['reward_terms["student_ce"]'], known, "instance")
        assert info["validation"] == one.unwrapped.distillation.validate()[1][0]


def names(info):
    """The keys of an info, those of its inner dict as the table has them; Gymnasium's masks left out."""
    inner = {f'reward_terms["{name}"]' for name in info.get("reward_terms", {})}
    return {name for name in (*info, *inner) if not name.removeprefix('reward_terms["').startswith("_")}
