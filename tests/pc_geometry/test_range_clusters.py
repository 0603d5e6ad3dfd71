import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pc_geometry import segment_ground
from pc_geometry.clusters import cluster_radius
from pc_geometry.range_clusters import cluster_range_image
from scipy.sparse.csgraph import connected_components

from tests.lanes import compiled_only, unchecked_only
from tests.pc_geometry.clouds import KINDS, cloud
from tests.pc_geometry.test_clusters import naive_clusters, renumbered
from tests.real_data import REAL_DATA, needs_real_data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_grid_and_all_pairs(kind, dtype):
    points = cloud(np.random.default_rng(0), kind, 150, 3).astype(dtype)
    for radius in (0.1, 2.0, 1000.0):
        for min_points in (1, 3):
            labels = cluster_range_image(points, radius, min_points=min_points)
            assert labels.dtype == np.int64
            assert labels.tolist() == naive_clusters(points, radius, min_points)
            assert labels.tolist() == cluster_radius(points, radius, min_points=min_points).tolist()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(1, 30), beams=st.integers(1, 9), columns=st.integers(1, 40))
def test_a_step_of_exactly_the_radius_joins_in_an_image_of_any_size(data, n, beams, columns):
    """Points of a lattice: some at the sensor, straight above it and behind it."""
    lattice = hnp.arrays(np.float64, (n, 3), elements=st.integers(-4, 4).map(float))
    scale = data.draw(st.sampled_from([1.0, 0.1, 1 / 3]))
    points = data.draw(lattice) * scale
    radius = np.sqrt(data.draw(st.integers(1, 12))) * scale
    labels = cluster_range_image(points, radius, beams=beams, columns=columns)
    assert labels.tolist() == naive_clusters(points, radius)


@pytest.mark.parametrize("distance", [0.01, 0.5, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("side", [-1, 1])
def test_chains_across_the_seam_behind_the_sensor_from_either_side(distance, side):
    along = side * np.linspace(-2, 2, 21)
    points = np.stack([np.full(21, -distance), along, np.zeros(21)], axis=1)
    assert cluster_range_image(points, 0.2000001).max() == 0
    assert cluster_range_image(points, 0.1999999).max() == 20


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_point_at_the_sensor_joins_what_is_around_it(order):
    points = np.array([[0.5, 0, 0], [0, 0, 0], [0, 0, -0.5]])[list(order)]
    assert cluster_range_image(points, 0.5).tolist() == [0, 0, 0]
    assert cluster_range_image(points, 0.49).tolist() == [0, 1, 2]


def test_hidden_points_count():
    points = np.float32([[5, 0, 0], [5.5, 0, 0], [6, 0, 0]])
    assert cluster_range_image(points, 0.5, beams=1, columns=1).tolist() == [0, 0, 0]


def test_turning_the_scan_changes_nothing():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(300, 3)) * [8, 8, 1]
    labels = cluster_range_image(points, 0.9)
    for angle in (0.3, np.pi / 2, 3.0):
        cos, sin = np.cos(angle), np.sin(angle)
        turned = points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        assert cluster_range_image(turned, 0.9).tolist() == labels.tolist()


def test_a_window_leaves_out_steps_beyond_it():
    """Components of the graph of pairs within both the radius and the window."""
    rng = np.random.default_rng(2)
    azimuth, height = rng.uniform(-np.pi, np.pi, 200), rng.uniform(-1, 1, 200)
    points = np.stack([4 * np.cos(azimuth), 4 * np.sin(azimuth), height], axis=1)
    beams, columns, window = 8, 50, (1, 2)
    elevation = np.arctan2(height, 4.0)
    row = (elevation.max() - elevation) / np.ptp(elevation) * beams
    row = np.minimum(row.astype(int), beams - 1)
    column = ((np.pi - azimuth) * columns / (2 * np.pi)).astype(int)
    apart = np.abs(column[:, None] - column)
    near = np.linalg.norm(points[:, None] - points, axis=2) <= 0.8
    near &= np.minimum(apart, columns - apart) <= window[1]
    near &= np.abs(row[:, None] - row) <= window[0]
    _, labels = connected_components(near)
    found = cluster_range_image(points, 0.8, beams=beams, columns=columns, max_window=window)
    assert found.tolist() == renumbered(labels)
    assert found.max() > cluster_range_image(points, 0.8).max()


def test_tiny_clouds():
    assert cluster_range_image(np.zeros((0, 3), np.float32), 1.0).shape == (0,)
    assert cluster_range_image(np.zeros((1, 3)), 1.0).tolist() == [0]
    assert cluster_range_image(np.zeros((2, 3)), 1.0).tolist() == [0, 0]
    assert cluster_range_image(np.zeros((2, 3)), 1.0, min_points=3).tolist() == [-1, -1]


def test_input_stays_as_it_was():
    points = np.random.default_rng(0).normal(size=(50, 3))
    before = points.copy()
    points.flags.writeable = False
    cluster_range_image(points, 0.5)
    assert (points == before).all()


@compiled_only
@needs_real_data
@pytest.mark.parametrize("radius", [0.3, 0.5, 1.0])
def test_real_scan(radius):
    file = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne/000000.bin"
    points = np.fromfile(file, np.float32).reshape(-1, 4)[:, :3]
    above = points[~segment_ground(points, sensor_height=1.73)]
    labels = cluster_range_image(above, radius, min_points=5)
    assert labels.max() > 50
    np.testing.assert_array_equal(labels, cluster_radius(above, radius, min_points=5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": 0.0}, "radius must be positive and finite, got 0.0"),
        ({"min_points": 0}, "min_points must be at least 1, got 0"),
        ({"beams": 0}, "beams must be at least 1, got 0"),
        ({"columns": 0}, "columns must be at least 1, got 0"),
        ({"max_window": (1, -1)}, "a side of max_window must be at least 0, got -1"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        cluster_range_image(np.zeros((3, 3)), **{"radius": 1.0, **settings})


@unchecked_only
def test_wrong_points():
    with pytest.raises(ValueError, match=r"points must have shape \[n d\] with d = 3"):
        cluster_range_image(np.zeros((3, 2)), 1.0)
    with pytest.raises(ValueError, match="1 of 2 points with NaN"):
        cluster_range_image(np.array([[0, 0, 0], [np.nan, 0, 0]]), 1.0)
