"""Write the street world in the layout of the Argoverse 2 sensor dataset.

Source: Argoverse 2 (Wilson et al., NeurIPS 2021 datasets and benchmarks, arXiv:2301.00493).
    Differs from a recording: sweeps are half a second apart, each camera has one image for each
    of them, lenses are ideal, and maps and the stereo cameras are left out.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from jaxtyping import Float64

from pc_data.readers.arrow import import_arrow
from pc_data.synthetic.capture import (
    Returns,
    Street,
    boxes_seen,
    photograph,
    record_streets,
    scan_street,
)
from pc_data.synthetic.categories import Category
from pc_data.synthetic.output import check_image_size
from pc_data.synthetic.rig import (
    camera_axes,
    pose_matrix,
    quaternion,
    small_rotation,
    yaw_rotation,
)
from pc_data.synthetic.sensors import LidarModel, turn_rays

_PERIOD = 0.5  # seconds between sweeps
_START = 315_966_000_000_000_000  # nanoseconds
_AXLE = 0.33  # height of the rear axle, where the vehicle's frame sits, metres
VLP_32C = LidarModel(
    np.concatenate(
        [
            [-25.0, -15.639, -11.31, -8.843, -7.254, -6.148, -5.333, -4.667],
            np.arange(-12, 6) / 3.0,
            [2.333, 3.333, 4.667, 7.0, 10.333, 15.0],
        ]
    ),
    1800,
    150.0,
    0.015,
    118.0,
    1.0,
    255.0,
)
"""32 beams from -25 to 15 degrees, a third of a degree apart near the horizon."""
_UPSIDE_DOWN = np.diag([1.0, -1.0, -1.0])
LIDARS = {
    "up_lidar": pose_matrix(np.eye(3), np.array([1.35, 0.0, 1.64])),
    "down_lidar": pose_matrix(_UPSIDE_DOWN, np.array([1.35, 0.0, 1.55])),
}

_NAMES = {
    Category.CAR: "REGULAR_VEHICLE",
    Category.TRUCK: "TRUCK",
    Category.BUS: "BUS",
    Category.TRAILER: "VEHICULAR_TRAILER",
    Category.CONSTRUCTION: "LARGE_VEHICLE",
    Category.MOTORCYCLE: "MOTORCYCLE",
    Category.BICYCLE: "BICYCLE",
    Category.MOTORCYCLIST: "MOTORCYCLIST",
    Category.BICYCLIST: "BICYCLIST",
    Category.ADULT: "PEDESTRIAN",
    Category.CHILD: "PEDESTRIAN",
    Category.CONE: "CONSTRUCTION_CONE",
    Category.SIGN: "SIGN",
}


class CameraMount(NamedTuple):
    """One camera.

    Attributes:
        yaw: Viewing direction, degrees to the left of straight ahead.
        position: In the vehicle's frame, metres.
        delay: Of its exposure against the sweep's time, nanoseconds.
        upright: Whether its images are higher than wide.
    """

    yaw: float
    position: tuple[float, float, float]
    delay: int
    upright: bool = False


CAMERAS = {
    "ring_front_center": CameraMount(0.0, (1.64, 0.0, 1.36), 3_300_000, upright=True),
    "ring_front_left": CameraMount(45.0, (1.55, 0.18, 1.36), -9_100_000),
    "ring_front_right": CameraMount(-45.0, (1.55, -0.18, 1.36), 15_800_000),
    "ring_rear_left": CameraMount(153.0, (1.10, 0.09, 1.36), 21_000_000),
    "ring_rear_right": CameraMount(-153.0, (1.10, -0.09, 1.36), -17_400_000),
    "ring_side_left": CameraMount(99.0, (1.29, 0.24, 1.36), -14_600_000),
    "ring_side_right": CameraMount(-99.0, (1.29, -0.24, 1.36), 19_500_000),
}
_FOCAL = 1690.0 / 2048.0
"""Focal length in longer sides of an image."""


class Sweep(NamedTuple):
    """What a sweep leaves for the tables of its log."""

    poses: dict[int, Float64[np.ndarray, "4 4"]]
    boxes: dict[str, Any]


def log_name(seed: int, index: int) -> str:
    """Name of a scene's log."""
    return str(UUID(bytes=np.random.default_rng((seed, index, 41)).bytes(16), version=4))


def city_from_scene(seed: int, index: int) -> Float64[np.ndarray, "4 4"]:
    """Where a scene lies in its city."""
    rng = np.random.default_rng((seed, index, 43))
    place = np.array([*rng.uniform(-3000, 3000, 2), rng.uniform(-20, 20)])
    return pose_matrix(yaw_rotation(rng.uniform(-np.pi, np.pi)), place)


