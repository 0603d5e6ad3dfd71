import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_geometry import transform_points
from pc_geometry.boxes import box_corners, iou_3d, iou_bev, nms, points_in_boxes
from pc_geometry.rigid import make_transform, rotation_from_quaternion

from tests.lanes import compiled_only, unchecked_only
from tests.real_data import REAL_DATA, needs_real_data

CAR = np.array([[1.0, 2.0, 0.5, 4.0, 2.0, 1.5, 0.3]])
UNIT = np.array([[0.0, 0, 0, 2.0, 2.0, 2.0, 0.0]])


def boxes_of(rng, n, spread=6.0):
    boxes = rng.normal(size=(n, 7)) * spread
    boxes[:, 2] /= 4
    boxes[:, 3:6] = rng.uniform(0.3, 6, size=(n, 3))
    return boxes


def changed(box, **changes):
    names = ["x", "y", "z", "length", "width", "height", "yaw"]
    box = box.copy()
    for name, value in changes.items():
        box[:, names.index(name)] = value
    return box


def clip(polygon, normal, limit):
    """The part of a convex polygon where normal . p <= limit, in whatever numbers it has."""
    kept = []
    for p, q in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        a, b = (normal[0] * v[0] + normal[1] * v[1] - limit for v in (p, q))
        if a <= 0:
            kept.append(p)
        if (a < 0 < b) or (b < 0 < a):
            kept.append(tuple(v + (w - v) * a / (a - b) for v, w in zip(p, q, strict=True)))
    return kept


def shared_area(a, b):
    """Area common to two convex polygons with counter-clockwise corners."""
    for (x0, y0), (x1, y1) in zip(b, [*b[1:], b[0]], strict=True):
        normal = (y1 - y0, x0 - x1)
        a = clip(a, normal, normal[0] * x0 + normal[1] * y0)
        if not a:
            return 0
    return sum(p[0] * q[1] - p[1] * q[0] for p, q in zip(a, [*a[1:], a[0]], strict=True)) / 2


def naive_iou(a, b, bev):
    """Clips polygons in exact fractions of the float64 corners."""
    corners_a, corners_b = (
        [tuple(map(Fraction, corner)) for corner in box_corners(box[None])[0, :4, :2].tolist()]
        for box in (a, b)
    )
    shared, volume_a, volume_b = shared_area(corners_a, corners_b), a[3] * a[4], b[3] * b[4]
    if not bev:
        top, low = min(a[2] + a[5] / 2, b[2] + b[5] / 2), max(a[2] - a[5] / 2, b[2] - b[5] / 2)
        shared, volume_a, volume_b = shared * max(top - low, 0), volume_a * a[5], volume_b * b[5]
    union = volume_a + volume_b - float(shared)
    return float(shared) / union if union > 0 else 0.0


def naive_nms(boxes, scores, threshold, iou):
    order, kept = np.argsort(-scores, kind="stable"), []
    for i in order:
        if all(iou(boxes[[i]], boxes[[j]])[0, 0] <= threshold for j in kept):
            kept.append(i)
    return kept


def naive_members(points, boxes):
    rows = []
    for x, y, z, length, width, height, yaw in boxes:
        dx, dy, dz = (points.astype(np.float64) - [x, y, z]).T
        along, across = (
            np.abs(np.cos(yaw) * dx + np.sin(yaw) * dy),
            np.abs(np.cos(yaw) * dy - np.sin(yaw) * dx),
        )
        inside = (along <= length / 2) & (across <= width / 2) & (np.abs(dz) <= height / 2)
        rows.append(np.flatnonzero(inside).tolist())
    return rows


def rows_of(indices, splits):
    assert indices.dtype == splits.dtype == np.int64
    assert splits[0] == 0
    assert splits[-1] == len(indices)
    return [part.tolist() for part in np.split(indices, splits[1:-1])] if len(splits) > 1 else []


