"""SSPL's views: the same places in both, shares of the crops, packing."""

import dataclasses

import numpy as np
import pytest
import torch
from pc_data import DataError
from pc_data.augment.presets import depthcontrast_view, run
from pc_data.loading import sample_rng
from sspl.pictures import picture_of_batch
from sspl.samples import NetworkInput, VolumePair, make_scans, make_volumes

from tests.pc_data.scans import scan_of

INDEX = NetworkInput(features=("intensity", "height"))


def room(n=6000, seed=0, **changes):
    """Points on the floor and two walls of a room; the intensity is the point's number."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform([0, 0, 0], [3, 2.5, 2], (n, 3))
    xyz[np.arange(n), rng.integers(3, size=n)] = 0
    fields = {"xyz": xyz.astype(np.float32), "intensity": np.arange(n, dtype=np.float32)}
    return scan_of(n, **(fields | changes), seed=seed)


def source_of(batch):
    """Which point of the scan each point was."""
    return batch.feat[:, 0].long().numpy()


@pytest.mark.parametrize("shares", [(0.1, 0.5), (0.3, 1.0)])
def test_both_views_show_the_same_places(shares):
    scan = room()
    sample = make_volumes(
        scan, sample_rng(0, 0, 0), takes=INDEX, local_share=shares[0], global_share=shares[1]
    )
    num_volumes = len(sample.volume_scan)
    assert 20 < num_volumes < 120
    sizes = []
    for view, volume in (
        (sample.local_view, sample.local_volume),
        (sample.global_view, sample.global_volume),
    ):
        counts = torch.bincount(volume, minlength=num_volumes)
        assert len(counts) == num_volumes
        assert (counts > 0).all()
        sizes.append(counts.numpy())
        assert view.labels is None
    point = np.concatenate([source_of(sample.local_view), source_of(sample.global_view)])
    volume = np.concatenate([sample.local_volume, sample.global_volume])
    for number in range(num_volumes):
        place = scan.xyz[point[volume == number]]
        assert np.ptp(place, axis=0).max() <= 0.5 + 1e-4
    # Every crop is a rounded-up share of one and the same number of points.
    small, large = shares
    whole = [{n for n in range(8, 6000) if np.ceil(small * n - 1e-9) == k} for k in sizes[0]]
    for counts, options in zip(sizes[1], whole, strict=True):
        assert any(np.ceil(large * n - 1e-9) == counts for n in options)


def test_views_are_augmented_apart():
    """A rotation about the vertical and a scaling, by other draws for each view."""
    scan = room()
    sample = make_volumes(scan, sample_rng(0, 0, 0), takes=INDEX)
    moves = []
    for view in (sample.local_view, sample.global_view):
        origin = scan.xyz[source_of(view)].astype(np.float64)
        move = np.linalg.lstsq(origin, view.xyz.double().numpy(), rcond=None)[0]
        np.testing.assert_allclose(origin @ move, view.xyz, atol=1e-4)
        factor = np.linalg.det(move) ** (1 / 3)
        assert 0.8 <= factor <= 1.2
        np.testing.assert_allclose(move @ move.T, factor**2 * np.eye(3), atol=1e-4)
        moves.append(move)
    assert np.abs(moves[0] - moves[1]).max() > 0.05


def test_sample_follows_from_its_key():
    first, again, other = (
        make_volumes(room(), sample_rng(0, 0, index), takes=INDEX) for index in (0, 0, 1)
    )
    assert torch.equal(first.local_view.xyz, again.local_view.xyz)
    assert torch.equal(first.global_volume, again.global_volume)
    assert not torch.equal(first.local_view.feat[:50], other.local_view.feat[:50])


def test_limits_of_points_and_volumes():
    sample = make_volumes(
        room(), sample_rng(0, 0, 0), takes=INDEX, max_points=1000, max_volumes=5, global_share=1.0
    )
    assert len(sample.volume_scan) == 5
    assert len(sample.global_view.xyz) < 1000


def test_pack_numbers_on():
    samples = [
        make_volumes(room(seed=seed), sample_rng(0, 0, seed), takes=INDEX) for seed in range(3)
    ]
    packed = VolumePair.pack(samples)
    assert len(packed) == 3
    assert packed.names == tuple(sample.names[0] for sample in samples)
    assert (packed.volume_scan.diff() >= 0).all()
    for view, volume in (
        (packed.local_view, packed.local_volume),
        (packed.global_view, packed.global_volume),
    ):
        assert torch.equal(packed.volume_scan[volume], view.batch)
    start = 0
    for sample in samples:
        inside = (packed.local_volume >= start) & (
            packed.local_volume < start + len(sample.volume_scan)
        )
        assert torch.equal(packed.local_view.feat[inside], sample.local_view.feat)
        assert torch.equal(packed.local_volume[inside] - start, sample.local_volume)
        start += len(sample.volume_scan)
    assert packed.to("meta").global_view.feat.is_meta


def test_scans_are_one_volume_each():
    scan = room()
    sample = make_scans(scan, sample_rng(0, 0, 0), takes=INDEX, view_points=500)
    assert sample.volume_scan.tolist() == [0]
    assert not sample.local_volume.any()
    assert len(sample.local_view.xyz) == len(sample.global_view.xyz) == 500
    rng = sample_rng(0, 0, 0)
    steps = depthcontrast_view(indoor=True, num_points=500)
    for view in (sample.local_view, sample.global_view):
        np.testing.assert_array_equal(view.xyz, run(steps, scan, rng).xyz)


def test_field_of_view():
    """Points that an augmentation moves out of the network's box are gone, volumes too."""
    box = ((-2.0, -2.0, -9.0), (2.0, 2.0, 9.0))
    takes = NetworkInput(features=("x", "y"), box=box, num_neighbors=3)
    sample = make_volumes(room(), sample_rng(0, 0, 0), takes=takes, global_share=1.0)
    for view, volume in (
        (sample.local_view, sample.local_volume),
        (sample.global_view, sample.global_volume),
    ):
        assert view.xyz[:, :2].abs().max() <= 2
        assert view.neighbors.shape == (len(view.xyz), 3)
        assert set(volume.tolist()) == set(range(len(sample.volume_scan)))
    far = NetworkInput(features=("x",), box=((90.0, 90.0, 90.0), (91.0, 91.0, 91.0)))
    with pytest.raises(DataError, match="a view holds no point that the network sees"):
        make_scans(room(), sample_rng(0, 0, 0), takes=far, indoor=False)


