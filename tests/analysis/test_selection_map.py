"""Selection maps against the means of traces."""

import math

import numpy as np
import pytest

from kd_env.analysis.selection_map import mean_over_seeds, read_selection_map, selection_map
from kd_env.analysis.traces import read_trace, selection_by_group
from kd_env.errors import InputError

# (update, slot, group, teacher, weight)
ROWS = [(0, 0, 0, 0, 1.0), (0, 1, 1, 0, 0.5), (0, 1, 1, 1, 0.5), (1, 0, 0, -1, 0.0), (1, 1, 1, 1, 1.0)]


def random_rows(seed, updates=37):
    """Decisions with up to three teachers each, groups -1 to 1."""
    rng = np.random.default_rng(seed)
    rows = []
    for update in range(5, 5 + updates):
        for slot in range(4):
            group, teachers = int(rng.integers(-1, 2)), np.flatnonzero(rng.random(3) < 0.5)
            rows += [(update, slot, group, int(k), 1 / len(teachers)) for k in teachers] or [(update, slot, group, -1, 0.0)]
    return rows


def test_a_map_by_hand(write):
    selected = read_selection_map(write(ROWS))
    assert selected.weights.tolist() == [[[1, 0], [0, 0], [0, 0]], [[0.5, 0], [0.5, 1], [0, 0]]]
    assert (selected.groups, selected.teachers, selected.seeds, selected.teaches) == (("a", "b"), ("p", "q", "r"), 1, True)
    assert selected.updates.tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_a_map_has_the_means_of_selection_by_group(write, seed):
    path = write(random_rows(seed))
    trace = read_trace(path)
    expected = selection_by_group(trace, 6).set_index(["group", "teacher", "update"])["weight"].sort_index()
    selected = selection_map(trace, 6)
    groups = {"a": 0, "b": 1, "group unknown": -1}
    for g, name in enumerate(selected.groups):
        for k in range(3):
            np.testing.assert_allclose(selected.weights[g, k], expected.loc[groups[name], k].to_numpy(), atol=1e-6)
    from_file = read_selection_map(path, 6)
    np.testing.assert_array_equal(from_file.weights, selected.weights)
    assert selected.updates.tolist() == [5, 12, 18, 24, 30, 36, 42]


def test_the_mean_over_seeds_is_over_the_seeds_that_have_the_group(write):
    first, second = selection_map(read_trace(write(ROWS))), selection_map(read_trace(write([row for row in ROWS if row[2] == 1])))
    mean = mean_over_seeds([first, second._replace(weights=second.weights * 0)])
    assert mean.groups == ("a", "b")
    assert mean.seeds == 2
    assert mean.weights[0].tolist() == first.weights[0].tolist()
    assert mean.weights[1].tolist() == (first.weights[1] / 2).tolist()


def test_a_group_without_decisions_in_a_bin_is_unknown_there(write):
    selected = selection_map(read_trace(write([(0, 0, 0, 0, 1.0), (1, 0, 1, 0, 1.0)])))
    assert math.isnan(selected.weights[0, 0, 1])
    assert selected.weights[0, 0, 0] == 1


def test_a_policy_that_never_selects_teaches_nothing(write):
    assert not selection_map(read_trace(write([(0, 0, 0, -1, 0.0)]))).teaches


def test_maps_that_cannot_be_made_are_refused(write, tmp_path):
    with pytest.raises(InputError, match="not a trace"):
        read_selection_map(tmp_path / "missing.parquet")
    with pytest.raises(InputError, match="at least one update"):
        read_selection_map(write([]))
    first, second = selection_map(read_trace(write(ROWS))), selection_map(read_trace(write(ROWS, teachers=("p", "q"))))
    with pytest.raises(InputError, match="different teachers"):
        mean_over_seeds([first, second])
    long, short = (selection_map(read_trace(write(random_rows(0, updates)))) for updates in (400, 100))
    assert len(long.updates) == len(short.updates)
    with pytest.raises(InputError, match="or bins"):
        mean_over_seeds([long, short])
