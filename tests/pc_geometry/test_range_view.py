import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_geometry.range_view import range_image

from tests.lanes import compiled_only, unchecked_only
from tests.real_data import REAL_DATA, needs_real_data


def naive_pixels(points, num_rows, columns, fov_degrees=(-25.0, 3.0)):
    """Both angles in float64, as the text books have them; -1 outside."""
    x, y, z = points.astype(np.float64).T
    lower, upper = np.radians(fov_degrees)
    u = (np.pi - np.arctan2(y, x)) * (columns / (2 * np.pi))
    v = (upper - np.arctan2(z, np.sqrt(x * x + y * y))) * (num_rows / (upper - lower))
    column = np.minimum(np.floor(u), columns - 1)
    row = np.minimum(np.floor(v), num_rows - 1)
    inside = (v >= 0) & (v <= num_rows) & ((x != 0) | (y != 0) | (z != 0))
    return np.where(inside, row * columns + column, -1).astype(np.int64)


def naive_image(points, pixel, num_pixels):
    """One point after the other, the first of the nearest stays."""
    x, y, z = points.astype(np.float64).T
    distance = np.sqrt(x * x + y * y + z * z).astype(np.float32)
    image, index = np.full(num_pixels, np.inf, np.float32), np.full(num_pixels, -1)
    for i, cell in enumerate(pixel):
        if cell >= 0 and distance[i] < image[cell]:
            image[cell], index[cell] = distance[i], i
    return image, index


def assert_same(points, beams, columns, expected_pixel, **kwargs):
    image, index, pixel = range_image(points, beams, columns, **kwargs)
    shape = (beams if isinstance(beams, int) else len(beams), columns)
    assert image.shape == index.shape == shape
    assert (image.dtype, index.dtype, pixel.dtype) == (np.float32, np.int64, np.int64)
    np.testing.assert_array_equal(pixel, expected_pixel)
    expected_image, expected_index = naive_image(points, expected_pixel, image.size)
    np.testing.assert_array_equal(image.ravel(), expected_image)
    np.testing.assert_array_equal(index.ravel(), expected_index)


