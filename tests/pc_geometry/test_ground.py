import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pc_geometry.ground import azimuth_sector, segment_ground

from tests.benchmarks.bench_ground import OPEN_PARAMETERS, SCANS, load_scan, score
from tests.lanes import compiled_only, unchecked_only
from tests.real_data import needs_real_data

COARSE = {"num_segments": 16, "num_bins": 30, "max_range": 40.0, "line_search_angle": 0.8}

DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(segment_ground).parameters.items()
    if parameter.default is not parameter.empty
}


def naive_ground(points, *, sensor_height, **changes):
    """The description in `segment_ground`, point by point, with lists and np.polyfit."""
    p = {**DEFAULTS, **changes}
    x, y, z = points.astype(np.float64).T
    d = np.sqrt(x**2 + y**2)
    inside = (p["min_range"] <= d) & (d < p["max_range"])
    segment = naive_sector(x, y, p["num_segments"])
    depth = (d - p["min_range"]) / (p["max_range"] - p["min_range"]) * p["num_bins"]
    lines = []
    for s in range(p["num_segments"]):
        cells = [
            np.flatnonzero(inside & (segment == s) & (depth // 1 == b))
            for b in np.arange(p["num_bins"])
        ]
        lowest = [cell[np.argmin(z[cell])] for cell in cells if len(cell)]
        lines.append(naive_lines(d[lowest], z[lowest], -sensor_height, p))

    def height(s, i):
        covering = [ab for a, b, ab in lines[s % len(lines)] if a - 0.1 < d[i] < b + 0.1]
        return abs(z[i] - np.polyval(covering[-1], d[i])) if covering else np.inf

    def nearest(i):
        step, best = 1, height(segment[i], i)
        while best == np.inf and step * 2 * np.pi / len(lines) < p["line_search_angle"]:
            best = min(height(segment[i] - step, i), height(segment[i] + step, i))
            step += 1
        return best

    return np.array([inside[i] and nearest(i) < p["max_distance"] for i in range(len(z))], bool)


def naive_lines(d, z, level, p):
    """The lines (first range, last range, coefficients) through the lowest points of a segment."""
    lines, line, is_long, i = [], [0], False, 1
    while i < len(d):
        gap = d[i] - d[i - 1]
        is_long |= gap > p["long_threshold"]
        if len(line) == 1:
            near = abs(z[i - 1] - level) < p["max_start_height"]
            starts = near and gap < p["long_threshold"]
            line, is_long, i = [*line, i] if starts else [i], is_long and starts, i + 1
        elif naive_fits(d, z, line, i, is_long, p):
            line, i = [*line, i], i + 1
        else:
            if len(line) > 2:
                lines.append((d[line[0]], d[line[-1]], np.polyfit(d[line], z[line], 1)))
                level = np.polyval(lines[-1][2], d[line[-1]])
            line, is_long = line[-1:], False
    if len(line) > 2:
        lines.append((d[line[0]], d[line[-1]], np.polyfit(d[line], z[line], 1)))
    return lines


def naive_fits(d, z, line, i, is_long, p):
    new = [*line, i]
    slope, offset = np.polyfit(d[new], z[new], 1)
    error = np.abs(slope * d[new] + offset - z[new]).max()
    fits = error <= p["max_fit_error"] and abs(slope) <= p["max_slope"]
    if not is_long:
        return fits
    step = abs(np.polyval(np.polyfit(d[line], z[line], 1), d[i]) - z[i])
    return fits and len(line) > 2 and step <= p["max_long_height"]


def naive_sector(x, y, num_sectors):
    angle = np.vectorize(math.atan2, otypes=[float])(y, x)
    angle = np.where(angle < 0, angle + 2 * np.pi, angle)
    return np.minimum((angle * (num_sectors / (2 * np.pi))).astype(int), num_sectors - 1)


def terrain(height=None, *, num_azimuths=90, ranges=None):
    """Points on rings around a sensor 1.8 m over a ground of `height` at each [n 2] position."""
    ranges = np.arange(3, 30, 0.7) if ranges is None else ranges
    angle = (np.arange(num_azimuths) + 0.5) * 2 * np.pi / num_azimuths
    xy = np.stack([np.outer(ranges, np.cos(angle)), np.outer(ranges, np.sin(angle))], axis=-1)
    xy = xy.reshape(-1, 2)
    z = np.zeros(len(xy)) if height is None else height(xy)
    return np.column_stack([xy, z - 1.8])


def cloud(kind, n=300):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(n, 3)) * [12, 12, 0.1] - [0, 0, 1.8]
    match kind:
        case "tall":
            points[::3, 2] += rng.random(len(points[::3])) * 3
        case "clusters":
            points[:, :2] = points[rng.integers(0, 8, n), :2] + rng.normal(size=(n, 2)) * 1.5
        case "collinear":
            points = np.outer(np.linspace(0, 35, n), [0.6, 0.8, 0.05]) - [0, 0, 1.8]
        case "duplicates":
            points = points[rng.integers(0, n // 2, n)]
        case "gaps":
            points[:, :2] *= (np.hypot(*points[:, :2].T) // 6 % 2 > 0)[:, None]
        case "street":
            bumps = rng.random((len(terrain()), 1)) * [0, 0, 0.15]
            points = (terrain(lambda xy: 0.05 * xy[:, 0] + 0.02 * np.sin(xy[:, 1])) + bumps)[::7]
    return points


KINDS = ["flat", "tall", "clusters", "collinear", "duplicates", "gaps", "street"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("long_threshold", [2.0, 5.0])
def test_equals_the_naive_line_fit(kind, dtype, long_threshold):
    points = cloud(kind).astype(dtype)
    parameters = {"sensor_height": 1.8, **COARSE, "long_threshold": long_threshold}
    ground = segment_ground(points, **parameters)
    assert ground.dtype == np.bool_
    np.testing.assert_array_equal(ground, naive_ground(points, **parameters))
    assert ground.any()


@settings(max_examples=20, deadline=None)
@given(
    points=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 40), st.just(3)),
        elements=st.integers(-400, 400).map(lambda k: k / 32),
    )
)
def test_any_points_equal_the_naive_line_fit(points):
    parameters = {"sensor_height": 0.0, **COARSE, "max_fit_error": 0.31, "max_slope": 1.01}
    expected = naive_ground(points, **parameters)
    np.testing.assert_array_equal(segment_ground(points, **parameters), expected)


@compiled_only
@pytest.mark.parametrize("num_sectors", [1, 7, 180, 4000])
def test_sectors_are_exact(num_sectors):
    rng = np.random.default_rng(0)
    angle = np.concatenate(
        [rng.random(20_000) * 2 * np.pi, np.arange(num_sectors) * 2 * np.pi / num_sectors]
    )
    x, y = np.cos(angle) * 7, np.sin(angle) * 7
    x, y = np.append(x, [0, 1, 0, -1, 0, 1]), np.append(y, [0, 0, 1, 0, -1, -1e-300])
    found = [azimuth_sector(a, b, num_sectors) for a, b in zip(x, y, strict=True)]
    np.testing.assert_array_equal(found, naive_sector(x, y, num_sectors))


@pytest.mark.parametrize("slope", [0.0, 0.1, -0.12])
def test_a_plane_is_ground(slope):
    assert segment_ground(terrain(lambda xy: slope * xy[:, 0]), sensor_height=1.8).all()


def test_a_cone_that_is_too_steep_is_not_ground():
    def cone(xy):
        return 0.25 * np.hypot(*xy.T)

    assert not segment_ground(terrain(cone), sensor_height=1.8).any()
    assert segment_ground(
        terrain(cone), sensor_height=1.8, max_slope=0.26, max_start_height=1.1
    ).all()


def test_a_tilted_sensor_still_sees_the_ground():
    pitch = np.radians(5)
    rotation = np.array(
        [[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]]
    )
    ground = segment_ground(terrain() @ rotation.T, sensor_height=1.8)
    assert ground[np.hypot(*terrain()[:, :2].T) > 3.5].all()


def test_objects_stand_out():
    road = terrain()
    y, z = (axis.ravel() for axis in np.meshgrid(np.linspace(-4, 4, 40), np.linspace(-1.8, 1, 15)))
    wall = np.stack([np.full(600, 12.3), y, z], axis=1)
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-9, -5, 20), np.linspace(-1, 1, 20)))
    roof = np.stack([x, y, np.full(400, -0.3)], axis=1)
    ground = segment_ground(np.concatenate([road, wall, roof]), sensor_height=1.8)
    assert ground[: len(road)].all()
    np.testing.assert_array_equal(ground[len(road) : -400], wall[:, 2] < -1.8 + 0.15)
    assert not ground[-400:].any()


