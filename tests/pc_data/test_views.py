"""Views know their points; presets hold the papers' steps in the papers' order."""

import dataclasses
import pickle
from functools import partial

import numpy as np
import pytest
from pc_data.augment import presets
from pc_data.augment.pairs import pair_pixels
from pc_data.augment.sampling import drop_cuboid, resample, shuffle
from pc_data.augment.spatial import rotate
from pc_data.augment.views import make_view, match_views, msc_views, slidr_view, sspl_views
from pc_data.errors import DataError

from tests.pc_data.scans import (
    assert_pixels_kept,
    assert_rows_follow,
    assert_same,
    bare,
    copied,
    scan_of,
)

PRESETS = {
    name: preset
    for name in dir(presets)
    if name.isupper() and callable((preset := getattr(presets, name))[0])
} | {
    "sspl_indoor": presets.sspl_view(indoor=True),
    "sspl_lidar": presets.sspl_view(indoor=False),
    "depthcontrast_indoor": presets.depthcontrast_view(indoor=True, num_points=600),
    "depthcontrast_lidar": presets.depthcontrast_view(indoor=False),
    "depthcontrast_lidar_points": presets.depthcontrast_view(indoor=False, num_points=500),
}


def room(n=4000, seed=0):
    """Points on the floor and two walls of a room."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform([0, 0, 0], [4, 3, 2.5], (n, 3))
    xyz[np.arange(n), rng.integers(3, size=n)] = 0
    return scan_of(n, xyz=xyz.astype(np.float32), seed=seed)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("n", [1, 2, 800])
def test_presets_are_pure_and_reproducible(name, n):
    for scan in (room(n), bare(room(n))):
        before = copied(scan)
        out = presets.run(PRESETS[name], scan, np.random.default_rng(1))
        assert_same(out, presets.run(PRESETS[name], scan, np.random.default_rng(1)))
        assert_same(scan, before)
        assert len(out) >= 1
        assert np.isfinite(out.xyz).all()
        assert (out.color is None) == (scan.color is None)
        if out.normal is not None:
            np.testing.assert_allclose(np.linalg.norm(out.normal, axis=1), 1, atol=1e-5)
            assert_rows_follow(out, scan, out.instance)


def test_presets_go_to_workers():
    again = pickle.loads(pickle.dumps(partial(presets.run, presets.MSC_VIEW)))  # noqa: S301
    assert_same(
        again(room(300), np.random.default_rng(2)),
        presets.run(presets.MSC_VIEW, room(300), np.random.default_rng(2)),
    )


def steps_of(preset):
    return [
        (step.func.__name__, step.keywords) if isinstance(step, partial) else (step.__name__, {})
        for step in preset
    ]


def test_msc_order_and_values():
    """Table 4 of the paper, with what its released code adds."""
    names = [name for name, _ in steps_of(presets.MSC_VIEW)]
    assert names[:5] == ["rotate", "rotate", "rotate", "flip_axes", "jitter"]
    assert names[5:7] == ["adjust_color", "jitter_color"]
    assert names[7:] == ["grid_sample", "sphere_crop", "center_shift"]
    values = [keywords for _, keywords in steps_of(presets.MSC_VIEW)]
    assert [step["axis"] for step in values[:3]] == ["z", "x", "y"]
    assert values[1]["max_angle"] == pytest.approx(np.pi / 64)
    assert "about_center" not in values[0]
    assert [step[0] for step in steps_of(presets.MSC_SHARED)] == ["center_shift", "scale"]
    segmentation, instances = (
        dict(steps_of(preset)) for preset in (presets.ROOM_SEGMENTATION, presets.ROOM_INSTANCES)
    )
    assert segmentation["drop_points"]["probability"] == 0.2
    assert instances["drop_points"]["probability"] == 0.5
    assert (segmentation["shift_color"]["ratio"], instances["shift_color"]["ratio"]) == (0.05, 0.1)
    assert instances["sphere_crop"]["rate"] == 0.8
    assert segmentation["crop_nearest"]["max_points"] == 100_000


def test_points_of_rooms_come_in_random_order():
    """PointNet++ looks at the first points of a ball."""
    scan, rng = scan_of(50), np.random.default_rng(21)
    for indoor in (True, False):
        views = sspl_views(
            scan,
            rng,
            volume_size=1e3,
            min_points=1,
            local_share=1.0,
            transform=partial(presets.run, presets.sspl_view(indoor=indoor)),
        )
        index = views.local_view.index
        assert sorted(index) == list(range(50))
        assert (np.diff(index) > 0).all() == (not indoor)


def test_sspl_ranges():
    """Rotation and scaling by DepthContrast's ranges, the room's about the vertical."""
    scan, rng = scan_of(3), np.random.default_rng(20)
    for indoor, reach, low, high in ((True, np.pi, 0.8, 1.2), (False, np.pi / 4, 0.95, 1.05)):
        steps = [step for step in presets.sspl_view(indoor=indoor) if step is not shuffle]
        moves = [
            np.linalg.solve(scan.xyz.astype(float), presets.run(steps, scan, rng).xyz).T
            for _ in range(300)
        ]
        factor = np.array([abs(np.linalg.det(move)) ** (1 / 3) for move in moves])
        assert low <= factor.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < factor.max() <= high
        mirrored = np.array([np.linalg.det(move) < 0 for move in moves])
        assert mirrored.mean() == (0 if indoor else pytest.approx(0.5, abs=0.1))
        turn = np.array([np.arctan2(move[1, 0], move[0, 0]) for move in moves])
        assert 0.95 * reach < np.abs(turn).max() <= reach + 1e-6
        for move, size in zip(moves, factor, strict=True):
            np.testing.assert_allclose(move[2], [0, 0, size], atol=1e-4)


def test_depthcontrast_order_and_values():
    """The released code's steps; the counts follow the number of points."""
    names = [name for name, _ in steps_of(presets.depthcontrast_view(indoor=True))]
    assert names[:4] == ["subsample", "crop_cuboid", "drop_cuboid", "resample_one_of"]
    assert names[4:] == ["flip_axes", "rotate_any_axis", "scale", "resample"]
    room_steps = dict(steps_of(presets.depthcontrast_view(indoor=True)))
    assert room_steps["subsample"]["max_points"] == 50_000
    assert room_steps["crop_cuboid"]["min_points"] == 10_000
    assert room_steps["crop_cuboid"].get("num_axes", 3) == 3
    assert room_steps["resample_one_of"]["counts"] == (5000, 10_000, 15_000, 20_000)
    assert room_steps["resample"]["num_points"] == 20_000
    box = presets.KITTI_RANGE
    steps = steps_of(presets.depthcontrast_view(indoor=False, num_points=16_384, box=box))
    assert [name for name, _ in steps[:3]] == ["clip_range", "crop_cuboid", "drop_cuboid"]
    assert [name for name, _ in steps[3:]] == ["flip_axes", "rotate", "scale", "resample_near"]
    assert dict(steps)["crop_cuboid"]["num_axes"] == 2
    with pytest.raises(ValueError, match=r"num_points must be at least 4, got 3"):
        presets.depthcontrast_view(indoor=True, num_points=3)


