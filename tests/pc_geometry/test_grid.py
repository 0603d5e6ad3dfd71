import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_geometry.grid import (
    as_columns,
    build_grid,
    neighbor_spans,
    number_cells,
    require_radius,
)

from tests.lanes import unchecked_only
from tests.pc_geometry.clouds import KINDS, cloud


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 3])
def test_points_are_sorted_by_cell_then_index(kind, d):
    points = cloud(np.random.default_rng(0), kind, 200, d).astype(np.float32)
    xyz = as_columns(points)
    number, _ = number_cells(xyz, 0.7, 1)
    grid = build_grid(xyz, number)
    np.testing.assert_array_equal(grid.order, np.argsort(number, kind="stable"))
    np.testing.assert_array_equal(grid.xyz, xyz[:, grid.order])
    key, count = np.unique(number, return_counts=True)
    np.testing.assert_array_equal(grid.key, key)
    np.testing.assert_array_equal(grid.start, np.append(0, np.cumsum(count)))
    np.testing.assert_array_equal(grid.key[grid.cell_of_point], number)


def test_one_number_for_one_cell():
    rng = np.random.default_rng(0)
    xyz = as_columns(rng.uniform(-20, 20, (500, 3)))
    number, step = number_cells(xyz, 3.0, 2)
    place = np.floor((xyz - xyz.min(axis=1, keepdims=True)) / 3.0).astype(int)
    np.testing.assert_array_equal(
        number - number.min(),
        np.array(step) @ place - number.min() + (number[0] - np.array(step) @ place[:, 0]),
    )
    assert len(np.unique(number)) == len(np.unique(place, axis=1).T)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), side=st.sampled_from([1e-6, 0.5, 3.0]), reach=st.integers(1, 2))
def test_wide_gaps_close_but_near_cells_stay_apart_as_they_were(seed, side, reach):
    # Blocks of points 10^5 apart: too many cells of 1e-6 along three axes for one integer.
    rng = np.random.default_rng(seed)
    xyz = as_columns(rng.integers(0, 3, (40, 3)) * 1e5 + rng.integers(0, 5, (40, 3)) * side)
    number, step = number_cells(xyz, side, reach)
    place = np.floor((xyz - xyz.min(axis=1, keepdims=True)) / side).astype(np.int64)
    apart = place[:, :, None] - place[:, None]  # [3 n n]
    near = (np.abs(apart) <= reach).all(axis=0)
    added = number[:, None] - number
    np.testing.assert_array_equal(added[near], np.tensordot(np.array(step), apart, 1)[near])
    around = np.arange(-reach, reach + 1)
    reached = (np.stack(np.meshgrid(around, around, around), -1) @ np.array(step)).ravel()
    np.testing.assert_array_equal(np.isin(added, reached), near)


@pytest.mark.parametrize("n", [1, 2, 50])
def test_spans_hold_the_points_of_adjacent_cells(n):
    rng = np.random.default_rng(n)
    xyz = as_columns(rng.uniform(0, 6, (n + 20, 3)))
    number, step = number_cells(xyz, 1.5, 1)
    place = np.floor((xyz - xyz.min(axis=1, keepdims=True)) / 1.5)
    cells, grid = build_grid(xyz[:, :n], number[:n]), build_grid(xyz[:, n:], number[n:])
    spans = neighbor_spans(cells, grid, step)
    for i in range(n):
        rows = spans[cells.cell_of_point[i]]
        found = np.concatenate([grid.order[lo:hi] for lo, hi in rows])
        near = np.abs(place[:, n:] - place[:, i : i + 1]).max(axis=0) <= 1
        assert sorted(found.tolist()) == np.flatnonzero(near).tolist()


def test_too_many_cells():
    with pytest.raises(ValueError, match=r"radius is too small .* 2e\+12 cells of 1 along an axis"):
        number_cells(as_columns(np.array([[0.0, 0], [2e12, 0]])), 1.0, 1)
    with pytest.raises(ValueError, match=r"radius is too small .* inf cells"):
        number_cells(as_columns(np.array([[-1e308, 0], [1e308, 0]])), 1.0, 1)


def test_too_many_layers():
    spread = np.arange(700_000.0) * 4  # three axes of 2.1 million layers each
    with pytest.raises(ValueError, match=r"2100002 x 2100002 x 2100002 layers of cells of 1"):
        number_cells(np.stack([spread] * 3), 1.0, 2)


@unchecked_only
def test_radius_is_a_plain_number():
    assert type(require_radius(np.float32(0.5))) is float
