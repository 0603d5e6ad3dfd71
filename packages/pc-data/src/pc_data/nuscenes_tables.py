"""The nuScenes v1.0 tables, read once into compact arrays of keyframes.

`sample_data.json` and `ego_pose.json` of v1.0-trainval hold 2.6 million rows each, of which
28,130 + 6,019 keyframes need 7 sensors: rows are decoded one at a time and only these are kept, in
arrays that forked workers share instead of copying.
"""

import json
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64

from pc_data.errors import DataError

LIDAR = "LIDAR_TOP"
CAMERAS = (
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_RIGHT",
    "CAM_BACK",
    "CAM_BACK_LEFT",
    "CAM_FRONT_LEFT",
)
TABLES = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)

_CHANNELS = {name: column for column, name in enumerate((LIDAR, *CAMERAS))}
_CHUNK = 1 << 22
_GAP = re.compile(r"[\s,]*")
_KINDS: dict[str, type] = {  # by the last word of a field's name
    **dict.fromkeys(("token", "name", "channel", "filename"), str),
    **dict.fromkeys(("timestamp", "width", "height"), int),
}
_MAX_SIDE = 1 << 16  # pixels
_MAX_TIME = 1 << 62  # microseconds


@dataclass(frozen=True, kw_only=True)
class Keyframes:
    """The keyframes of some scenes, ordered by scene name and time.

    Columns are the LiDAR and then the cameras in the order of `CAMERAS`; a sensor that a keyframe
    lacks has an empty file name.

    Attributes:
        tokens: Sample tokens, ASCII bytes [n].
        scene_names: The scenes.
        scene_index: Scene of each keyframe.
        timestamp: Time of the LiDAR scan in microseconds.
        files: File names relative to the root, bytes [n 7].
        label_files: The same for lidarseg, empty where there are none, or None without lidarseg.
        calibration: Row of `mounting` and `intrinsics` for each sensor.
        ego: Position (3) and quaternion (w, x, y, z) of the vehicle in the world when the sensor
            fired.
        image_size: (width, height) in pixels.
        mounting: Vehicle-from-sensor.
        intrinsics: Camera matrices, zero for the LiDAR.
    """

    tokens: np.ndarray
    scene_names: tuple[str, ...]
    scene_index: Int32[np.ndarray, " n"]
    timestamp: Int64[np.ndarray, " n"]
    files: np.ndarray
    label_files: np.ndarray | None
    calibration: Int32[np.ndarray, "n 7"]
    ego: Float64[np.ndarray, "n 7 7"]
    image_size: Int32[np.ndarray, "n 7 2"]
    mounting: Float64[np.ndarray, "k 4 4"]
    intrinsics: Float64[np.ndarray, "k 3 3"]

    def __len__(self) -> int:
        return len(self.tokens)


def read_keyframes(
    folder: Path,
    *,
    scenes: Container[str] | None = None,
    on_defect: Callable[[str], None],
) -> Keyframes:
    """Read the keyframes of some scenes from a version's folder.

    Args:
        folder: E.g. `v1.0-trainval`.
        scenes: Names of the scenes wanted; None means all.
        on_defect: Is told of each row that contradicts another; when it returns, the row or the
            keyframe is left out.

    Returns:
        The keyframes, none if no scene matches.

    Raises:
        DataError: If a table is missing, is not JSON, or lacks a field.
    """
    scene_names, tokens, scene_index = _read_samples(folder, scenes)
    sensors, mounting, intrinsics = _read_calibration(folder, on_defect)
    data = _read_sample_data(folder, tokens, sensors, on_defect)
    ego = _read_ego(folder, data, on_defect)
    label_files = _read_label_files(folder, data.lidar, len(tokens), on_defect)
    complete = data.files[:, 0] != ""
    for index in np.flatnonzero(~complete):
        on_defect(
            f"{folder / 'sample_data.json'}: keyframe {tokens[index]} has no usable {LIDAR} row; "
            "drop the sample"
        )
    order = np.lexsort((data.timestamp, scene_index))
    order = order[complete[order]]
    return Keyframes(
        tokens=np.array([token.encode() for token in tokens], dtype="S")[order],
        scene_names=scene_names,
        scene_index=scene_index[order],
        timestamp=data.timestamp[order],
        files=np.char.encode(data.files[order].astype("U"), "utf-8"),
        label_files=None if label_files is None else label_files[order],
        calibration=data.calibration[order],
        ego=ego[order],
        image_size=data.image_size[order],
        mounting=mounting,
        intrinsics=intrinsics,
    )


