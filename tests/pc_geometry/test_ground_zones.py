from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pc_geometry.ground_zones import segment_ground_zones

from tests.benchmarks.bench_ground import SCANS, load_scan, score
from tests.lanes import compiled_only, unchecked_only
from tests.pc_geometry.test_ground import KINDS, cloud, naive_sector, terrain
from tests.real_data import needs_real_data

ZONES = [(2, 16), (4, 32), (4, 54), (4, 32)]
ELEVATION = [0.523, 0.746, 0.879, 1.125]
VARIATION = [0.0005, 0.000725, 0.001, 0.001]


def naive_zones(points, *, sensor_height, min_range=2.7, max_range=80.0, **changes):
    """The description in `segment_ground_zones`, patch by patch, with np.linalg.eigh."""
    points = points.astype(np.float64)
    d = np.sqrt(points[:, 0] ** 2 + points[:, 1] ** 2)
    ground = np.zeros(len(points), bool)
    edges = [min_range + (max_range - min_range) * share for share in (0, 1 / 8, 1 / 4, 1 / 2, 1)]
    number = 0
    for zone, (num_rings, num_sectors) in enumerate(ZONES):
        sector = naive_sector(points[:, 0], points[:, 1], num_sectors)
        bounds = np.linspace(edges[zone], edges[zone + 1], num_rings + 1)
        for inner, outer in pairwise(bounds):
            within = (inner <= d) & (d < outer)
            flat = VARIATION[number] if number < 4 else -np.inf
            low = ELEVATION[number] if number < 4 else 0.15 * (inner + outer) / 2
            for s in range(num_sectors):
                patch = np.flatnonzero(within & (sector == s))
                level = low - sensor_height, flat
                floor = -sensor_height - 1.0 if zone == 0 else -np.inf
                ground[patch[naive_patch(points[patch], floor, level, **changes)]] = True
            number += 1
    return ground


def naive_patch(
    xyz,
    floor,
    level,
    *,
    max_distance=0.125,
    max_slope=0.5,
    seed_height=0.125,
    num_lowest=20,
    num_iterations=3,
    min_points=10,
):
    """Indices of the ground of one patch."""
    if len(xyz) < min_points:
        return []
    upright = np.cos(np.arctan(max_slope))
    floor = floor if (xyz[:, 2] >= floor).any() else -np.inf
    loose = np.arange(len(xyz))

    def seeds(margin):
        shallow = loose[xyz[loose, 2] >= floor]
        heights = np.sort(xyz[shallow, 2])[:num_lowest]
        return shallow[xyz[shallow, 2] < heights.mean() + margin] if len(heights) else shallow

    for _ in range(num_iterations):
        normal, middle, _ = naive_plane(xyz[seeds(0.25)])
        if normal[2] >= upright:
            break
        loose = loose[np.abs((xyz[loose] - middle) @ normal) >= 0.1]
    chosen = seeds(seed_height)
    for _ in range(num_iterations):
        normal, middle, variation = naive_plane(xyz[chosen])
        ground = loose[(xyz[loose] - middle) @ normal < max_distance]
        chosen = ground[xyz[ground, 2] >= floor]
    good = normal[2] >= upright and (middle[2] < level[0] or variation < level[1])
    return ground if good else []


def naive_plane(xyz):
    """Upward normal, mean and surface variation; without points a plane far under everything."""
    up = np.array([0.0, 0.0, 1.0])
    if len(xyz) == 0:
        return -up, 1e9 * up, 0.0
    middle = xyz.mean(axis=0)
    values, vectors = np.linalg.eigh((xyz - middle).T @ (xyz - middle) / len(xyz))
    if values[2] <= 1e-10:
        return up, middle, 0.0
    normal = vectors[:, 0] * np.copysign(1, vectors[2, 0])
    if values[1] <= 1e-6 * values[2]:
        normal = up - vectors[2, 2] * vectors[:, 2]
        normal = normal / np.linalg.norm(normal) if normal.any() else np.array([1.0, 0.0, 0.0])
    return normal, middle, values[0] / values.sum()