def test_corners():
    corners = box_corners(changed(CAR, yaw=np.pi / 2))[0]
    expected = np.array([[0, 4], [0, 0], [2, 0], [2, 4]])
    np.testing.assert_allclose(corners[:4, :2], expected, atol=1e-12)
    np.testing.assert_array_equal(corners[4:, :2], corners[:4, :2])
    np.testing.assert_array_equal(corners[:, 2], [-0.25] * 4 + [1.25] * 4)
    assert box_corners(np.zeros((0, 7))).shape == (0, 8, 3)


def test_corners_are_a_rotation_of_half_the_sides():
    boxes = boxes_of(np.random.default_rng(0), 20)
    for box, corners in zip(boxes, box_corners(boxes), strict=True):
        turn = rotation_from_quaternion(np.array([np.cos(box[6] / 2), 0, 0, np.sin(box[6] / 2)]))
        own = (corners - box[:3]) @ turn
        np.testing.assert_allclose(np.abs(own), np.broadcast_to(box[3:6] / 2, (8, 3)))
        assert len(np.unique(np.sign(own), axis=0)) == 8
        assert (own[0] > 0).tolist() == [True, True, False]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [0.1, 3.0, 50.0])
def test_members_equal_all_pairs(dtype, spread):
    rng = np.random.default_rng(0)
    boxes, points = boxes_of(rng, 12, spread), rng.normal(size=(300, 3)) * spread
    boxes[3, 3:6] = 60.0
    points = np.concatenate([points, points[:50]]).astype(dtype)
    expected = naive_members(points, boxes)
    assert sum(map(len, expected)) > 10
    for num_threads in (1, 2, 5):
        assert rows_of(*points_in_boxes(points, boxes, num_threads=num_threads)) == expected


def test_the_surface_belongs_to_a_box():
    axis = np.arange(-2.0, 2.5, 0.5)
    points = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    indices, splits = points_in_boxes(points, np.concatenate([UNIT, changed(UNIT, length=0.0)]))
    inside = (np.abs(points) <= 1).all(axis=1)
    np.testing.assert_array_equal(indices[: splits[1]], np.flatnonzero(inside))
    np.testing.assert_array_equal(
        indices[splits[1] :], np.flatnonzero(inside & (points[:, 0] == 0))
    )


def test_members_of_nothing():
    points, none = np.zeros((3, 3), np.float32), np.zeros((0, 3), np.float32)
    for some, boxes, splits in (
        (points, np.zeros((0, 7)), [0]),
        (none, UNIT, [0, 0]),
        (none, np.zeros((0, 7)), [0]),
        (points[:1], UNIT, [0, 1]),
        (points + 5, UNIT, [0, 0]),
        (points, np.zeros((1, 7)), [0, 3]),
    ):
        indices, got = points_in_boxes(some, boxes)
        assert got.tolist() == splits
        assert indices.tolist() == list(range(splits[-1]))


@compiled_only
@needs_real_data
@pytest.mark.parametrize("num_threads", [1, 2])
def test_counts_of_the_annotators(num_threads):
    """nuScenes says how many LiDAR points each box holds."""
    root = REAL_DATA / "nuscenes"
    tables = {
        name: {
            row["token"]: row for row in json.loads((root / f"v1.0-mini/{name}.json").read_text())
        }
        for name in ("sample_annotation", "sample_data", "ego_pose", "calibrated_sensor")
    }
    (frame,) = [
        row
        for row in tables["sample_data"].values()
        if "LIDAR_TOP" in row["filename"] and row["is_key_frame"]
    ]
    points = np.fromfile(root / frame["filename"], np.float32).reshape(-1, 5)[:, :3]
    points = points.astype(np.float64)
    for name in ("calibrated_sensor", "ego_pose"):
        pose = tables[name][frame[f"{name}_token"]]
        turn = rotation_from_quaternion(np.array(pose["rotation"]))
        points = transform_points(make_transform(turn, np.array(pose["translation"])), points)
    boxes, counts = [], []
    for row in tables["sample_annotation"].values():
        width, length, height = row["size"]
        w, _, _, z = row["rotation"]
        boxes.append([*row["translation"], length, width, height, 2 * np.arctan2(z, w)])
        counts.append(row["num_lidar_pts"])
    _, splits = points_in_boxes(points, np.array(boxes), num_threads=num_threads)
    assert len(counts) == 68
    assert np.diff(splits).tolist() == counts


