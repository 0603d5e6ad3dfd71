"""MSC's views: cross masks, pairs, packing."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msc.config import Config
from msc.pictures import picture_of_batch
from msc.samples import ViewPair, cross_masks, make_views
from pc_data import DataError
from pc_data.augment.presets import MSC_SHARED, msc_view
from pc_data.augment.views import msc_views
from pc_data.colors import IGNORED
from pc_data.datasets import DataConfig
from pc_data.loading import sample_rng

from tests.pc_data.scans import scan_of


def room(n=6000, seed=0):
    """Points on the floor and two walls of a room."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform([0, 0, 0], [3, 2.5, 2], (n, 3))
    xyz[np.arange(n), rng.integers(3, size=n)] = 0
    return scan_of(n, xyz=xyz.astype(np.float32), seed=seed)


def cells_of(points, size, low):
    return [tuple(cell) for cell in np.floor((points.astype(np.float64) - low) / size).astype(int)]


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.5]))
@settings(max_examples=30, deadline=None)
def test_cross_masks_against_sets_of_cells(seed, rate):
    rng = np.random.default_rng(seed)
    query, key = (rng.normal(0, 2, (n, 3)).astype(np.float32) for n in (300, 200))
    hidden_query, hidden_key = cross_masks(query, key, rng, size=0.7, rate=rate)
    low = np.concatenate([query, key]).min(0).astype(np.float64)
    query_cells, key_cells = cells_of(query, 0.7, low), cells_of(key, 0.7, low)
    by_query = {cell for cell, hidden in zip(query_cells, hidden_query, strict=True) if hidden}
    by_key = {cell for cell, hidden in zip(key_cells, hidden_key, strict=True) if hidden}
    # A cell is hidden as a whole, and from one view only.
    assert not by_query & by_key
    assert not any(c in by_query for c, h in zip(query_cells, hidden_query, strict=True) if not h)
    assert not any(c in by_key for c, h in zip(key_cells, hidden_key, strict=True) if not h)
    # The drawn cells may be empty in the view that they are hidden from, so these are bounds.
    num_hidden = int(len({*query_cells, *key_cells}) * rate)
    assert len(by_query) <= num_hidden
    assert len(by_key) <= num_hidden


def test_cross_masks_hide_the_rate():
    points = np.stack(np.meshgrid(*[np.arange(10.0)] * 3), -1).reshape(-1, 3).astype(np.float32)
    query, key = cross_masks(points, points, np.random.default_rng(0), size=1.0, rate=0.3)
    assert query.sum() == key.sum() == 300
    assert not (query & key).any()
    again, _ = cross_masks(points, points, np.random.default_rng(1), size=1.0, rate=0.3)
    assert (again != query).any()


@pytest.mark.parametrize("sizes", [(0, 0), (1, 0), (0, 5), (1, 1)])
def test_cross_masks_of_next_to_nothing(sizes):
    query, key = (np.zeros((n, 3), np.float32) for n in sizes)
    masks = cross_masks(query, key, np.random.default_rng(0), rate=0.5)
    assert [len(mask) for mask in masks] == list(sizes)
    assert not np.concatenate(masks).any()  # one cell, half of it rounded down


def test_sample():
    scan = room()
    sample = make_views(scan, sample_rng(0, 0, 0), voxel_size=0.05, match_radius=0.075)
    assert sample.query.feat.shape == (len(sample.query.xyz), 6)
    assert -1 <= sample.key.feat[:, :3].min() < -0.5
    assert 0.5 < sample.key.feat[:, :3].max() <= 1
    torch.testing.assert_close(
        sample.key.feat[:, 3:].norm(dim=1), torch.ones(len(sample.key.xyz)), atol=1e-4, rtol=0
    )
    assert sample.query.labels is None
    assert sample.query.neighbors is None
    assert 0.15 < sample.query_masked.float().mean() < 0.45
    assert len(sample.pairs) == min(len(sample.pairs), 2048) > 100
    # Pairs were near each other in the scan that both views come from.
    rng = sample_rng(0, 0, 0)
    query, key = msc_views(scan, rng, shared=MSC_SHARED, view=msc_view(voxel_size=0.05))
    i, j = sample.pairs.numpy().T
    assert np.linalg.norm(query.origin[i] - key.origin[j], axis=1).max() < 0.075
    np.testing.assert_array_equal(sample.query.xyz.numpy(), query.scan.xyz)