def test_nothing_to_split():
    with pytest.raises(DataError, match=r"none of its volumes of 0.5 m holds 8 points"):
        make_volumes(room(5), sample_rng(0, 0, 0), takes=INDEX)
    colors = NetworkInput(features=("red",))
    with pytest.raises(DataError, match="has no color"):
        make_volumes(room(color=None), sample_rng(0, 0, 0), takes=colors)


def test_picture_of_the_first_batch():
    scan = room()
    scan = dataclasses.replace(scan, xyz=scan.xyz * np.float32([20, 20, 1]))  # seen from above
    sample = make_volumes(scan, sample_rng(0, 0, 0), takes=INDEX, volume_size=10.0)
    colors = []
    views = ((sample.local_view, sample.local_volume), (sample.global_view, sample.global_volume))
    for axes, (view, volume) in zip(picture_of_batch(sample).axes, views, strict=True):
        shown = np.asarray(axes.collections[0].get_facecolors())[:, :3]
        order = np.argsort(view.xyz[:, 2].numpy(), kind="stable")
        colors.append(dict(zip(volume[order].tolist(), map(tuple, shown), strict=True)))
        assert all(
            colors[-1][v] == tuple(c) for v, c in zip(volume[order].tolist(), shown, strict=True)
        )
    assert colors[0] == colors[1]
    assert len(set(colors[0].values())) == len(sample.volume_scan)
