"""Augmentations: pure functions `(scan, rng) -> scan`.

Those that move points move the cameras' calibration with them, so a point keeps its pixel.
Parameters are keywords; `functools.partial` fixes them. None uses a global random state.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float64
from pc_geometry import project_points, transform_points, voxel_subsample
from pc_geometry.cameras import visible_points
from pc_geometry.rigid import rotation_z

from pc_data.errors import DataError
from pc_data.scan import Boxes, Camera, Scan

Transform = Callable[[Scan, np.random.Generator], Scan]
Box = tuple[tuple[float, float, float], tuple[float, float, float]]  # lower, upper corner, metres

_MARGIN = 1e-4  # metres kept clear of a box's border


def thin(scan: Scan, rng: np.random.Generator | None, *, voxel_size: float = 0.1) -> Scan:
    """Keep one point of each voxel: a random one, or the first in file order without `rng`."""
    return scan.select(voxel_subsample(scan.xyz, voxel_size, rng=rng)[0])


def crop_nearest(scan: Scan, rng: np.random.Generator, *, max_points: int = 20_000) -> Scan:
    """Keep the `max_points` points nearest to a random one, in file order."""
    if len(scan) <= max_points:
        return scan
    center = scan.xyz[rng.integers(len(scan))]
    distance = np.square(scan.xyz - center).sum(1)
    return scan.select(np.sort(np.argpartition(distance, max_points)[:max_points]))


def inside_box(scan: Scan, box: Box) -> Bool[np.ndarray, " n"]:
    """Tell which points lie strictly inside a box of the scan's frame."""
    low, high = np.asarray(box, np.float32)
    return ((scan.xyz > low + _MARGIN) & (scan.xyz < high - _MARGIN)).all(1)


def rotate_z(scan: Scan, rng: np.random.Generator) -> Scan:
    """Rotate about the vertical axis by any angle."""
    return move(scan, rotation_z(rng.uniform(-np.pi, np.pi)))


def flip(scan: Scan, rng: np.random.Generator, *, probability: float = 2 / 3) -> Scan:
    """Mirror the x or the y axis, each with half of `probability`; never both."""
    if rng.random() >= probability:
        return scan
    mirror = np.eye(3)
    axis = rng.integers(2)
    mirror[axis, axis] = -1
    return move(scan, mirror)


def scale(scan: Scan, rng: np.random.Generator, *, low: float = 0.9, high: float = 1.1) -> Scan:
    """Multiply all coordinates by one factor from [low, high)."""
    return move(scan, np.eye(3) * rng.uniform(low, high))


def see_one_camera(
    scan: Scan,
    rng: np.random.Generator,
    *,
    min_depth: float = 1.0,
    min_x: float = -np.inf,
) -> Scan:
    """Keep one random camera and the points that it sees.

    Cameras that see no point are passed over.

    Args:
        scan: A scan with cameras.
        rng: Chooses the camera.
        min_depth: Smallest distance along the camera's axis, in metres.
        min_x: Smallest x in the scan's frame, in metres (SemanticKITTI's convention).

    Raises:
        DataError: If no camera sees any point.
    """
    for index in rng.permutation(len(scan.cameras)):
        camera = scan.cameras[index]
        pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
        seen = visible_points(pixel, depth, camera.image_size, min_depth=min_depth)
        seen &= scan.xyz[:, 0] > min_x
        if seen.any():
            return dataclasses.replace(scan.select(seen), cameras=(camera,))
    names = ", ".join(camera.name for camera in scan.cameras) or "it has none"
    raise DataError(
        f"scan {scan.name}: no point is visible in any camera ({names}); check the calibration or "
        "leave the scan out"
    )


def pixels_of(scan: Scan, camera: Camera) -> Float[np.ndarray, "n 2"]:
    """Project all points of a scan; (u, v) in pixels of the camera's image."""
    return project_points(scan.xyz, camera.from_scan, camera.intrinsics)[0]


def move(scan: Scan, linear: Float64[np.ndarray, "3 3"]) -> Scan:
    """Turn, mirror or scale a scan: its points, normals, boxes, pose and cameras.

    Boxes stay upright, whatever the matrix: of a tilt only the path of their centre remains.
    """
    forth, back = np.eye(4), np.eye(4)
    forth[:3, :3], back[:3, :3] = linear, np.linalg.inv(linear)
    normal = scan.normal
    if normal is not None:
        normal = (normal @ back[:3, :3]).astype(np.float32)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-12)
    cameras = tuple(
        dataclasses.replace(camera, from_scan=camera.from_scan @ back) for camera in scan.cameras
    )
    return dataclasses.replace(
        scan,
        xyz=transform_points(forth, scan.xyz),
        normal=normal,
        boxes=None if scan.boxes is None else _move_boxes(scan.boxes, linear),
        cameras=cameras,
        pose=None if scan.pose is None else scan.pose @ back,
    )


def _move_boxes(boxes: Boxes, linear: Float64[np.ndarray, "3 3"]) -> Boxes:
    heading = np.stack([np.cos(boxes.cuboid[:, 6]), np.sin(boxes.cuboid[:, 6])], axis=1)
    heading = heading @ linear[:2, :2].T
    cuboid = np.column_stack(
        [
            boxes.cuboid[:, :3] @ linear.T,
            boxes.cuboid[:, 3:6] * abs(np.linalg.det(linear)) ** (1 / 3),
            np.arctan2(heading[:, 1], heading[:, 0]),
        ]
    )
    return dataclasses.replace(boxes, cuboid=cuboid)
