"""Mix3D while loading: who meets whom, and what comes of it."""

from functools import partial

import numpy as np
import pytest
from pc_data.augment import rotate_z
from pc_data.augment.mixing import join
from pc_data.augment.spatial import shift
from pc_data.features import ROOM_FEATURES
from pc_data.loading import SampleKey, Samples, StepLoader
from pc_train.mixing import MixedPairs, mix
from pc_train.samples import Augmented, augment_lidar, to_input

from tests.pc_data.scans import scan_of

TO_INPUT = partial(
    to_input,
    features=(*ROOM_FEATURES, "x"),
    intensity_mean=0.0,
    intensity_std=1.0,
    box=None,
    num_neighbors=3,
)


def _rooms(count):
    return [scan_of(40 + i, seed=i, name=f"room {i}", cameras=(), pose=None) for i in range(count)]


def _turn(scan, rng):
    turned = rotate_z(scan, rng)
    return Augmented(seen=turned, felt=turned)


def _pairs(count=7, probability=0.5, seed=0):
    rooms = Samples([(_rooms(count), _turn)], seed=seed)
    return MixedPairs(rooms, to_input=TO_INPUT, probability=probability)


def _names(pairs, epoch):
    return [pairs[SampleKey(epoch, i)].names for i in range(len(pairs))]


def test_corners_meet_and_everything_follows():
    first, second = (Augmented(seen=room, felt=room) for room in _rooms(2))
    mixed = mix(first, second)
    assert mixed.felt is mixed.seen
    low = first.seen.xyz.min(0)
    moved = second.seen.xyz + (low - second.seen.xyz.min(0))
    np.testing.assert_allclose(mixed.seen.xyz[:40], first.seen.xyz)
    np.testing.assert_allclose(mixed.seen.xyz[40:], moved, atol=1e-5)
    sample = TO_INPUT(mixed)
    assert sample.batch.tolist() == [0] * 81  # one scan
    assert sample.names == ("room 0",)
    np.testing.assert_allclose(sample.feat[:, 6], sample.xyz[:, 0])  # coordinates moved too
    assert ((sample.neighbors < 40).any(1) & (sample.neighbors >= 40).any(1)).any()
    assert np.array_equal(sample.labels, np.append(first.seen.labels, second.seen.labels))


def test_mixing_is_that_of_scans():
    first, second = (Augmented(seen=room, felt=room) for room in _rooms(2))
    offset = first.seen.xyz.min(0) - second.seen.xyz.min(0)
    wanted = join(first.seen, shift(second.seen, offset.astype(np.float64)))
    assert np.array_equal(mix(first, second).seen.xyz, wanted.xyz)


def test_independent_features_are_mixed_on_their_own():
    rng = np.random.default_rng(0)
    first, second = (augment_lidar(room, rng, voxel_size=0.01) for room in _rooms(2))
    mixed = mix(first, second)
    for name in ("seen", "felt"):
        one, other, both = (getattr(value, name).xyz for value in (first, second, mixed))
        assert np.array_equal(both[: len(one)], one)
        np.testing.assert_allclose(both[len(one) :].min(0), one.min(0), atol=1e-4)
        assert len(both) == len(one) + len(other)


def test_a_pass_sees_every_scan_once():
    pairs = _pairs(8, probability=0.0)
    assert len(pairs) == 4
    for epoch in (0, 1):
        met = _names(pairs, epoch)
        assert all(len(names) == 2 for names in met)
        assert sorted(name for names in met for name in names) == [f"room {i}" for i in range(8)]
    assert _names(pairs, 0) != _names(pairs, 1)  # others meet


def test_of_an_odd_number_one_is_left_out():
    assert len({name for names in _names(_pairs(7, probability=0.0), 0) for name in names}) == 6


def test_probability():
    assert all(len(names) == 1 for names in _names(_pairs(6, probability=1.0), 0))
    mixed = [len(names) == 1 for epoch in range(20) for names in _names(_pairs(6), epoch)]
    assert 0.3 < np.mean(mixed) < 0.7


def test_whether_a_pair_is_mixed_does_not_change_its_scans():
    apart = _pairs(4, probability=0.0)[SampleKey(2, 1)]
    together = _pairs(4, probability=1.0)[SampleKey(2, 1)]
    assert np.array_equal(apart.labels, together.labels)
    assert np.array_equal(apart.feat[:, :6], together.feat[:, :6])
    first = apart.batch == 0
    assert np.array_equal(apart.xyz[first], together.xyz[first])


def test_number_of_processes_changes_nothing():
    """Two processes see, each its share, what one sees."""
    alone = list(StepLoader(_pairs(8), batch_size=2, num_steps=6))
    shared = [
        list(StepLoader(_pairs(8), batch_size=1, num_steps=6, rank=rank, world_size=2))
        for rank in range(2)
    ]
    for step, both in enumerate(alone):
        parts = [shared[rank][step] for rank in range(2)]
        assert both.names == parts[0].names + parts[1].names
        assert np.array_equal(both.xyz, np.concatenate([part.xyz for part in parts]))


def test_limits():
    with pytest.raises(ValueError, match="mixing takes at least 2 scans, got 1; do not mix"):
        _pairs(1)
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], got 1.5"):
        _pairs(probability=1.5)
