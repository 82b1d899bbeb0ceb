"""What environments, populations and forks show of their episodes."""

import itertools

import numpy as np
import pytest
from pairwise import chosen
from playing import CLASSES, KINDS, KNOWLEDGE, TEACHERS, batch, recorded_steps, slots

from kd_env.envs import render


def labels_of(name):
    types = ["response", "layer", "relation", "label"]
    return {TEACHERS: ["upright", "inverted", "mirrored", "transposed"], KNOWLEDGE: types}.get(name) or [*labels_of(TEACHERS), *types]


def rates_of(shown):
    """The selection rates of a text, by label."""
    return {line.split()[0]: float(line.split()[-1].replace("–", "nan")) for line in shown.split("\n")[2:-2]}


@pytest.mark.parametrize(("name", "action"), KINDS)
def test_an_environment_shows_what_was_selected_paid_and_measured(name, action):
    env = batch(name, action=action, render_mode="ansi", kd_weight=0.5, updates=50, validation_every=2)
    env.reset(seed=0)
    assert [*rates_of(env.render())] == labels_of(name)
    steps = recorded_steps(env)
    for update in range(1, 4):
        *_, reward, _, _, info = env.step(env.action_space.sample())
        shown, decoded = env.render(), steps[-1].action
        assert shown.startswith(f"update {update}/50 ")
        assert f"reward {render._number(reward)} " in shown
        selected = [] if name == KNOWLEDGE else [*decoded.weights.mean(0)]
        selected += [] if name == TEACHERS else [*decoded.gates.mean(0)]
        assert [*rates_of(shown).values()] == pytest.approx(selected, abs=1e-4)
        if "validation" in info:
            assert shown.endswith(f"validation {info['validation']:.4f} at update 2, best {info['validation']:.4f} at update 2")
    assert "at update 2" in shown
    env.reset(seed=1)
    assert env.render().startswith("update 0/50 "), "a new episode is drawn anew"


@pytest.mark.parametrize(
    ("name", "mode"),
    chosen(itertools.product(CLASSES, ["rgb_array", "ansi"]), [*((name, "ansi") for name in CLASSES), (KNOWLEDGE, "rgb_array")]),
)
def test_both_forms_show_both_modes_of_every_environment(name, mode):
    size = 1 if name == KNOWLEDGE else 3
    whole, many = batch(name, render_mode=mode), slots(size, name, render_mode=mode, **{"batch_size": 3} if size == 1 else {})
    for env in (whole, many):
        env.reset(seed=0)
    for _ in range(2):
        action = whole.action_space.sample()
        whole.step(action)
        many.step(np.reshape(action, many.action_space.shape))
    shown, shown_of_slots = whole.render(), many.render()
    assert len(shown_of_slots) == many.num_envs
    assert all(np.array_equal(shown, shown_of_slot) for shown_of_slot in shown_of_slots)
    assert shown.shape == (render.HEIGHT, render.WIDTH, 3) if mode == "rgb_array" else shown.startswith("update 2/4 ")


def test_each_student_of_a_population_is_shown_and_begins_alone():
    env = slots(3, KNOWLEDGE, num_students=3, batch_size=2, render_mode="ansi", action="hard", autoreset_mode="disabled")
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.eye(3, dtype=np.int8))
    shown = env.render()
    assert [rates_of(text_of_student) for text_of_student in shown] == [
        dict(zip(rates_of(shown[0]), row, strict=True)) for row in np.eye(3)
    ]
    env.reset(options={"reset_mask": np.array([False, True, False])})
    assert [shown.split()[1] for shown in env.render()] == ["2/4", "0/4", "2/4"]
    env.step(np.eye(3, dtype=np.int8))
    assert [shown.split()[1] for shown in env.render()] == ["3/4", "1/4", "3/4"]


@pytest.mark.parametrize(
    ("name", "students"),
    chosen(itertools.product(CLASSES, [1, 2]), [(name, [2, 1, 2][number]) for number, name in enumerate(CLASSES)]),
)
def test_a_fork_shows_the_same_and_goes_its_own_way(name, students):
    """The history before stays; a restored environment begins a history where it is."""
    options = {"num_students": students, "render_mode": "ansi"}
    env, other = (slots(2 if name != KNOWLEDGE else students, name, **options) for _ in range(2))
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(3)]
    env.step(actions[0])
    env.step(actions[1])
    state, twin, before = env.unwrapped.snapshot(), env.unwrapped.fork(), env.render()
    assert twin.render() == before
    env.step(actions[2])
    assert twin.render() == before
    assert env.render() != before
    twin.step(actions[2])
    assert twin.render() == env.render()
    other.unwrapped.restore(state)
    assert [shown.split()[1] for shown in other.render()] == ["2/4"] * other.num_envs
    other.step(actions[2])
    assert [shown.split()[1] for shown in other.render()] == ["3/4"] * other.num_envs


def test_a_batch_s_fork_and_restore_show_too():
    env = batch(render_mode="ansi")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    state, twin = env.unwrapped.snapshot(), env.unwrapped.fork()
    assert twin.render() == env.render()
    env.step(env.action_space.sample())
    assert twin.render().startswith("update 1/4 ")
    env.unwrapped.restore(state)
    assert env.render().startswith("update 1/4 ")
    assert "–" in env.render(), "the history is not part of a snapshot"


@pytest.mark.parametrize("make", [batch, slots])
def test_without_a_mode_there_is_nothing_to_show_and_a_warning(make):
    env = make().unwrapped
    env.reset(seed=0)
    with pytest.warns(UserWarning, match='does nothing without a render_mode; make the .* with render_mode="rgb_array" or "ansi"'):
        assert env.render() is None


def test_a_student_that_diverges_is_still_drawn():
    env = batch(render_mode="ansi", optimizer="sgd(lr=1e30)", updates=20)
    env.reset(seed=0)
    terminated = False
    while not terminated:
        *_, reward, terminated, _, _ = env.step(np.ones(12, dtype=np.int8))
        assert "nan" not in env.render()
    assert reward == -10.0
    assert "reward -10.0000" in env.render()
