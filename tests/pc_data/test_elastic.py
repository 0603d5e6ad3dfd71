"""Elastic distortion equals smoothing and interpolation by SciPy."""

import numpy as np
import pytest
from pc_data.augment.elastic import elastic_distortion
from pc_data.errors import DataError
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import uniform_filter

from tests.pc_data.scans import assert_rows_follow, assert_same, copied, scan_of


def by_scipy(xyz, rng, distance, factor):
    low = xyz.min(0).astype(float)
    shape = np.floor((xyz.max(0).astype(float) - low) / distance).astype(int) + 3
    noise = rng.standard_normal((*shape, 3), np.float32).astype(float)
    for _ in range(2):
        noise = uniform_filter(noise, (3, 3, 3, 1), mode="constant")
    axes = [low[i] + distance * (np.arange(shape[i]) - 1) for i in range(3)]
    return xyz + factor * RegularGridInterpolator(axes, noise)(xyz)


@pytest.mark.parametrize("n", [1, 2, 300])
@pytest.mark.parametrize("scales", [((0.2, 0.4),), ((0.8, 1.6),), ((0.2, 0.4), (0.8, 1.6))])
def test_equals_scipy(n, scales):
    scan = scan_of(n, extent=1.5)
    bent = elastic_distortion(scan, np.random.default_rng(1), scales=scales, probability=1.0)
    rng = np.random.default_rng(1)
    rng.random()  # whether it happens
    expected = scan.xyz
    for distance, factor in scales:
        expected = by_scipy(expected, rng, distance, factor)
    np.testing.assert_allclose(bent.xyz, expected, atol=2e-5)
    assert np.abs(bent.xyz - scan.xyz).max() > 1e-4
    assert bent.xyz.dtype == np.float32


def test_neighbours_move_alike():
    """The noise is smooth: between points 1 mm apart, far less than between distant ones."""
    scan = scan_of(500, extent=3.0)
    near = scan_of(1000, xyz=np.concatenate([scan.xyz, scan.xyz + np.float32(0.001)]))
    moved = elastic_distortion(near, np.random.default_rng(2), probability=1.0).xyz - near.xyz
    assert np.abs(moved[:500] - moved[500:]).max() < 0.05 * moved.std()


def test_pure_and_reproducible():
    scan = scan_of(50, extent=1.0)
    before = copied(scan)
    first = elastic_distortion(scan, np.random.default_rng(3), probability=1.0)
    assert_same(first, elastic_distortion(scan, np.random.default_rng(3), probability=1.0))
    assert_same(scan, before)
    assert_rows_follow(first, scan, slice(None))


def test_points_in_a_plane_and_copies():
    scan = scan_of(40, xyz=np.zeros((40, 3), np.float32))
    bent = elastic_distortion(scan, np.random.default_rng(4), probability=1.0)
    assert len(np.unique(bent.xyz, axis=0)) == 1
    empty = scan_of(0)
    assert elastic_distortion(empty, np.random.default_rng(0), probability=1.0) is empty


def test_probability():
    scan, rng = scan_of(2, extent=0.2), np.random.default_rng(5)
    assert elastic_distortion(scan, rng, probability=0.0) is scan
    bent = [elastic_distortion(scan, rng) is not scan for _ in range(600)]
    assert np.mean(bent) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scales": ((0.0, 1.0),)}, "a distance of scales must be finite and above 0"),
        ({"scales": ((0.2, -1.0),)}, "a factor of scales must be finite and at least 0"),
        ({"probability": 2.0}, r"probability must be in \[0, 1\], got 2"),
    ],
)
def test_parameters_are_checked(parameters, message):
    with pytest.raises(ValueError, match=message):
        elastic_distortion(scan_of(100), np.random.default_rng(0), **parameters)


def test_too_large_a_scan_is_a_fault_of_the_data():
    with pytest.raises(DataError, match=r"scan test/0: noise .* nodes, .* crop"):
        elastic_distortion(
            scan_of(100), np.random.default_rng(0), scales=((0.01, 1.0),), probability=1.0
        )
