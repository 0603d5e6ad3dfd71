"""Waymo's range images: what they hold, and the points that their pixels are.

Source: Waymo Open Dataset (Sun et al., CVPR 2020, arXiv:1912.04838), section 3, and the
    definitions of its version 2 tables. A row is a beam, a column an azimuth; column 0 looks
    backwards and azimuths fall from there, so the middle column looks along the vehicle's x.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from pc_data.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

TOP = 1
"""The laser on the roof, the only one with a pose for each pixel and with labels."""
LASERS = {1: "TOP", 2: "FRONT", 3: "SIDE_LEFT", 4: "SIDE_RIGHT", 5: "REAR"}


class Laser(NamedTuple):
    """Calibration of a LiDAR.

    Attributes:
        extrinsic: Vehicle-from-LiDAR.
        inclination: Lowest and highest, radians.
        beams: Inclination of every beam, lowest first, radians; empty where they are evenly
            spread between lowest and highest.
    """

    extrinsic: Float64[np.ndarray, "4 4"]
    inclination: tuple[float, float]
    beams: Float64[np.ndarray, " h"]


class Echoes(NamedTuple):
    """The pixels of one range image that met something.

    Attributes:
        laser: Number of the LiDAR.
        number: 1 for the first return, 2 for the second.
        size: Rows and columns of the image.
        pixel: Which pixels, as indices into the flattened image, ascending.
        measured: Range in metres, intensity, elongation and no-label-zone flag of each.
    """

    laser: int
    number: int
    size: tuple[int, int]
    pixel: Int64[np.ndarray, " n"]
    measured: Float64[np.ndarray, "n 4"]


def find_echoes(image: np.ndarray, *, laser: int, number: int, file: Path) -> Echoes:
    """The pixels of a range image [rows, columns, 4] whose range is above 0.

    Raises:
        DataError: If their values are not finite.
    """
    flat = image.reshape(-1, 4)
    if np.isnan(flat[:, 0]).any():
        raise DataError(f"{file}: range image of laser {laser} holds NaN; fetch the file again")
    pixel = np.flatnonzero(flat[:, 0] > 0)
    measured = flat[pixel].astype(np.float64)
    if not np.isfinite(measured[:, :3]).all():
        raise DataError(
            f"{file}: range image of laser {laser} holds NaN or infinite values; fetch it again"
        )
    return Echoes(laser, number, image.shape[:2], pixel, measured)


def locate(
    echoes: Echoes,
    laser: Laser,
    *,
    pixel_pose: Float64[np.ndarray, "n 6"] | None = None,
    pose: Float64[np.ndarray, "4 4"] | None = None,
) -> Float64[np.ndarray, "n 3"]:
    """Place the points of a range image in the vehicle's frame.

    Args:
        echoes: Pixels and ranges.
        laser: The LiDAR's calibration.
        pixel_pose: World-from-vehicle when each pixel was measured: roll, pitch, yaw in radians
            (turned about x, then y, then z) and x, y, z in metres.
        pose: World-from-vehicle of the frame; needed with `pixel_pose`.

    Returns:
        Metres, in the vehicle's frame at the time of `pose`.
    """
    height, width = echoes.size
    row, column = np.divmod(echoes.pixel, width)
    inclination, azimuth = row_inclinations(laser, height), column_azimuths(laser, width)
    distance = echoes.measured[:, 0]
    flat = distance * np.cos(inclination)[row]
    xyz = np.stack(
        [
            flat * np.cos(azimuth)[column],
            flat * np.sin(azimuth)[column],
            distance * np.sin(inclination)[row],
        ],
        axis=1,
    )
    xyz = xyz @ laser.extrinsic[:3, :3].T + laser.extrinsic[:3, 3]
    if pixel_pose is None or pose is None:
        return xyz
    return (_turn(xyz, pixel_pose[:, :3]) + pixel_pose[:, 3:] - pose[:3, 3]) @ pose[:3, :3]


def row_inclinations(laser: Laser, height: int) -> Float64[np.ndarray, " h"]:
    """Inclination of every row in radians; row 0 is the highest beam."""
    if laser.beams.size:
        return laser.beams[::-1]
    low, high = laser.inclination
    return low + (high - low) * (np.arange(height)[::-1] + 0.5) / height


def column_azimuths(laser: Laser, width: int) -> Float64[np.ndarray, " w"]:
    """Azimuth of every column in the LiDAR's frame, radians.

    The columns are laid out in the vehicle's frame, so the LiDAR's own yaw is taken off.
    """
    yaw = np.arctan2(laser.extrinsic[1, 0], laser.extrinsic[0, 0])
    return np.pi * (1 - 2 * (np.arange(width) + 0.5) / width) - yaw


def _turn(
    xyz: Float64[np.ndarray, "n 3"], angles: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "n 3"]:
    """Turn each point by its own roll about x, then pitch about y, then yaw about z."""
    cos, sin = np.cos(angles), np.sin(angles)
    x, y, z = xyz.T
    y, z = cos[:, 0] * y - sin[:, 0] * z, sin[:, 0] * y + cos[:, 0] * z
    x, z = cos[:, 1] * x + sin[:, 1] * z, cos[:, 1] * z - sin[:, 1] * x
    x, y = cos[:, 2] * x - sin[:, 2] * y, sin[:, 2] * x + cos[:, 2] * y
    return np.stack([x, y, z], axis=1)


def read_image(
    table: "pa.Table", row: int, name: str, *, channels: int, file: Path
) -> np.ndarray | None:
    """An image [rows, columns, channels] out of the columns `name`.values and `name`.shape.

    Returns:
        The image in its stored type, or None where the row has none.

    Raises:
        DataError: If the values do not fill the shape, or some are absent.
    """
    values, shape = table[f"{name}.values"][row], table[f"{name}.shape"][row]
    if not (values.is_valid and shape.is_valid):
        return None
    try:
        flat = values.values.to_numpy(zero_copy_only=not values.values.null_count)
        size = tuple(int(side) for side in shape.as_py())
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{file}: column {name!r} holds no image; fetch it again") from error
    if not flat.size and 0 in size:
        return None
    if len(size) != 3 or size[2] != channels or flat.ndim != 1 or flat.dtype.kind not in "fiu":
        raise DataError(f"{file}: column {name!r} holds no image; fetch it again")
    if min(size) < 1 or size[0] * size[1] * size[2] != flat.size:
        raise DataError(
            f"{file}: image {name!r} has {flat.size} values for shape {size}; fetch it again"
        )
    return flat.reshape(size)
