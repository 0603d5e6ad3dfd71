"""Write the street world in the layout of Waymo Open Dataset v2.

Source: Waymo Open Dataset (Sun et al., CVPR 2020, arXiv:1912.04838), the Perception dataset's
    version 2 tables. Differs from a recording: frames are half a second apart, lenses are ideal,
    shutters open at once, and columns that no reader here uses (velocities, shutter times,
    difficulties) are left out.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from pc_data.readers.arrow import import_arrow
from pc_data.synthetic.capture import SeenBoxes, Street, boxes_seen, photograph, record_streets
from pc_data.synthetic.output import check_image_size
from pc_data.synthetic.rig import pose_matrix, yaw_rotation
from pc_data.synthetic.waymo_sensors import (
    CAMERAS,
    FOCAL,
    LIDARS,
    WAYMO_BOX,
    RangeView,
    beams,
    extrinsics,
    look_around,
)

if TYPE_CHECKING:
    import pyarrow as pa

_PERIOD = 0.5  # seconds between frames
_PARTS = ".parts"
_START = 1_550_000_000_000_000  # microseconds
_AXES = np.array([[0.0, -1, 0, 0], [0.0, 0, -1, 0], [1.0, 0, 0, 0], [0, 0, 0, 1.0]])


class Plan(NamedTuple):
    """What all frames are made with.

    Attributes:
        seed: Of everything.
        image_size: (width, height) of the front camera's images.
        shapes: Rows and columns of the range images, by LiDAR.
        label_every: Frames from one with point labels to the next.
    """

    seed: int
    image_size: tuple[int, int]
    shapes: dict[int, tuple[int, int]]
    label_every: int


class Lens(NamedTuple):
    """A camera in a frame: its image, its matrix and camera-from-vehicle at the frame's time."""

    image: bytes
    pose: Float64[np.ndarray, "4 4"]
    time: int
    intrinsics: Float64[np.ndarray, "3 3"]
    from_vehicle: Float64[np.ndarray, "4 4"]
    size: tuple[int, int]


def segment_name(seed: int, index: int) -> str:
    """Name of a scene's segment, of the form of the official ones."""
    number = int(np.random.default_rng((seed, index, 31)).integers(10**18, 9 * 10**18))
    return f"{number}_000_000_020_000"


def world_from_scene(seed: int, index: int) -> Float64[np.ndarray, "4 4"]:
    """Where a scene lies in the world."""
    rng = np.random.default_rng((seed, index, 29))
    place = np.array([*rng.uniform(-3000, 3000, 2), rng.uniform(-30, 30)])
    return pose_matrix(yaw_rotation(rng.uniform(-np.pi, np.pi)), place)


def _folder(street: Street) -> str:
    return "validation" if street.is_val else "training"


