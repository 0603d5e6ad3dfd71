"""The authors' networks, run by the authors' code, against ours."""

import json

import numpy as np
import pytest
import torch
from pc_backbones import batch_neighbors, load_published

from tests.real_data import FIXTURES, needs_fixtures


def _inputs(name):
    arrays = np.load(FIXTURES / f"{name}.npz")
    scans = [
        tuple(torch.from_numpy(arrays[f"{key}_{i}"]) for key in ("xyz", "intensity", "neighbors"))
        for i in range(2)
    ]
    xyz = torch.cat([scan[0] for scan in scans])
    intensity = torch.cat([scan[1] for scan in scans])
    feat = torch.cat([intensity, xyz, xyz.norm(dim=1, keepdim=True)], dim=1)
    first = len(scans[0][0])
    batch = (torch.arange(len(xyz)) >= first).long()
    neighbors = torch.cat([scans[0][2][:, 1:], scans[1][2][:, 1:] + first]).long()
    out = torch.from_numpy(np.concatenate([arrays["out_0"], arrays["out_1"]]))
    return xyz, feat, batch, neighbors, out


def _overrides(name):
    values = json.loads((FIXTURES / f"{name}.json").read_text())
    return {"grids": values["grids"], "fov": values["fov"]}


@needs_fixtures
@pytest.mark.parametrize("name", ["waffleiron_bn_tiny", "waffleiron_ln_tiny"])
@pytest.mark.parametrize("given", [True, False], ids=["their neighbours", "our neighbours"])
def test_fixture(name, given):
    xyz, feat, batch, neighbors, expected = _inputs(name)
    backbone, head = load_published(FIXTURES / f"{name}.pth", **_overrides(name))
    assert not backbone.training and not head.training
    with torch.inference_mode():
        out = head(backbone(xyz, feat, batch, neighbors=neighbors if given else None))
    error = (out - expected).abs().max() / expected.abs().max()
    assert error < 1e-5


@needs_fixtures
def test_neighbors_of_fixture():
    xyz, _, batch, neighbors, _ = _inputs("waffleiron_bn_tiny")
    ours = batch_neighbors(xyz, batch, 16)
    distance = lambda index: (xyz[index] - xyz[:, None]).norm(dim=-1)
    torch.testing.assert_close(distance(ours), distance(neighbors), atol=1e-5, rtol=1e-5)
