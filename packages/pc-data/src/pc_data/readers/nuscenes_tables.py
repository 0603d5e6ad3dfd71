"""The nuScenes v1.0 tables, read once into compact arrays of keyframes.

`sample_data.json` and `ego_pose.json` of v1.0-trainval hold 2.6 million rows each, of which
28,130 + 6,019 keyframes need 7 sensors: rows are decoded one at a time and only these are kept, in
arrays that forked workers share instead of copying.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from pc_data.readers.nuscenes_rows import is_inside, iter_rows, rigid_motion
from pc_data.readers.nuscenes_sweeps import SweepRows, Sweeps

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
        panoptic_files: The same for panoptic labels.
        calibration: Row of `mounting` and `intrinsics` for each sensor.
        ego: Position (3) and quaternion (w, x, y, z) of the vehicle in the world when the sensor
            fired.
        image_size: (width, height) in pixels.
        mounting: Vehicle-from-sensor.
        intrinsics: Camera matrices, zero for the LiDAR.
        sweeps: The LiDAR scans before each keyframe, or None if they were not asked for.
    """

    tokens: np.ndarray
    scene_names: tuple[str, ...]
    scene_index: Int32[np.ndarray, " n"]
    timestamp: Int64[np.ndarray, " n"]
    files: np.ndarray
    label_files: np.ndarray | None
    panoptic_files: np.ndarray | None
    calibration: Int32[np.ndarray, "n 7"]
    ego: Float64[np.ndarray, "n 7 7"]
    image_size: Int32[np.ndarray, "n 7 2"]
    mounting: Float64[np.ndarray, "k 4 4"]
    intrinsics: Float64[np.ndarray, "k 3 3"]
    sweeps: Sweeps | None

    def __len__(self) -> int:
        return len(self.tokens)


