"""Rigid transforms as 4x4 float64 matrices, named target-from-source."""

import math

import numpy as np
from jaxtyping import Bool, Float, Float64

from pc_geometry.arrays import require_points

_ORTHONORMAL_TOLERANCE = 1e-4
"""How far R R^T may be from the identity: calibration files print few digits."""


def rotation_from_quaternion(quaternion: Float[np.ndarray, " 4"]) -> Float64[np.ndarray, "3 3"]:
    """Convert a quaternion (w, x, y, z), normalised here, to a rotation matrix.

    Raises:
        ValueError: If it does not hold four finite numbers, or all are zero.

    >>> rotation_from_quaternion(np.array([1.0, 0.0, 0.0, 1.0])).round(6).tolist()
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    quaternion = _finite("quaternion", quaternion, (4,))
    largest = np.abs(quaternion).max()
    if largest == 0:
        raise ValueError("quaternion must have a norm above 0, got (0, 0, 0, 0)")
    quaternion = quaternion / largest  # so that squares neither overflow nor vanish
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_rotation(rotation: Float[np.ndarray, "3 3"]) -> Float64[np.ndarray, " 4"]:
    """Convert a rotation matrix to its unit quaternion (w, x, y, z) with w >= 0.

    Raises:
        ValueError: If the matrix is not a rotation.

    Source: Shepperd, Quaternion from rotation matrix, Journal of Guidance and Control 1978: of
        four equivalent formulas, the one that divides by the largest component.
    """
    rotation = _require_orthonormal("rotation", _finite("rotation", rotation, (3, 3)))
    if np.linalg.det(rotation) < 0:
        raise ValueError("rotation must have determinant 1, got a reflection (determinant -1)")
    (a, b, c), (d, e, f), (g, h, i) = rotation
    # Row j is 4 q_j times the quaternion.
    rows = np.array(
        [
            [1 + a + e + i, h - f, c - g, d - b],
            [h - f, 1 + a - e - i, b + d, c + g],
            [c - g, b + d, 1 - a + e - i, f + h],
            [d - b, c + g, f + h, 1 - a - e + i],
        ]
    )
    row = rows[rows.diagonal().argmax()]
    quaternion = row / np.linalg.norm(row)
    return -quaternion if quaternion[0] < 0 else quaternion


def is_rotation(
    matrices: Float[np.ndarray, "*r 3 3"], tolerance: float = _ORTHONORMAL_TOLERANCE
) -> Bool[np.ndarray, "*r"]:
    """Tell which matrices turn, and neither scale, shear nor mirror; any numbers may come.

    Args:
        matrices: One or many; one that holds NaN is no rotation.
        tolerance: How far an entry of R R^T may be from the identity.

    >>> bool(is_rotation(rotation_z(0.3))), bool(is_rotation(2.0 * np.eye(3)))
    (True, False)
    """
    matrices = np.clip(np.asarray(matrices, np.float64), -2, 2)  # so that no product overflows
    with np.errstate(invalid="ignore"):
        defect = np.abs(matrices @ matrices.swapaxes(-1, -2) - np.eye(3)).max(axis=(-2, -1))
        return np.asarray((defect <= tolerance) & (np.linalg.det(matrices) > 0))


def rotation_z(angle: float) -> Float64[np.ndarray, "3 3"]:
    """Return the rotation by `angle` radians about z, from x towards y."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def make_transform(
    rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, " 3"]
) -> Float64[np.ndarray, "4 4"]:
    """Return the matrix that rotates, then translates.

    The upper left block is taken as it is, so it may also scale or flip.

    Raises:
        ValueError: If a shape is wrong or a number is not finite.
    """
    transform = np.eye(4)
    transform[:3, :3] = _finite("rotation", rotation, (3, 3))
    transform[:3, 3] = _finite("translation", translation, (3,))
    return transform


def invert_rigid(transform: Float[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """Invert a rigid transform, a reflection included.

    Of a rotation that was rounded to a few digits it is the inverse, not the transpose: far from
    the origin of a map these are metres apart.

    Raises:
        ValueError: If the transform scales or shears: use `np.linalg.inv` for these.
    """
    transform = require_affine("transform", transform)
    rotation = _require_orthonormal("transform", transform[:3, :3])
    inverse = np.linalg.inv(rotation)
    return make_transform(inverse, -inverse @ transform[:3, 3])


def transform_points(
    transform: Float[np.ndarray, "4 4"], points: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """Apply an affine transform to points.

    Computed in float64, so that float32 points survive a way through map coordinates; the result
    is float32 for float32 and half precision, float64 for all other points, integers included.

    Raises:
        ValueError: If a shape is wrong, the last row of the matrix is not (0, 0, 0, 1), or a
            coordinate is not finite.

    >>> shift = make_transform(rotation_z(0.0), np.array([0.0, 0.0, 2.0]))
    >>> transform_points(shift, np.float32([[1, 0, 0]])).tolist()
    [[1.0, 0.0, 2.0]]
    """
    transform = require_affine("transform", transform)
    points = require_points(points, dims=(3,))
    moved = np.empty_like(points)
    for axis, values in enumerate(map_columns(transform[:3], points)):
        moved[:, axis] = values
    return moved


def map_columns(
    affine: Float64[np.ndarray, "k 4"], points: Float[np.ndarray, "n 3"]
) -> list[Float64[np.ndarray, " n"]]:
    """Compute each coordinate of the mapped points in float64, column by column.

    A product of matrices this thin is ten times slower, and its last bit depends on the machine.
    """
    x, y, z = (np.ascontiguousarray(column, np.float64) for column in points.T)
    return [a * x + b * y + c * z + d for a, b, c, d in affine]


def require_affine(name: str, transform: np.ndarray) -> Float64[np.ndarray, "4 4"]:
    """Return the matrix in float64.

    Raises:
        ValueError: If it is not a finite 4x4 matrix with last row (0, 0, 0, 1).
    """
    transform = _finite(name, transform, (4, 4))
    if not np.array_equal(transform[3], (0, 0, 0, 1)):
        raise ValueError(f"{name} must have the last row (0, 0, 0, 1), got {transform[3]}")
    return transform


def _finite(name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.shape != shape or not np.isfinite(values).all():
        raise ValueError(
            f"{name} must be finite numbers of shape {shape}, got shape {values.shape} with "
            f"{int((~np.isfinite(values)).sum())} not finite"
        )
    return values


def _require_orthonormal(name: str, rotation: np.ndarray) -> np.ndarray:
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if error > _ORTHONORMAL_TOLERANCE:
        raise ValueError(
            f"{name} must have an orthonormal rotation (R R^T within {_ORTHONORMAL_TOLERANCE} of "
            f"the identity), got an error of {error:.2g}; it scales or shears"
        )
    return rotation