def wall(distance, *, height=3.0, spacing=0.05):
    """Points on a wall across the x axis, from the ground 1.8 m below the sensor up."""
    y, z = np.meshgrid(np.arange(-1, 1, spacing), np.arange(-1.8, height - 1.8, spacing))
    return np.stack([np.full(y.size, distance), y.ravel(), z.ravel()], axis=1)


def dense(height=None):
    """Terrain with at least ten points in every patch between 3 and 30 m."""
    return terrain(height, num_azimuths=270)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sensor_height", [1.8, 1.3])
def test_equals_the_naive_plane_fits(kind, dtype, sensor_height):
    points = (cloud(kind, 1200) * [0.5, 0.5, 1]).astype(dtype)
    ground = segment_ground_zones(points, sensor_height=sensor_height)
    assert ground.dtype == np.bool_
    np.testing.assert_array_equal(ground, naive_zones(points, sensor_height=sensor_height))
    assert ground.any()


@pytest.mark.parametrize(
    "changes",
    [
        {"min_range": 0.0, "max_range": 12.0},
        {"max_distance": 0.02},
        {"max_slope": 0.03},
        {"seed_height": 0.0},
        {"num_lowest": 3},
        {"num_iterations": 1},
        {"min_points": 3},
    ],
    ids=str,
)
def test_each_parameter_does_what_it_says(changes):
    points = cloud("tall", 1200) * [0.5, 0.5, 1]
    ground = segment_ground_zones(points, sensor_height=1.8, **changes)
    np.testing.assert_array_equal(ground, naive_zones(points, sensor_height=1.8, **changes))
    assert (ground != segment_ground_zones(points, sensor_height=1.8)).any()


@settings(max_examples=20, deadline=None)
@given(
    points=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 60), st.just(3)),
        elements=st.integers(-64, 64).map(lambda k: k / 16),
    )
)
def test_any_points_are_handled(points):
    """Planes of lattice points may be ambiguous, so what must hold does not name the plane."""
    ground = segment_ground_zones(points, sensor_height=1.0, min_points=3, min_range=0.5)
    assert ground.shape == (len(points),)
    assert not ground[np.hypot(points[:, 0], points[:, 1]) < 0.499].any()
    again = segment_ground_zones(points, sensor_height=1.0, min_points=3, min_range=0.5)
    np.testing.assert_array_equal(again, ground)


@pytest.mark.parametrize("slope", [0.0, 0.1, -0.14])
def test_a_plane_is_ground(slope):
    assert segment_ground_zones(dense(lambda xy: slope * xy[:, 0]), sensor_height=1.8).all()


def test_a_plane_that_is_too_steep_is_not_ground():
    hillside = dense(lambda xy: 0.6 * xy[:, 0])
    assert not segment_ground_zones(hillside, sensor_height=1.8).any()


def test_a_tilted_sensor_still_sees_the_ground():
    pitch = np.radians(5)
    rotation = np.array(
        [[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]]
    )
    ground = segment_ground_zones(dense() @ rotation.T, sensor_height=1.8)
    assert ground[np.hypot(*dense()[:, :2].T) > 3.5].all()


@pytest.mark.parametrize("distance", [8.0, 20.0])
def test_walls_stand_out(distance):
    road, face = dense(), wall(distance)
    ground = segment_ground_zones(np.concatenate([road, face]), sensor_height=1.8)
    assert ground[: len(road)].all()
    assert not ground[len(road) :][face[:, 2] > -1.4].any()
    assert ground[len(road) :][face[:, 2] < -1.77].all()


def test_a_patch_of_wall_alone_has_no_ground():
    face = wall(8.0)
    assert not segment_ground_zones(face, sensor_height=1.8).any()