def read_keyframes(
    folder: Path,
    *,
    scenes: Container[str] | None = None,
    num_before: int = 0,
    on_defect: Callable[[str], None],
) -> Keyframes:
    """Read the keyframes of some scenes from a version's folder.

    Args:
        folder: E.g. `v1.0-trainval`.
        scenes: Names of the scenes wanted; None means all.
        num_before: LiDAR scans wanted before each keyframe.
        on_defect: Is told of each row that contradicts another; when it returns, the row or the
            keyframe is left out.

    Returns:
        The keyframes, none if no scene matches.

    Raises:
        DataError: If a table is missing, is not JSON, or lacks a field.
    """
    scene_names, tokens, scene_index = _read_samples(folder, scenes)
    sensors, mounting, intrinsics = _read_calibration(folder, on_defect)
    sweep_rows = SweepRows() if num_before else None
    data = _read_sample_data(folder, tokens, scene_index, sensors, sweep_rows, on_defect)
    ego, posed = _read_ego(folder, data, on_defect)
    whole = scenes is None
    label_files = _read_label_files(folder / "lidarseg.json", data, whole, on_defect)
    panoptic_files = _read_label_files(folder / "panoptic.json", data, whole, on_defect)
    complete = data.files[:, 0] != ""
    for index in np.flatnonzero(~complete):
        on_defect(
            f"{folder / 'sample_data.json'}: keyframe {tokens[index]} has no usable {LIDAR} row; "
            "drop the sample"
        )
    order = np.lexsort((data.timestamp, scene_index))
    order = order[complete[order]]
    sweeps = None
    if sweep_rows is not None:
        sweeps = sweep_rows.follow(
            data.sweep[order],
            ego[data.files.size :],
            posed[data.files.size :],
            length=num_before,
            table=folder / "sample_data.json",
            on_defect=on_defect,
        )
    return Keyframes(
        tokens=np.array([token.encode() for token in tokens], dtype="S")[order],
        scene_names=scene_names,
        scene_index=scene_index[order],
        timestamp=data.timestamp[order],
        files=np.char.encode(data.files[order].astype("U"), "utf-8"),
        label_files=None if label_files is None else label_files[order],
        panoptic_files=None if panoptic_files is None else panoptic_files[order],
        calibration=data.calibration[order],
        ego=ego[: data.files.size].reshape(*data.files.shape, 7)[order],
        image_size=data.image_size[order],
        mounting=mounting,
        intrinsics=intrinsics,
        sweeps=sweeps,
    )


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
        pose = rigid_motion(row)
        matrix = np.zeros((3, 3))
        try:
            if column:
                matrix = np.array(row["camera_intrinsic"], dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            pose = None
        valid = matrix.shape == (3, 3) and np.isfinite(matrix).all()
        valid = valid and (not column or min(matrix[0, 0], matrix[1, 1]) > 0)
        if row["sensor_token"] not in channel or pose is None or not valid:
            on_defect(
                f"{table}: row {row['token']} has no known sensor, no rotation of length 1 or no "
                "finite 3x3 camera matrix with focal lengths above 0; fetch the table again"
            )
            continue
        rows[row["token"]] = (column, len(mounting))
        mounting.append(make_transform(rotation_from_quaternion(pose[3:]), pose[:3]))
        intrinsics.append(matrix)
    return rows, np.array(mounting).reshape(-1, 4, 4), np.array(intrinsics).reshape(-1, 3, 3)


@dataclass(frozen=True)
class _SampleData:
    """What `sample_data.json` says of the wanted keyframes, and whose poses it names.

    Places of poses: `7 * keyframe + column`, then those of the sweeps' rows.
    """

    files: np.ndarray
    timestamp: np.ndarray
    calibration: np.ndarray
    image_size: np.ndarray
    sweep: np.ndarray
    poses: dict[str, list[int]] = field(default_factory=dict)
    lidar: dict[str, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, n: int) -> "_SampleData":
        shape = (n, len(_CHANNELS))
        return cls(
            files=np.full(shape, "", dtype=object),
            timestamp=np.zeros(n, dtype=np.int64),
            calibration=np.zeros(shape, dtype=np.int32),
            image_size=np.zeros((*shape, 2), dtype=np.int32),
            sweep=np.full(n, -1),
        )

    def add(self, row: dict[str, Any], index: int, column: int, calibration: int) -> None:
        self.files[index, column] = row["filename"]
        self.calibration[index, column] = calibration
        self.add_pose(row, index * len(_CHANNELS) + column)
        if column == 0:
            self.timestamp[index] = row["timestamp"]
            self.lidar[row["token"]] = index
        else:
            self.image_size[index, column] = row["width"], row["height"]

    def add_pose(self, row: dict[str, Any], place: int) -> None:
        self.poses.setdefault(row["ego_pose_token"], []).append(place)


def _read_sample_data(
    folder: Path,
    tokens: list[str],
    scene_index: np.ndarray,
    sensors: dict[str, tuple[int | None, int]],
    sweeps: SweepRows | None,
    on_defect: Callable[[str], None],
) -> _SampleData:
    data = _SampleData.empty(len(tokens))
    keyframe = {token: index for index, token in enumerate(tokens)}
    table = folder / "sample_data.json"
    fields = ("token", "sample_token", "ego_pose_token", "calibrated_sensor_token")
    fields += ("timestamp", "is_key_frame", "filename", "width", "height")
    for row in iter_rows(table, fields if sweeps is None else (*fields, "prev")):
        is_key = row["is_key_frame"]
        if not (is_key or sweeps is not None):
            continue
        if (index := keyframe.get(row["sample_token"])) is None:
            continue
        column, calibration = sensors.get(row["calibrated_sensor_token"], (-1, -1))
        if column is None or not (is_key or column <= 0):  # a radar, or a camera in between
            continue
        if defect := _defect(row, column):
            on_defect(f"{table}: row {row['token']} {defect}")
            continue
        if is_key:
            data.add(row, index, column, calibration)
        if sweeps is not None and column == 0:
            number = sweeps.add(row, calibration=calibration, scene=int(scene_index[index]))
            data.add_pose(row, data.files.size + number)
            if is_key:
                data.sweep[index] = number
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
) -> tuple[Float64[np.ndarray, "p 7"], Bool[np.ndarray, " p"]]:
    """The vehicle's pose at every place, and whether there is one; if not, its file is blanked."""
    table = folder / "ego_pose.json"
    num_places = max((max(places) for places in data.poses.values()), default=-1) + 1
    ego = np.zeros((max(num_places, data.files.size), 7))
    ego[:, 3] = 1
    posed = np.ones(len(ego), dtype=bool)
    left = dict(data.poses)
    for row in iter_rows(table, ("token", "translation", "rotation")):
        if row["token"] in left and (pose := rigid_motion(row)) is not None:
            for place in left.pop(row["token"]):
                ego[place] = pose
    if left:
        on_defect(
            f"{table}: {len(left)} poses that sample_data.json names are missing or no rigid "
            f"motion, the first is {next(iter(left))}; fetch the table again"
        )
    for places in left.values():
        posed[places] = False
    data.files.ravel()[~posed[: data.files.size]] = ""
    return ego, posed


def _read_label_files(
    table: Path, data: _SampleData, whole: bool, on_defect: Callable[[str], None]
) -> np.ndarray | None:
    """File names of the labels of each keyframe, empty where there are none.

    Rows of scenes that are not wanted are passed over; of a `whole` version there are none.
    """
    if not table.is_file():
        return None
    names = [""] * len(data.files)
    for row in iter_rows(table, ("sample_data_token", "filename")):
        token = row["sample_data_token"]
        index = data.lidar.get(token)
        if index is None and whole:
            on_defect(
                f"{table}: labels of {token}, which is no usable {LIDAR} keyframe of "
                "sample_data.json; fetch both tables again"
            )
        elif index is not None and not is_inside(row["filename"]):
            on_defect(f"{table}: file {row['filename']!r} lies outside the dataset's root")
        elif index is not None:
            names[index] = row["filename"]
    return np.array([name.encode() for name in names], dtype="S")