def test_an_octagon():
    turned = changed(UNIT, yaw=np.pi / 4)
    octagon = 8 * (np.sqrt(2) - 1)  # of inner radius 1
    np.testing.assert_allclose(iou_bev(UNIT, turned), octagon / (8 - octagon), rtol=1e-14)


def test_overlaps_by_hand():
    cases = [
        ({"x": 1.0}, 1 / 3),
        ({"x": 1.0, "y": 1.0}, 1 / 7),
        ({"length": 1.0, "width": 0.5}, 1 / 8),  # contained
        ({"length": 1.0, "width": 0.5, "yaw": 1.1}, 1 / 8),
        ({"yaw": np.pi / 2}, 1.0),
        ({"yaw": -np.pi}, 1.0),
        ({"length": 4.0, "width": 1.0}, 1 / 3),  # a cross
        ({"x": 2.0}, 0.0),  # a common side
        ({"x": 2.0, "y": 2.0}, 0.0),  # a common corner
        ({"x": 9.0}, 0.0),
        ({"length": 0.0}, 0.0),
        ({"length": 0.0, "width": 0.0}, 0.0),
        ({"yaw": np.pi / 4, "x": 1 + np.sqrt(2)}, 0.0),  # a corner on a side
    ]
    for changes, expected in cases:
        other = changed(UNIT, **changes)
        np.testing.assert_allclose(iou_bev(UNIT, other), expected, atol=1e-15, err_msg=str(changes))
        np.testing.assert_allclose(iou_bev(other, UNIT), expected, atol=1e-15, err_msg=str(changes))
        np.testing.assert_allclose(iou_3d(UNIT, other), expected, atol=1e-15, err_msg=str(changes))
    assert iou_3d(UNIT, changed(UNIT, z=1.0))[0, 0] == pytest.approx(1 / 3)
    assert iou_3d(UNIT, changed(UNIT, z=2.0))[0, 0] == 0
    assert iou_3d(UNIT, changed(UNIT, height=0.0))[0, 0] == 0
    assert iou_bev(UNIT, changed(UNIT, z=50.0, height=0.0))[0, 0] == 1
    point = np.zeros((1, 7))
    assert iou_bev(point, point)[0, 0] == iou_3d(point, point)[0, 0] == 0


@pytest.mark.parametrize("spread", [0.0, 1e-9, 1.0, 4.0])
def test_overlaps_equal_exact_clipping(spread):
    rng = np.random.default_rng(0)
    a, b = boxes_of(rng, 12, spread), boxes_of(rng, 9, spread)
    a[0], a[1], a[2, 3:5], a[3, 6] = b[0], b[0], 0.001, b[0, 6] + np.pi / 2
    for iou, bev in ((iou_bev, True), (iou_3d, False)):
        got = iou(a, b)
        assert got.shape == (12, 9)
        expected = [[naive_iou(x, y, bev) for y in b] for x in a]
        np.testing.assert_allclose(got, expected, atol=1e-12)


@compiled_only
def test_overlap_is_the_share_of_random_points():
    a, b = CAR, changed(CAR, x=1.8, y=2.4, z=0.9, yaw=1.2)
    points = np.random.default_rng(0).uniform([-2, -1, -1], [5, 6, 3], size=(400_000, 3))
    indices, splits = points_in_boxes(points, np.concatenate([a, b]))
    in_a, in_b = np.split(indices, splits[1:2])
    share = len(np.intersect1d(in_a, in_b)) / len(np.union1d(in_a, in_b))
    assert iou_3d(a, b)[0, 0] == pytest.approx(share, abs=0.01)


number = st.floats(-3, 3).map(lambda value: round(value, 3))
box = st.tuples(
    *(number, number, number),
    *(st.sampled_from([0.0, 1e-6, 0.5, 1.0, 2.0, 4.5]) for _ in range(3)),
    st.one_of(number, st.sampled_from([0.0, np.pi / 2, np.pi, -np.pi / 4])),
)