@pytest.mark.parametrize(("step", "is_ground"), [(0.14, True), (0.35, True), (0.6, False)])
def test_a_kerb_starts_a_new_line_up_to_the_start_height(step, is_ground):
    """Points of the raised side fit no line with the road, but start their own."""
    points = terrain(lambda xy: step * (np.hypot(*xy.T) > 10))
    ground = segment_ground(points, sensor_height=1.8)
    raised = points[:, 2] > -1.79
    assert ground[~raised].all()
    assert (ground[raised] == is_ground).all()


def test_a_roof_alone_is_not_taken_for_ground():
    assert not segment_ground(terrain() + np.array([0, 0, 1.5]), sensor_height=1.8).any()


def test_no_line_starts_across_a_gap_but_one_goes_on():
    points = terrain(ranges=np.array([3.0, 11, 12, 13, 30]))
    ranges = np.hypot(*points[:, :2].T)
    ground = segment_ground(points, sensor_height=1.8)
    np.testing.assert_array_equal(ground, ranges > 10)
    beyond = points + np.array([0, 0, 0.12]) * (ranges[:, None] > 20)
    ground = segment_ground(beyond, sensor_height=1.8, max_distance=0.01)
    np.testing.assert_array_equal(ground, (ranges > 10) & (ranges < 20))


