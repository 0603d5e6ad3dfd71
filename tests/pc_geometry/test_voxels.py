import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pc_geometry import voxel_coordinates, voxel_subsample
from pc_geometry.keys import cell_keys, make_grid, point_keys
from pc_geometry.voxels import find_voxels, occupied_volumes

from tests.lanes import compiled_only, unchecked_only
from tests.real_data import REAL_DATA, needs_real_data

SCAN = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne/000000.bin"


def naive_coordinates(points, voxel_size, origin):
    return np.floor((points.astype(np.float64) - origin) / voxel_size).astype(np.int64)


def naive_subsample(points, voxel_size):
    """A dictionary from voxel to number, in file order."""
    numbers, indices, inverse = {}, [], []
    for i, cell in enumerate(map(tuple, naive_coordinates(points, voxel_size, points.min(0)))):
        if cell not in numbers:
            numbers[cell] = len(numbers)
            indices.append(i)
        inverse.append(numbers[cell])
    return np.array(indices), np.array(inverse)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [2, 3])
def test_coordinates_equal_the_definition(dtype, d):
    points = (np.random.default_rng(0).normal(size=(200, d)) * 50).astype(dtype)
    expected = naive_coordinates(points, 0.1, points.min(axis=0).astype(np.float64))
    cells = voxel_coordinates(points, 0.1)
    assert cells.dtype == np.int64
    np.testing.assert_array_equal(cells, expected)
    assert (cells.min(axis=0) == 0).all()
    origin = np.linspace(-3, 4, d)
    expected = naive_coordinates(points, 0.1, origin)
    np.testing.assert_array_equal(voxel_coordinates(points, 0.1, origin=origin), expected)


def test_coordinates_round_down_below_the_origin():
    points = np.array([[-0.1, -1.0], [-1.1, 0.0]])
    assert voxel_coordinates(points, 1.0, origin=np.zeros(2)).tolist() == [[-1, -1], [-2, 0]]


@pytest.mark.parametrize("voxel_size", [0.01, 0.5, 3.0, 1000.0])
@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_first_point_of_each_voxel(voxel_size, d, dtype):
    points = (np.random.default_rng(0).normal(size=(300, d)) * 3).astype(dtype)
    points[200:] = points[:100]
    indices, inverse = voxel_subsample(points, voxel_size)
    assert indices.dtype == inverse.dtype == np.int64
    expected_indices, expected_inverse = naive_subsample(points, voxel_size)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(inverse, expected_inverse)


