"""Limits of settings, checked when a configuration is made: before anything is read or written."""

import math
from collections.abc import Iterable


def require_positive(config: object, *names: str) -> None:
    """Refuse a configuration in which one of these numbers is not positive and finite.

    Raises:
        ValueError: Names the setting and its value.
    """
    for name in names:
        for value in _numbers(getattr(config, name)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive, got {getattr(config, name)}")


def require_not_negative(config: object, *names: str) -> None:
    """Refuse a configuration in which one of these numbers is negative or not finite.

    Raises:
        ValueError: Names the setting and its value.
    """
    for name in names:
        for value in _numbers(getattr(config, name)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be 0 or more, got {getattr(config, name)}")


def _numbers(value: object) -> Iterable[float]:
    """The numbers of a setting: itself, or those of nested tuples."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _numbers(item)
    else:
        yield value  # type: ignore[misc]