def test_depthcontrast_views():
    scan = room()
    for seed in range(5):
        steps = presets.depthcontrast_view(indoor=True, num_points=1000)
        assert len(presets.run(steps, scan, np.random.default_rng(seed))) == 1000
    street = scan_of(4000, extent=60.0)
    steps = presets.depthcontrast_view(indoor=False, num_points=300, box=presets.WAYMO_RANGE)
    for seed in range(5):
        out = presets.run(steps, street, np.random.default_rng(seed))
        source = street.xyz[out.instance]
        assert 0 < len(out) <= 300
        assert (source[:, 0] > 0).all()
        assert (np.abs(source[:, 2]) < 3).all()


def test_make_view_tracks_points():
    scan = scan_of(100)
    view = make_view(scan, np.random.default_rng(3), partial(resample, num_points=150))
    assert len(view) == 150
    np.testing.assert_array_equal(view.scan.xyz, scan.xyz[view.index])
    np.testing.assert_array_equal(view.origin, scan.xyz[view.index])
    np.testing.assert_array_equal(view.scan.instance, scan.instance[view.index])
    nameless = dataclasses.replace(scan, instance=None)
    view = make_view(nameless, np.random.default_rng(3), drop_cuboid)
    assert view.scan.instance is None
    np.testing.assert_array_equal(view.scan.xyz, scan.xyz[view.index])
    with pytest.raises(ValueError, match="transform of scan test/0 lost the instances"):
        make_view(scan, np.random.default_rng(0), lambda scan, _: bare(scan))


def test_msc_views():
    scan = room()
    before = copied(scan)
    first, second = msc_views(scan, np.random.default_rng(4))
    again, _ = msc_views(scan, np.random.default_rng(4))
    assert_same(first.scan, again.scan)
    assert_same(scan, before)
    assert not np.array_equal(first.index, second.index)
    for view in (first, second):
        assert_rows_follow(view.scan, scan, view.index)
        # The origin is the room, centred and scaled by one factor.
        factor = np.linalg.norm(view.origin[1:] - view.origin[0], axis=1) / np.linalg.norm(
            scan.xyz[view.index[1:]] - scan.xyz[view.index[0]], axis=1
        )
        assert np.ptp(factor) < 1e-3
        assert 0.9 <= factor.mean() <= 1.1
        # The view is that up to rotation, mirror and jitter.
        a, b = view.origin - view.origin.mean(0), view.scan.xyz - view.scan.xyz.mean(0)
        u, _, v = np.linalg.svd(a.T @ b)
        assert np.abs(a @ (u @ v) - b).max() < 0.04
        assert len(np.unique(np.floor(view.scan.xyz / 0.02 + 1e-3), axis=0)) > 0.99 * len(view)
    occupied = {len(first) / 0.6, len(second) / 0.6}  # voxels before the crop
    assert all(0.95 * len(scan) < number <= len(scan) for number in occupied)


