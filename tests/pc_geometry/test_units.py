from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_geometry import cluster_radius, filter_clusters, segment_ground
from pc_geometry.range_clusters import cluster_range_image
from pc_geometry.units import (
    center_cluster,
    cluster_objects,
    contrastive_units,
    main_cluster,
    merge_units,
    nearest_context,
    pillar_context,
    random_samples,
    sample_units,
)

from tests.lanes import compiled_only, unchecked_only
from tests.pc_geometry.clouds import KINDS, cloud
from tests.pc_geometry.test_neighbors import naive_knn
from tests.pc_geometry.test_sampling import naive_sample
from tests.real_data import REAL_DATA, needs_real_data

CONTEXTS = {
    "nearest": partial(nearest_context, k=5),
    "pillar": partial(pillar_context, size=1.5),
}
each_context = pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)


def rows(units, values):
    """The entries of each unit, from one list for all."""
    return [values[first:last] for first, last in zip(units.splits, units.splits[1:], strict=False)]


def surface(*axes):
    """All combinations of coordinates: [n 3]."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def box(x, y, z, spacing=0.15):
    """Points on the four sides and the top of a box, given as ranges."""
    xs, ys, zs = (np.arange(low, high + 1e-9, spacing) for low, high in (x, y, z))
    sides = [surface([at], ys, zs) for at in x] + [surface(xs, [at], zs) for at in y]
    return np.concatenate([*sides, surface(xs, ys, z[1:])])


def street():
    """A slope of 8%, two boxes and a wall on it, and what each point is part of: -1 is ground."""
    angle, distance = np.meshgrid(np.linspace(-np.pi, np.pi, 361)[1:], np.linspace(3, 40, 100))
    x, y = (distance * np.cos(angle)).ravel(), (distance * np.sin(angle)).ravel()
    ground = np.stack([x, y, 0 * x], axis=1)
    car, van = box((6, 10), (3, 4.8), (0.3, 1.5)), box((12, 17), (-6, -4), (0.3, 2.2))
    wall = surface(np.arange(-15, 15.01, 0.2), [-12.0], np.arange(0.3, 3, 0.2))
    points = np.concatenate([ground, car, van, wall])
    points[:, 2] += 0.08 * points[:, 0] - 1.73
    part = np.repeat([-1, 0, 1, 2], [len(ground), len(car), len(van), len(wall)])
    return points.astype(np.float32), part


@compiled_only
@pytest.mark.parametrize("join", [cluster_radius, partial(cluster_range_image, beams=16)])
@pytest.mark.parametrize("belongs", [main_cluster, center_cluster])
def test_two_boxes_and_a_wall_on_a_slope(join, belongs):
    points, part = street()
    ground = segment_ground(points, sensor_height=1.73)
    np.testing.assert_array_equal(ground, part < 0)
    cluster = cluster_objects(points, ground, join=join)
    np.testing.assert_array_equal(cluster, np.where(part < 2, part, -1))  # the wall is too long

    before = sample_units(points, ~ground, 200)
    sampled_on = part[before.center]
    assert ((sampled_on == 0).sum() > 5) & ((sampled_on == 1).sum() > 5)
    units = contrastive_units(
        points,
        np.ones(len(points), bool),
        ground=ground,
        num_units=200,
        objects=partial(cluster_objects, join=join),
        belongs=belongs,
    )
    assert part[units.center[units.cluster == 0]].tolist() == [0]
    assert part[units.center[units.cluster == 1]].tolist() == [1]
    on_wall = units.cluster == -1
    assert on_wall.sum() == (sampled_on == 2).sum()
    assert (units.num_merged[on_wall] == 1).all()
    np.testing.assert_array_equal(
        units.num_merged[~on_wall][np.argsort(units.cluster[~on_wall])],
        np.bincount(sampled_on[sampled_on < 2]),
    )


@each_context
def test_a_car_cut_in_four_comes_back_as_one_unit(context):
    car = box((5, 9), (-1, 0.8), (-1.4, 0.0), spacing=0.3)
    nothing = np.zeros(len(car), bool)
    before = sample_units(car, ~nothing, 4, context=context)
    assert len(before) == 4
    after = contrastive_units(car, ~nothing, ground=nothing, num_units=4, context=context)
    assert len(after) == 1
    assert after.num_merged.tolist() == [4]
    assert after.cluster.tolist() == [0]
    assert after.center[0] == before.center[0]
    assert after.unit_of_sample.tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(after.indices, np.unique(before.indices))


def test_sampling_and_nearest_context_equal_their_oracles():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(120, 3)) * [9, 9, 2]
    candidate = rng.random(120) < 0.6
    index = np.flatnonzero(candidate)
    units = sample_units(points, candidate, 20, context=partial(nearest_context, k=4))
    chosen = naive_sample(points[candidate][:, :2], 20)
    np.testing.assert_array_equal(units.center, index[chosen])
    _, near = naive_knn(points[candidate][chosen], points[candidate], 4)
    np.testing.assert_array_equal(units.indices.reshape(20, 4), index[near])
    assert (units.weight == 0.25).all()
    assert (units.cluster == -1).all()
    assert units.unit_of_sample.tolist() == list(range(20))


def test_pillar_context_is_all_points_above_and_below_a_square():
    rng = np.random.default_rng(4)
    points = rng.uniform(0, 5, (200, 3))
    candidate = rng.random(200) < 0.7
    units = sample_units(points, candidate, 30, context=partial(pillar_context, size=1.2))
    for center, found, weight in zip(
        units.center, rows(units, units.indices), rows(units, units.weight), strict=True
    ):
        inside = (np.abs(points[:, :2] - points[center, :2]) <= 0.6).all(axis=1)
        np.testing.assert_array_equal(found, np.flatnonzero(inside & candidate))
        np.testing.assert_allclose(weight, 1 / len(found), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_units=st.integers(0, 12),
    num_clusters=st.integers(0, 4),
    kind=st.sampled_from(sorted(CONTEXTS)),
)
def test_merged_features_are_the_mean_of_those_of_the_units(seed, num_units, num_clusters, kind):
    rng = np.random.default_rng(seed)
    points, feat = rng.uniform(0, 4, (40, 3)), rng.normal(size=(40, 2))
    units = sample_units(points, np.ones(40, bool), num_units, context=CONTEXTS[kind])
    cluster = (
        rng.integers(-1, num_clusters, num_units) if num_clusters else -np.ones(num_units, int)
    )
    merged = merge_units(units, cluster)

    own = [feat[found].mean(axis=0) for found in rows(units, units.indices)]
    names = [c if c >= 0 else f"alone {i}" for i, c in enumerate(cluster.tolist())]
    order = list(dict.fromkeys(names))
    assert len(merged) == len(order)
    for i, name in enumerate(order):
        members = [j for j, other in enumerate(names) if other == name]
        entries = slice(merged.splits[i], merged.splits[i + 1])
        pooled = merged.weight[entries] @ feat[merged.indices[entries]]
        np.testing.assert_allclose(pooled, np.mean([own[j] for j in members], axis=0), atol=1e-5)
        assert (np.diff(merged.indices[entries]) > 0).all()
        assert merged.num_merged[i] == len(members)
        assert merged.center[i] == units.center[members[0]]
        assert merged.cluster[i] == cluster[members[0]]
        assert (merged.unit_of_sample[members] == i).all()
    assert merged.unit.tolist() == [
        i for i in range(len(merged)) for _ in rows(merged, merged.indices)[i]
    ]


@each_context
def test_merging_in_two_steps_equals_merging_at_once(context):
    points = np.random.default_rng(5).uniform(0, 4, (60, 3))
    units = sample_units(points, np.ones(60, bool), 12, context=context)
    at_once = np.array([0, 1, 0, -1, 0, 1, 0, -1, 0, 1, 0, 1])
    some = np.array([0, 1, 0, -1, -1, 1, 2, -1, 2, -1, 0, 1])
    one = merge_units(units, at_once)
    half = merge_units(units, some)
    two = merge_units(half, center_of_samples(half, at_once))
    for name in ("indices", "splits", "center", "unit_of_sample", "num_merged"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_allclose(one.weight, two.weight, rtol=1e-5)


def center_of_samples(units, cluster):
    """The cluster of the first sampled unit in each unit."""
    first = [int(np.flatnonzero(units.unit_of_sample == i)[0]) for i in range(len(units))]
    return cluster[first]


def test_main_cluster_needs_more_than_half():
    points = np.zeros((6, 3))
    points[:, 0] = [0, 1, 2, 10, 11, 12]
    units = sample_units(points, np.ones(6, bool), 2, context=partial(nearest_context, k=3))
    assert units.center.tolist() == [0, 5]

    def both(*cluster):
        cluster = np.array(cluster)
        return main_cluster(units, cluster).tolist(), center_cluster(units, cluster).tolist()

    assert both(-1, 7, 7, 3, 3, 3) == ([7, 3], [-1, 3])  # a stray point goes with its neighbours
    assert both(7, -1, -1, 3, 4, 5) == ([-1, -1], [7, 5])
    assert both(-9, -9, -9, 2, 0, 0) == ([-1, 0], [-1, 0])
    units = sample_units(points, np.ones(6, bool), 2, context=partial(nearest_context, k=6))
    assert both(1, 1, 1, 2, 2, 2) == ([-1, -1], [1, 2])  # exactly half is not more than half


def test_main_cluster_equals_counting():
    rng = np.random.default_rng(6)
    points = rng.uniform(0, 6, (150, 3))
    units = sample_units(points, np.ones(150, bool), 40, context=CONTEXTS["pillar"])
    cluster = rng.integers(-1, 3, 150)
    for found, own in zip(main_cluster(units, cluster), rows(units, units.indices), strict=True):
        counts = np.bincount(cluster[own] + 1, minlength=4)[1:]
        most = counts.argmax()
        assert found == (most if 2 * counts[most] > len(own) else -1)


def test_objects_are_the_clusters_of_some_size_that_do_not_lie_on_the_ground():
    points, part = street()
    ground = part < 0
    keep = partial(filter_clusters, max_extent=100.0, max_height=9.0, max_aspect_ratio=np.inf)
    np.testing.assert_array_equal(cluster_objects(points, ground, keep=keep), part)
    short = cluster_objects(points, ground, keep=partial(filter_clusters, max_extent=4.5))
    np.testing.assert_array_equal(short, np.where(part == 0, 0, -1))
    assert (cluster_objects(points, ground, min_points=10_000) == -1).all()
    assert (cluster_objects(points, np.ones(len(points), bool)) == -1).all()


def test_only_what_is_visible_and_not_ground_is_in_units():
    points, part = street()
    visible = points[:, 0] > 7.03  # through the car
    units = contrastive_units(points, visible, ground=part < 0, num_units=64)
    assert visible[units.indices].all()
    assert visible[units.center].all()
    assert (part[units.indices] >= 0).all()
    assert (units.cluster == 0).sum() == 1


def flat_units(units):
    return [
        getattr(units, name).tolist()
        for name in ("indices", "weight", "splits", "center", "cluster", "unit_of_sample")
    ]


@each_context
@pytest.mark.parametrize("kind", KINDS)
def test_a_quarter_turn_changes_nothing(kind, context):
    """It is exact in floats; pillars are squares."""
    points = cloud(np.random.default_rng(0), kind, 120, 3)
    turned = points[:, [1, 0, 2]] * [-1, 1, 1]
    nothing = np.zeros(120, bool)
    one, other = (
        flat_units(contrastive_units(xyz, ~nothing, ground=nothing, num_units=30, context=context))
        for xyz in (points, turned)
    )
    assert one == other


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.5])
def test_any_turn_changes_nothing_where_nothing_is_tied(angle):
    points = np.random.default_rng(7).normal(size=(200, 3)) * [9, 9, 1]
    cos, sin = np.cos(angle), np.sin(angle)
    turned = points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + [3, -8, 0.2]
    nothing = np.zeros(200, bool)
    one, other = (
        contrastive_units(
            xyz,
            ~nothing,
            ground=nothing,
            num_units=50,
            context=partial(nearest_context, k=4),
            objects=partial(cluster_objects, radius=2.0, min_points=3),
        )
        for xyz in (points, turned)
    )
    assert one.num_merged.max() > 1
    assert flat_units(one) == flat_units(other)


@each_context
def test_threads_change_nothing(context):
    points = np.random.default_rng(8).normal(size=(150, 3)) * 5
    nothing = np.zeros(150, bool)
    one, other = (
        flat_units(
            contrastive_units(
                points,
                ~nothing,
                ground=nothing,
                num_units=40,
                context=partial(context, num_threads=num_threads),
            )
        )
        for num_threads in (1, 3)
    )
    assert one == other


def test_the_first_unit_is_drawn():
    points = np.random.default_rng(9).normal(size=(50, 3))
    candidate = np.arange(50) >= 10
    assert sample_units(points, candidate, 3).center[0] == 10
    firsts = {
        sample_units(points, candidate, 3, rng=np.random.default_rng(seed)).center[0]
        for seed in range(20)
    }
    assert len(firsts) > 5
    assert min(firsts) >= 10
    again = [sample_units(points, candidate, 3, rng=np.random.default_rng(1)) for _ in range(2)]
    assert flat_units(again[0]) == flat_units(again[1])


@each_context
@pytest.mark.parametrize("n", [0, 1, 2])
def test_tiny_scans(n, context):
    points, nothing = np.zeros((n, 3), np.float32), np.zeros(n, bool)
    units = contrastive_units(points, ~nothing, ground=nothing, context=context)
    assert len(units) == n
    assert units.splits.shape == (n + 1,)
    assert units.splits[-1] == len(units.indices) == len(units.weight) == n * n
    assert (units.cluster == -1).all()
    for mask in (
        {"visible": nothing, "ground": nothing},
        {"visible": ~nothing, "ground": ~nothing},
    ):
        units = contrastive_units(points, mask["visible"], ground=mask["ground"], context=context)
        assert len(units) == 0
        assert units.splits.tolist() == [0]
        assert units.num_merged.shape == (0,)
    assert len(contrastive_units(points, ~nothing, ground=nothing, num_units=0)) == 0


def test_fewer_points_than_neighbours_wanted():
    indices, splits = nearest_context(np.eye(3), np.eye(3)[:2], k=9)
    assert indices.tolist() == [0, 1, 2, 1, 0, 2]
    assert splits.tolist() == [0, 3, 6]
    assert nearest_context(np.zeros((0, 3)), np.zeros((0, 3)))[1].tolist() == [0]


@compiled_only
@needs_real_data
def test_clusters_of_a_real_scan_are_the_same_through_the_range_image():
    file = REAL_DATA / "semantickitti/dataset/sequences/00/velodyne/000000.bin"
    points = np.fromfile(file, np.float32).reshape(-1, 4)[:, :3]
    ground = segment_ground(points, sensor_height=1.73)
    everything = np.ones(len(points), bool)
    one, other = (
        contrastive_units(
            points, everything, ground=ground, objects=partial(cluster_objects, join=join)
        )
        for join in (cluster_radius, cluster_range_image)
    )
    assert flat_units(one) == flat_units(other)
    assert 300 < len(one) < 1000
    np.testing.assert_allclose(np.add.reduceat(one.weight, one.splits[:-1]), 1, atol=1e-5)


POINTS, SOME = np.zeros((4, 3)), np.zeros(4, bool)


@unchecked_only
@pytest.mark.parametrize(
    ("visible", "ground", "message"),
    [
        (SOME[:3], SOME, r"visible must be a bool a point, shape \(4,\), got bool of shape \(3,\)"),
        (SOME, SOME[:3], r"ground must be a bool a point, shape \(4,\), got bool of shape \(3,\)"),
        (SOME, SOME.astype(int), r"ground must be a bool a point, .* got int64"),
    ],
)
def test_wrong_masks(visible, ground, message):
    with pytest.raises(ValueError, match=message):
        contrastive_units(POINTS, visible, ground=ground)


def test_wrong_values():
    with pytest.raises(ValueError, match="num_units must be at least 0, got -1"):
        contrastive_units(POINTS, SOME, ground=SOME, num_units=-1)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        nearest_context(POINTS, POINTS, k=0)
    with pytest.raises(ValueError, match=r"size must be positive and finite, got 0.0"):
        pillar_context(POINTS, POINTS, size=0.0)
    with pytest.raises(ValueError, match=r"radius must be positive and finite, got -1"):
        cluster_objects(POINTS, SOME, radius=-1.0)
    with pytest.raises(ValueError, match="1 of 4 points with NaN"):
        contrastive_units(np.where(np.eye(4, 3) > 0, np.nan, 0)[[0, 3, 3, 3]], SOME, ground=SOME)


def test_a_context_without_points():
    def empty(points, centers):
        return np.empty(0, np.int64), np.zeros(len(centers) + 1, np.int64)

    with pytest.raises(
        ValueError, match="context must list a point for every unit, got none for 2 of 2"
    ):
        sample_units(POINTS, ~SOME, 2, context=empty)


@unchecked_only
def test_wrong_masks_and_clusters():
    with pytest.raises(ValueError, match=r"candidate must be a bool a point, shape \(4,\)"):
        sample_units(POINTS, SOME[:2], 1)
    units = sample_units(POINTS, ~SOME, 2)
    with pytest.raises(ValueError, match=r"cluster must be a whole number a unit, shape \(2,\)"):
        merge_units(units, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=r"whole number a unit, .* got float64"):
        merge_units(units, np.zeros(2))
    for belongs in (main_cluster, center_cluster):
        with pytest.raises(ValueError, match="each point of the scan, at least 4, got int64"):
            belongs(units, np.zeros(3, np.int64))


def test_random_samples():
    points = np.random.default_rng(0).normal(size=(50, 3))
    first, again = (random_samples(points, 20, np.random.default_rng(1)) for _ in range(2))
    assert len(set(first.tolist())) == 20
    np.testing.assert_array_equal(first, again)
    everywhere = np.ones(50, bool)
    units = sample_units(
        points, everywhere, 20, choose=random_samples, rng=np.random.default_rng(1)
    )
    np.testing.assert_array_equal(units.center, first)
    with pytest.raises(ValueError, match="rng must be a generator to choose samples at random"):
        sample_units(points, everywhere, 20, choose=random_samples)
