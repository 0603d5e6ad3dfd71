"""The text files of PandaSet's scenes, read once into compact arrays: poses, times, calibration."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from jaxtyping import Float64, Int8, Int64

from pc_data.errors import DataError
from pc_data.files.json_files import read_json
from pc_data.readers.pandaset_classes import training_class

CAMERAS = (
    "back_camera",
    "front_camera",
    "front_left_camera",
    "front_right_camera",
    "left_camera",
    "right_camera",
)

_SUFFIX = ".pkl.gz"
_UNIT_TOLERANCE = 0.01  # of a quaternion's norm
_MAX_RAW = 255  # largest id of a class


@dataclass(frozen=True, kw_only=True)
class Track:
    """A camera of one scene.

    Attributes:
        name: E.g. `front_camera`.
        intrinsics: Camera matrix in pixels.
        poses: World-from-camera of each frame number: position (3) and quaternion (w, x, y, z).
    """

    name: str
    intrinsics: Float64[np.ndarray, "3 3"]
    poses: Float64[np.ndarray, "f 7"]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One drive.

    Attributes:
        folder: E.g. `002`.
        name: E.g. `002`.
        frames: Frame numbers that have a scan, ascending.
        poses: World-from-LiDAR of each frame number: position (3) and quaternion (w, x, y, z).
        times: Seconds of each frame number.
        cameras: Those that are present.
        class_of_raw: Training class by raw id, -1 = ignored, -2 = no such id; None without labels.
        has_cuboids: Whether the scene has boxes.
    """

    folder: Path
    name: str
    frames: Int64[np.ndarray, " n"]
    poses: Float64[np.ndarray, "f 7"]
    times: Float64[np.ndarray, " f"]
    cameras: tuple[Track, ...]
    class_of_raw: Int8[np.ndarray, " r"] | None
    has_cuboids: bool


def list_scenes(root: Path) -> tuple[Path, ...]:
    """The folders of scenes under a root, by name."""
    return tuple(sorted(path for path in root.glob("[0-9][0-9][0-9]") if path.is_dir()))


def has_labels(folder: Path) -> bool:
    """Whether the points of a scene are labelled; those of 76 of the 103 official scenes are."""
    return (folder / "annotations" / "semseg").is_dir()


def read_latitude(folder: Path) -> float:
    """Degrees north of a scene's first GPS entry.

    Raises:
        DataError: If `meta/gps.json` is missing or damaged.
    """
    file = folder / "meta" / "gps.json"
    entries = _read_list(file)
    latitude = _numbers_of(entries[0], ("lat",)) if entries else None
    if latitude is None or not -90 <= latitude[0] <= 90:
        raise DataError(f"{file}: first entry has no latitude 'lat' in degrees; fetch it again")
    return latitude[0]


def read_scene(
    folder: Path, *, cameras: tuple[str, ...], on_defect: Callable[[str], None]
) -> Scene:
    """List a scene's frames and read its text files.

    Args:
        folder: The scene's.
        cameras: Names of those wanted.
        on_defect: Is told of each camera whose files are missing or damaged, which is then left
            out, and of frames without a pose or a time, which are left out too.

    Raises:
        DataError: If the files that a scan needs are missing or damaged.
    """
    frames = _frame_numbers(folder / "lidar")
    poses = _read_poses(folder / "lidar" / "poses.json")
    times = _read_times(folder / "lidar" / "timestamps.json")
    for name, rows in (("poses", poses), ("timestamps", times)):
        lacking = frames[frames >= len(rows)]
        if lacking.size:
            on_defect(
                f"{folder / 'lidar' / name}.json: {len(rows)} entries, none for frame "
                f"{lacking[0]:02d} and {lacking.size - 1} more; fetch it again"
            )
            frames = frames[frames < len(rows)]
    tracks = []
    for name in cameras:
        if (folder / "camera" / name).is_dir():
            try:
                tracks.append(_read_track(folder / "camera" / name, frames))
            except DataError as error:
                on_defect(str(error))
    classes = folder / "annotations" / "semseg" / "classes.json"
    return Scene(
        folder=folder,
        name=folder.name,
        frames=frames,
        poses=poses,
        times=times,
        cameras=tuple(tracks),
        class_of_raw=_read_classes(classes) if has_labels(folder) else None,
        has_cuboids=(folder / "annotations" / "cuboids").is_dir(),
    )


