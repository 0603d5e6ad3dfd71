"""Limits of settings, checked when a configuration is made: before anything is read or written."""

import math
import operator
from collections.abc import Callable, Iterable


def require_positive(config: object, *names: str) -> None:
    """Refuse a configuration in which one of these numbers is not positive and finite.

    Raises:
        ValueError: Names the setting and its value.
    """
    _require(config, names, operator.gt, "positive")


def require_not_negative(config: object, *names: str) -> None:
    """Refuse a configuration in which one of these numbers is negative or not finite.

    Raises:
        ValueError: Names the setting and its value.
    """
    _require(config, names, operator.ge, "0 or more")


def _require(
    config: object, names: Iterable[str], compare: Callable[[float, float], bool], limit: str
) -> None:
    for name in names:
        setting = getattr(config, name)
        if not all(compare(value, 0) and math.isfinite(value) for value in _numbers(setting)):
            raise ValueError(f"{name} must be {limit}, got {setting}")


def _numbers(value: object) -> Iterable[float]:
    """The numbers of a setting: itself, or those of nested tuples."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _numbers(item)
    else:
        yield value  # type: ignore[misc]