def test_points_after_a_gap_are_beyond_it_as_well():
    """The last point fits the line within its error, but is too high for one beyond a gap."""
    d = np.array([3.0, 4, 5, 6, 12, 13])
    points = np.stack([d, 0 * d, 0.03 * (d > 12.5)], axis=1)
    ground = segment_ground(points, sensor_height=0.0, max_long_height=0.01)
    assert ground.tolist() == [True] * 5 + [False]
    assert segment_ground(points, sensor_height=0.0).all()


def test_where_two_lines_meet_the_outer_one_counts():
    d = np.arange(3.0, 16)
    ramp = np.stack([d, 0 * d, np.maximum(0.18 * (d - 10), 0)], axis=1)
    probe = np.array([[9.95, 0.0, 0.0], [9.85, 0.0, 0.0]])
    ground = segment_ground(np.concatenate([ramp, probe]), sensor_height=0.0, max_distance=0.005)
    assert np.flatnonzero(~ground).tolist() == [len(ramp)]


def test_lines_of_nearby_segments_count():
    points = terrain(num_azimuths=180)
    one_side = points[points[:, 1] > 0]
    azimuth = np.radians([-1.0, -10, -20, -60])
    probe = np.stack([10 * np.cos(azimuth), 10 * np.sin(azimuth), np.full(4, -1.8)], axis=1)
    scan = np.concatenate([one_side, probe])
    assert segment_ground(scan, sensor_height=1.8)[-4:].tolist() == [True, True, False, False]
    alone = segment_ground(scan, sensor_height=1.8, line_search_angle=0.0)
    assert alone[:-4].all()
    assert not alone[-4:].any()


def test_range_is_half_open():
    points = np.array([[r, 0.0, 0.0] for r in [1.9, 2, 3, 4, 5, 6, 7, 8, 9.9, 10]])
    ground = segment_ground(points, sensor_height=0.0, min_range=2.0, max_range=10.0)
    assert np.flatnonzero(~ground).tolist() == [0, 9]


def test_the_frame_may_be_that_of_the_vehicle():
    points = cloud("street")
    lifted = points + np.array([0, 0, 1.8])
    np.testing.assert_array_equal(
        segment_ground(points, sensor_height=1.8), segment_ground(lifted, sensor_height=0.0)
    )


