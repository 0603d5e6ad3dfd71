import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pc_geometry.clusters import cluster_radius, filter_clusters
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import DBSCAN

from tests.lanes import compiled_only, unchecked_only
from tests.pc_geometry.clouds import KINDS, cloud
from tests.real_data import REAL_DATA, needs_real_data


def renumbered(labels):
    """Labels >= 0 numbered by first appearance, others -1."""
    names = list(dict.fromkeys(label for label in labels.tolist() if label >= 0))
    return [names.index(label) if label >= 0 else -1 for label in labels.tolist()]


def naive_clusters(points, radius, min_points=1):
    """Components of the graph of all pairs within the radius."""
    difference = points.astype(np.float64)[:, None] - points.astype(np.float64)
    squared = difference[..., 0] ** 2
    for axis in range(1, points.shape[1]):
        squared = squared + difference[..., axis] ** 2
    _, labels = connected_components(squared <= radius * radius)
    return renumbered(np.where(np.bincount(labels)[labels] >= min_points, labels, -1))


def assert_same(points, radius, **kwargs):
    labels = cluster_radius(points, radius, **kwargs)
    assert labels.dtype == np.int64
    assert labels.tolist() == naive_clusters(points, radius, **kwargs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [2, 3])
def test_equals_components_of_all_pairs(kind, dtype, d):
    points = cloud(np.random.default_rng(0), kind, 150, d).astype(dtype)
    for radius in (0.1, 2.0, 1000.0):
        for min_points in (1, 3):
            assert_same(points, radius, min_points=min_points)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), d=st.integers(2, 3), n=st.integers(1, 30))
def test_a_step_of_exactly_the_radius_joins(data, d, n):
    lattice = hnp.arrays(np.float64, (n, d), elements=st.integers(-4, 4).map(float))
    scale = data.draw(st.sampled_from([1.0, 0.1, 1 / 3]))
    squared = data.draw(st.integers(1, 12))
    assert_same(data.draw(lattice) * scale, np.sqrt(squared) * scale)


@pytest.mark.parametrize("direction", [(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 0), (-2, 1, 3)])
def test_chains_of_steps_at_just_below_and_just_above_the_radius(direction):
    step = np.float64(direction)
    points = np.arange(20)[:, None] * step
    radius = np.linalg.norm(step)
    assert cluster_radius(points, radius * (1 + 1e-12)).max() == 0
    assert cluster_radius(points, radius * (1 - 1e-12)).max() == 19


def test_numbers_follow_the_order_of_points():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 10, (80, 3)).astype(np.float32)
    order = rng.permutation(80)
    labels = cluster_radius(points, 1.2)
    assert cluster_radius(points[order], 1.2).tolist() == renumbered(labels[order])


def test_dense_cells_that_do_not_touch():
    rng = np.random.default_rng(0)
    blob = rng.uniform(0, 0.25, (100, 3))
    far, near = blob + np.array([0.76, 0, 0]), blob + np.array([0.6, 0, 0])
    assert_same(np.concatenate([blob, far]), 0.5)
    assert_same(np.concatenate([blob, near]), 0.5)


@pytest.mark.parametrize("d", [2, 3])
def test_none_and_one(d):
    assert cluster_radius(np.empty((0, d), np.float32), 1.0).tolist() == []
    assert cluster_radius(np.ones((1, d), np.float32), 1.0).tolist() == [0]
    assert cluster_radius(np.ones((1, d), np.float32), 1.0, min_points=2).tolist() == [-1]


def test_outliers_far_away():
    points = np.float32([[0, 0, 0], [1e8, 1e8, 1e8], [0.2, 0, 0], [-1e8, 1e8, 0]])
    assert cluster_radius(points, 0.3).tolist() == [0, 1, 0, 2]


@compiled_only
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("radius", [0.5, 2.0])
def test_agrees_with_dbscan_on_large_clouds(kind, radius):
    points = cloud(np.random.default_rng(1), kind, 4000, 3)
    expected = DBSCAN(eps=radius, min_samples=1).fit_predict(points)
    np.testing.assert_array_equal(cluster_radius(points, radius), expected)


@compiled_only
@needs_real_data
@pytest.mark.parametrize("radius", [0.2, 0.5, 1.0])
def test_agrees_with_dbscan_on_a_real_scan(radius):
    points, _ = real_objects()
    expected = DBSCAN(eps=radius, min_samples=1).fit_predict(points.astype(np.float64))
    np.testing.assert_array_equal(cluster_radius(points, radius), expected)