def cloud(kind, n=700):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(n, 3)) * np.array([30, 30, 4])
    match kind:
        case "duplicates":
            points = points[rng.integers(0, n // 8, n)]
        case "collinear":
            points = np.outer(np.linspace(-5, 5, n), [1, 2, -0.1])
        case "clustered":
            points = points[:3].repeat(n // 3, axis=0) + rng.normal(size=(n // 3 * 3, 3)) * 0.01
        case "lattice":
            points = np.floor(points / 8)
        case "on the axes":
            points = points * np.eye(3)[rng.integers(0, 3, n)]
    return points


KINDS = ["random", "duplicates", "collinear", "clustered", "lattice", "on the axes"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("num_rows", "columns"), [(64, 2048), (1, 1), (7, 3)])
def test_equals_the_definition(kind, dtype, num_rows, columns):
    points = cloud(kind).astype(dtype)
    for fov in ((-25.0, 3.0), (-90.0, 90.0), (10.0, 20.0)):
        expected = naive_pixels(points, num_rows, columns, fov)
        assert_same(points, num_rows, columns, expected, fov_degrees=fov)


def test_more_columns_than_guesses_can_tell_apart():
    points = cloud("random", 200)
    columns = 1 << 19
    _, index, pixel = range_image(points, 2, columns, fov_degrees=(-90.0, 90.0))
    np.testing.assert_array_equal(pixel, naive_pixels(points, 2, columns, (-90.0, 90.0)))
    assert sorted(index[index >= 0].tolist()) == list(range(200))


@settings(max_examples=30, deadline=None)
@given(
    column=st.integers(0, 359),
    offset=st.sampled_from([0.0, 1e-12, -1e-12, 1e-7, -1e-7, 2e-5, 0.5]),
    row=st.integers(0, 9),
    distance=st.floats(0.01, 1000),
)
def test_near_the_borders_of_pixels(column, offset, row, distance):
    yaw, elevation = np.pi - np.radians(column + offset), np.radians(5 - row + offset)
    flat = distance * np.cos(elevation)
    point = np.array([[flat * np.cos(yaw), flat * np.sin(yaw), distance * np.sin(elevation)]])
    _, _, pixel = range_image(point, 10, 360, fov_degrees=(-5.0, 5.0))
    expected = naive_pixels(point, 10, 360, (-5.0, 5.0))
    if abs(offset) > 1e-12:  # nearer than that, two arc tangents need not agree
        np.testing.assert_array_equal(pixel, expected)
        return
    rows, columns = np.divmod(np.concatenate([pixel, expected]), 360)
    assert pixel[0] == expected[0] == -1 or (
        abs(rows[0] - rows[1]) <= 1 and abs(columns[0] - columns[1]) in (0, 1, 359)
    )


def test_where_the_directions_are():
    points = np.array([[-1.0, 1e-9, 0], [0, 1, 0], [1, -1e-9, 0], [0, -1, 0], [-1, -1e-9, 0]])
    _, _, pixel = range_image(points, 1, 8)
    assert pixel.tolist() == [0, 2, 4, 6, 7]
    upper_and_lower = np.array([[1.0, 0, 0.05], [1.0, 0, -0.4557]])
    assert (range_image(upper_and_lower, 64, 8)[2] // 8).tolist() == [0, 62]


def test_outside_and_at_the_origin():
    points = np.array([[0.0, 0, 0], [1, 0, 5], [1, 0, -5], [2, 0, 0]])
    image, index, pixel = range_image(points, 4, 4)
    assert pixel.tolist()[:3] == [-1, -1, -1]
    assert index[index >= 0].tolist() == [3]
    assert np.isinf(image).sum() == 15


def test_no_points_and_one_point():
    for points in (np.zeros((0, 3), np.float32), np.float32([[3, 4, 0]])):
        image, index, pixel = range_image(points, 2, 4)
        assert np.isfinite(image).sum() == (index >= 0).sum() == len(pixel) == len(points)
    assert image.min() == 5


def test_ties_go_to_the_lowest_index():
    points = np.repeat(np.float32([[5, 0, 0], [0, 7, 0]]), 3, axis=0)
    _, index, _ = range_image(points, 1, 4)
    assert index.max() == 3
    assert index[index >= 0].tolist() == [3, 0]


def test_nearest_beam():
    beams = np.array([-10.0, 2.0, -4.0, 0.0])
    elevation = np.radians([90.0, 1.01, 0.99, -1.9, -2.1, -6.9, -7.1, -80.0])
    points = 9 * np.stack([np.cos(elevation), 0 * elevation, np.sin(elevation)], axis=1)
    expected = np.array([0, 0, 1, 1, 2, 2, 3, 3]) * 6 + 3
    expected[0] = 3  # straight up is still ahead: cos(pi / 2) is a little above 0
    assert_same(points, beams, 6, expected)


def test_between_two_beams_the_lower_one():
    points = np.array([[5.0, 0, 0], [0, 7, 0], [3, 3, 1e-9]])
    _, _, pixel = range_image(points, np.array([-45.0, 45.0]), 1)
    assert pixel.tolist() == [1, 1, 0]


def test_beams_in_the_middle_of_rows_are_the_rows():
    points = cloud("random")
    points = points[naive_pixels(points, 28, 100) >= 0]
    beams = np.arange(28) - 24.5
    assert_same(points, beams, 100, naive_pixels(points, 28, 100))


def test_rows_from_the_sensor():
    points = cloud("random", 600).astype(np.float32)
    rows = np.random.default_rng(1).integers(-1, 5, 600)
    column = naive_pixels(points, 1, 90, (-90.0, 90.0))
    expected = np.where(rows >= 0, rows * 90 + column, -1)
    assert_same(points, 5, 90, expected, rows=rows)
    points[0], expected[0] = 0, -1
    assert_same(points, 5, 90, expected, rows=rows)


def test_an_image_taken_back_to_the_points():
    points = cloud("random").astype(np.float32)
    image, index, pixel = range_image(points, 16, 64, fov_degrees=(-90.0, 90.0))
    assert (image.ravel()[pixel] <= np.linalg.norm(points, axis=1) * 1.000001).all()
    seen = index[index >= 0]
    np.testing.assert_array_equal(index.ravel()[pixel[seen]], seen)


@compiled_only
@needs_real_data
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_definition_on_a_real_scan(dtype):
    file = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne/000000.bin"
    points = np.fromfile(file, np.float32).reshape(-1, 4)[:, :3].astype(dtype)
    expected = naive_pixels(points, 64, 2048)
    assert_same(points, 64, 2048, expected)
    assert 0.7 < np.isfinite(range_image(points, 64, 2048)[0]).mean() < 0.8


@compiled_only
@needs_real_data
def test_rings_of_a_real_scan_are_the_nearest_beams():
    folder = REAL_DATA / "nuscenes/samples/LIDAR_TOP"
    scan = np.fromfile(next(folder.glob("*.bin")), np.float32).reshape(-1, 5)
    points, rows = scan[:, :3], 31 - scan[:, 4].astype(np.int64)
    far = np.linalg.norm(points, axis=1) > 3
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    beams = np.array([np.median(elevation[far & (rows == row)]) for row in range(32)])
    _, _, by_ring = range_image(points, 32, 1090, rows=rows)
    _, _, by_angle = range_image(points, beams, 1090)
    ring, column = np.divmod(by_ring[far], 1090)
    beam, same_column = np.divmod(by_angle[far], 1090)
    np.testing.assert_array_equal(same_column, column)
    assert (ring == beam).mean() > 0.9  # the scan is corrected for the motion of the vehicle
    assert (np.abs(ring - beam) <= 1).mean() > 0.999


def test_refuses():
    points = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        range_image(points, 4, 0)
    with pytest.raises(ValueError, match="beams must be at least 1, got 0"):
        range_image(points, 0, 4)
    with pytest.raises(ValueError, match=r"beams must be a number of rows or elevations within"):
        range_image(points, np.array([0.0, 91.0]), 4)
    with pytest.raises(ValueError, match=r"elevations within \+-90 degrees, got \[\]"):
        range_image(points, np.zeros(0), 4)
    for fov in ((3.0, 3.0), (3.0, -25.0), (-91.0, 0.0), (np.nan, 0.0)):
        with pytest.raises(ValueError, match=r"fov_degrees must be \(lower, upper\) with -90 <="):
            range_image(points, 4, 4, fov_degrees=fov)
    with pytest.raises(ValueError, match=r"rows must be in \[-1, 3\], got 0 to 4"):
        range_image(points, 4, 4, rows=np.array([0, 4]))
    with pytest.raises(ValueError, match="points must be finite, got 2 of 2"):
        range_image(points + np.float32(np.nan), 4, 4)


@unchecked_only
@pytest.mark.parametrize(
    ("beams", "columns"),
    [(64, np.uint16(2048)), (np.int16(64), 2048), (np.uint8(64), np.int16(2048))],
)
def test_small_numpy_integers(beams, columns):
    points = cloud("random")
    for got, expected in zip(
        range_image(points, beams, columns), range_image(points, 64, 2048), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


@unchecked_only
def test_fractions_of_rows_and_columns():
    points = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"beams must be an integer at least 1, got 64\.0"):
        range_image(points, 64.0, 4)
    with pytest.raises(ValueError, match=r"columns must be an integer at least 1, got 1\.5"):
        range_image(points, 64, 1.5)


@unchecked_only
def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"d = 3, got \(5, 2\)"):
        range_image(np.zeros((5, 2), np.float32), 4, 4)
    with pytest.raises(ValueError, match=r"rows must have shape \(5,\), got \(4,\)"):
        range_image(np.zeros((5, 3), np.float32), 4, 4, rows=np.zeros(4, np.int64))
    with pytest.raises(ValueError, match=r"rows must be whole numbers, got float64"):
        range_image(np.zeros((5, 3), np.float32), 4, 4, rows=np.zeros(5))
