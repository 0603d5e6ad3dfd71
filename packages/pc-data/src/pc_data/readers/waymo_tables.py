"""The tables of a segment of Waymo Open Dataset v2, and which of their rows belong to a frame."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from pc_data.errors import DataError
from pc_data.readers.arrow import Table, column_array, column_text, open_table
from pc_data.readers.waymo_ranges import LASERS, TOP, Echoes, Laser, find_echoes, read_image

_KEPT = 8
TIME = "key.frame_timestamp_micros"
_LIDAR = "[LiDARComponent]"
_POSE = "[LiDARPoseComponent]"
_BOX = "[LiDARBoxComponent]"
_CAMERA = "[CameraCalibrationComponent]"
_IMAGE = "[CameraImageComponent]"
CAMERAS = {1: "FRONT", 2: "FRONT_LEFT", 3: "FRONT_RIGHT", 4: "SIDE_LEFT", 5: "SIDE_RIGHT"}


class Lens(NamedTuple):
    """Calibration of a camera.

    Attributes:
        intrinsics: Camera matrix.
        extrinsic: Vehicle-from-camera; the camera looks along x, y left, z up.
        size: (width, height) of its images.
    """

    intrinsics: Float64[np.ndarray, "3 3"]
    extrinsic: Float64[np.ndarray, "4 4"]
    size: tuple[int, int]


class Photographs(NamedTuple):
    """The rows of a segment's images.

    Attributes:
        time: Frame of each row, microseconds.
        camera: Number of the camera.
        pose: World-from-vehicle when the image was taken.
    """

    time: Int64[np.ndarray, " r"]
    camera: Int64[np.ndarray, " r"]
    pose: Float64[np.ndarray, "r 4 4"]


class BoxRows(NamedTuple):
    """The boxes of a segment.

    Attributes:
        time: Frame of each box, microseconds.
        kind: Raw type, 0 unknown, 1 vehicle, 2 pedestrian, 3 sign, 4 cyclist.
        cuboid: Centre, length, width, height, heading in the vehicle's frame.
        track: Name of the object.
    """

    time: Int64[np.ndarray, " k"]
    kind: Int64[np.ndarray, " k"]
    cuboid: Float64[np.ndarray, "k 7"]
    track: tuple[str, ...]


@dataclass(frozen=True)
class Segment:
    """One drive of 20 seconds: a Parquet file in the folder of each component.

    Attributes:
        folder: The split's folder, e.g. `training`.
        name: The segment's name, the stem of its files.
    """

    folder: Path
    name: str

    def file(self, component: str) -> Path:
        """Where a component of the segment is."""
        return self.folder / component / f"{self.name}.parquet"

    def frames(self) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n 4 4"]]:
        """Time stamps in microseconds, ascending, and world-from-vehicle of the frames.

        Raises:
            DataError: If the table is missing, empty, damaged or another segment's.
        """
        file = self.file("vehicle_pose")
        place = "[VehiclePoseComponent].world_from_vehicle.transform"
        rows = open_table(file).read([TIME, place, "key.segment_context_name"])
        names = set(column_text(rows, "key.segment_context_name", file))
        if names != {self.name}:
            came = ", ".join(sorted(names)[:3]) or "no frame"
            raise DataError(f"{file}: holds {came}, not {self.name}; fetch the file again")
        time = column_array(rows, TIME, file, dtype="int64")
        pose = _rigid(rows, place, file)
        order = np.argsort(time, kind="stable")
        if (np.diff(time[order]) == 0).any():
            raise DataError(f"{file}: a time stamp occurs twice; fetch the file again")
        return time[order], pose[order]

    def lasers(self) -> dict[int, Laser]:
        """Calibrations of the LiDARs, by number.

        Raises:
            DataError: If the table is missing or damaged.
        """
        return _lasers(open_table(self.file("lidar_calibration")))

    def lenses(self) -> dict[int, Lens]:
        """Calibrations of the cameras, by number.

        Raises:
            DataError: If the table is missing or damaged.
        """
        return _lenses(open_table(self.file("camera_calibration")))

    def photographs(self) -> Photographs:
        """Which rows are whose images.

        Raises:
            DataError: If the table is missing or damaged.
        """
        return _photographs(open_table(self.file("camera_image")))

    def boxes(self) -> BoxRows | None:
        """All boxes of the segment, or None if it has none, as in the testing split.

        Raises:
            DataError: If the table is damaged.
        """
        file = self.file("lidar_box")
        return _box_rows(open_table(file)) if file.is_file() else None

    def rows(self, component: str, time: int) -> dict[int, int]:
        """Which row of a component holds which LiDAR's data of a frame.

        Raises:
            DataError: If the table is missing or damaged, or names a LiDAR twice.
        """
        table = open_table(self.file(component))
        times, lasers = _laser_keys(table)
        rows = np.flatnonzero(times == time)
        found = dict(zip(lasers[rows].tolist(), rows.tolist(), strict=True))
        if len(found) != len(rows) or not set(found) <= set(LASERS):
            raise DataError(
                f"{table.file}: lasers {lasers[rows].tolist()} at {time}, not each of "
                f"{min(LASERS)} to {max(LASERS)} at most once; fetch the file again"
            )
        return found

    def times_of(self, component: str) -> Int64[np.ndarray, " r"]:
        """Frame of every row of a component, microseconds; none if the segment lacks it."""
        file = self.file(component)
        return _laser_keys(open_table(file))[0] if file.is_file() else np.zeros(0, np.int64)

    def images(
        self, component: str, time: int, names: tuple[str, ...], *, channels: int
    ) -> dict[tuple[int, str], np.ndarray]:
        """The images of a frame by LiDAR and column; those that a row lacks are left out.

        Args:
            component: Folder of the table.
            time: Frame, microseconds.
            names: Columns without `.values` and `.shape`.
            channels: Numbers of each pixel.

        Raises:
            DataError: If the table is missing or damaged.
        """
        rows = self.rows(component, time)
        table = open_table(self.file(component))
        columns = [f"{name}.{part}" for name in names for part in ("values", "shape")]
        lasers = sorted(rows, key=rows.__getitem__)
        content = table.read(columns, np.array([rows[laser] for laser in lasers], dtype=np.int64))
        found = {}
        for place, laser in enumerate(lasers):
            for name in names:
                image = read_image(content, place, name, channels=channels, file=table.file)
                if image is not None:
                    found[laser, name] = image
        return found

    def echoes(self, time: int, *, lasers: tuple[int, ...]) -> list[Echoes]:
        """What the LiDARs met: the first returns of each, then the second returns.

        Raises:
            DataError: If the table is missing or damaged, or lacks the first returns of one.
        """
        names = (f"{_LIDAR}.range_image_return1", f"{_LIDAR}.range_image_return2")
        images = self.images("lidar", time, names, channels=4)
        file = self.file("lidar")
        found = []
        for number, name in enumerate(names, start=1):
            for laser in lasers:
                if (laser, name) in images:
                    image = images[laser, name]
                    found.append(find_echoes(image, laser=laser, number=number, file=file))
                elif number == 1:
                    raise DataError(
                        f"{file}: no range image of laser {LASERS[laser]} at {time}; fetch the "
                        "file again or leave the segment out"
                    )
        return found

    def pixel_poses(self, time: int) -> Float[np.ndarray, "h w 6"]:
        """World-from-vehicle of every pixel of the roof's range image.

        Raises:
            DataError: If the table is missing or damaged.
        """
        name = f"{_POSE}.range_image_return1"
        images = self.images("lidar_pose", time, (name,), channels=6)
        if (TOP, name) not in images:
            raise DataError(
                f"{self.file('lidar_pose')}: no poses of laser TOP at {time}; fetch it again"
            )
        return images[TOP, name]


def _rigid(rows: object, name: str, file: Path) -> Float64[np.ndarray, "r 4 4"]:
    """A column of row-major rigid transforms."""
    from pc_geometry.rigid import is_rotation

    matrices = column_array(rows, name, file, dtype="float64", width=16).reshape(-1, 4, 4)
    if not is_rotation(matrices[:, :3, :3]).all() or (matrices[:, 3] != (0, 0, 0, 1)).any():
        raise DataError(f"{file}: column {name!r} holds no rigid transforms; fetch it again")
    return matrices


@lru_cache(maxsize=2 * _KEPT)
def _laser_keys(table: Table) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    rows = table.read([TIME, "key.laser_name"])
    return (
        column_array(rows, TIME, table.file, dtype="int64"),
        column_array(rows, "key.laser_name", table.file, dtype="int64"),
    )


@lru_cache(maxsize=_KEPT)
def _lasers(table: Table) -> dict[int, Laser]:
    prefix = "[LiDARCalibrationComponent]"
    beams = f"{prefix}.beam_inclination"
    columns = (f"{beams}.min", f"{beams}.max", f"{beams}.values", f"{prefix}.extrinsic.transform")
    rows = table.read(["key.laser_name", *columns])
    names = column_array(rows, "key.laser_name", table.file, dtype="int64")
    low = column_array(rows, columns[0], table.file, dtype="float64")
    high = column_array(rows, columns[1], table.file, dtype="float64")
    extrinsic = _rigid(rows, columns[3], table.file)
    found = {}
    for row, name in enumerate(names.tolist()):
        try:
            values = np.array(rows[columns[2]][row].as_py() or [], dtype=np.float64)
        except (TypeError, ValueError):
            values = np.array([np.nan])
        if values.ndim != 1 or not np.isfinite(values).all() or (np.diff(values) <= 0).any():
            raise DataError(
                f"{table.file}: beam inclinations of laser {name} do not rise; fetch it again"
            )
        found[name] = Laser(extrinsic[row], (float(low[row]), float(high[row])), values)
    if TOP not in found or len(found) != len(names) or not set(found) <= set(LASERS):
        raise DataError(f"{table.file}: calibrates lasers {names.tolist()}; fetch it again")
    return found


@lru_cache(maxsize=_KEPT)
def _lenses(table: Table) -> dict[int, Lens]:
    numbers = [f"{_CAMERA}.intrinsic.{name}" for name in ("f_u", "f_v", "c_u", "c_v")]
    sides = [f"{_CAMERA}.width", f"{_CAMERA}.height"]
    place = f"{_CAMERA}.extrinsic.transform"
    rows = table.read(["key.camera_name", *numbers, *sides, place])
    names = column_array(rows, "key.camera_name", table.file, dtype="int64").tolist()
    f_u, f_v, c_u, c_v = (column_array(rows, k, table.file, dtype="float64") for k in numbers)
    width, height = (column_array(rows, k, table.file, dtype="int64") for k in sides)
    if min([*f_u, *f_v, *width, *height, 1]) <= 0 or len(set(names)) != len(names):
        raise DataError(
            f"{table.file}: a focal length or image size is not above 0, or a camera occurs twice; "
            "fetch it again"
        )
    extrinsic = _rigid(rows, place, table.file)
    return {
        name: Lens(
            np.array([[f_u[k], 0, c_u[k]], [0, f_v[k], c_v[k]], [0, 0, 1]]),
            extrinsic[k],
            (int(width[k]), int(height[k])),
        )
        for k, name in enumerate(names)
    }


@lru_cache(maxsize=_KEPT)
def _photographs(table: Table) -> Photographs:
    place = f"{_IMAGE}.pose.transform"
    rows = table.read([TIME, "key.camera_name", place])
    return Photographs(
        column_array(rows, TIME, table.file, dtype="int64"),
        column_array(rows, "key.camera_name", table.file, dtype="int64"),
        _rigid(rows, place, table.file),
    )


@lru_cache(maxsize=_KEPT)
def _box_rows(table: Table) -> BoxRows:
    sides = (*(f"center.{k}" for k in "xyz"), *(f"size.{k}" for k in "xyz"), "heading")
    numbers = [f"{_BOX}.box.{name}" for name in sides]
    rows = table.read([TIME, "key.laser_object_id", f"{_BOX}.type", *numbers])
    cuboid = [column_array(rows, name, table.file, dtype="float64") for name in numbers]
    if any((cuboid[side] <= 0).any() for side in (3, 4, 5)):
        raise DataError(f"{table.file}: a box's side is not above 0; fetch it again")
    kind = column_array(rows, f"{_BOX}.type", table.file, dtype="int64")
    if ((kind < 0) | (kind > 4)).any():
        raise DataError(f"{table.file}: a box's type is not 0 to 4; fetch it again")
    return BoxRows(
        column_array(rows, TIME, table.file, dtype="int64"),
        kind,
        np.column_stack(cuboid),
        tuple(column_text(rows, "key.laser_object_id", table.file)),
    )


@dataclass(frozen=True)
class StoredImage:
    """An image among others in a table, fetched when called.

    Attributes:
        file: The table.
        row: Of the image.
    """

    file: Path
    row: int

    def __call__(self) -> bytes:
        """The JPEG.

        Raises:
            DataError: If the table is missing or damaged.
        """
        name = f"{_IMAGE}.image"
        rows = open_table(self.file).read([name], np.array([self.row], dtype=np.int64))
        content = rows[name][0].as_py()
        if not isinstance(content, bytes):
            raise DataError(f"{self.file}: row {self.row} holds no image; fetch it again")
        return content