def real_objects():
    """Points off the ground and their labels, with the instance in the upper half."""
    folder = REAL_DATA / "semantickitti/dataset/sequences/08"
    points = np.fromfile(folder / "velodyne/000000.bin", np.float32).reshape(-1, 4)[:, :3]
    labels = np.fromfile(folder / "labels/000000.label", np.uint32)
    above = ~np.isin(labels & 0xFFFF, [40, 44, 48, 49, 60, 72])
    return points[above], labels[above]


def test_cluster_errors():
    points = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match="radius must be positive and finite, got 0"):
        cluster_radius(points, 0.0)
    with pytest.raises(ValueError, match="min_points must be at least 1, got 0"):
        cluster_radius(points, 1.0, min_points=0)
    with pytest.raises(ValueError, match="radius is too small"):
        cluster_radius(np.array([[0.0, 0], [1e9, 0]]), 1e-6)
    points[1] = np.nan
    with pytest.raises(ValueError, match="points must be finite, got 1 of 3"):
        cluster_radius(points, 1.0)


NO_LIMITS = {
    "min_extent": 0.0,
    "max_extent": np.inf,
    "min_height": 0.0,
    "max_height": np.inf,
    "max_aspect_ratio": np.inf,
}


def box(length, width, height, angle=0.0, n=200, seed=0):
    """Points in a box on the ground that has points at all its corners."""
    rng = np.random.default_rng(seed)
    corners = np.stack(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [0, 1]), -1).reshape(-1, 3)
    points = np.concatenate([rng.uniform([-0.5, -0.5, 0], [0.5, 0.5, 1], (n, 3)), corners])
    points *= [length, width, height]
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def is_kept(points, **limits):
    labels = filter_clusters(points, np.zeros(len(points), np.int64), **(NO_LIMITS | limits))
    assert (labels == labels[0]).all()
    return labels[0] == 0


@pytest.mark.parametrize("angle", [0.0, 0.1, np.pi / 4, 1.0, np.pi / 2, 3.0])
def test_measures_do_not_depend_on_the_heading(angle):
    car = box(4.2, 1.8, 1.5, angle)
    tight = 1e-9
    assert is_kept(car, min_extent=4.2 - tight, max_extent=4.2 + tight)
    assert is_kept(car, min_height=1.5 - tight, max_height=1.5 + tight)
    assert is_kept(car, max_aspect_ratio=4.2 / 1.8 + tight)
    assert not is_kept(car, min_extent=4.2 + tight)
    assert not is_kept(car, max_extent=4.2 - tight)
    assert not is_kept(car, min_height=1.5 + tight)
    assert not is_kept(car, max_height=1.5 - tight)
    assert not is_kept(car, max_aspect_ratio=4.2 / 1.8 - tight)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 12))
def test_the_rectangle_is_the_smallest(seed, n):
    rng = np.random.default_rng(seed)
    points = np.zeros((n, 3))
    points[:, :2] = rng.integers(0, 4, (n, 2))
    angles = {0.0} | {np.arctan2(*(b - a)[1::-1]) for a in points for b in points if (a != b).any()}
    sides = []
    for angle in angles:
        c, s = np.cos(angle), np.sin(angle)
        sides.append(np.ptp(points[:, :2] @ np.array([[c, -s], [s, c]]), axis=0))
    area = min(a * b for a, b in sides)
    longest = [max(side) for side in sides if side.prod() <= area + 1e-9]
    assert is_kept(points, max_extent=max(longest) + 1e-9)
    assert is_kept(points, min_extent=max(min(longest) - 1e-9, 0.0))
    assert not is_kept(points, min_extent=max(longest) + 1e-9)
    if min(longest) > 1e-6:
        assert not is_kept(points, max_extent=min(longest) - 1e-6)


def test_defaults_keep_what_may_be_an_object():
    things = {
        "car": (box(4.2, 1.8, 1.5, 0.3), True),
        "pedestrian": (box(0.6, 0.4, 1.7), True),
        "curb": (box(2.0, 1.0, 0.1), False),
        "wall": (box(14.0, 0.5, 2.0), False),
        "building": (box(20.0, 10.0, 3.9), False),
        "pole": (box(0.2, 0.2, 3.0), False),
        "tree": (box(2.0, 2.0, 7.0), False),
        "one point": (np.zeros((1, 3)), False),
    }
    points = np.concatenate(
        [p + np.array([40 * i, 0, 0]) for i, (p, _) in enumerate(things.values())]
    )
    labels = np.repeat(np.arange(len(things)), [len(p) for p, _ in things.values()])
    expected = [i for i, (_, kept) in enumerate(things.values()) if kept]
    filtered = filter_clusters(points.astype(np.float32), labels)
    assert filtered.dtype == np.int64
    assert filtered.tolist() == renumbered(np.where(np.isin(labels, expected), labels, -1))


