"""Augmentations of colour; a scan without colour stays what it is.

Pure functions `(scan, rng) -> scan` as in `pc_data.augment`. Colours are RGB in 0..1 before and
after; what a network takes instead is made last, by `normalized_color`.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Float32

from pc_data.augment.draws import Range, happens, require_fraction, require_least
from pc_data.errors import DataError
from pc_data.scan import Scan

_GRAY = np.array([0.2989, 0.587, 0.114], np.float32)


def stretch_contrast(
    scan: Scan,
    rng: np.random.Generator,
    *,
    probability: float = 0.2,
    blend: Range = (0.0, 1.0),
) -> Scan:
    """Blend with the colours stretched to all of 0..1, each channel by itself.

    Args:
        scan: Any scan.
        rng: Draws.
        probability: Of doing anything.
        blend: Range of the share of the stretched colours.

    Raises:
        ValueError: If a parameter is not within [0, 1].

    Source: ChromaticAutoContrast of MinkowskiNet (Choy et al., CVPR 2019) and MSC's fine-tuning. A
        channel with one value stays, where that code divides by zero.
    """
    for end in blend:
        require_fraction("blend", end)
    if not happens(rng, probability) or scan.color is None or not len(scan):
        return scan
    low, high = scan.color.min(0), scan.color.max(0)
    span = np.where(high > low, high - low, 1)
    stretched = np.where(high > low, (scan.color - low) / span, scan.color)
    return _with_color(scan, _blend(stretched, scan.color, rng.uniform(*blend)))


def shift_color(
    scan: Scan, rng: np.random.Generator, *, probability: float = 0.95, ratio: float = 0.05
) -> Scan:
    """Add one number from [-ratio, ratio) to each channel.

    Raises:
        ValueError: If a parameter is out of range.

    Source: ChromaticTranslation of MinkowskiNet (Choy et al., CVPR 2019) and MSC's fine-tuning.
    """
    require_least("ratio", ratio)
    if not happens(rng, probability) or scan.color is None:
        return scan
    return _with_color(scan, scan.color + rng.uniform(-ratio, ratio, 3))


def jitter_color(
    scan: Scan, rng: np.random.Generator, *, probability: float = 0.95, std: float = 0.05
) -> Scan:
    """Add normal noise to each channel of each point.

    Raises:
        ValueError: If a parameter is out of range.

    Source: MSC (Wu et al., CVPR 2023, Table 4, "color gaussian jitter").
    """
    require_least("std", std)
    if not happens(rng, probability) or scan.color is None:
        return scan
    noise = rng.standard_normal(scan.color.shape, np.float32)
    return _with_color(scan, scan.color + np.float32(std) * noise)


def adjust_color(
    scan: Scan,
    rng: np.random.Generator,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.2,
    hue: float = 0.02,
    probability: float = 0.8,
) -> Scan:
    """Change brightness, contrast, saturation and hue of a whole scan, in random order.

    Args:
        scan: Any scan.
        rng: Draws the order, which ones happen, and the factors.
        brightness: The factor is drawn from 1 - this to 1 + this, not below 0.
        contrast: As brightness; colours move from or to the mean grey.
        saturation: As brightness; colours move from or to their own grey.
        hue: The colour circle turns by a share of it from -this to this; at most 0.5.
        probability: Of each of the four, independently.

    Raises:
        ValueError: If a parameter is out of range.

    Source: MSC (Wu et al., CVPR 2023, Table 4), after BYOL.
    """
    for name, value in zip(
        ("brightness", "contrast", "saturation"), (brightness, contrast, saturation), strict=True
    ):
        require_least(name, value)
    if not 0 <= hue <= 0.5:
        raise ValueError(f"hue must be in [0, 0.5], got {hue}")
    changes = (
        (_brighten, _factor(rng, brightness)),
        (_contrast, _factor(rng, contrast)),
        (_saturate, _factor(rng, saturation)),
        (turn_hue, rng.uniform(-hue, hue)),
    )
    color = scan.color
    for index in rng.permutation(len(changes)):
        change, factor = changes[index]
        if happens(rng, probability) and color is not None and len(scan):
            color = change(color, factor)
    return scan if color is scan.color or color is None else _with_color(scan, color)


def drop_color(scan: Scan, rng: np.random.Generator, *, probability: float = 0.2) -> Scan:
    """Make all points black.

    Raises:
        ValueError: If the probability is not in [0, 1].
    """
    if not happens(rng, probability) or scan.color is None:
        return scan
    return _with_color(scan, np.zeros_like(scan.color))


def drop_hue(scan: Scan, rng: np.random.Generator, *, probability: float = 0.2) -> Scan:
    """Make all points grey.

    Raises:
        ValueError: If the probability is not in [0, 1].
    """
    if not happens(rng, probability) or scan.color is None:
        return scan
    return _with_color(scan, np.repeat(_gray(scan.color), 3, axis=1))


def normalized_color(
    scan: Scan, *, mean: float = 0.5, std: float = 0.5
) -> Float32[np.ndarray, "n 3"]:
    """Return the colours as a network takes them: -1..1 by default.

    Raises:
        DataError: If the scan has no colour.
        ValueError: If `std` is not positive.

    Source: MSC's released weights were trained with colours in -1..1; its code of 2025 divides by
        255 instead, which is `mean=0, std=1`.
    """
    require_least("std", std, above=True)
    if scan.color is None:
        raise DataError(f"scan {scan.name} has no colour; use a dataset with coloured points")
    return ((scan.color - np.float32(mean)) / np.float32(std)).astype(np.float32)


def turn_hue(color: Float[np.ndarray, "n 3"], turn: float) -> Float[np.ndarray, "n 3"]:
    """Turn the hue of colours by a share of the whole circle.

    Source: the HSV model (Smith, SIGGRAPH 1978).
    """
    red, green, blue = color.T
    value = color.max(1)
    chroma = value - color.min(1)
    divisor = np.where(chroma > 0, chroma, 1)
    hue = np.where(
        value == red,
        (green - blue) / divisor,
        np.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sector = (hue[:, None] + 6 * turn + color.dtype.type([5, 3, 1])) % 6
    fall = np.minimum(sector, 4 - sector).clip(0, 1)
    return value[:, None] - chroma[:, None] * fall


def _factor(rng: np.random.Generator, spread: float) -> float:
    return rng.uniform(max(0.0, 1 - spread), 1 + spread)


def _brighten(color: np.ndarray, factor: float) -> np.ndarray:
    return (color * color.dtype.type(factor)).clip(0, 1)


def _contrast(color: np.ndarray, factor: float) -> np.ndarray:
    return _blend(color, float(_gray(color).mean()), factor)


def _saturate(color: np.ndarray, factor: float) -> np.ndarray:
    return _blend(color, _gray(color), factor)


def _gray(color: np.ndarray) -> np.ndarray:
    return (color @ _GRAY)[:, None]


def _blend(color: np.ndarray, other: np.ndarray | float, share: float) -> np.ndarray:
    """Go from the other colours to these; beyond 1, further than that."""
    share = color.dtype.type(share)
    return (color * share + other * (1 - share)).clip(0, 1)


def _with_color(scan: Scan, color: np.ndarray) -> Scan:
    return dataclasses.replace(scan, color=color.clip(0, 1).astype(np.float32))