@settings(max_examples=40, deadline=None)
@given(
    points=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.integers(2, 3)),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    voxel_size=st.floats(0.01, 1e7),
)
def test_any_cloud_equals_the_dictionary(points, voxel_size):
    for ours, expected in zip(
        voxel_subsample(points, voxel_size), naive_subsample(points, voxel_size), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


def test_tiny_and_empty_clouds():
    for n in (0, 1, 2):
        indices, inverse = voxel_subsample(np.zeros((n, 3), np.float32), 0.1)
        assert indices.tolist() == [0][:n]
        assert inverse.tolist() == [0] * n
    assert voxel_coordinates(np.zeros((0, 3), np.float32), 0.1).shape == (0, 3)


def test_kilometres_between_points_need_no_volume():
    points = np.array([[0.0, 0, 0], [2e7, 2e7, 2e7], [0, 2e7, 0], [2e7, 2e7, 2e7 + 0.001]])
    indices, inverse = voxel_subsample(points, 0.01)
    assert indices.tolist() == [0, 1, 2]
    assert inverse.tolist() == [0, 1, 2, 1]


def test_random_choice_keeps_voxels_and_numbering():
    points = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    first, inverse = voxel_subsample(points, 0.7)
    chosen, same_inverse = voxel_subsample(points, 0.7, rng=np.random.default_rng(1))
    again, _ = voxel_subsample(points, 0.7, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(same_inverse, inverse)
    np.testing.assert_array_equal(inverse[chosen], np.arange(len(chosen)))
    np.testing.assert_array_equal(chosen, again)
    assert (chosen != first).any()


def test_random_choice_is_uniform():
    points = np.repeat(np.float32([[0, 0], [5, 5]]), 4, axis=0)
    rng = np.random.default_rng(0)
    draws = np.array([voxel_subsample(points, 1.0, rng=rng)[0] for _ in range(2000)])
    for voxel in range(2):
        counts = np.bincount(draws[:, voxel] - 4 * voxel, minlength=4)
        # Binomial(2000, 1/4) has a standard deviation of 19.4; five of them.
        assert np.abs(counts - 500).max() < 97


def test_integer_lattices_and_their_borders():
    axis = np.arange(-3, 4)
    lattice = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3).astype(np.float64)
    for points in (lattice, lattice * 0.5, lattice * 2 - 1):
        for ours, expected in zip(
            voxel_subsample(points, 2.0), naive_subsample(points, 2.0), strict=True
        ):
            np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("n", [255, 256, 257, 600])
def test_any_number_of_points(n):
    points = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    for ours, expected in zip(
        voxel_subsample(points, 0.8), naive_subsample(points, 0.8), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


def naive_find(cells, query):
    positions = {}
    for i, cell in enumerate(map(tuple, cells.tolist())):
        positions.setdefault(cell, i)
    return [positions.get(tuple(cell), -1) for cell in query.tolist()]


@settings(max_examples=30, deadline=None)
@given(
    data=st.data(),
    d=st.integers(1, 4),
    n=st.integers(0, 30),
    m=st.integers(0, 10),
    reach=st.sampled_from([2, 1000, 2**31 - 1]),
)
def test_find_voxels_equals_the_dictionary(data, d, n, m, reach):
    entries = st.integers(-reach, reach)
    cells = data.draw(hnp.arrays(np.int64, (n, d), elements=entries))
    query = data.draw(hnp.arrays(np.int64, (m, d), elements=entries))
    query = np.concatenate([query, cells[::3]])
    found = find_voxels(cells, query)
    assert found.dtype == np.int64
    assert found.tolist() == naive_find(cells, query)


def test_find_voxels_where_digits_run_out():
    rng = np.random.default_rng(0)
    corners = np.array([-(2**31) + 1, -1, 0, 2**31 - 1])
    cells, query = corners[rng.integers(0, 4, (60, 4))], corners[rng.integers(0, 4, (40, 4))]
    found = find_voxels(cells, query).tolist()
    assert found == naive_find(cells, query)
    assert -1 in found
    assert max(found) > 0


def test_find_voxels_refuses():
    cells = np.zeros((2, 3), np.int64)
    with pytest.raises(ValueError, match="at most 2147483647 from 0, got entries from 0 to 214748"):
        find_voxels(cells, cells + 2**31)


@compiled_only
@needs_real_data
def test_neighbors_of_voxels_on_a_real_scan():
    points = np.fromfile(SCAN, np.float32).reshape(-1, 4)[:, :3]
    cells = np.unique(voxel_coordinates(points, 0.2), axis=0)
    beside = cells + np.array([1, 0, 0])
    found = find_voxels(cells, beside)
    np.testing.assert_array_equal(cells[found[found >= 0]], beside[found >= 0])
    key, beside_key = (c @ np.array([1 << 40, 1 << 20, 1]) for c in (cells, beside))
    np.testing.assert_array_equal(found >= 0, np.isin(beside_key, key))


def naive_volumes(points, size, origin, min_points):
    cells = [tuple(c) for c in naive_coordinates(points, np.array(size), origin).tolist()]
    numbers = {}
    for cell in cells:
        if cells.count(cell) >= min_points:
            numbers.setdefault(cell, len(numbers))
    return [numbers.get(cell, -1) for cell in cells]


@pytest.mark.parametrize("size", [1.5, (1.0, 2.0, 4.0)])
@pytest.mark.parametrize("min_points", [1, 3, 1000])
def test_volumes_equal_the_dictionary(size, min_points):
    points = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32) * 2
    volume = occupied_volumes(points, size, min_points=min_points)
    assert volume.dtype == np.int64
    lowest = points.min(axis=0).astype(np.float64)
    assert volume.tolist() == naive_volumes(points, size, lowest, min_points)
    origin = np.array([0.3, -40.0, 90.0])
    volume = occupied_volumes(points, size, origin=origin, min_points=min_points)
    assert volume.tolist() == naive_volumes(points, size, origin, min_points)


def test_volumes_of_tiny_and_empty_scenes():
    assert occupied_volumes(np.zeros((0, 3), np.float32), 1.0).shape == (0,)
    assert occupied_volumes(np.zeros((0, 3), np.float32), 1.0, min_points=2).shape == (0,)
    assert occupied_volumes(np.ones((1, 3), np.float32), 1.0).tolist() == [0]
    assert occupied_volumes(np.ones((1, 3), np.float32), 1.0, min_points=2).tolist() == [-1]


def test_volumes_refuse():
    points = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"size must be positive and finite \(one number, or 3"):
        occupied_volumes(points, (1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="size must be positive and finite, got -1"):
        occupied_volumes(points, -1.0)
    with pytest.raises(ValueError, match="min_points must be at least 1, got 0"):
        occupied_volumes(points, 1.0, min_points=0)
    with pytest.raises(ValueError, match="origin must be 3 finite numbers"):
        occupied_volumes(points, 1.0, origin=np.array([0.0, np.nan, 0.0]))


@compiled_only
@needs_real_data
def test_agrees_with_unique_on_a_real_scan():
    points = np.fromfile(SCAN, np.float32).reshape(-1, 4)[:, :3]
    indices, inverse = voxel_subsample(points, 0.1)
    cells = naive_coordinates(points, 0.1, points.min(axis=0).astype(np.float64))
    _, first, group = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(indices, np.sort(first))
    np.testing.assert_array_equal(indices[inverse], first[group.ravel()])


@compiled_only
def test_a_lattice_keeps_every_point():
    axis = np.arange(-40, 40, dtype=np.float32)
    lattice = np.stack(np.meshgrid(axis, axis * 16, axis * 256), axis=-1).reshape(-1, 3)
    indices, _ = voxel_subsample(lattice, 1.0)
    assert len(indices) == len(lattice)


@pytest.mark.parametrize("voxel_size", [0.0, -0.1, np.inf, np.nan])
def test_voxel_size_must_be_positive(voxel_size):
    with pytest.raises(ValueError, match="voxel_size must be positive and finite, got"):
        voxel_subsample(np.zeros((2, 3), np.float32), voxel_size)


def test_too_many_voxels_on_an_axis():
    points = np.array([[0.0, 0.0], [3e9, 1.0]])
    with pytest.raises(ValueError, match="puts 1 coordinates more than 2147483647 voxels"):
        voxel_subsample(points, 1.0)
    with pytest.raises(ValueError, match="take larger voxels or drop the outliers"):
        voxel_coordinates(-points, 1.0, origin=np.zeros(2))


def test_not_finite_tells_how_many():
    points = np.zeros((4, 3), np.float32)
    points[2, 1] = np.nan
    with pytest.raises(ValueError, match="points must be finite, got 1 of 4 points"):
        voxel_subsample(points, 0.1)


@unchecked_only
def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"d = 2 or 3, got \(5,\)"):
        voxel_subsample(np.zeros(5, np.float32), 0.1)
    with pytest.raises(ValueError, match="origin must be 3 finite numbers"):
        voxel_coordinates(np.zeros((5, 3), np.float32), 0.1, origin=np.zeros(2))
    with pytest.raises(ValueError, match=r"same d, got \(2, 3\) and \(2, 2\)"):
        find_voxels(np.zeros((2, 3), np.int64), np.zeros((2, 2), np.int64))


