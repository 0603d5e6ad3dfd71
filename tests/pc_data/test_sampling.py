"""What is kept of a scan: the right points, as many as asked, with all that is known of them."""

from functools import partial

import numpy as np
import pytest
from pc_data.augment import sampling

from tests.pc_data.scans import assert_rows_follow, assert_same, bare, copied, scan_of

ALL = {
    "drop_points": sampling.drop_points,
    "grid_sample": partial(sampling.grid_sample, voxel_size=3.0),
    "sphere_crop": sampling.sphere_crop,
    "crop_cuboid": partial(sampling.crop_cuboid, min_points=20),
    "drop_cuboid": sampling.drop_cuboid,
    "subsample": partial(sampling.subsample, max_points=30),
    "resample": partial(sampling.resample, num_points=70),
    "resample_one_of": partial(sampling.resample_one_of, counts=(40, 80)),
    "resample_near": partial(sampling.resample_near, num_points=45, far=8.0),
    "shuffle": sampling.shuffle,
    "clip_range": partial(sampling.clip_range, box=((-5.0, -5.0, -5.0), (5.0, 5.0, 5.0))),
    "drop_ego": sampling.drop_ego,
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n", [0, 1, 2, 60])
def test_points_are_those_of_the_scan(name, n):
    scan = scan_of(n)
    before = copied(scan)
    out = ALL[name](scan, np.random.default_rng(1))
    assert_same(out, ALL[name](scan, np.random.default_rng(1)))
    assert_same(scan, before)
    np.testing.assert_array_equal(out.xyz, scan.xyz[out.instance])
    assert_rows_follow(out, scan, out.instance)
    alone = ALL[name](bare(scan), np.random.default_rng(1))
    np.testing.assert_array_equal(alone.xyz, out.xyz)
    if n and name not in ("clip_range", "drop_ego"):
        assert len(out)


@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0])
def test_drop_points(ratio):
    scan = scan_of(1000)
    out = sampling.drop_points(scan, np.random.default_rng(2), ratio=ratio)
    assert len(out) == max(1, int(1000 * (1 - ratio)))
    assert (np.diff(out.instance) > 0).all()
    assert sampling.drop_points(scan, np.random.default_rng(2), probability=0.0) is scan
    rng = np.random.default_rng(3)
    dropped = [len(sampling.drop_points(scan, rng, probability=0.2)) < 1000 for _ in range(600)]
    assert np.mean(dropped) == pytest.approx(0.2, abs=0.05)


def few_labels(n=300):
    labels = np.full(n, -1)
    labels[::50] = 2
    return scan_of(n, labels=labels)


def test_labelled_points_can_be_kept():
    scan, rng = few_labels(), np.random.default_rng(4)
    out = sampling.drop_points(scan, rng, ratio=0.9, keep_labelled=True)
    assert set(np.flatnonzero(scan.labels >= 0)) <= set(out.instance)
    out = sampling.grid_sample(scan, rng, voxel_size=15.0, keep_labelled=True)
    assert set(np.flatnonzero(scan.labels >= 0)) <= set(out.instance)
    assert len(np.unique(out.instance)) == len(out)
    unlabelled = sampling.grid_sample(bare(scan), rng, voxel_size=15.0, keep_labelled=True)
    assert len(unlabelled) == 8


def test_grid_sample_keeps_one_a_voxel_at_random():
    scan = scan_of(500)
    out = sampling.grid_sample(scan, np.random.default_rng(5), voxel_size=4.0)
    voxels = np.floor(scan.xyz / 4.0)
    assert (
        len(np.unique(voxels[out.instance], axis=0)) == len(out) == len(np.unique(voxels, axis=0))
    )
    three = scan_of(3, xyz=np.float32([[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]]))
    rng = np.random.default_rng(6)
    drawn = [sampling.grid_sample(three, rng, voxel_size=1.0).instance[0] for _ in range(900)]
    assert np.bincount(drawn, minlength=3).min() > 250


def test_grid_starts_at_the_origin():
    two = scan_of(2, xyz=np.float32([[-0.5, 0.1, 0.1], [0.4, 0.1, 0.1]]))
    assert len(sampling.grid_sample(two, np.random.default_rng(0), voxel_size=1.0)) == 2
    two = scan_of(2, xyz=np.float32([[0.1, 0.1, 0.1], [0.9, 0.1, 0.1]]))
    assert len(sampling.grid_sample(two, np.random.default_rng(0), voxel_size=1.0)) == 1


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6, 1.0])
def test_sphere_crop_is_a_ball(rate):
    scan = scan_of(200)
    out = sampling.sphere_crop(scan, np.random.default_rng(7), rate=rate)
    assert len(out) == max(1, int(200 * rate))
    distance = np.linalg.norm(scan.xyz[:, None] - scan.xyz[None], axis=2)
    kept = np.isin(np.arange(200), out.instance)
    farthest, nearest_left = (distance[kept][:, mask] for mask in (kept, ~kept))
    assert (farthest.max(1) <= nearest_left.min(1, initial=np.inf)).any()


def test_crop_cuboid():
    scan, rng = scan_of(2000), np.random.default_rng(8)
    extent = np.ptp(scan.xyz, axis=0)
    for num_axes in (2, 3):
        for _ in range(20):
            out = sampling.crop_cuboid(scan, rng, min_points=300, num_axes=num_axes)
            low, high = out.xyz.min(0)[:num_axes], out.xyz.max(0)[:num_axes]
            inside = ((scan.xyz[:, :num_axes] >= low) & (scan.xyz[:, :num_axes] <= high)).all(1)
            np.testing.assert_array_equal(np.flatnonzero(inside), out.instance)
            assert ((high - low) / extent[:num_axes]).max() <= 1.0
            assert len(out) > 300
        assert np.ptp(out.xyz[:, 2]) > (0.95 if num_axes == 2 else 0) * extent[2]


