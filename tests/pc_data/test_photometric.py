"""Colours change by the stated amounts, stay in 0..1, and change nothing else."""

import colorsys
import dataclasses
from functools import partial

import numpy as np
import pytest
from pc_data import DataError
from pc_data.augment import photometric

from tests.pc_data.scans import assert_same, bare, copied, scan_of

ALL = {
    "stretch_contrast": partial(photometric.stretch_contrast, probability=1.0),
    "shift_color": partial(photometric.shift_color, probability=1.0, ratio=0.3),
    "jitter_color": partial(photometric.jitter_color, probability=1.0, std=0.3),
    "adjust_color": partial(photometric.adjust_color, probability=1.0, hue=0.5),
    "drop_color": partial(photometric.drop_color, probability=1.0),
    "drop_hue": partial(photometric.drop_hue, probability=1.0),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n", [0, 1, 2, 100])
def test_only_colours_change_and_stay_in_range(name, n):
    scan = scan_of(n)
    before = copied(scan)
    out = ALL[name](scan, np.random.default_rng(1))
    assert_same(out, ALL[name](scan, np.random.default_rng(1)))
    assert_same(scan, before)
    assert out.color.dtype == np.float32
    assert out.color.shape == (n, 3)
    if n > 2:
        assert 0 <= out.color.min() <= out.color.max() <= 1
        assert np.abs(out.color - scan.color).max() > 0.005
    assert_same(without_color(out), without_color(scan))
    plain = bare(scan)
    assert ALL[name](plain, np.random.default_rng(1)) is plain


def without_color(scan):
    return dataclasses.replace(scan, color=None)


@pytest.mark.parametrize("name", ALL)
def test_probability(name):
    function, scan, rng = ALL[name].func, scan_of(5), np.random.default_rng(2)
    assert function(scan, rng, probability=0.0) is scan
    share = np.mean([function(scan, rng, probability=0.3) is not scan for _ in range(600)])
    expected = 1 - 0.7**4 if name == "adjust_color" else 0.3
    assert share == pytest.approx(expected, abs=0.06)
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], got 1.1"):
        function(scan, rng, probability=1.1)


def test_stretch_contrast():
    color = np.float32([[0.2, 0.5, 0.1], [0.4, 0.5, 0.3], [0.6, 0.5, 0.2]])
    full = photometric.stretch_contrast(
        scan_of(3, color=color), np.random.default_rng(0), probability=1.0, blend=(1.0, 1.0)
    )
    np.testing.assert_allclose(full.color, [[0, 0.5, 0], [0.5, 0.5, 1], [1, 0.5, 0.5]], atol=1e-6)
    half = photometric.stretch_contrast(
        scan_of(3, color=color), np.random.default_rng(0), probability=1.0, blend=(0.5, 0.5)
    )
    np.testing.assert_allclose(half.color, (full.color + color) / 2, atol=1e-6)


def test_shift_is_one_number_a_channel():
    scan = scan_of(50, color=np.full((50, 3), 0.5, np.float32))
    rng = np.random.default_rng(3)
    shifts = [photometric.shift_color(scan, rng, probability=1.0).color - 0.5 for _ in range(300)]
    assert np.ptp(shifts, axis=1).max() == 0
    assert np.abs(shifts).max() == pytest.approx(0.05, abs=0.001)
    assert np.std(shifts) == pytest.approx(0.05 / np.sqrt(3), abs=0.002)


def test_jitter_is_one_number_a_value():
    scan = scan_of(5000, color=np.full((5000, 3), 0.5, np.float32))
    noise = photometric.jitter_color(scan, np.random.default_rng(4), probability=1.0).color - 0.5
    assert noise.std() == pytest.approx(0.05, abs=0.001)
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.05