def iter_rows(table: Path, fields: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Decode a table one row at a time.

    Args:
        table: A JSON file that holds a list of objects.
        fields: Fields that every row must have.

    Yields:
        The rows.

    Raises:
        DataError: If the file is missing, is not such a list, or a row lacks a field or has
            something of another type there.
    """
    if not table.is_file():
        raise DataError(f"{table}: table is missing; extract the metadata archive again")
    kinds = [(field, _KINDS.get(field.rpartition("_")[2], object)) for field in fields]
    try:
        for number, row in enumerate(_decode(table)):
            for field, kind in kinds:
                if not isinstance(row, dict) or field not in row:
                    raise DataError(f"{table}: row {number} has no field {field!r}")
                if not isinstance(row[field], kind):
                    raise DataError(
                        f"{table}: row {number} has {row[field]!r:.40} as {field!r}, expected "
                        f"{kind.__name__}; fetch the table again"
                    )
            yield row
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{table}: not a JSON list ({error}); fetch the table again") from error


def _decode(table: Path) -> Iterator[Any]:
    decode = json.JSONDecoder().raw_decode
    with table.open(encoding="utf-8") as stream:
        text = stream.read(_CHUNK)
        at = _skip(text, 0)
        if text[at : at + 1] != "[":
            raise json.JSONDecodeError("no opening bracket", text, at)
        at += 1
        while True:
            at = _skip(text, at)
            if text[at : at + 1] == "]":
                return
            try:
                row, at = decode(text, at)
            except json.JSONDecodeError:
                more = stream.read(_CHUNK)
                if not more or len(text) - at > _CHUNK:  # no row is that long: it is damage
                    raise
                text, at = text[at:] + more, 0
                continue
            yield row


def _skip(text: str, at: int) -> int:
    match = _GAP.match(text, at)
    return match.end() if match else at


def is_inside(name: str) -> bool:
    """Whether a table's file name stays inside the dataset's root (links there are the user's)."""
    path = PurePosixPath(name.replace("\\", "/"))
    return bool(path.parts) and not {"/", ".."} & set(path.parts) and ":" not in path.parts[0]


def _read_samples(
    folder: Path, scenes: Container[str] | None
) -> tuple[tuple[str, ...], list[str], Int32[np.ndarray, " n"]]:
    """Names of the wanted scenes, their samples' tokens, and the scene of each sample."""
    wanted = {
        row["token"]: row["name"]
        for row in iter_rows(folder / "scene.json", ("token", "name"))
        if scenes is None or row["name"] in scenes
    }
    names = tuple(sorted(wanted.values()))
    place = {token: names.index(name) for token, name in wanted.items()}
    tokens, index = [], []
    for row in iter_rows(folder / "sample.json", ("token", "scene_token")):
        if (scene := place.get(row["scene_token"])) is not None:
            tokens.append(row["token"])
            index.append(scene)
    return names, tokens, np.array(index, dtype=np.int32)


def _read_calibration(
    folder: Path, on_defect: Callable[[str], None]
) -> tuple[dict[str, tuple[int | None, int]], np.ndarray, np.ndarray]:
    """(column or None, row) of each calibrated sensor's token, and the rows' matrices."""
    from pc_geometry.rigid import make_transform, rotation_from_quaternion

    channel = {
        row["token"]: _CHANNELS.get(row["channel"])
        for row in iter_rows(folder / "sensor.json", ("token", "channel"))
    }
    table = folder / "calibrated_sensor.json"
    fields = ("token", "sensor_token", "translation", "rotation", "camera_intrinsic")
    rows: dict[str, tuple[int | None, int]] = {}
    mounting, intrinsics = [], []
    for row in iter_rows(table, fields):
        column = channel.get(row["sensor_token"])
        pose = _vector(row)
        matrix = np.zeros((3, 3))
        try:
            if column:
                matrix[:] = row["camera_intrinsic"]
        except (TypeError, ValueError):
            pose = None
        if not np.isfinite(matrix).all():
            pose = None
        if row["sensor_token"] not in channel or pose is None:
            on_defect(
                f"{table}: row {row['token']} has no known sensor, no rotation of length 1 or no "
                "finite 3x3 camera matrix; fetch the table again"
            )
            continue
        rows[row["token"]] = (column, len(mounting))
        mounting.append(make_transform(rotation_from_quaternion(pose[3:]), pose[:3]))
        intrinsics.append(matrix)
    return rows, np.array(mounting).reshape(-1, 4, 4), np.array(intrinsics).reshape(-1, 3, 3)


def _vector(row: dict[str, Any]) -> Float64[np.ndarray, "7"] | None:
    """Translation and unit quaternion of a row, or None if it holds none."""
    try:
        vector = np.array([*row["translation"], *row["rotation"]], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    valid = vector.shape == (7,) and np.isfinite(vector).all()
    return vector if valid and abs(np.linalg.norm(vector[3:]) - 1) < 1e-2 else None


@dataclass(frozen=True)
class _SampleData:
    """What `sample_data.json` says of the wanted keyframes, and whose poses it names."""

    files: np.ndarray
    timestamp: np.ndarray
    calibration: np.ndarray
    image_size: np.ndarray
    poses: dict[str, list[tuple[int, int]]]
    lidar: dict[str, int]

    def add(self, row: dict[str, Any], index: int, column: int, calibration: int) -> None:
        self.files[index, column] = row["filename"]
        self.calibration[index, column] = calibration
        self.poses.setdefault(row["ego_pose_token"], []).append((index, column))
        if column == 0:
            self.timestamp[index] = row["timestamp"]
            self.lidar[row["token"]] = index
        else:
            self.image_size[index, column] = row["width"], row["height"]


def _read_sample_data(
    folder: Path,
    tokens: list[str],
    sensors: dict[str, tuple[int | None, int]],
    on_defect: Callable[[str], None],
) -> _SampleData:
    shape = (len(tokens), len(_CHANNELS))
    data = _SampleData(
        files=np.full(shape, "", dtype=object),
        timestamp=np.zeros(len(tokens), dtype=np.int64),
        calibration=np.zeros(shape, dtype=np.int32),
        image_size=np.zeros((*shape, 2), dtype=np.int32),
        poses={},
        lidar={},
    )
    keyframe = {token: index for index, token in enumerate(tokens)}
    table = folder / "sample_data.json"
    fields = ("token", "sample_token", "ego_pose_token", "calibrated_sensor_token")
    fields += ("timestamp", "is_key_frame", "filename", "width", "height")
    for row in iter_rows(table, fields):
        if not row["is_key_frame"] or (index := keyframe.get(row["sample_token"])) is None:
            continue
        column, calibration = sensors.get(row["calibrated_sensor_token"], (-1, -1))
        if column is None:  # a radar
            continue
        if defect := _defect(row, column):
            on_defect(f"{table}: row {row['token']} {defect}")
        else:
            data.add(row, index, column, calibration)
    return data


def _defect(row: dict[str, Any], column: int) -> str | None:
    """What is wrong with a row of `sample_data.json`, or None."""
    if column < 0:
        token = row["calibrated_sensor_token"]
        return f"names the sensor {token}, which calibrated_sensor.json lacks; fetch both again"
    if not is_inside(row["filename"]):
        return (
            f"names the file {row['filename']!r} outside the dataset's root; use paths relative "
            "to the root without '..'"
        )
    if column and not (0 < row["width"] < _MAX_SIDE and 0 < row["height"] < _MAX_SIDE):
        return "gives no image size (width and height in pixels); fetch the table again"
    if not 0 <= row["timestamp"] < _MAX_TIME:
        return f"gives the time {row['timestamp']} (microseconds); fetch the table again"
    return None


def _read_ego(
    folder: Path, data: _SampleData, on_defect: Callable[[str], None]
) -> Float64[np.ndarray, "n c 7"]:
    """Fill in the vehicle's poses, and blank the files of sensors that have none."""
    table = folder / "ego_pose.json"
    ego = np.zeros((*data.files.shape, 7))
    ego[..., 3] = 1
    left = dict(data.poses)
    for row in iter_rows(table, ("token", "translation", "rotation")):
        if row["token"] in left and (pose := _vector(row)) is not None:
            for place in left.pop(row["token"]):
                ego[place] = pose
    if left:
        on_defect(
            f"{table}: {len(left)} poses that sample_data.json names are missing or no rigid "
            f"motion, the first is {next(iter(left))}; fetch the table again"
        )
    for places in left.values():
        for place in places:
            data.files[place] = ""
    return ego


def _read_label_files(
    folder: Path, lidar_data: dict[str, int], n: int, on_defect: Callable[[str], None]
) -> np.ndarray | None:
    table = folder / "lidarseg.json"
    if not table.is_file():
        return None
    names = [""] * n
    for row in iter_rows(table, ("sample_data_token", "filename")):
        if (index := lidar_data.get(row["sample_data_token"])) is not None:
            if is_inside(row["filename"]):
                names[index] = row["filename"]
            else:
                on_defect(f"{table}: file {row['filename']!r} lies outside the dataset's root")
    return np.array([name.encode() for name in names], dtype="S")