def test_kept_ones_are_renumbered_by_first_appearance():
    points = np.zeros((8, 3), np.float32)
    points[:, 2] = [0, 0, 0, 0, 1, 1, 5, 1]
    labels = np.array([7, 3, -1, 9, 3, 7, 9, -5])
    assert filter_clusters(points, labels, **(NO_LIMITS | {"max_height": 2.0})).tolist() == [
        *(0, 1, -1, -1, 1, 0, -1, -1)
    ]


def test_a_straight_line_has_no_aspect_ratio():
    line = np.outer(np.linspace(0, 3, 9), [1.0, 2.0, 0.5])
    assert is_kept(line)
    assert not is_kept(line, max_aspect_ratio=1e6)


def test_filter_nothing():
    empty = np.empty((0, 3), np.float32)
    assert filter_clusters(empty, np.empty(0, np.int64)).tolist() == []
    assert filter_clusters(np.zeros((2, 3)), np.array([-1, -1])).tolist() == [-1, -1]
    assert filter_clusters(np.zeros((1, 3)), np.array([4]), **NO_LIMITS).tolist() == [0]


@compiled_only
@needs_real_data
def test_real_objects_pass_the_filter():
    points, labels = real_objects()
    moving = (labels & 0xFFFF) >= 250  # their instances are smeared over several scans
    instance = np.where(moving, 0, labels >> 16).astype(np.int64)
    kept = filter_clusters(points, np.where(instance > 0, instance, -1))
    large = np.flatnonzero(np.bincount(instance) > 15)[1:]
    assert len(large) == 5
    assert (instance[kept >= 0] > 0).all()
    assert (kept[np.isin(instance, large)] >= 0).all()


@unchecked_only
def test_labels_of_another_cloud():
    with pytest.raises(ValueError, match=r"labels must be one a point, shape \(3,\), got \(2,\)"):
        filter_clusters(np.zeros((3, 3)), np.zeros(2, np.int64))


def test_limits_out_of_order():
    points, labels = np.zeros((1, 3)), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match=r"limits of extent must be .* got 3.0 and 2.0"):
        filter_clusters(points, labels, min_extent=3.0, max_extent=2.0)
    with pytest.raises(ValueError, match="limits of height"):
        filter_clusters(points, labels, min_height=-1.0)
    with pytest.raises(ValueError, match=r"limits of aspect ratio .* nan"):
        filter_clusters(points, labels, max_aspect_ratio=np.nan)


@unchecked_only
def test_min_points_is_an_integer():
    points = np.zeros((200, 3))
    assert cluster_radius(points, 1.0, min_points=np.uint8(200)).max() == 0
    with pytest.raises(ValueError, match=r"min_points must be an integer at least 1, got 2.0"):
        cluster_radius(points, 1.0, min_points=2.0)


def corner_of_a_car(angle):
    """Two sides of 4.4 and 1.8 m: both rectangles along the sides and along the diagonal fit."""
    sides = [[x, 0.0, 0.5] for x in np.linspace(0, 4.4, 30)]
    sides += [[0.0, y, 0.5] for y in np.linspace(0, 1.8, 15)]
    c, s = np.cos(angle), np.sin(angle)
    return np.array(sides) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + [20.0, -7.0, 0.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_corner_of_a_car_measures_the_same_at_any_heading(dtype):
    for angle in np.arange(72) * (2 * np.pi / 72):
        corner = corner_of_a_car(angle).astype(dtype)
        assert is_kept(corner, min_extent=4.4 - 1e-3, max_extent=4.4 + 1e-3)
        assert is_kept(corner, max_aspect_ratio=4.4 / 1.8 + 1e-3)
        assert not is_kept(corner, max_aspect_ratio=4.4 / 1.8 - 1e-3)


def test_an_aspect_ratio_of_exactly_the_limit_is_kept():
    points = np.array([[0.0, 0, 0], [4, 0, 0], [4, 2, 0], [0, 2, 1]])
    assert is_kept(points, max_aspect_ratio=2.0)
    assert not is_kept(points, max_aspect_ratio=np.nextafter(2.0, 0))