def test_a_wall_that_covers_the_foot_of_a_patch_is_set_aside():
    """The lowest points are on the wall; without it the ground behind shows."""
    face = wall(8.0, height=0.6, spacing=0.02)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(8.3, 10.6, 0.1), np.arange(-1, 1, 0.1)))
    lawn = np.stack([x, y, np.full(x.size, -1.4)], axis=1)
    ground = segment_ground_zones(np.concatenate([face, lawn]), sensor_height=1.8)
    assert ground[len(face) :].all()
    assert not ground[: len(face)].any()


@pytest.mark.parametrize(("step", "is_ground"), [(0.1, True), (0.2, False)])
def test_a_kerb_within_a_patch_counts_up_to_the_distance(step, is_ground):
    points = dense()
    raised = (np.hypot(*points[:, :2].T) > 10) & (np.hypot(*points[:, :2].T) < 11.5)
    points[raised, 2] += step
    ground = segment_ground_zones(points, sensor_height=1.8)
    assert ground[~raised].all()
    assert (ground[raised] == is_ground).mean() > 0.9


def test_a_roof_is_too_high_unless_it_is_flat_and_near():
    roof = terrain(num_azimuths=270, ranges=np.arange(3, 23, 0.7)) + np.array([0, 0, 3.7])
    near = np.hypot(*roof[:, :2].T) < 17.1
    np.testing.assert_array_equal(segment_ground_zones(roof, sensor_height=1.8), near)
    rough = roof + np.random.default_rng(0).normal(size=(len(roof), 1)) * [0, 0, 0.2]
    assert not segment_ground_zones(rough, sensor_height=1.8).any()