@pytest.mark.parametrize("turn", [-0.5, -0.02, 0.0, 0.1, 0.5])
def test_turn_hue_as_colorsys(turn):
    grays = np.repeat(np.linspace(0, 1, 5), 3).reshape(-1, 3)
    color = np.concatenate([np.random.default_rng(5).random((200, 3)), np.eye(3), grays])
    expected = []
    for rgb in color:
        hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
        expected.append(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
    np.testing.assert_allclose(photometric.turn_hue(color, turn), expected, atol=1e-9)
    single = photometric.turn_hue(color.astype(np.float32), turn)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=2e-6)


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_adjust_color_blends(kind):
    """One of the four at a time: colours lie on a line through what they are blended with."""
    scan = scan_of(100, color=np.random.default_rng(6).uniform(0.3, 0.6, (100, 3)).astype("f4"))
    gray = scan.color @ [0.2989, 0.587, 0.114]
    other = {"brightness": 0.0, "contrast": gray.mean(), "saturation": gray[:, None]}[kind]
    still = dict.fromkeys(["brightness", "contrast", "saturation", "hue"], 0.0)
    rng, factors = np.random.default_rng(7), []
    for _ in range(300):
        out = photometric.adjust_color(scan, rng, **still | {kind: 0.4}, probability=1.0)
        factor = ((out.color - other) * (scan.color - other)).sum() / np.square(
            scan.color - other
        ).sum()
        np.testing.assert_allclose(out.color, other + factor * (scan.color - other), atol=1e-5)
        factors.append(factor)
    assert min(factors) == pytest.approx(0.6, abs=0.02)
    assert max(factors) == pytest.approx(1.4, abs=0.02)
    assert np.std(factors) == pytest.approx(0.4 / np.sqrt(3), abs=0.02)


def test_hue_turns_by_up_to_its_bound():
    scan, rng, turns = scan_of(1, color=np.float32([[0.8, 0.4, 0.4]])), np.random.default_rng(8), []
    for _ in range(300):
        out = photometric.adjust_color(
            scan, rng, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.02, probability=1.0
        )
        turns.append((colorsys.rgb_to_hsv(*out.color[0].astype(float))[0] + 0.5) % 1 - 0.5)
    assert np.abs(turns).max() == pytest.approx(0.02, abs=0.001)
    assert np.std(turns) == pytest.approx(0.02 / np.sqrt(3), abs=0.002)


def test_drops():
    scan = scan_of(20)
    assert photometric.drop_color(scan, np.random.default_rng(0), probability=1.0).color.max() == 0
    gray = photometric.drop_hue(scan, np.random.default_rng(0), probability=1.0).color
    assert np.ptp(gray, axis=1).max() == 0
    np.testing.assert_allclose(gray[:, 0], scan.color @ [0.2989, 0.587, 0.114], atol=1e-6)


def test_normalized_color():
    scan = scan_of(20)
    np.testing.assert_allclose(photometric.normalized_color(scan), scan.color * 2 - 1, atol=1e-6)
    plain = photometric.normalized_color(scan, mean=0.0, std=1.0)
    np.testing.assert_array_equal(plain, scan.color)
    assert plain.dtype == np.float32
    with pytest.raises(DataError, match="scan test/0 has no colour"):
        photometric.normalized_color(bare(scan))
    with pytest.raises(ValueError, match="std must be finite and above 0"):
        photometric.normalized_color(scan, std=0.0)


@pytest.mark.parametrize(
    ("function", "parameters", "message"),
    [
        (photometric.stretch_contrast, {"blend": (0.0, 2.0)}, r"blend must be in \[0, 1\], got 2"),
        (photometric.shift_color, {"ratio": -0.1}, r"ratio must be finite and at least 0"),
        (photometric.jitter_color, {"std": -0.1}, r"std must be finite and at least 0"),
        (photometric.adjust_color, {"contrast": -0.1}, r"contrast must be finite and at least 0"),
        (photometric.adjust_color, {"hue": 0.6}, r"hue must be in \[0, 0.5\], got 0.6"),
    ],
)
def test_parameters_are_checked(function, parameters, message):
    with pytest.raises(ValueError, match=message):
        function(scan_of(3), np.random.default_rng(0), **parameters)