def test_order_and_whole_turns_of_segments_change_nothing():
    points = cloud("tall")
    expected = segment_ground(points, sensor_height=1.8)
    order = np.random.default_rng(0).permutation(len(points))
    np.testing.assert_array_equal(segment_ground(points[order], sensor_height=1.8), expected[order])
    turned = points[:, [1, 0, 2]] * [-1, 1, 1]
    np.testing.assert_array_equal(segment_ground(turned, sensor_height=1.8), expected)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_no_line_through_fewer_than_three_points(n):
    points = terrain()[::90][:n]
    assert segment_ground(points, sensor_height=1.8).tolist() == [False] * n


def test_upside_down_there_is_no_ground():
    assert not segment_ground(terrain() * [1, 1, -1], sensor_height=1.8).any()


@compiled_only
@needs_real_data
@pytest.mark.parametrize(("scan", "least"), [*zip(SCANS, [0.965, 0.96, 0.98, 0.968], strict=True)])
def test_real_scans(scan, least):
    points, ground, labelled = load_scan(scan)
    found = segment_ground(points[:, :3], sensor_height=1.73)
    assert score(found[labelled], ground[labelled])["F1"] > least


@compiled_only
@needs_real_data
def test_open_parameters_are_as_good_as_the_open_implementation():
    points, ground, labelled = load_scan("08/000000")
    scores = score(segment_ground(points[:, :3], **OPEN_PARAMETERS)[labelled], ground[labelled])
    assert scores["F1"] > 0.824
    assert scores["precision"] > 0.966


@pytest.mark.parametrize(
    "name",
    [
        "max_distance",
        "max_slope",
        "max_fit_error",
        "long_threshold",
        "max_long_height",
        "max_start_height",
        "line_search_angle",
    ],
)
@pytest.mark.parametrize("value", [-0.1, np.inf, np.nan])
def test_negative_or_infinite_limits(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 0 and finite, got {value}"):
        segment_ground(terrain(), sensor_height=1.8, **{name: float(value)})


@pytest.mark.parametrize(("low", "high"), [(-1.0, 5.0), (5.0, 5.0), (1.0, np.inf), (np.nan, 5.0)])
def test_ranges_out_of_order(low, high):
    with pytest.raises(ValueError, match=f"min_range < max_range.* got min_range {low} and"):
        segment_ground(terrain(), sensor_height=1.8, min_range=low, max_range=float(high))


@pytest.mark.parametrize(("name", "most"), [("num_segments", 4096), ("num_bins", 1024)])
def test_grid_out_of_range(name, most):
    for value in (0, -1, most + 1):
        with pytest.raises(ValueError, match=f"{name} must be from 1 to {most}, got {value}"):
            segment_ground(terrain(), sensor_height=1.8, **{name: value})
    assert segment_ground(terrain()[:9], sensor_height=1.8, **{name: most}).shape == (9,)


@unchecked_only
@pytest.mark.parametrize(("name", "value"), [("num_segments", 90), ("num_bins", 120)])
def test_grid_of_small_numpy_integers(name, value):
    points = cloud("street")
    ground = segment_ground(points, sensor_height=1.8, **{name: np.uint8(value)})
    expected = segment_ground(points, sensor_height=1.8, **{name: value})
    np.testing.assert_array_equal(ground, expected)
    with pytest.raises(ValueError, match=f"{name} must be an integer from 1 to .*, got 9.5"):
        segment_ground(points, sensor_height=1.8, **{name: 9.5})


def test_sensor_height_must_be_finite():
    with pytest.raises(ValueError, match="sensor_height must be finite, got nan"):
        segment_ground(terrain(), sensor_height=np.nan)


def test_points_must_be_finite():
    points = terrain()
    points[3, 1] = np.nan
    with pytest.raises(ValueError, match="points must be finite, got 1 of"):
        segment_ground(points, sensor_height=1.8)


@unchecked_only
def test_points_must_be_3d():
    with pytest.raises(ValueError, match=r"d = 3, got \(5, 2\)"):
        segment_ground(np.zeros((5, 2)), sensor_height=1.8)
