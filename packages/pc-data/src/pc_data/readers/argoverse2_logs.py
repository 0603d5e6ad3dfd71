"""The tables of a log of the Argoverse 2 sensor dataset."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from pc_data.errors import DataError
from pc_data.readers.arrow import column_array, column_text, read_feather

RING_CAMERAS = (
    "ring_front_center",
    "ring_front_left",
    "ring_front_right",
    "ring_rear_left",
    "ring_rear_right",
    "ring_side_left",
    "ring_side_right",
)
CATEGORIES = (
    "ANIMAL",
    "ARTICULATED_BUS",
    "BICYCLE",
    "BICYCLIST",
    "BOLLARD",
    "BOX_TRUCK",
    "BUS",
    "CONSTRUCTION_BARREL",
    "CONSTRUCTION_CONE",
    "DOG",
    "LARGE_VEHICLE",
    "MESSAGE_BOARD_TRAILER",
    "MOBILE_PEDESTRIAN_CROSSING_SIGN",
    "MOTORCYCLE",
    "MOTORCYCLIST",
    "OFFICIAL_SIGNALER",
    "PEDESTRIAN",
    "RAILED_VEHICLE",
    "REGULAR_VEHICLE",
    "SCHOOL_BUS",
    "SIGN",
    "STOP_SIGN",
    "STROLLER",
    "TRAFFIC_LIGHT_TRAILER",
    "TRUCK",
    "TRUCK_CAB",
    "VEHICULAR_TRAILER",
    "WHEELCHAIR",
    "WHEELED_DEVICE",
    "WHEELED_RIDER",
)
_KEPT = 8
_TURN = ("qw", "qx", "qy", "qz")
_PLACE = ("tx_m", "ty_m", "tz_m")


class Lens(NamedTuple):
    """Calibration of a camera.

    Attributes:
        intrinsics: Camera matrix.
        extrinsic: Vehicle-from-camera; the camera looks along z, x right, y down.
        size: (width, height) of its images.
    """

    intrinsics: Float64[np.ndarray, "3 3"]
    extrinsic: Float64[np.ndarray, "4 4"]
    size: tuple[int, int]


class Annotations(NamedTuple):
    """The boxes of a log.

    Attributes:
        time: Of the sweep, nanoseconds.
        kind: Index into `CATEGORIES`.
        cuboid: Centre, length, width, height, heading in the vehicle's frame.
        track: Name of the object.
    """

    time: Int64[np.ndarray, " k"]
    kind: Int64[np.ndarray, " k"]
    cuboid: Float64[np.ndarray, "k 7"]
    track: tuple[str, ...]


@dataclass(frozen=True)
class Log:
    """One drive.

    Attributes:
        folder: E.g. `sensor/val/<log>`.
    """

    folder: Path

    def sweep_times(self) -> Int64[np.ndarray, " n"]:
        """Times of the LiDAR's sweeps, nanoseconds, ascending; none without sweeps.

        Raises:
            DataError: If a file's name is no time.
        """
        return _times_in(self.folder / "sensors" / "lidar", "feather")

    def poses_at(self, time: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n 7"]:
        """City-from-vehicle at sensor times: quaternion w, x, y, z and translation.

        Raises:
            DataError: If the table is missing or damaged, or lacks one of the times.
        """
        file = self.folder / "city_SE3_egovehicle.feather"
        known, poses = _read_poses(file, _modified(file))
        place = np.minimum(np.searchsorted(known, time), max(known.size - 1, 0))
        if not known.size or (known[place] != time).any():
            first = time[known[place] != time][0] if known.size else time[0]
            raise DataError(f"{file}: no pose at {first}; fetch the file again")
        return poses[place]

    def annotations(self) -> Annotations | None:
        """All boxes of the log, or None if it has no annotations.

        Raises:
            DataError: If the table is damaged.
        """
        file = self.folder / "annotations.feather"
        return _read_annotations(file, _modified(file)) if file.is_file() else None

    def lenses(self) -> dict[str, Lens]:
        """Calibrations of the cameras by name.

        Raises:
            DataError: If a table is missing or damaged.
        """
        folder = self.folder / "calibration"
        return _read_lenses(folder, _modified(folder / "intrinsics.feather"))


def pose_matrix(pose: Float64[np.ndarray, " 7"]) -> Float64[np.ndarray, "4 4"]:
    """A quaternion w, x, y, z and a translation as one matrix."""
    from pc_geometry.rigid import make_transform, rotation_from_quaternion

    return make_transform(rotation_from_quaternion(pose[:4]), pose[4:])


def nearest(times: Int64[np.ndarray, " n"], time: int) -> int:
    """The one of ascending times that is nearest, the earlier of two."""
    after = int(np.searchsorted(times, time))
    around = times[max(after - 1, 0) : after + 1]
    return int(around[np.argmin(np.abs(around - time))])


def image_times(folder: Path) -> Int64[np.ndarray, " n"]:
    """Times of a camera's images, nanoseconds, ascending; none without images.

    Raises:
        DataError: If a file's name is no time.
    """
    if not folder.is_dir():
        return np.zeros(0, np.int64)
    return _list_images(folder, _modified(folder))


@lru_cache(maxsize=_KEPT * len(RING_CAMERAS))
def _list_images(folder: Path, modified: int) -> Int64[np.ndarray, " n"]:  # noqa: ARG001
    return _times_in(folder, "jpg")


def _modified(file: Path) -> int:
    """When a file was changed, so that what is kept of it is not used any longer; 0 without it."""
    return file.stat().st_mtime_ns if file.exists() else 0


def _times_in(folder: Path, suffix: str) -> Int64[np.ndarray, " n"]:
    stems = [path.stem for path in folder.glob(f"*.{suffix}")]
    for stem in stems:
        if not re.fullmatch(r"0|[1-9][0-9]{0,18}", stem, flags=re.ASCII) or int(stem) >= 2**63:
            raise DataError(
                f"{folder / stem}.{suffix}: name is no time in nanoseconds; rename or remove it"
            )
    return np.array(sorted(map(int, stems)), dtype=np.int64)


def _read_rotations(
    table: object, file: Path
) -> tuple[Float64[np.ndarray, "r 4"], Float64[np.ndarray, "r 3"]]:
    """Unit quaternions w, x, y, z and translations."""
    turn = np.stack([column_array(table, k, file, dtype="float64") for k in _TURN], axis=1)
    place = np.stack([column_array(table, k, file, dtype="float64") for k in _PLACE], axis=1)
    length = np.linalg.norm(np.clip(turn, -2, 2), axis=1)  # clipped, so that no square overflows
    if (np.abs(length - 1) > 1e-3).any():
        raise DataError(f"{file}: a quaternion is not of length 1; fetch the file again")
    return turn, place


@lru_cache(maxsize=_KEPT)
def _read_poses(
    file: Path,
    modified: int,  # noqa: ARG001
) -> tuple[Int64[np.ndarray, " r"], Float64[np.ndarray, "r 7"]]:
    table = read_feather(file, ("timestamp_ns", *_TURN, *_PLACE))
    time = column_array(table, "timestamp_ns", file, dtype="int64")
    order = np.argsort(time, kind="stable")
    return time[order], np.concatenate(_read_rotations(table, file), axis=1)[order]


@lru_cache(maxsize=_KEPT)
def _read_annotations(file: Path, modified: int) -> Annotations:  # noqa: ARG001
    sides = ("length_m", "width_m", "height_m")
    names = ("timestamp_ns", "track_uuid", "category", *sides, *_TURN, *_PLACE)
    table = read_feather(file, names)
    turn, place = _read_rotations(table, file)
    size = np.stack([column_array(table, k, file, dtype="float64") for k in sides], axis=1)
    kinds = column_text(table, "category", file)
    unknown = sorted(set(kinds) - set(CATEGORIES))
    if unknown:
        raise DataError(f"{file}: category {unknown[0]!r} is unknown; fetch the file again")
    if (size <= 0).any():
        raise DataError(f"{file}: a box's side is not above 0; fetch the file again")
    w, x, y, z = turn.T
    heading = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    number = {name: k for k, name in enumerate(CATEGORIES)}
    return Annotations(
        column_array(table, "timestamp_ns", file, dtype="int64"),
        np.array([number[kind] for kind in kinds], dtype=np.int64),
        np.column_stack([place, size, heading]),
        tuple(column_text(table, "track_uuid", file)),
    )


@lru_cache(maxsize=_KEPT)
def _read_lenses(folder: Path, modified: int) -> dict[str, Lens]:  # noqa: ARG001
    file = folder / "egovehicle_SE3_sensor.feather"
    table = read_feather(file, ("sensor_name", *_TURN, *_PLACE))
    poses = np.concatenate(_read_rotations(table, file), axis=1)
    mounts = dict(zip(column_text(table, "sensor_name", file), poses, strict=True))
    file = folder / "intrinsics.feather"
    numbers = ("fx_px", "fy_px", "cx_px", "cy_px", "width_px", "height_px")
    table = read_feather(file, ("sensor_name", *numbers))
    values = np.stack([column_array(table, k, file, dtype="float64") for k in numbers], axis=1)
    if (values[:, [0, 1, 4, 5]] <= 0).any():
        raise DataError(f"{file}: a focal length or size is not above 0; fetch the file again")
    lenses = {}
    for name, row in zip(column_text(table, "sensor_name", file), values, strict=True):
        if name not in mounts:
            raise DataError(f"{file}: sensor {name!r} has no place; fetch the calibration again")
        f_x, f_y, c_x, c_y, width, height = row.tolist()
        lenses[name] = Lens(
            np.array([[f_x, 0, c_x], [0, f_y, c_y], [0, 0, 1]]),
            pose_matrix(mounts[name]),
            (int(width), int(height)),
        )
    return lenses