@settings(max_examples=60, deadline=None)
@given(a=box, b=box, turn=number, shift=st.tuples(number, number, number))
def test_properties_of_overlaps(a, b, turn, shift):
    a, b = np.array([a]), np.array([b])
    for iou in (iou_bev, iou_3d):
        value = iou(a, b)[0, 0]
        assert 0 <= value <= 1
        assert iou(b, a)[0, 0] == pytest.approx(value, abs=1e-9)
        assert iou(a, a)[0, 0] == (pytest.approx(1) if iou(a, a)[0, 0] else 0)
        moved = []
        for boxes in (a, b):
            rigid = make_transform(
                rotation_from_quaternion(np.array([np.cos(turn / 2), 0, 0, np.sin(turn / 2)])),
                np.array(shift),
            )
            moved.append(boxes.copy())
            moved[-1][:, :3] = transform_points(rigid, boxes[:, :3])
            moved[-1][:, 6] += turn
        if min(a[0, 3:6].min(), b[0, 3:6].min()) > 1e-3:  # thinner than rounding moves them
            assert iou(*moved)[0, 0] == pytest.approx(value, abs=1e-9)
            assert iou(a, a)[0, 0] == pytest.approx(1)


def test_overlaps_of_nothing():
    none = np.zeros((0, 7))
    for iou in (iou_bev, iou_3d):
        assert iou(none, UNIT).shape == (0, 1)
        assert iou(UNIT, none).shape == (1, 0)
        assert iou(none, none).shape == (0, 0)


@pytest.mark.parametrize("spread", [0.5, 3.0, 40.0])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.7, 1.0])
def test_nms_equals_the_definition(spread, threshold):
    rng = np.random.default_rng(0)
    boxes = boxes_of(rng, 40, spread)
    boxes[20:30] = boxes[:10] + rng.normal(size=(10, 7)) * 0.02
    boxes[30:35] = boxes[:5]
    boxes[:, 3:6] = np.abs(boxes[:, 3:6])
    boxes[36, 3:5] = 50.0
    scores = rng.integers(0, 8, 40) / 8
    for bev, iou in ((True, iou_bev), (False, iou_3d)):
        kept = nms(boxes, scores, threshold, bev=bev)
        assert kept.dtype == np.int64
        assert kept.tolist() == naive_nms(boxes, scores, threshold, iou)
    assert nms(boxes, scores.astype(np.float32), threshold).tolist() == naive_nms(
        boxes, scores, threshold, iou_bev
    )


def test_nms_ties_and_few_boxes():
    assert nms(np.repeat(CAR, 4, axis=0), np.ones(4), 0.5).tolist() == [0]
    assert nms(CAR, np.ones(1), 0.5).tolist() == [0]
    assert nms(np.zeros((0, 7)), np.zeros(0), 0.5).shape == (0,)
    stacked = np.concatenate([CAR, changed(CAR, z=9.0)])
    assert nms(stacked, np.zeros(2), 0.5).tolist() == [0]
    assert nms(stacked, np.zeros(2), 0.5, bev=False).tolist() == [0, 1]


def test_nms_removes_only_above_the_threshold():
    pair = np.concatenate([UNIT, changed(UNIT, length=1.0)])  # exactly 1/2
    assert nms(pair, np.zeros(2), 0.5).tolist() == [0, 1]
    assert nms(pair, np.zeros(2), np.nextafter(0.5, 0)).tolist() == [0]


@compiled_only
def test_nms_of_many_boxes():
    rng = np.random.default_rng(0)
    boxes = np.tile(CAR, (3000, 1))
    boxes[:, :2] = rng.uniform(-60, 60, size=(300, 2)).repeat(10, axis=0)
    boxes[:, :2] += rng.normal(size=(3000, 2)) * 0.4
    scores = rng.random(3000)
    kept = nms(boxes, scores, 0.3)
    iou = iou_bev(boxes, boxes)
    assert 300 < len(kept) < 1000
    assert (np.diff(scores[kept]) <= 0).all()
    assert iou[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)].max() <= 0.3
    better = (scores[kept][:, None] > scores) & (iou[kept] > 0.3)
    np.testing.assert_array_equal(np.flatnonzero(~better.any(axis=0)), np.sort(kept))


