import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pc_geometry.buckets import BUCKET_SIZE, GROUP_SIZE, build_buckets
from pc_geometry.sampling import farthest_point_sample

from tests.lanes import compiled_only, unchecked_only
from tests.real_data import REAL_DATA, needs_real_data


def naive_sample(points, num_samples, start=0):
    """One sweep over all points for each sample."""
    chosen = np.arange(num_samples)
    distance = np.full(len(points), np.inf, points.dtype)
    for i in range(num_samples):
        chosen[i] = distance.argmax() if i else start
        squared = (points - points[chosen[i]]) ** 2
        distance = np.minimum(distance, sum(squared.T[1:], squared[:, 0]))
        distance[chosen[: i + 1]] = -1
    return chosen


def assert_same(points, num_samples, start=0):
    chosen = farthest_point_sample(points, num_samples, start=start)
    assert chosen.dtype == np.int64
    np.testing.assert_array_equal(chosen, naive_sample(points, num_samples, start))


def cloud(rng, kind, n, d):
    points = rng.normal(size=(n, d)) * 10
    match kind:
        case "uniform":
            points = rng.uniform(-1, 1, size=(n, d))
        case "collinear":
            points = np.outer(np.linspace(-5, 5, n), np.arange(1, d + 1))
        case "duplicates":
            points = points[rng.integers(0, max(n // 50, 1), n)]
        case "lattice":
            points = np.floor(points / 4)
        case "equal":
            points = np.full((n, d), 3.25)
        case "two_clusters":
            points[: n // 2] += 1e6
        case "outlier":
            points[n // 3] = 1e9
        case "adjacent":
            points = 9e6 + rng.integers(0, 2, size=(n, d))
        case "all_scales":
            points *= 0.5 ** np.linspace(0, 60, n)[:, None]
    return points


KINDS = [
    "random",
    "uniform",
    "collinear",
    "duplicates",
    "lattice",
    "equal",
    "two_clusters",
    "outlier",
    "adjacent",
    "all_scales",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [2, 3])
def test_equals_naive_sampling(kind, dtype, d):
    points = cloud(np.random.default_rng(0), kind, 1200, d).astype(dtype)
    assert_same(points, 24, start=700)


@compiled_only
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 3])
def test_equals_naive_sampling_of_large_clouds(kind, d):
    points = cloud(np.random.default_rng(1), kind, 30_000, d).astype(np.float32)
    assert len(build_buckets(points).box) > 1
    assert_same(points, 600, start=29_999)


@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_tiny_clouds_from_every_start(n):
    points = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    for start in range(n):
        for num_samples in range(n + 1):
            assert_same(points, num_samples, start)


@pytest.mark.parametrize("n", [BUCKET_SIZE - 1, BUCKET_SIZE, BUCKET_SIZE + 1])
def test_all_points_are_chosen_once(n):
    points = np.floor(np.random.default_rng(n).normal(size=(n, 3)) * 2).astype(np.float32)
    chosen = farthest_point_sample(points, n)
    assert sorted(chosen.tolist()) == list(range(n))
    np.testing.assert_array_equal(chosen, naive_sample(points, n))


def test_equal_points_follow_in_ascending_order():
    points = np.ones((BUCKET_SIZE + 100, 2), np.float32)
    chosen = farthest_point_sample(points, 50, start=20)
    assert chosen.tolist() == [20, *range(20), *range(21, 50)]


@pytest.mark.parametrize("num_buckets", [GROUP_SIZE - 1, GROUP_SIZE, GROUP_SIZE + 1])
def test_groups_that_are_full_or_not(num_buckets):
    points = np.full(((num_buckets - 1) * BUCKET_SIZE + 1, 2), 7, np.float32)
    points[-1] = 9
    assert len(build_buckets(points).starts) == num_buckets + 1
    assert farthest_point_sample(points, 5).tolist() == [0, len(points) - 1, 1, 2, 3]


@settings(max_examples=25, deadline=None)
@given(data=st.data(), d=st.integers(2, 3), n=st.integers(1, 40))
def test_ties_go_to_the_lowest_index(data, d, n):
    lattice = hnp.arrays(np.float32, (n, d), elements=st.integers(-2, 2).map(float))
    points = data.draw(lattice)
    assert_same(points, data.draw(st.integers(0, n)), data.draw(st.integers(0, n - 1)))


@compiled_only
@pytest.mark.parametrize("seed", range(10))
def test_ties_between_buckets_go_to_the_lowest_index(seed):
    rng = np.random.default_rng(seed)
    side = int(rng.integers(9, 30))
    points = np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)
    points = rng.permutation(points).astype(np.float32)
    assert_same(points, 400, int(rng.integers(len(points))))


def test_a_prefix_is_the_result_for_fewer():
    points = np.random.default_rng(0).normal(size=(700, 3)).astype(np.float32)
    longer = farthest_point_sample(points, 30, start=5)
    np.testing.assert_array_equal(farthest_point_sample(points, 12, start=5), longer[:12])


def test_a_plane_in_space_equals_the_flat_cloud():
    flat = np.random.default_rng(0).normal(size=(800, 2)).astype(np.float32)
    solid = np.column_stack([flat, np.full(len(flat), 2.5, np.float32)])
    np.testing.assert_array_equal(farthest_point_sample(flat, 20), farthest_point_sample(solid, 20))


def test_far_from_the_origin_float64_keeps_its_precision():
    points = np.random.default_rng(0).normal(size=(900, 3)) + np.array([5e5, 5e6, 0])
    assert_same(points, 20)


def test_strided_input_stays_what_it_is():
    scan = np.random.default_rng(0).normal(size=(1400, 4)).astype(np.float32)
    before = scan.copy()
    assert_same(scan[::2, :3], 15)
    assert_same(scan[:, 1:3], 15)
    np.testing.assert_array_equal(scan, before)


@compiled_only
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squares_beyond_the_largest_number_are_ties(dtype):
    top = np.finfo(dtype).max
    points = np.tile(np.array([[0, 0, 0], [-top, 0, 0], [top, top, 0], [1, 0, 0]], dtype), (400, 1))
    with np.errstate(over="ignore"):
        assert_same(points, 40, start=3)


@compiled_only
def test_squares_below_the_smallest_number_are_zero():
    points = np.random.default_rng(0).normal(size=(3000, 3)).astype(np.float32) * 1e-30
    assert_same(points, 40)


@compiled_only
@needs_real_data
@pytest.mark.parametrize("d", [2, 3])
def test_equals_naive_sampling_on_real_scans(d):
    folder = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne"
    points = np.fromfile(folder / "000000.bin", np.float32).reshape(-1, 4)[:, :d]
    assert_same(points, 256, start=100)
    shuffled = np.random.default_rng(0).permutation(points)
    assert_same(shuffled, 256)


@compiled_only
@needs_real_data
def test_agrees_with_fpsample_on_a_real_scan():
    fpsample = pytest.importorskip("fpsample")
    folder = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne"
    points = np.fromfile(folder / "000000.bin", np.float32).reshape(-1, 4)[:, :3]
    expected = fpsample.fps_sampling(points, 1024, 0)
    np.testing.assert_array_equal(farthest_point_sample(points, 1024), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_buckets_hold_every_point_once_inside_their_boxes(kind):
    points = cloud(np.random.default_rng(2), kind, 2500, 3).astype(np.float32)
    xyz, index, starts, box, group_box = build_buckets(points)
    np.testing.assert_array_equal(np.sort(index), np.arange(len(points)))
    np.testing.assert_array_equal(xyz, points[index].T)
    assert starts[0] == 0
    assert starts[-1] == len(points)
    assert np.diff(starts).min() >= 1
    assert np.diff(starts).max() <= BUCKET_SIZE
    for b, (begin, end) in enumerate(itertools.pairwise(starts)):
        group, j = divmod(b, GROUP_SIZE)
        assert (np.diff(index[begin:end]) > 0).all()
        np.testing.assert_array_equal(box[group, :3, j], xyz[:, begin:end].min(axis=1))
        np.testing.assert_array_equal(box[group, 3:, j], xyz[:, begin:end].max(axis=1))
        assert (group_box[:3, group] <= box[group, :3, j]).all()
        assert (group_box[3:, group] >= box[group, 3:, j]).all()


@compiled_only
def test_an_outlier_does_not_widen_the_buckets():
    rng = np.random.default_rng(0)
    points = rng.random((20_000, 3), dtype=np.float32)
    volume = [
        np.prod(box[:, 3:] - box[:, :3], axis=1)[box[:, 0] <= box[:, 3]].sum()
        for box in (
            build_buckets(points).box,
            build_buckets(np.append(points, np.float32([[1e7, 0, 0]]), axis=0)).box,
        )
    ]
    assert volume[0] <= 1.01
    assert volume[1] <= 1.01


@pytest.mark.parametrize("num_samples", [-1, 4])
def test_number_out_of_range(num_samples):
    points = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match=f"num_samples must be from 0 to 3, got {num_samples}"):
        farthest_point_sample(points, num_samples)


@pytest.mark.parametrize("start", [-1, 3])
def test_start_out_of_range(start):
    points = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match=f"start must be from 0 to 2, got {start}"):
        farthest_point_sample(points, 2, start=start)


@unchecked_only
def test_small_numpy_integers_but_no_floats():
    points = np.random.default_rng(0).normal(size=(700, 3)).astype(np.float32)
    expected = farthest_point_sample(points, 200, start=100)
    chosen = farthest_point_sample(points, np.uint8(200), start=np.int8(100))
    np.testing.assert_array_equal(chosen, expected)
    with pytest.raises(ValueError, match=r"num_samples must be an integer .* got 2\.0"):
        farthest_point_sample(points, 2.0)
    with pytest.raises(ValueError, match=r"start must be an integer from 0 to 699, got 1\.5"):
        farthest_point_sample(points, 2, start=1.5)


def test_no_points():
    points = np.zeros((0, 3), np.float32)
    assert farthest_point_sample(points, 0).shape == (0,)
    with pytest.raises(ValueError, match="num_samples must be from 0 to 0, got 1"):
        farthest_point_sample(points, 1)


def test_not_finite_tells_where():
    points = np.zeros((3, 3), np.float32)
    points[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"points must be finite.*first at index 1"):
        farthest_point_sample(points, 1)


@unchecked_only
def test_wrong_shape():
    with pytest.raises(ValueError, match=r"points must have shape \[n d\] with d = 2 or 3"):
        farthest_point_sample(np.zeros((3, 4), np.float32), 1)
