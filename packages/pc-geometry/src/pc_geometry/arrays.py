"""Checks and conversions of the arrays and counts that public functions receive."""

import operator

import numpy as np
from jaxtyping import Float


def require_points(
    points: np.ndarray, *, name: str = "points", dims: tuple[int, ...] = (2, 3)
) -> Float[np.ndarray, "n d"]:
    """Return finite points as a contiguous float32 or float64 array.

    float32 stays what it is, half precision becomes float32, all other numbers float64.

    Raises:
        ValueError: If the shape is not [n d] with d in `dims`, or a coordinate is not finite.
    """
    if points.ndim != 2 or points.shape[1] not in dims:
        allowed = " or ".join(str(d) for d in dims)
        raise ValueError(f"{name} must have shape [n d] with d = {allowed}, got {points.shape}")
    is_single = points.dtype in (np.float16, np.float32)
    points = np.ascontiguousarray(points, np.float32 if is_single else np.float64)
    finite = np.isfinite(points)
    if not finite.all():
        bad = np.flatnonzero(~finite.all(axis=1))
        raise ValueError(
            f"{name} must be finite, got {len(bad)} of {len(points)} points with NaN or infinite "
            f"coordinates, the first at index {bad[0]}; drop them first"
        )
    return points


def require_count(name: str, value: int, *, least: int = 1, most: int | None = None) -> int:
    """Return a count as a Python int, which no product can overflow as NumPy's integers can.

    Raises:
        ValueError: If `value` is not an integer (2.0 is not) or not from `least` to `most`.
    """
    limit = f"at least {least}" if most is None else f"from {least} to {most}"
    try:
        count = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer {limit}, got {value!r}") from None
    if count < least or (most is not None and count > most):
        raise ValueError(f"{name} must be {limit}, got {count}")
    return count
