"""What the augmentations share in drawing: chances, ranges and their checks."""

import math

import numpy as np

Range = tuple[float, float]


def happens(rng: np.random.Generator, probability: float) -> bool:
    """Draw whether something that has a probability happens; one draw, also for 0 and 1.

    Raises:
        ValueError: If the probability is not in [0, 1].
    """
    return bool(rng.random() < require_fraction("probability", probability))


def require_fraction(name: str, value: float) -> float:
    """Return a number from 0 to 1.

    Raises:
        ValueError: If it is not in [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")
    return value


def require_least(name: str, value: float, least: float = 0.0, *, above: bool = False) -> float:
    """Return a finite number with a lower bound.

    Raises:
        ValueError: If it is smaller than `least` (or equal to it, with `above`) or not finite.
    """
    if not (value > least if above else value >= least) or not math.isfinite(value):
        limit = f"above {least:g}" if above else f"at least {least:g}"
        raise ValueError(f"{name} must be finite and {limit}, got {value}")
    return value


def require_range(name: str, limits: Range, *, least: float, most: float = math.inf) -> Range:
    """Return the two ends of a range.

    Raises:
        ValueError: If they are not in order and within [least, most].
    """
    low, high = limits
    if not least <= low <= high <= most or not math.isfinite(high):
        raise ValueError(
            f"{name} must be two finite numbers in order within [{least:g}, {most:g}], got {limits}"
        )
    return limits
