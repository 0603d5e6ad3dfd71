"""Counts over a dataset beside plain NumPy, and their picture."""

import io

import numpy as np
import pytest
from pc_data import NuScenes
from pc_data.stats import draw_stats, take_stats

from tests.pc_data.tiny_worlds import write_nuscenes


@pytest.mark.parametrize("with_labels", [True, False])
def test_counts(tmp_path, with_labels):
    dataset = NuScenes(write_nuscenes(tmp_path), split="all", labels=with_labels)
    told = []
    stats = take_stats(dataset, progress=lambda done, total: told.append((done, total)))
    scans = list(dataset)
    xyz = np.concatenate([scan.xyz for scan in scans])
    assert told == [(k, 4) for k in (1, 2, 3, 4)]
    assert stats.num_points.tolist() == [len(scan) for scan in scans]
    assert stats.distances.sum() == stats.heights.sum() == len(xyz)
    assert stats.distances[5] == np.sum((np.hypot(*xyz.T[:2]) >= 10) & (np.hypot(*xyz.T[:2]) < 12))
    assert f"4 scans, {len(xyz):,} points" in stats.text()
    if with_labels:
        labels = np.concatenate([scan.labels for scan in scans])
        expected = [(labels == k).sum() for k in range(-1, dataset.num_classes)]
        assert stats.class_counts.tolist() == expected
        assert f"{(labels == 3).mean():.2%}" in stats.text()
    else:
        assert stats.num_labelled == 0
        assert "car" not in stats.text()
    picture = io.BytesIO()
    draw_stats(stats).savefig(picture)
    assert picture.getvalue().startswith(b"\x89PNG")
