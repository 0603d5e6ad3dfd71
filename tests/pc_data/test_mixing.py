"""Mixed scans hold the right points of both, and know of each what its own scan knew."""

import dataclasses

import numpy as np
import pytest
from pc_data import DataError, Scan
from pc_data.augment.mixing import cut_instances, instance_cutmix, join, mix3d, polar_mix
from pc_geometry.boxes import points_in_boxes

from tests.pc_data.scans import assert_same, boxes_of, copied, scan_of


def two(n=120, m=80, **changes):
    """Two scans whose points are told apart by intensity: below 1, and from 1 on."""
    first, second = scan_of(n, seed=1, **changes), scan_of(m, seed=2, **changes)
    return first, dataclasses.replace(second, intensity=second.intensity + 1, name="test/1")


def test_join_puts_all_fields_end_to_end():
    first, second = two(boxes=boxes_of(3))
    out = join(first, second)
    for name in ("xyz", "color", "normal", "labels", "intensity"):
        expected = np.concatenate([getattr(first, name), getattr(second, name)])
        np.testing.assert_array_equal(getattr(out, name), expected)
    assert out.name == first.name
    assert out.cameras == ()
    assert len(out.boxes) == 6
    assert len(out.boxes.track) == 6
    np.testing.assert_array_equal(out.pose, first.pose)


def test_join_keeps_objects_apart():
    a = Scan(name="a", xyz=np.zeros((3, 3), np.float32), instance=np.array([0, 1, 4]))
    b = Scan(name="b", xyz=np.zeros((3, 3), np.float32), instance=np.array([0, 1, 2]))
    assert join(a, b, b).instance.tolist() == [0, 1, 4, 0, 5, 6, 0, 7, 8]
    assert join(b, a.select(np.empty(0, int))).instance.tolist() == [0, 1, 2]


@pytest.mark.parametrize("field", ["color", "labels", "boxes"])
def test_scans_that_know_different_things_do_not_mix(field):
    first, second = two(boxes=boxes_of(2))
    with pytest.raises(DataError, match=rf"scan test/0 has {field} and scan test/1 has none"):
        join(first, dataclasses.replace(second, **{field: None}))
    with pytest.raises(DataError, match=rf"scan test/1 has {field} and scan test/0 has none"):
        join(dataclasses.replace(first, **{field: None}), second)


def test_mix3d_aligns_the_corners():
    first, second = two(boxes=boxes_of(5))
    first = dataclasses.replace(first, xyz=first.xyz + np.float32([100, 0, 0]))
    before = copied(first), copied(second)
    out = mix3d(first, second, np.random.default_rng(0), probability=1.0)
    np.testing.assert_array_equal(out.xyz[:120], first.xyz)
    np.testing.assert_allclose(out.xyz[120:].min(0), first.xyz.min(0), atol=1e-5)
    np.testing.assert_allclose(np.ptp(out.xyz[120:], axis=0), np.ptp(second.xyz, axis=0), rtol=1e-5)
    assert_same(first, before[0])
    assert_same(second, before[1])
    held = points_in_boxes(out.xyz[120:], out.boxes.cuboid[5:])
    for a, b in zip(held, points_in_boxes(second.xyz, second.boxes.cuboid), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mix3d_probability():
    first, second = two(3, 3)
    rng = np.random.default_rng(1)
    assert mix3d(first, second, rng, probability=0.0) is first
    mixed = [len(mix3d(first, second, rng)) == 6 for _ in range(600)]
    assert np.mean(mixed) == pytest.approx(0.8, abs=0.05)
    assert mix3d(first, second.select(np.empty(0, int)), rng, probability=1.0) is first
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], got -1.0"):
        mix3d(first, second, rng, probability=-1.0)


def turns(scan):
    return np.arctan2(scan.xyz[:, 1], scan.xyz[:, 0])


def test_polar_mix_swaps_half_a_turn():
    first, second = two(3000, 3000)
    for seed in range(10):
        out = polar_mix(
            first, second, np.random.default_rng(seed), swap_probability=1.0, num_copies=0
        )
        own = np.sort(turns(out.select(out.intensity < 1)))
        foreign = np.sort(turns(out.select(out.intensity >= 1)))
        assert len(own) == pytest.approx(1500, abs=200)
        for angles in (own, foreign):  # each fills one half: its largest gap is half a turn
            gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
            assert gaps.max() == pytest.approx(np.pi, abs=0.1)
        assert_same(
            out,
            polar_mix(
                first, second, np.random.default_rng(seed), swap_probability=1.0, num_copies=0
            ),
        )


def test_polar_mix_pastes_turned_copies():
    first, second = two()
    before = copied(second)
    out = polar_mix(first, second, np.random.default_rng(3), classes=(1, 3), swap_probability=0.0)
    np.testing.assert_array_equal(out.xyz[:120], first.xyz)
    wanted = second.select(np.isin(second.labels, (1, 3)))
    pasted = out.select(np.arange(120, len(out)))
    assert len(pasted) == 3 * len(wanted)
    np.testing.assert_array_equal(pasted.labels, np.tile(wanted.labels, 3))
    np.testing.assert_array_equal(pasted.xyz[: len(wanted)], wanted.xyz)
    for copy in range(3):
        part = pasted.xyz[copy * len(wanted) :][: len(wanted)]
        np.testing.assert_allclose(part[:, 2], wanted.xyz[:, 2], atol=1e-5)
        radius = np.linalg.norm(part[:, :2], axis=1)
        np.testing.assert_allclose(radius, np.linalg.norm(wanted.xyz[:, :2], axis=1), rtol=1e-5)
    assert not np.allclose(pasted.xyz[len(wanted) : 2 * len(wanted)], wanted.xyz)
    assert_same(second, before)