def _frame_numbers(folder: Path) -> Int64[np.ndarray, " n"]:
    stems = [path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}")]
    for stem in stems:
        if not re.fullmatch("[0-9][0-9]", stem):
            raise DataError(
                f"{folder / stem}{_SUFFIX}: name is not a frame number of 2 digits; rename or "
                "remove it"
            )
    return np.array(sorted(map(int, stems)), dtype=np.int64)


def _read_track(folder: Path, frames: Int64[np.ndarray, " n"]) -> Track:
    poses = _read_poses(folder / "poses.json")
    if frames.size and len(poses) <= frames[-1]:
        raise DataError(
            f"{folder / 'poses.json'}: {len(poses)} entries, none for frame {frames[-1]:02d}; "
            "fetch it again"
        )
    return Track(
        name=folder.name, intrinsics=_read_intrinsics(folder / "intrinsics.json"), poses=poses
    )


def _read_intrinsics(file: Path) -> Float64[np.ndarray, "3 3"]:
    values = _numbers_of(_read_json(file), ("fx", "fy", "cx", "cy"))
    if values is None or not np.isfinite(values).all() or min(values[:2]) <= 0:
        raise DataError(
            f"{file}: needs numbers fx, fy, cx, cy with focal lengths above 0; fetch it again"
        )
    fx, fy, cx, cy = values
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def _read_poses(file: Path) -> Float64[np.ndarray, "f 7"]:
    rows = []
    for number, entry in enumerate(_read_list(file)):
        parts = entry if isinstance(entry, dict) else {}
        position = _numbers_of(parts.get("position"), ("x", "y", "z"))
        heading = _numbers_of(parts.get("heading"), ("w", "x", "y", "z"))
        if position is None or heading is None:
            raise DataError(
                f"{file}: entry {number} has no position x, y, z and heading w, x, y, z in "
                "numbers; fetch it again"
            )
        rows.append(position + heading)
    poses = np.array(rows, dtype=np.float64).reshape(-1, 7)
    unit = np.abs(np.sqrt(np.square(poses[:, 3:]).sum(1)) - 1) < _UNIT_TOLERANCE
    if not (np.isfinite(poses).all(1) & unit).all():
        raise DataError(
            f"{file}: a pose is not finite or its heading no unit quaternion; fetch it again"
        )
    return poses


def _read_times(file: Path) -> Float64[np.ndarray, " f"]:
    entries = _read_list(file)
    if not all(map(_is_number, entries)) or not np.isfinite(entries).all():
        raise DataError(f"{file}: not a list of finite times in seconds; fetch it again")
    return np.array(entries, dtype=np.float64)


def _read_classes(file: Path) -> Int8[np.ndarray, " r"]:
    """Training class by raw id, from the names that this scene gives to the ids."""
    content = _read_json(file)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{file}: not a table of class names by id; fetch it again")
    found = {0: -1}  # what nobody labelled
    for key, name in content.items():
        if not (re.fullmatch("[0-9]{1,3}", key) and int(key) <= _MAX_RAW and isinstance(name, str)):
            raise DataError(f"{file}: {key!r}: {name!r} is no id with a name; fetch it again")
        try:
            found[int(key)] = training_class(name)
        except ValueError as error:
            raise DataError(f"{file}: {error}; fetch it again") from error
    table = np.full(max(found) + 1, -2, dtype=np.int8)
    table[list(found)] = list(found.values())
    return table


def _read_list(file: Path) -> list[Any]:
    content = _read_json(file)
    if not isinstance(content, list):
        raise DataError(f"{file}: not a list; fetch it again")
    return content


def _read_json(file: Path) -> object:
    return read_json(file, missing="file is missing; restore it or remove the scene")


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) is float or (type(value) is int and abs(value) < 1 << 53)


def _numbers_of(entry: object, keys: tuple[str, ...]) -> list[float] | None:
    """What an entry says under some keys, or None if it does not say a number under each."""
    if not isinstance(entry, dict):
        return None
    numbers = [value for value in map(entry.get, keys) if _is_number(value)]
    return [float(number) for number in numbers] if len(numbers) == len(keys) else None