def camera_calibration(
    seed: int, index: int, name: str, image_size: tuple[int, int]
) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "4 4"], tuple[int, int]]:
    """Camera matrix, vehicle-from-camera and (width, height) of a log's camera."""
    mount = CAMERAS[name]
    rng = np.random.default_rng((seed, index, 47, *name.encode()))
    width, height = image_size[::-1] if mount.upright else image_size
    focal = _FOCAL * max(image_size) * rng.uniform(0.99, 1.01)
    matrix = np.array([[focal, 0, 0.502 * width], [0, focal, 0.497 * height], [0, 0, 1]])
    axes = camera_axes(np.radians(mount.yaw)) @ small_rotation(rng.normal(0, 0.006, 3))
    place = np.array(mount.position) + rng.normal(0, 0.01, 3)
    return matrix, pose_matrix(axes, place), (width, height)


def _folder(root: Path, street: Street, seed: int) -> Path:
    return root / "sensor" / ("val" if street.is_val else "train") / log_name(seed, street.index)


def _stamp(street: Street, frame: int) -> int:
    return _START + 10**12 * street.index + round(1e9 * _PERIOD) * frame


def _vehicle(street: Street, time: float) -> Float64[np.ndarray, "4 4"]:
    """Scene-from-vehicle."""
    return street.scene.ego_pose(time) @ pose_matrix(np.eye(3), np.array([0.0, 0.0, _AXLE]))