def test_polar_mix_drops_boxes_and_counts_swaps():
    first, second = two(40, 40, boxes=boxes_of(2))
    assert polar_mix(first, second, np.random.default_rng(0)).boxes is None
    rng = np.random.default_rng(4)
    outs = [polar_mix(first, second, rng, num_copies=0) for _ in range(400)]
    swapped = [(out.intensity >= 1).any() for out in outs]
    assert np.mean(swapped) == pytest.approx(0.5, abs=0.08)
    nobody = polar_mix(first, second, rng, classes=(77,), swap_probability=0.0)
    np.testing.assert_array_equal(nobody.xyz, first.xyz)


def street():
    """Ground of class 8, one bicycle of 10 points, one of 3, a person of 8, one without name."""
    rng = np.random.default_rng(5)
    ground = np.column_stack([rng.uniform(-20, 20, (2000, 2)), np.zeros(2000)])
    parts, labels, instances = [ground], [np.full(2000, 8)], [np.zeros(2000, int)]
    for label, instance, size in ((1, 3, 10), (1, 4, 3), (5, 9, 8), (5, 0, 20)):
        parts.append(rng.normal([5 * label, instance, 1], 0.2, (size, 3)))
        labels.append(np.full(size, label))
        instances.append(np.full(size, instance))
    xyz = np.concatenate(parts).astype(np.float32)
    return scan_of(
        len(xyz), xyz=xyz, labels=np.concatenate(labels), instance=np.concatenate(instances)
    )


def test_cut_instances():
    scan = street()
    bank = cut_instances(scan, classes=(1, 2, 5))
    assert {label: [len(cut) for cut in cuts] for label, cuts in bank.items()} == {
        1: [10],
        2: [],
        5: [8],
    }
    (bicycle,) = bank[1]
    source = scan.xyz[(scan.labels == 1) & (scan.instance == 3)]
    np.testing.assert_allclose(bicycle.xyz[:, :2].mean(0), 0, atol=1e-6)
    assert bicycle.xyz[:, 2].min() == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(bicycle.xyz - bicycle.xyz[0], source - source[0], atol=1e-5)
    assert set(bicycle.labels) == {1}
    assert bicycle.cameras == ()


def test_instance_cutmix():
    scan = street()
    bank, before = cut_instances(scan, classes=(1, 5)), copied(scan)
    out = instance_cutmix(scan, bank, np.random.default_rng(6))
    assert_same(out, instance_cutmix(scan, bank, np.random.default_rng(6)))
    assert_same(scan, before)
    np.testing.assert_array_equal(out.xyz[: len(scan)], scan.xyz)
    pasted = out.select(np.arange(len(scan), len(out)))
    objects = np.unique(pasted.instance)
    assert len(objects) > 5
    assert objects.min() > scan.instance.max()
    feet = []
    for instance in objects:
        part = pasted.select(pasted.instance == instance)
        assert len(set(part.labels)) == 1
        (source,) = bank[part.labels[0]]
        assert len(part) == len(source)
        grown = np.linalg.norm(part.xyz - part.xyz.mean(0), axis=1)
        factor = grown / np.linalg.norm(source.xyz - source.xyz.mean(0), axis=1)
        assert np.ptp(factor) < 1e-3
        assert 0.9 - 1e-4 <= factor.mean() <= 1.1 + 1e-4
        assert part.xyz[:, 2].min() == pytest.approx(0, abs=1e-5)  # stands on the ground
        feet.append(part.xyz[:, :2].mean(0))
    near = np.linalg.norm(np.array(feet)[:, None] - scan.xyz[None, :2000, :2], axis=2).min(1)
    assert near.max() < 1e-4  # at points of the ground
    assert len(np.unique(np.round(feet, 3), axis=0)) == len(feet)


def test_instance_cutmix_numbers():
    scan = street()
    bank, rng = cut_instances(scan, classes=(1,)), np.random.default_rng(7)
    counts = [
        (len(instance_cutmix(scan, bank, rng, max_per_class=4)) - len(scan)) // 10
        for _ in range(400)
    ]
    assert np.bincount(counts, minlength=4).min() > 70  # of 0, 1, 2 and 3
    assert max(counts) == 3
    nowhere = instance_cutmix(scan, bank, rng, surfaces=(17,))
    assert len(nowhere) == len(scan)
    wide = [len(instance_cutmix(scan, bank, rng, spacing=100.0)) for _ in range(20)]
    assert max(wide) == len(scan) + 10  # one place
    assert len(instance_cutmix(scan, {1: [], 5: []}, rng)) == len(scan)


def test_errors():
    rng = np.random.default_rng(0)
    scan = street()
    unlabelled = dataclasses.replace(scan, labels=None)
    for call in (
        lambda: polar_mix(unlabelled, unlabelled, rng),
        lambda: cut_instances(unlabelled),
        lambda: instance_cutmix(unlabelled, {}, rng),
    ):
        with pytest.raises(DataError, match="scan test/0 has no labels"):
            call()
    with pytest.raises(DataError, match="scan test/0 has no instances"):
        cut_instances(dataclasses.replace(scan, instance=None))
    with pytest.raises(ValueError, match="max_per_class must be at least 1"):
        instance_cutmix(scan, {}, rng, max_per_class=0)
    with pytest.raises(ValueError, match="spacing must be finite and above 0"):
        instance_cutmix(scan, {}, rng, spacing=0.0)
    with pytest.raises(ValueError, match="num_copies must be at least 0"):
        polar_mix(scan, scan, rng, num_copies=-1)
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], got 7.0"):
        polar_mix(scan, scan, rng, swap_probability=7.0)