def test_match_views():
    scan = room()
    first, second = msc_views(scan, np.random.default_rng(5))
    pairs = match_views(first, second, np.random.default_rng(6))
    distance = np.linalg.norm(first.origin[:, None] - second.origin[None], axis=2)
    assert (distance[pairs[:, 0], pairs[:, 1]] < 0.03).all()
    np.testing.assert_array_equal(pairs[:, 0], np.flatnonzero((distance < 0.03).any(1)))


@pytest.mark.parametrize("shares", [(0.1, 0.5), (0.3, 1.0)])
def test_sspl_views(shares):
    scan = room()
    before = copied(scan)
    local, global_ = shares
    views = sspl_views(
        scan, np.random.default_rng(7), local_share=local, global_share=global_, max_volumes=50
    )
    assert_same(scan, before)
    assert 20 < views.num_volumes <= 50
    for view, volume, share in (
        (views.local_view, views.local_volume, local),
        (views.global_view, views.global_volume, global_),
    ):
        assert set(volume) == set(range(views.num_volumes))
        assert_rows_follow(view.scan, scan, view.index)
        np.testing.assert_array_equal(view.origin, scan.xyz[view.index])
        assert len(volume) == len(view) == len(view.scan)
        for number in range(views.num_volumes):
            assert np.ptp(view.origin[volume == number], axis=0).max() <= 0.5 + 1e-5
        assert len(view) < share * len(scan) + views.num_volumes
    # The same number is the same volume: together they fit into one.
    for number in range(views.num_volumes):
        both = np.concatenate(
            [
                views.local_view.origin[views.local_volume == number],
                views.global_view.origin[views.global_volume == number],
            ]
        )
        assert np.ptp(both, axis=0).max() <= 0.5 + 1e-5
    assert not np.allclose(views.local_view.scan.xyz[0], views.local_view.origin[0])


def test_sspl_grid_starts_elsewhere_each_time():
    rng = np.random.default_rng(8)
    numbers = {sspl_views(room(), rng).num_volumes for _ in range(10)}
    assert len(numbers) > 3


def test_sspl_volumes_that_a_transform_drops_go_from_both_views():
    views = sspl_views(
        room(), np.random.default_rng(9), transform=partial(drop_cuboid, side=(0.8, 0.8))
    )
    assert set(views.local_volume) == set(views.global_volume) == set(range(views.num_volumes))


def test_sspl_errors():
    with pytest.raises(DataError, match=r"none of its volumes of 0.5 m holds 8 points; use a"):
        sspl_views(scan_of(3), np.random.default_rng(0))
    with pytest.raises(DataError, match=r"none of its volumes"):
        sspl_views(scan_of(0), np.random.default_rng(0))
    with pytest.raises(DataError, match=r"the transform drops all volumes, as the field of view"):
        sspl_views(
            room(2000),
            np.random.default_rng(0),
            transform=lambda scan, _: scan.select(scan.labels > 99),
        )
    with pytest.raises(ValueError, match=r"local_share must be in \[0, 1\], got 2.0"):
        sspl_views(room(100), np.random.default_rng(0), local_share=2.0)
    with pytest.raises(ValueError, match=r"max_volumes must be at least 1"):
        sspl_views(room(100), np.random.default_rng(0), max_volumes=0)
    one = sspl_views(scan_of(1), np.random.default_rng(0), min_points=1)
    assert (one.num_volumes, len(one.local_view), len(one.global_view)) == (1, 1, 1)


def test_slidr_view():
    scan = scan_of(5000)
    pairs, before = pair_pixels(scan), copied(scan)
    view = slidr_view(scan, pairs, np.random.default_rng(10), size=(24, 40))
    again = slidr_view(scan, pairs, np.random.default_rng(10), size=(24, 40))
    assert_same(view.scan, again.scan)
    assert_same(scan, before)
    assert len(view.crops) == 2
    assert_pixels_kept(view.scan, scan, view.scan.instance)
    source = {
        (point, image): pixel
        for point, image, pixel in zip(pairs.point, pairs.image_index, pairs.pixel, strict=True)
    }
    assert 0 < len(view.pairs) < len(pairs)
    for point, image, pixel in zip(
        view.scan.instance[view.pairs.point], view.pairs.image_index, view.pairs.pixel, strict=True
    ):
        crop, (u, v) = view.crops[image], source[point, image]
        u, v = (round(u) - crop.left) * 40 / crop.width, (round(v) - crop.top) * 24 / crop.height
        u = 39 - u if crop.mirrored else u
        assert abs(u - pixel[0]) <= 0.5 + 1e-6
        assert abs(v - pixel[1]) <= 0.5 + 1e-6


def test_rotation_of_a_preset_is_the_step():
    """`run` hands one generator on from step to step."""
    scan, (turn, mirror) = scan_of(10), presets.SLIDR_CLOUD
    rng = np.random.default_rng(11)
    assert_same(
        presets.run(presets.SLIDR_CLOUD, scan, np.random.default_rng(11)),
        mirror(turn(scan, rng), rng),
    )
    assert turn.func is rotate