def test_crop_cuboid_keeps_the_fullest_where_none_is_full_enough():
    scan = scan_of(100)
    best = sampling.crop_cuboid(scan, np.random.default_rng(9), min_points=5000)
    sizes = [
        len(sampling.crop_cuboid(scan, np.random.default_rng(9), min_points=5000, tries=tries))
        for tries in (1, 5, 20)
    ]
    assert sizes == sorted(sizes)
    assert len(best) >= sizes[-1] > 0


def test_drop_cuboid():
    scan, rng, shares = scan_of(4000), np.random.default_rng(10), []
    for _ in range(200):
        out = sampling.drop_cuboid(scan, rng, side=(0.2, 0.2))
        gone = scan.xyz[np.setdiff1d(np.arange(4000), out.instance)]
        low, high = gone.min(0), gone.max(0)
        assert ((high - low) <= 0.2 * np.ptp(scan.xyz, axis=0) + 1e-4).all()
        assert not ((out.xyz > low) & (out.xyz < high)).all(1).any()
        shares.append((high - low).max() / 20)
    assert max(shares) == pytest.approx(0.2, abs=0.01)
    sizes = [4000 - len(sampling.drop_cuboid(scan, rng)) for _ in range(200)]
    assert min(sizes) <= 1  # the side is drawn from 0 on
    assert max(sizes) < 0.2**3 * 4000 * 3
    whole = sampling.drop_cuboid(scan, rng, side=(1.0, 1.0))
    assert 0 < len(whole) < 4000


def test_counts():
    scan, rng = scan_of(100), np.random.default_rng(11)
    assert len(sampling.subsample(scan, rng, max_points=30)) == 30
    assert sampling.subsample(scan, rng, max_points=100) is scan
    fewer = sampling.resample(scan, rng, num_points=30)
    assert len(np.unique(fewer.instance)) == 30
    assert (np.diff(fewer.instance) < 0).any()
    more = sampling.resample(scan, rng, num_points=250)
    assert len(more) == 250
    assert set(more.instance) == set(range(100))
    sizes = {len(sampling.resample_one_of(scan, rng, counts=(5, 7, 300))) for _ in range(40)}
    assert sizes == {5, 7, 300}
    assert sorted(sampling.shuffle(scan, rng).instance) == list(range(100))


def test_resample_near_keeps_what_is_far():
    scan, rng = scan_of(400), np.random.default_rng(12)
    far = np.flatnonzero(np.linalg.norm(scan.xyz, axis=1) >= 12)
    out = sampling.resample_near(scan, rng, num_points=200, far=12.0)
    assert len(np.unique(out.instance)) == len(out) == 200
    assert set(far) <= set(out.instance)
    crowded = sampling.resample_near(scan, rng, num_points=200, far=0.0)
    assert len(np.unique(crowded.instance)) == 200
    assert len(sampling.resample_near(scan, rng, num_points=500)) == 500


def test_ego_and_range():
    xyz = np.float32([[0, 0, 0], [2.9, -2.9, 5], [3.0, 0, 0], [0, -3.5, 0], [60, 0, 0]])
    scan = scan_of(5, xyz=xyz)
    assert sampling.drop_ego(scan, np.random.default_rng(0)).instance.tolist() == [2, 3, 4]
    clipped = sampling.clip_range(
        scan, np.random.default_rng(0), box=((0.5, -40.0, -3.0), (50.0, 40.0, 1.0))
    )
    assert clipped.instance.tolist() == [2]


@pytest.mark.parametrize(
    ("function", "parameters", "message"),
    [
        (sampling.drop_points, {"ratio": 1.2}, r"ratio must be in \[0, 1\], got 1.2"),
        (sampling.drop_points, {"probability": -1.0}, r"probability must be in \[0, 1\]"),
        (sampling.grid_sample, {"voxel_size": 0.0}, r"size must be positive"),
        (sampling.sphere_crop, {"rate": 2.0}, r"rate must be in \[0, 1\]"),
        (sampling.crop_cuboid, {"side": (0.9, 0.5)}, r"side must be two finite numbers in order"),
        (sampling.crop_cuboid, {"num_axes": 1}, r"num_axes must be from 2 to 3, got 1"),
        (sampling.crop_cuboid, {"tries": 0}, r"tries must be at least 1"),
        (sampling.crop_cuboid, {"min_aspect": 1.1}, r"min_aspect must be in \[0, 1\]"),
        (sampling.drop_cuboid, {"side": (0.0, 1.5)}, r"side must be .* within \[0, 1\]"),
        (sampling.subsample, {"max_points": 0}, r"max_points must be at least 1"),
        (sampling.resample, {"num_points": 0}, r"num_points must be at least 1"),
        (sampling.resample_near, {"far": -1.0}, r"far must be finite and at least 0"),
        (sampling.drop_ego, {"half_side": -1.0}, r"half_side must be finite and at least 0"),
    ],
)
def test_parameters_are_checked(function, parameters, message):
    with pytest.raises(ValueError, match=message):
        function(scan_of(5), np.random.default_rng(0), **parameters)