def test_refuses():
    points, bad = np.zeros((2, 3)), CAR.copy()
    bad[0, 1] = np.nan
    for refused, message in (
        (bad, "boxes must be finite, got 1 of 1 boxes with NaN or infinite numbers"),
        (changed(CAR, width=-1.0), r"at least 0, got \[4.0, -1.0, 1.5\] at index 0"),
    ):
        with pytest.raises(ValueError, match=message):
            points_in_boxes(points, refused)
        with pytest.raises(ValueError, match=message):
            box_corners(refused)
        with pytest.raises(ValueError, match=message):
            nms(refused, np.ones(1), 0.5)
    with pytest.raises(ValueError, match="b must be finite, got 1 of 1 boxes"):
        iou_bev(CAR, bad)
    with pytest.raises(ValueError, match="a must be finite, got 1 of 1 boxes"):
        iou_3d(bad, CAR)
    with pytest.raises(ValueError, match=r"one a box\), got shape \(1,\) with 1 not finite"):
        nms(CAR, np.array([np.nan]), 0.5)
    for threshold in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"iou_threshold must be in \[0, 1\], got"):
            nms(CAR, np.ones(1), threshold)
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        points_in_boxes(points, CAR, num_threads=0)


@unchecked_only
def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"boxes must have shape \[b 7\] .* got \(1, 6\)"):
        box_corners(CAR[:, :6])
    with pytest.raises(ValueError, match=r"a must have shape \[b 7\] .* got \(7,\)"):
        iou_bev(CAR[0], CAR)
    with pytest.raises(ValueError, match=r"scores must be 1 finite numbers .* got shape \(2,\)"):
        nms(CAR, np.ones(2), 0.5)


@pytest.mark.parametrize("changes", [{"x": 1e308}, {"y": -1e308}, {"length": 1e101}])
def test_refuses_numbers_whose_products_overflow(changes):
    boxes = np.concatenate([CAR, changed(CAR, **changes)])
    message = r"numbers of at most 1e\+100, got 1 of 2 boxes with larger ones, the first at index 1"
    for call in (
        lambda: points_in_boxes(np.zeros((2, 3)), boxes),
        lambda: box_corners(boxes),
        lambda: iou_3d(boxes, CAR),
        lambda: nms(boxes, np.ones(2), 0.5),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_largest_boxes():
    vast = np.array([[1e100, -1e100, 0, 1e100, 1e100, 1e100, 0]])
    assert iou_3d(vast, vast)[0, 0] == iou_bev(vast, vast)[0, 0] == 1
    assert nms(
        np.concatenate([vast, CAR, -vast * [1, 1, 1, -1, -1, -1, 1]]), np.ones(3), 0.5
    ).tolist() == [0, 1, 2]
    assert points_in_boxes(vast[:, :3], vast)[0].tolist() == [0]


def test_no_overlap_is_above_one():
    # Rounding gives some of these turned copies a larger shared area than their own.
    boxes = boxes_of(np.random.default_rng(0), 300)
    for turn in (0.0, np.pi, 2 * np.pi, -7 * np.pi):
        for box in boxes:
            turned = box + np.array([0, 0, 0, 0, 0, 0, turn])
            for iou in (iou_3d, iou_bev):
                assert 1 - 1e-9 < iou(box[None], turned[None])[0, 0] <= 1


@unchecked_only
def test_threads_are_an_integer():
    points, boxes = np.zeros((300, 3)), np.repeat(CAR, 2, axis=0)
    ours = points_in_boxes(points, boxes, num_threads=np.uint8(64))
    for got, expected in zip(ours, points_in_boxes(points, boxes), strict=True):
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(ValueError, match=r"num_threads must be an integer at least 1, got 2.0"):
        points_in_boxes(points, boxes, num_threads=2.0)
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        points_in_boxes(points[:0], boxes, num_threads=0)
