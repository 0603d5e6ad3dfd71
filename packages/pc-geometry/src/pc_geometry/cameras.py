"""Pinhole projection of points into images."""

import numpy as np
from jaxtyping import Bool, Float

from pc_geometry.arrays import require_count, require_points
from pc_geometry.rigid import map_columns, require_affine


def project_points(
    points: Float[np.ndarray, "n 3"],
    camera_from_points: Float[np.ndarray, "4 4"],
    intrinsics: Float[np.ndarray, "3 3"],
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """Project points into the image plane of a pinhole camera.

    Args:
        points: Positions in any frame.
        camera_from_points: Affine transform from that frame to the camera's, which looks along
            +z with x to the right and y down.
        intrinsics: Camera matrix K, in pixels, with last row (0, 0, 1).

    Returns:
        The pixel (u, v) of each point, NaN where it is not in front of the camera, and its depth
        (z in the camera frame, in the unit of `points`), both float32 for float32 and half
        precision, float64 for all other points. Pixels are not clipped: `visible_points` tells
        which ones are in the image.

    Raises:
        ValueError: If a shape or a last row is wrong, or a matrix or a coordinate is not finite.

    >>> pixel, depth = project_points(
    ...     np.array([[1.0, 0.0, 2.0]]),
    ...     np.eye(4),
    ...     np.array([[100.0, 0.0, 80.0], [0.0, 100.0, 60.0], [0.0, 0.0, 1.0]]),
    ... )
    >>> pixel.tolist(), depth.tolist()
    ([[130.0, 60.0]], [2.0])
    """
    transform = require_affine("camera_from_points", camera_from_points)
    matrix = np.asarray(intrinsics, np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise ValueError(f"intrinsics must be a finite [3 3] matrix, got {matrix.tolist()}")
    if not np.array_equal(matrix[2], (0, 0, 1)):
        raise ValueError(f"intrinsics must have the last row (0, 0, 1), got {matrix[2]}")
    points = require_points(points, dims=(3,))
    u, v, depth = map_columns(matrix @ transform[:3], points)
    positive = np.where(depth > 0, depth, np.nan)
    pixel = np.empty((len(points), 2), points.dtype)
    with np.errstate(over="ignore"):  # a depth close to 0 may send the pixel to infinity
        pixel[:, 0], pixel[:, 1] = u / positive, v / positive
        return pixel, depth.astype(points.dtype)


def visible_points(
    pixel: Float[np.ndarray, "n 2"],
    depth: Float[np.ndarray, " n"],
    image_size: tuple[int, int],
    *,
    min_depth: float = 1.0,
) -> Bool[np.ndarray, " n"]:
    """Tell which projected points are inside the image and far enough in front of the camera.

    The border is strict: `depth > min_depth`, `0 < u < width - 1` and `0 < v < height - 1`, so the
    four pixels around a visible point exist. NaN is never visible. Occlusion is not considered.

    Args:
        pixel: (u, v) of each point.
        depth: Distance of each point along the optical axis.
        image_size: (width, height) in pixels.
        min_depth: Points at this depth or nearer are dropped; 1 m keeps off the vehicle itself.

    Raises:
        ValueError: If a shape is wrong, the image has no pixels or `min_depth` is negative.

    Source: ScaLR (Puy et al., CVPR 2024), its rule for nuScenes.
    """
    if pixel.ndim != 2 or pixel.shape[1] != 2 or depth.shape != pixel.shape[:1]:
        raise ValueError(
            f"pixel and depth must have shapes [n 2] and [n], got {pixel.shape} and {depth.shape}"
        )
    width, height = (require_count("a side of image_size", side) for side in image_size)
    if not min_depth >= 0:
        raise ValueError(f"min_depth must be at least 0, got {min_depth}")
    u, v = pixel.T
    return (depth > min_depth) & (u > 0) & (u < width - 1) & (v > 0) & (v < height - 1)