def _scan(street: Street, frame: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The points of both LiDARs as columns, and their places as they are stored."""
    time = _PERIOD * frame
    parts: list[tuple[int, Returns, np.ndarray]] = []
    for number, mount in enumerate(LIDARS.values()):
        returns = scan_street(
            street.scene,
            VLP_32C,
            time=time,
            pose=_vehicle(street, time) @ mount,
            seed=(seed, street.index, frame, number),
            start=np.pi * number,
            turn=-2 * np.pi if number == 0 else 2 * np.pi,
        )
        parts.append((number, returns, turn_rays(returns.xyz, mount[:3, :3]) + mount[:3, 3]))
    xyz = np.concatenate([place for _, _, place in parts]).astype(np.float16)
    intensity = np.concatenate([returns.intensity for _, returns, _ in parts])
    laser = np.concatenate([returns.ring + 32 * number for number, returns, _ in parts])
    phase = np.concatenate([returns.phase for _, returns, _ in parts])
    columns = {
        "x": xyz[:, 0].copy(),
        "y": xyz[:, 1].copy(),
        "z": xyz[:, 2].copy(),
        "intensity": np.round(intensity).astype(np.uint8),
        "laser_number": laser.astype(np.uint8),
        "offset_ns": np.round(1e8 * phase).astype(np.int32),
    }
    return columns, xyz.astype(np.float64)


def _make_frame(
    street: Street, frame: int, root: Path, *, seed: int, image_size: tuple[int, int]
) -> Sweep:
    time, stamp = _PERIOD * frame, _stamp(street, frame)
    folder = _folder(root, street, seed)
    columns, xyz = _scan(street, frame, seed)
    _write_table(folder / "sensors" / "lidar" / f"{stamp}.feather", columns)
    city = city_from_scene(seed, street.index)
    poses = {stamp: city @ _vehicle(street, time)}
    for name, mount in CAMERAS.items():
        taken = time + 1e-9 * mount.delay
        matrix, place, size = camera_calibration(seed, street.index, name, image_size)
        image = photograph(
            street.scene,
            time=taken,
            pose=_vehicle(street, taken) @ place,
            intrinsics=matrix,
            image_size=size,
        )
        file = folder / "sensors" / "cameras" / name / f"{stamp + mount.delay}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image)
        poses[stamp + mount.delay] = city @ _vehicle(street, taken)
    return Sweep(poses, _box_columns(street, frame, xyz, seed))


def _box_columns(street: Street, frame: int, xyz: np.ndarray, seed: int) -> dict[str, Any]:
    time = _PERIOD * frame
    boxes = boxes_seen(street.scene, time=time, pose=_vehicle(street, time), xyz=xyz)
    names = [_NAMES.get(Category(category), "") for category in boxes.category]
    chosen = np.array([row for row, name in enumerate(names) if name], dtype=np.int64)
    cuboid = boxes.cuboid[chosen]
    half = 0.5 * cuboid[:, 6]
    none = np.zeros(len(chosen))
    numbers = [*cuboid[:, 3:6].T, np.cos(half), none, none, np.sin(half), *cuboid[:, :3].T]
    keys = ("length_m", "width_m", "height_m", "qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")
    return {
        "timestamp_ns": np.full(len(chosen), _stamp(street, frame), dtype=np.int64),
        "track_uuid": [log_name(seed, 10**6 + int(k)) for k in boxes.instance[chosen]],
        "category": [names[row] for row in chosen],
        **{key: np.ascontiguousarray(column) for key, column in zip(keys, numbers, strict=True)},
        "num_interior_pts": boxes.num_points[chosen],
    }


def _pose_columns(poses: list[Float64[np.ndarray, "4 4"]]) -> dict[str, Any]:
    rows = np.array([[*quaternion(pose[:3, :3]), *pose[:3, 3]] for pose in poses])
    keys = ("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")
    return {key: rows[:, place].copy() for place, key in enumerate(keys)}


def _write_table(file: Path, columns: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = import_arrow("pyarrow").table(columns)
    import_arrow("pyarrow.feather").write_feather(table, str(file), compression="zstd")


def _write_calibration(
    street: Street, folder: Path, seed: int, image_size: tuple[int, int]
) -> None:
    lenses = [camera_calibration(seed, street.index, name, image_size) for name in CAMERAS]
    mounts = [mount for _, mount, _ in lenses] + list(LIDARS.values())
    _write_table(
        folder / "egovehicle_SE3_sensor.feather",
        {"sensor_name": [*CAMERAS, *LIDARS], **_pose_columns(mounts)},
    )
    matrices = np.array([matrix for matrix, _, _ in lenses])
    sizes = np.array([size for _, _, size in lenses])
    _write_table(
        folder / "intrinsics.feather",
        {
            "sensor_name": list(CAMERAS),
            "fx_px": matrices[:, 0, 0].copy(),
            "fy_px": matrices[:, 1, 1].copy(),
            "cx_px": matrices[:, 0, 2].copy(),
            "cy_px": matrices[:, 1, 2].copy(),
            **{key: np.zeros(len(lenses)) for key in ("k1", "k2", "k3")},
            "height_px": sizes[:, 1].copy(),
            "width_px": sizes[:, 0].copy(),
        },
    )


def _finish(
    root: Path,
    frames: list[tuple[Street, int, Sweep]],
    *,
    seed: int,
    image_size: tuple[int, int],
) -> None:
    """Write the tables of every log."""
    arrow = import_arrow("pyarrow")
    for street in {street.index: street for street, _, _ in frames}.values():
        folder = _folder(root, street, seed)
        sweeps = [sweep for other, _, sweep in frames if other.index == street.index]
        poses = dict(sorted(pair for sweep in sweeps for pair in sweep.poses.items()))
        _write_table(
            folder / "city_SE3_egovehicle.feather",
            {
                "timestamp_ns": np.array(list(poses), dtype=np.int64),
                **_pose_columns(list(poses.values())),
            },
        )
        _write_calibration(street, folder / "calibration", seed, image_size)
        tables = [arrow.table(sweep.boxes) for sweep in sweeps]
        whole = arrow.concat_tables([table for table in tables if table.num_rows] or tables[:1])
        columns = dict(zip(whole.column_names, whole.combine_chunks().columns, strict=True))
        _write_table(folder / "annotations.feather", columns)


def make_street_argoverse2(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    frames_per_scene: int = 4,
    image_size: tuple[int, int] = (512, 388),
    val_fraction: float = 0.25,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make synthetic street scenes as an Argoverse 2 folder (`out`/sensor/train and .../val).

    The same arguments give the same bytes. Validation scenes show layouts, palettes and textures
    that no training scene has.

    Args:
        out: Folder to make; it appears only when everything is in it.
        num_scenes: Number of scenes, the first ones for training.
        seed: Of everything.
        frames_per_scene: Sweeps of each scene, half a second apart.
        image_size: (width, height) of the images; those of the front camera are upright.
        val_fraction: Share of validation scenes, at least one of two or more.
        progress: Called with (done, total) after each sweep.

    Raises:
        ValueError: If `out` is in use or an argument is out of range.
        ImportError: If pyarrow is not installed.
    """
    import_arrow("pyarrow.feather")
    check_image_size(image_size)
    record_streets(
        out,
        partial(_make_frame, seed=seed, image_size=image_size),
        num_scenes=num_scenes,
        seed=seed,
        frames_per_scene=frames_per_scene,
        period=_PERIOD,
        val_fraction=val_fraction,
        finish=partial(_finish, seed=seed, image_size=image_size),
        progress=progress,
    )