def _intrinsics(number: int, image_size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Camera matrix and (width, height); lower images lack the top of the others."""
    width, height = image_size[0], max(16, round(image_size[1] * CAMERAS[number].share))
    focal, middle = FOCAL * width, 0.497 * image_size[1] - (image_size[1] - height)
    return np.array([[focal, 0, 0.503 * width], [0, focal, middle], [0, 0, 1]]), (width, height)


def _take_images(street: Street, frame: int, plan: Plan) -> dict[int, Lens]:
    scene, time = street.scene, _PERIOD * frame
    place = world_from_scene(plan.seed, street.index)
    mounts = extrinsics(plan.seed, street.index)["camera"]
    found = {}
    for number, camera in CAMERAS.items():
        ego = scene.ego_pose(time + camera.delay)
        intrinsics, size = _intrinsics(number, plan.image_size)
        to_camera = _AXES @ np.linalg.inv(mounts[number - 1])
        image = photograph(
            scene,
            time=time + camera.delay,
            pose=ego @ np.linalg.inv(to_camera),
            intrinsics=intrinsics,
            image_size=size,
        )
        found[number] = Lens(
            image,
            place @ ego,
            _stamp(frame) + round(1e6 * camera.delay),
            intrinsics,
            to_camera @ np.linalg.inv(ego) @ scene.ego_pose(time),
            size,
        )
    return found


def _stamp(frame: int) -> int:
    return _START + round(1e6 * _PERIOD * frame)


def _make_frame(street: Street, frame: int, root: Path, *, plan: Plan) -> None:
    """Simulate one frame and write its rows of every table."""
    scene, time = street.scene, _PERIOD * frame
    mounts = extrinsics(plan.seed, street.index)["lidar"]
    views = {
        number: look_around(
            scene,
            number,
            mount=mounts[number - 1],
            shape=plan.shapes[number],
            time=time,
            seed=(plan.seed, street.index, frame, number),
        )
        for number in LIDARS
    }
    lenses = _take_images(street, frame, plan)
    xyz = np.concatenate([part for view in views.values() for part in view.xyz])
    boxes = boxes_seen(scene, time=time, pose=scene.ego_pose(time), xyz=xyz)
    place = world_from_scene(plan.seed, street.index)
    tables = {
        "vehicle_pose": _pose_rows(place @ scene.ego_pose(time)),
        "lidar": _image_rows(views, "[LiDARComponent]", lambda view: view.images),
        "lidar_pose": _image_rows(
            {1: views[1]}, "[LiDARPoseComponent]", lambda view: (_pixel_poses(view, place),)
        ),
        "lidar_camera_projection": _image_rows(
            views, "[LiDARCameraProjectionComponent]", lambda view: _projections(view, lenses)
        ),
        "lidar_box": _box_rows(boxes, street),
        "camera_image": _camera_rows(lenses),
    }
    if frame % plan.label_every == 0:
        tables["lidar_segmentation"] = _image_rows(
            {1: views[1]}, "[LiDARSegmentationLabelComponent]", lambda view: view.known
        )
    for component, columns in tables.items():
        _write_part(root, component, columns, street, frame, plan.seed)


def _pose_rows(pose: Float64[np.ndarray, "4 4"]) -> dict[str, Any]:
    return {"[VehiclePoseComponent].world_from_vehicle.transform": [pose.ravel()]}


def _image_rows(
    views: dict[int, RangeView], prefix: str, images_of: Callable[[RangeView], tuple]
) -> dict[str, Any]:
    """Columns of a component of images, a row for each LiDAR."""
    columns: dict[str, Any] = {"key.laser_name": np.array(list(views), dtype=np.int8)}
    images = [images_of(view) for view in views.values()]
    for number in range(len(images[0])):
        name = f"{prefix}.range_image_return{number + 1}"
        columns[f"{name}.values"] = [row[number].ravel() for row in images]
        columns[f"{name}.shape"] = [np.array(row[number].shape, dtype=np.int32) for row in images]
    return columns


def _pixel_poses(view: RangeView, place: np.ndarray) -> np.ndarray:
    """World-from-vehicle of every pixel: roll, pitch, yaw, x, y, z."""
    height, width, _ = view.images[0].shape
    poses = place @ view.pose
    turn = poses[:, :3, :3]
    angles = [
        np.arctan2(turn[:, 2, 1], turn[:, 2, 2]),
        -np.arcsin(np.clip(turn[:, 2, 0], -1, 1)),
        np.arctan2(turn[:, 1, 0], turn[:, 0, 0]),
    ]
    rows = np.column_stack([*angles, poses[:, :3, 3]]).astype(np.float32)
    sector = np.searchsorted(view.starts, np.arange(width), side="right") - 1
    return np.broadcast_to(rows[sector], (height, width, 6))


def _projections(view: RangeView, lenses: dict[int, Lens]) -> tuple[np.ndarray, np.ndarray]:
    """The first two cameras that see each pixel's point, and where."""
    found = []
    for image, xyz in zip(view.images, view.xyz, strict=True):
        seen = np.zeros((*image.shape[:2], 6), dtype=np.int32)
        rows = np.zeros((len(xyz), 6), dtype=np.int32)
        for number, lens in lenses.items():
            local = xyz @ lens.from_vehicle[:3, :3].T + lens.from_vehicle[:3, 3]
            ahead = np.maximum(local[:, 2:], 1e-3)
            pixel = local @ lens.intrinsics.T / ahead
            inside = (local[:, 2] > 0.1) & (pixel[:, :2] >= 0).all(1)
            inside &= (pixel[:, 0] < lens.size[0]) & (pixel[:, 1] < lens.size[1])
            for slot in (0, 3):
                here = inside & (rows[:, slot] == 0)
                rows[here, slot] = number
                rows[here, slot + 1 : slot + 3] = pixel[here, :2]
                inside &= ~here
        seen[image[..., 0] > 0] = rows
        found.append(seen)
    return found[0], found[1]


def _box_rows(boxes: SeenBoxes, street: Street) -> dict[str, Any]:
    kind = WAYMO_BOX[boxes.category]
    chosen = np.flatnonzero(kind)
    cuboid = boxes.cuboid[chosen]
    sides = (*(f"center.{k}" for k in "xyz"), *(f"size.{k}" for k in "xyz"), "heading")
    columns: dict[str, Any] = {
        "key.laser_object_id": [f"{street.index}-{k}" for k in boxes.instance[chosen]],
        "[LiDARBoxComponent].type": kind[chosen].astype(np.int8),
        "[LiDARBoxComponent].num_lidar_points_in_box": boxes.num_points[chosen],
    }
    for place, side in enumerate(sides):
        columns[f"[LiDARBoxComponent].box.{side}"] = np.ascontiguousarray(cuboid[:, place])
    return columns


def _camera_rows(lenses: dict[int, Lens]) -> dict[str, Any]:
    return {
        "key.camera_name": np.array(list(lenses), dtype=np.int8),
        "[CameraImageComponent].image": [lens.image for lens in lenses.values()],
        "[CameraImageComponent].pose.transform": [lens.pose.ravel() for lens in lenses.values()],
        "[CameraImageComponent].pose_timestamp": [1e-6 * lens.time for lens in lenses.values()],
    }


def _table(columns: dict[str, Any], name: str, time: int | None) -> "pa.Table":
    """Columns with the keys of segment and frame before them."""
    arrow = import_arrow("pyarrow")
    count = len(next(iter(columns.values())))
    keys: dict[str, Any] = {"key.segment_context_name": arrow.array([name] * count, arrow.string())}
    if time is not None:
        keys["key.frame_timestamp_micros"] = np.full(count, time, dtype=np.int64)
    types = {
        "key.laser_object_id": arrow.string(),
        ".transform": arrow.list_(arrow.float64(), 16),
        ".shape": arrow.list_(arrow.int32(), 3),
    }

    def column(key: str, values: Any) -> Any:  # noqa: ANN401
        kind = next((kind for end, kind in types.items() if key.endswith(end)), None)
        return arrow.array(values, type=kind)

    return arrow.table(keys | {key: column(key, values) for key, values in columns.items()})


def _write_part(
    root: Path, component: str, columns: dict[str, Any], street: Street, frame: int, seed: int
) -> None:
    """Keep a frame's rows until the segment is complete."""
    name = segment_name(seed, street.index)
    file = root / _PARTS / _folder(street) / component / name / f"{frame:06d}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    table = _table(columns, name, _stamp(frame))
    import_arrow("pyarrow.parquet").write_table(table, file, compression="none")


def _calibration_rows(street: Street, plan: Plan) -> dict[str, dict[str, Any]]:
    mounts = extrinsics(plan.seed, street.index)
    edges = np.radians([mount.inclination for mount in LIDARS.values()])
    prefix = "[LiDARCalibrationComponent]"
    lidars = {
        "key.laser_name": np.array(list(LIDARS), dtype=np.int8),
        f"{prefix}.extrinsic.transform": [mount.ravel() for mount in mounts["lidar"]],
        f"{prefix}.beam_inclination.min": edges[:, 0],
        f"{prefix}.beam_inclination.max": edges[:, 1],
        f"{prefix}.beam_inclination.values": [
            beams(1, plan.shapes[1][0]) if number == 1 else None for number in LIDARS
        ],
    }
    prefix = "[CameraCalibrationComponent]"
    lenses = [_intrinsics(number, plan.image_size) for number in CAMERAS]
    matrices = np.array([matrix for matrix, _ in lenses])
    sizes = np.array([size for _, size in lenses], dtype=np.int32)
    cameras = {
        "key.camera_name": np.array(list(CAMERAS), dtype=np.int8),
        f"{prefix}.intrinsic.f_u": matrices[:, 0, 0].copy(),
        f"{prefix}.intrinsic.f_v": matrices[:, 1, 1].copy(),
        f"{prefix}.intrinsic.c_u": matrices[:, 0, 2].copy(),
        f"{prefix}.intrinsic.c_v": matrices[:, 1, 2].copy(),
        **{f"{prefix}.intrinsic.{k}": np.zeros(5) for k in ("k1", "k2", "p1", "p2", "k3")},
        f"{prefix}.extrinsic.transform": [mount.ravel() for mount in mounts["camera"]],
        f"{prefix}.width": sizes[:, 0].copy(),
        f"{prefix}.height": sizes[:, 1].copy(),
        f"{prefix}.rolling_shutter_direction": np.full(5, 5, dtype=np.int8),
    }
    return {"lidar_calibration": lidars, "camera_calibration": cameras}


def _finish(root: Path, frames: list[tuple[Street, int, None]], *, plan: Plan) -> None:
    """Join the frames of every segment, and write the calibrations."""
    parquet = import_arrow("pyarrow.parquet")
    for folder in sorted((root / _PARTS).glob("*/*/*")):
        place = folder.relative_to(root / _PARTS)
        file = root / f"{place}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        parts = sorted(folder.iterdir())
        with parquet.ParquetWriter(file, parquet.read_schema(parts[0]), compression="zstd") as out:
            for part in parts:
                out.write_table(parquet.read_table(part, partitioning=None))
                part.unlink()
        folder.rmdir()
    for folder in sorted((root / _PARTS).rglob("*"), reverse=True):
        folder.rmdir()
    (root / _PARTS).rmdir()
    for street in {street.index: street for street, _, _ in frames}.values():
        for component, columns in _calibration_rows(street, plan).items():
            name = segment_name(plan.seed, street.index)
            file = root / _folder(street) / component / f"{name}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(_table(columns, name, None), file)


def make_street_waymo(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    frames_per_scene: int = 4,
    image_size: tuple[int, int] = (480, 320),
    top_shape: tuple[int, int] = (64, 2650),
    short_shape: tuple[int, int] = (200, 600),
    label_every: int = 1,
    val_fraction: float = 0.25,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make synthetic street scenes as a Waymo v2 folder (`out`/training, `out`/validation).

    The same arguments give the same bytes. Validation scenes show layouts, palettes and textures
    that no training scene has. A row group holds one frame.

    Args:
        out: Folder to make; it appears only when everything is in it.
        num_scenes: Number of scenes, the first ones for training.
        seed: Of everything.
        frames_per_scene: Frames of each scene, half a second apart.
        image_size: (width, height) of the images; those of the sides are lower.
        top_shape: Beams and columns of the roof's LiDAR.
        short_shape: Beams and columns of the four others.
        label_every: Frames from one with point labels to the next; the official ones have about
            every fifth labelled.
        val_fraction: Share of validation scenes, at least one of two or more.
        progress: Called with (done, total) after each frame.

    Raises:
        ValueError: If `out` is in use or an argument is out of range.
        ImportError: If pyarrow is not installed.
    """
    import_arrow("pyarrow.parquet")
    check_image_size(image_size)
    for name, shape in (("top_shape", top_shape), ("short_shape", short_shape)):
        if min(shape) < 2:
            raise ValueError(f"{name} must have at least 2 rows and columns, got {shape}")
    if label_every < 1:
        raise ValueError(f"label_every must be at least 1, got {label_every}")
    shapes = {number: top_shape if number == 1 else short_shape for number in LIDARS}
    plan = Plan(seed, image_size, shapes, label_every)
    record_streets(
        out,
        partial(_make_frame, plan=plan),
        num_scenes=num_scenes,
        seed=seed,
        frames_per_scene=frames_per_scene,
        period=_PERIOD,
        val_fraction=val_fraction,
        finish=partial(_finish, plan=plan),
        progress=progress,
    )