@pytest.mark.parametrize(
    ("middle", "limit"), [(5.1, 0.523), (9.9, 0.746), (13.6, 0.879), (16.0, 1.125), (18.4, 2.76)]
)
def test_a_rough_patch_is_ground_up_to_the_height_of_its_ring(middle, limit):
    """A lawn of 1 m x 1 m in the middle of a ring: too rough to be flat."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(-5, 5), np.arange(-5, 5)))
    azimuth = np.pi / 16 if middle < 12 else np.pi / 32
    lawn = np.stack([x / 10, y / 10, 0.05 * (-1.0) ** (x + y) - 1.8], axis=1)
    lawn += [middle * np.cos(azimuth), middle * np.sin(azimuth), 0]
    up = np.array([0, 0, 1])
    below, above = lawn + (limit - 0.02) * up, lawn + (limit + 0.02) * up
    assert segment_ground_zones(below, sensor_height=1.8).all()
    assert not segment_ground_zones(above, sensor_height=1.8).any()


def test_reflections_below_the_road_do_not_hide_it():
    road = dense()
    ghosts = road[np.hypot(*road[:, :2].T) < 7][::3] - np.array([0, 0, 1.4])
    scan = np.concatenate([road, ghosts])
    assert segment_ground_zones(scan, sensor_height=1.8).all()
    above = ghosts + np.array([0, 0, 2.8])
    assert not segment_ground_zones(np.concatenate([road, above]), sensor_height=1.8)[
        len(road) :
    ].any()
    assert segment_ground_zones(dense() - np.array([0, 0, 1.4]), sensor_height=1.8).all()


def test_range_is_half_open():
    points = dense()
    ranges = np.hypot(*points[:, :2].T)
    ground = segment_ground_zones(
        points, sensor_height=1.8, min_range=5.0, max_range=20.0, min_points=3
    )
    np.testing.assert_array_equal(ground, (ranges > 5) & (ranges < 20))


def test_the_frame_may_be_that_of_the_vehicle():
    points = cloud("tall", 1200)
    np.testing.assert_array_equal(
        segment_ground_zones(points, sensor_height=1.8),
        segment_ground_zones(points + np.array([0, 0, 1.8]), sensor_height=0.0),
    )


def test_order_and_half_turns_change_nothing():
    points = cloud("tall", 1200)
    expected = segment_ground_zones(points, sensor_height=1.8)
    order = np.random.default_rng(0).permutation(len(points))
    shuffled = segment_ground_zones(points[order], sensor_height=1.8)
    np.testing.assert_array_equal(shuffled, expected[order])
    turned = segment_ground_zones(points * [-1, -1, 1], sensor_height=1.8)
    np.testing.assert_array_equal(turned, expected)


@pytest.mark.parametrize("n", [0, 1, 2, 9])
def test_too_few_points(n):
    points = wall(8.0)[:n]
    assert segment_ground_zones(points, sensor_height=1.8).tolist() == [False] * n


def test_copies_of_one_point_and_points_on_a_line_have_a_plane():
    one = np.tile([[5.1, 0.7, -1.77]], (12, 1))
    assert segment_ground_zones(one, sensor_height=1.8).all()
    beam = np.linspace([5, 0.3, -1.8], [5, 1.9, -1.7], 12)
    assert segment_ground_zones(beam, sensor_height=1.8).all()
    pole = np.linspace([5, 0.3, -1.8], [5, 0.3, -0.3], 60)
    assert not segment_ground_zones(pole, sensor_height=1.8).any()


def test_upside_down_there_is_no_ground():
    bumps = np.random.default_rng(0).normal(size=(len(dense()), 1)) * [0, 0, 0.06]
    ceiling = dense() * [1, 1, -1] + bumps
    ground = segment_ground_zones(ceiling, sensor_height=1.8, max_range=20.0)
    assert not ground.any()


@compiled_only
@needs_real_data
@pytest.mark.parametrize(("scan", "least"), [*zip(SCANS, [0.96, 0.955, 0.978, 0.973], strict=True)])
def test_real_scans(scan, least):
    points, ground, labelled = load_scan(scan)
    found = segment_ground_zones(points[:, :3], sensor_height=1.73)
    assert score(found[labelled], ground[labelled])["F1"] > least


@pytest.mark.parametrize("name", ["max_distance", "max_slope", "seed_height"])
@pytest.mark.parametrize("value", [-0.1, np.inf, np.nan])
def test_negative_or_infinite_limits(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 0 and finite, got {value}"):
        segment_ground_zones(wall(8.0), sensor_height=1.8, **{name: float(value)})


@pytest.mark.parametrize(
    ("name", "least"), [("num_lowest", 1), ("num_iterations", 1), ("min_points", 3)]
)
def test_counts_too_small(name, least):
    with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {least - 1}"):
        segment_ground_zones(wall(8.0), sensor_height=1.8, **{name: least - 1})


@unchecked_only
@pytest.mark.parametrize("name", ["num_lowest", "num_iterations", "min_points"])
def test_counts_may_be_small_numpy_integers_but_not_floats(name):
    points = cloud("tall", 1200)
    np.testing.assert_array_equal(
        segment_ground_zones(points, sensor_height=1.8, **{name: np.uint8(5)}),
        segment_ground_zones(points, sensor_height=1.8, **{name: 5}),
    )
    with pytest.raises(ValueError, match=f"{name} must be an integer at least .*, got 5.0"):
        segment_ground_zones(points, sensor_height=1.8, **{name: 5.0})


def test_ranges_out_of_order():
    with pytest.raises(ValueError, match=r"got min_range 9.0 and max_range 8.0"):
        segment_ground_zones(wall(8.0), sensor_height=1.8, min_range=9.0, max_range=8.0)


def test_sensor_height_must_be_finite():
    with pytest.raises(ValueError, match="sensor_height must be finite, got inf"):
        segment_ground_zones(wall(8.0), sensor_height=np.inf)


def test_points_must_be_finite():
    points = wall(8.0)
    points[3, 1] = np.nan
    with pytest.raises(ValueError, match="points must be finite, got 1 of"):
        segment_ground_zones(points, sensor_height=1.8)


@unchecked_only
def test_points_must_be_3d():
    with pytest.raises(ValueError, match=r"d = 3, got \(5, 2\)"):
        segment_ground_zones(np.zeros((5, 2)), sensor_height=1.8)