@pytest.mark.parametrize("d", [2, 3])
def test_borders_are_where_the_quotient_says(d):
    # Multiplying with 1 / 0.1 instead puts 47 of these one voxel off.
    borders = np.repeat(np.arange(1000)[:, None] * 0.1, d, axis=1)
    np.testing.assert_array_equal(voxel_coordinates(borders, 0.1), np.floor(borders / 0.1))
    for ours, expected in zip(
        voxel_subsample(borders, 0.1), naive_subsample(borders, 0.1), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


def test_voxels_whose_digits_run_out_stay_apart():
    far = 2.0**31 - 1  # 2^31 voxels an axis: three axes need 93 bits
    points = np.array([[0.0, 0, 0], [4, 0, 0], [far, far, far], [0, 0, 0], [4, 0, 0]])
    indices, inverse = voxel_subsample(points, 1.0)
    assert indices.tolist() == [0, 1, 2]
    assert inverse.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("height", [1, 2, 3, 4])
def test_keys_are_never_negative(height):
    # 2^31 * 2^31 * (height + 1) is 2^63 and more: where an int64 ends.
    far = 2**31 - 1
    cells = np.array([[0, 0, 0], [far, far, height], [far, far, 0], [0, 0, height], [1, 0, 0]])
    points = cells.astype(np.float64)
    for keys in (cell_keys(cells), point_keys(points, make_grid(points, "size", 1.0, None))):
        assert len(np.unique(keys)) == len(cells)
        assert keys.min() >= 0


@unchecked_only
def test_find_voxels_takes_integers_of_any_width_and_nothing_else():
    cells = np.array([[0, 0], [2, 5]])
    for integer in (np.uint8, np.int32, np.uint64):
        assert find_voxels(cells.astype(integer), cells[1:]).tolist() == [1]
    with pytest.raises(ValueError, match="must be integers, got float64 and int64"):
        find_voxels(cells + 0.9, cells)
    with pytest.raises(ValueError, match="must be integers, got int64 and float32"):
        find_voxels(cells, cells.astype(np.float32))
    with pytest.raises(ValueError, match="at most 2147483647 from 0"):
        find_voxels(np.full((1, 2), 2**64 - 1, np.uint64), np.zeros((1, 2), np.uint64))


@unchecked_only
def test_min_points_is_an_integer():
    points = np.zeros((200, 3))
    assert occupied_volumes(points, 1.0, min_points=np.uint8(200)).max() == 0
    with pytest.raises(ValueError, match=r"min_points must be an integer at least 1, got 2.0"):
        occupied_volumes(points, 1.0, min_points=2.0)
