"""Augmentations that move points, and their normals, boxes, cameras and pose with them.

Pure functions `(scan, rng) -> scan` as in `pc_data.augment`, whose `scale` and `rotate_z` belong
here too. Where points move one by one (`jitter`) nothing else can follow.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from pc_geometry.keys import axis_bounds

from pc_data.augment.basic import move
from pc_data.augment.draws import happens, require_least
from pc_data.scan import Scan


def rotate(
    scan: Scan,
    rng: np.random.Generator,
    *,
    axis: str = "z",
    max_angle: float = np.pi,
    about_center: bool = False,
    probability: float = 1.0,
) -> Scan:
    """Rotate about an axis by an angle from [-max_angle, max_angle).

    Args:
        scan: Any scan.
        rng: Draws the angle.
        axis: Of the scan's frame: x, y or z.
        max_angle: Radians.
        about_center: Turn about the middle of the bounding box instead of the origin.
        probability: Of turning at all.

    Raises:
        ValueError: If the axis is unknown or a parameter is out of range.

    Source: RandomRotate of MSC's released code (Wu et al., CVPR 2023, Table 4).
    """
    index = _axis_index(axis)
    require_least("max_angle", max_angle)
    if not happens(rng, probability) or not len(scan):
        return scan
    rotation = rotation_about(index, rng.uniform(-max_angle, max_angle))
    moved = move(scan, rotation)
    if not about_center:
        return moved
    low, high = _bounds(scan)
    center = (low + high) / 2
    return shift(moved, center - rotation @ center)


def rotate_any_axis(
    scan: Scan,
    rng: np.random.Generator,
    *,
    max_angle: float = np.pi,
    chances: tuple[float, float, float] = (0.33, 0.4422, 0.2278),
) -> Scan:
    """Rotate about one of the three axes.

    Args:
        scan: Any scan.
        rng: Draws the axis and the angle.
        max_angle: Radians, either way.
        chances: Of x, y and z.

    Raises:
        ValueError: If the chances are not three of [0, 1] that sum to 1.

    Source: DepthContrast (Zhang et al., ICCV 2021), used by SSPL (Zhang et al., NeurIPS 2022, Sec.
        4.1). Its released code draws twice, with thresholds 0.33 and 0.66: hence the chances.
    """
    if len(chances) != 3 or min(chances) < 0 or not np.isclose(sum(chances), 1):
        raise ValueError(f"chances must be three numbers from 0 that sum to 1, got {chances}")
    require_least("max_angle", max_angle)
    index = int(rng.choice(3, p=np.array(chances) / sum(chances)))
    return move(scan, rotation_about(index, rng.uniform(-max_angle, max_angle)))


def flip_axes(
    scan: Scan,
    rng: np.random.Generator,
    *,
    axes: Sequence[str] = ("x", "y"),
    probability: float = 0.5,
) -> Scan:
    """Mirror each of some axes, independently of the others.

    `pc_data.augment.flip` mirrors one at most, as ScaLR does.

    Raises:
        ValueError: If an axis is unknown or the probability is not in [0, 1].

    Source: SLidR (Sautier et al., CVPR 2022), MSC (Wu et al., CVPR 2023, Table 4).
    """
    indices = [_axis_index(axis) for axis in axes]
    sign = np.ones(3)
    for index in indices:
        if happens(rng, probability):
            sign[index] *= -1
    return scan if (sign == 1).all() else move(scan, np.diag(sign))


def shear(scan: Scan, rng: np.random.Generator, *, std: float = 0.1) -> Scan:
    """Multiply by the identity plus normal noise on its nine entries.

    Raises:
        ValueError: If `std` is negative, or the scan has boxes, which do not stay boxes.

    Source: JS3C-Net (Yan et al., AAAI 2021), whose settings SSPL takes outdoors (Zhang et al.,
        NeurIPS 2022, Sec. 4.3).
    """
    require_least("std", std)
    if scan.boxes is not None:
        raise ValueError(f"scan {scan.name} has boxes, which do not survive a shear; remove them")
    linear = np.eye(3) + std * rng.standard_normal((3, 3))
    return move(scan, linear)


def center_shift(
    scan: Scan,
    rng: np.random.Generator,  # noqa: ARG001 - transforms are (scan, rng)
    *,
    floor: bool = True,
    voxel_size: float | None = None,
) -> Scan:
    """Put the middle of the bounding box on the z axis, and its lower end at z = 0.

    Args:
        scan: Any scan.
        rng: Not used.
        floor: Shift z as well.
        voxel_size: Shift by whole voxels of this side in metres, so that points that were sampled
            on a grid stay one a voxel. The released code keeps integer voxels from before instead.

    Raises:
        ValueError: If the voxel size is not positive.

    Source: CenterShift of MSC's released code (Wu et al., CVPR 2023).
    """
    if voxel_size is not None:
        require_least("voxel_size", voxel_size, above=True)
    if not len(scan):
        return scan
    low, high = _bounds(scan)
    offset = np.append(-(low + high)[:2] / 2, -low[2] if floor else 0.0)
    if voxel_size is not None:
        offset = np.round(offset / voxel_size) * voxel_size
    return shift(scan, offset)


def center_mean(scan: Scan, rng: np.random.Generator) -> Scan:  # noqa: ARG001
    """Put the mean of the points at the origin.

    Source: JS3C-Net (Yan et al., AAAI 2021).
    """
    return shift(scan, -scan.xyz.mean(0, dtype=np.float64)) if len(scan) else scan


def translate(scan: Scan, rng: np.random.Generator, *, std: float = 0.5) -> Scan:
    """Shift by normal noise of `std` metres on each axis.

    Source: the augmentation of CenterPoint's 0.075 m model (Yin et al., CVPR 2021).
    """
    return shift(scan, rng.normal(0.0, require_least("std", std), 3))


def shift_grid(scan: Scan, rng: np.random.Generator, *, voxel_size: float = 0.1) -> Scan:
    """Shift by a random part of a voxel, so that its borders cut elsewhere each time.

    Source: JS3C-Net (Yan et al., AAAI 2021) draws a place in a cube of 2048 voxels, of which a
        network without absolute positions only sees this part.
    """
    require_least("voxel_size", voxel_size, above=True)
    return shift(scan, rng.uniform(0.0, voxel_size, 3))


def jitter(
    scan: Scan, rng: np.random.Generator, *, std: float = 0.005, limit: float = 0.02
) -> Scan:
    """Move each coordinate of each point by normal noise.

    Args:
        scan: Any scan.
        rng: Draws the noise.
        std: Metres.
        limit: Largest move of a coordinate, in metres.

    Raises:
        ValueError: If `std` is negative or `limit` not positive.

    Source: MSC (Wu et al., CVPR 2023, Table 4): sigma 0.005, clip 0.02.
    """
    require_least("std", std)
    require_least("limit", limit, above=True)
    noise = rng.standard_normal(scan.xyz.shape, np.float32) * np.float32(std)
    return dataclasses.replace(scan, xyz=scan.xyz + noise.clip(-limit, limit).astype(np.float32))


def shift(scan: Scan, offset: Float64[np.ndarray, " 3"]) -> Scan:
    """Move a whole scan: its points, boxes, cameras and pose.

    Args:
        scan: Any scan.
        offset: Metres.
    """
    back = np.eye(4)
    back[:3, 3] = -offset
    boxes = scan.boxes
    if boxes is not None:
        boxes = dataclasses.replace(boxes, cuboid=boxes.cuboid + np.pad(offset, (0, 4)))
    return dataclasses.replace(
        scan,
        xyz=(scan.xyz + offset).astype(np.float32),
        boxes=boxes,
        cameras=tuple(
            dataclasses.replace(camera, from_scan=camera.from_scan @ back)
            for camera in scan.cameras
        ),
        pose=None if scan.pose is None else scan.pose @ back,
    )


def rotation_about(axis: int, angle: float) -> Float64[np.ndarray, "3 3"]:
    """Return the rotation by `angle` radians about axis 0, 1 or 2, counter-clockwise."""
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[first, first] = rotation[second, second] = cos
    rotation[first, second], rotation[second, first] = -sin, sin
    return rotation


def _bounds(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    return axis_bounds(np.ascontiguousarray(scan.xyz))


def _axis_index(axis: str) -> int:
    if axis not in ("x", "y", "z"):
        raise ValueError(f"axis must be 'x', 'y' or 'z', got {axis!r}")
    return "xyz".index(axis)