def test_sample_follows_from_its_key():
    first, again, other = (
        make_views(room(), sample_rng(0, 0, index), voxel_size=0.1) for index in (0, 0, 1)
    )
    assert torch.equal(first.pairs, again.pairs)
    assert torch.equal(first.query.feat, again.query.feat)
    assert torch.equal(first.key_masked, again.key_masked)
    assert first.query.xyz.shape != other.query.xyz.shape


def test_fewer_pairs_are_a_random_subset():
    every = make_views(room(), sample_rng(0, 0, 0), voxel_size=0.1, match_radius=0.15)
    some = make_views(room(), sample_rng(0, 0, 0), voxel_size=0.1, match_radius=0.15, max_pairs=10)
    assert len(some.pairs) == 10 < len(every.pairs)
    assert {tuple(pair) for pair in some.pairs.tolist()} <= {tuple(p) for p in every.pairs.tolist()}


def test_mixing_is_as_likely_as_said():
    mixed = [
        make_views(room(50), sample_rng(0, 0, i), voxel_size=0.1, mix_probability=0.8).mixed.item()
        for i in range(300)
    ]
    assert 0.72 < np.mean(mixed) < 0.88


def test_pack_shifts_the_pairs():
    samples = [
        make_views(room(seed=seed), sample_rng(0, 0, seed), voxel_size=0.1, match_radius=0.15)
        for seed in range(3)
    ]
    packed = ViewPair.pack(samples)
    assert packed.names == tuple(sample.names[0] for sample in samples)
    assert len(packed) == 3
    assert packed.mixed.shape == (3,)
    i, j = packed.pairs.T
    assert torch.equal(packed.query.batch[i], packed.key.batch[j])
    starts = np.cumsum([0, *(len(sample.pairs) for sample in samples)])
    for sample, start, end in zip(samples, starts[:-1], starts[1:], strict=True):
        mine_i, mine_j = packed.pairs[start:end].T
        assert torch.equal(packed.query.feat[mine_i], sample.query.feat[sample.pairs[:, 0]])
        assert torch.equal(packed.key.feat[mine_j], sample.key.feat[sample.pairs[:, 1]])
    assert torch.equal(packed.query_masked, torch.cat([s.query_masked for s in samples]))
    moved = packed.to("cpu")
    assert torch.equal(moved.pairs, packed.pairs)


def test_lidar_without_color():
    scan = scan_of(800, color=None, normal=None)
    sample = make_views(scan, sample_rng(0, 0, 0), features=("x", "y", "z", "intensity"))
    assert sample.query.feat.shape[1] == 4
    with pytest.raises(DataError, match="color"):
        make_views(scan, sample_rng(0, 0, 0))


@pytest.mark.parametrize(
    "features", [("red", "green", "blue"), ("normal_x", "normal_y", "normal_z"), ("z",)]
)
def test_picture_of_the_first_batch(features, monkeypatch):
    panels = []
    monkeypatch.setattr("msc.pictures.draw_batch", lambda _, clouds: panels.extend(clouds))
    scan = room()
    if features[0] == "red":
        color = np.random.default_rng(0).random((len(scan), 3)).astype(np.float32)
        scan = dataclasses.replace(scan, color=color)
    if features[0] == "normal_x":
        scan = dataclasses.replace(scan, normal=np.tile(np.float32([0, 0, 1]), (len(scan), 1)))
    sample = make_views(scan, sample_rng(0, 0, 0), features=features, mask_rate=0.3)
    config = Config(data=DataConfig(root=Path()), features=features, reconstruct=())
    picture_of_batch(config, sample)
    query, key, query_pairs, key_pairs = panels
    grey = np.float32(IGNORED)
    for panel, masked in ((query, sample.query_masked), (key, sample.key_masked)):
        assert (panel.color[masked.numpy()] == grey).all()
        assert not (panel.color[~masked.numpy()] == grey).all(axis=1).any()
        assert f"{float(masked.float().mean()):.0%} masked" in panel.title
    one, other = sample.pairs.numpy().T
    unique = np.unique(one, return_counts=True)[1].max() == 1
    if unique and np.unique(other, return_counts=True)[1].max() == 1:
        np.testing.assert_array_equal(query_pairs.color[one], key_pairs.color[other])
    assert not (query_pairs.color[one] == grey).all(axis=1).any()
