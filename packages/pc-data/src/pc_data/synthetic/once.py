"""Write the street world in the layout of ONCE.

Source: ONCE (Mao et al., NeurIPS 2021 datasets and benchmarks, arXiv:2106.11037). Differs from a
    recording: lenses are ideal, all cameras open with the LiDAR, and boxes in images and the raw
    splits are left out.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from pc_data.synthetic.capture import (
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
from pc_data.synthetic.sensors import LidarModel

_PERIOD = 0.5  # seconds between frames
_START = 1_616_000_000_000  # milliseconds
_LIDAR = (0.95, 0.0, 1.92)  # in the ego frame, metres
PANDAR_40P = LidarModel(
    np.concatenate(
        [[-25.0, -19.0], np.arange(-14.0, -6.0), np.arange(-18, 7) / 3.0, [3.0, 5, 8, 11, 15]]
    ),
    1800,
    150.0,
    0.015,
    118.0,
    1.0,
    255.0,
)
"""40 beams from -25 to 15 degrees, a third of a degree apart near the horizon."""

_NAMES = {
    Category.CAR: "Car",
    Category.BUS: "Bus",
    Category.TRUCK: "Truck",
    Category.TRAILER: "Truck",
    Category.CONSTRUCTION: "Truck",
    Category.ADULT: "Pedestrian",
    Category.CHILD: "Pedestrian",
    Category.BICYCLIST: "Cyclist",
    Category.MOTORCYCLIST: "Cyclist",
}


class CameraMount(NamedTuple):
    """One camera: viewing direction in degrees to the left, place in the ego frame, focal length.

    The focal length is in widths of the image.
    """

    yaw: float
    position: tuple[float, float, float]
    focal: float


CAMERAS = {
    "cam01": CameraMount(0.0, (1.60, 0.05, 1.62), 0.50),
    "cam03": CameraMount(0.0, (1.60, -0.05, 1.62), 1.06),
    "cam05": CameraMount(125.0, (0.80, 0.55, 1.60), 0.50),
    "cam06": CameraMount(55.0, (1.20, 0.55, 1.60), 0.50),
    "cam07": CameraMount(-55.0, (1.20, -0.55, 1.60), 0.50),
    "cam08": CameraMount(-125.0, (0.80, -0.55, 1.60), 0.50),
    "cam09": CameraMount(180.0, (0.10, 0.0, 1.60), 0.50),
}


class Frame(NamedTuple):
    """What a frame leaves for the table of its sequence."""

    number: int
    pose: list[float]
    annotations: dict[str, Any]


def sequence_name(index: int) -> str:
    """Name of a scene's sequence, six digits."""
    return f"{index:06d}"


def world_from_scene(seed: int, index: int) -> Float64[np.ndarray, "4 4"]:
    """Where a scene lies in the world."""
    rng = np.random.default_rng((seed, index, 37))
    place = np.array([*rng.uniform(-500, 500, 2), rng.uniform(-5, 5)])
    return pose_matrix(yaw_rotation(rng.uniform(-np.pi, np.pi)), place)


def lidar_mount() -> Float64[np.ndarray, "4 4"]:
    """Ego-from-LiDAR: its x is to the left, its y backwards."""
    return pose_matrix(yaw_rotation(0.5 * np.pi), np.array(_LIDAR))


def camera_calibration(
    seed: int, index: int, name: str, image_size: tuple[int, int]
) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "4 4"]]:
    """Camera matrix and LiDAR-from-camera of a sequence."""
    mount = CAMERAS[name]
    rng = np.random.default_rng((seed, index, int(name[3:])))
    width, height = image_size
    focal = mount.focal * width * rng.uniform(0.99, 1.01)
    matrix = np.array([[focal, 0, 0.501 * width], [0, focal, 0.498 * height], [0, 0, 1]])
    axes = camera_axes(np.radians(mount.yaw)) @ small_rotation(rng.normal(0, 0.006, 3))
    ego = pose_matrix(axes, np.array(mount.position) + rng.normal(0, 0.01, 3))
    return matrix, np.linalg.inv(lidar_mount()) @ ego


def _make_frame(
    street: Street, frame: int, root: Path, *, seed: int, image_size: tuple[int, int]
) -> Frame:
    scene, time = street.scene, _PERIOD * frame
    lidar = scene.ego_pose(time) @ lidar_mount()
    number = _START + 60_000 * street.index + round(1000 * time)
    folder = root / "data" / sequence_name(street.index)
    returns = scan_street(
        scene, PANDAR_40P, time=time, pose=lidar, seed=(seed, street.index, frame), turn=-2 * np.pi
    )
    points = np.column_stack([returns.xyz, np.round(returns.intensity)]).astype("<f4")
    _write(folder / "lidar_roof" / f"{number}.bin", points.tobytes())
    for name in CAMERAS:
        matrix, mount = camera_calibration(seed, street.index, name, image_size)
        image = photograph(
            scene, time=time, pose=lidar @ mount, intrinsics=matrix, image_size=image_size
        )
        _write(folder / name / f"{number}.jpg", image)
    boxes = boxes_seen(scene, time=time, pose=lidar, xyz=returns.xyz)
    names = [_NAMES.get(Category(category), "") for category in boxes.category]
    named = [row for row, name in enumerate(names) if name]
    place = world_from_scene(seed, street.index) @ lidar
    w, x, y, z = quaternion(place[:3, :3])
    annotations = {
        "names": [names[row] for row in named],
        "boxes_3d": [[round(float(v), 4) for v in boxes.cuboid[row]] for row in named],
        "num_points_in_gt": [int(boxes.num_points[row]) for row in named],
    }
    return Frame(number, [x, y, z, w, *place[:3, 3].tolist()], annotations)


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _finish(
    root: Path,
    frames: list[tuple[Street, int, Frame]],
    *,
    seed: int,
    image_size: tuple[int, int],
) -> None:
    """Write the table of every sequence and the lists of the splits."""
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for street in {street.index: street for street, _, _ in frames}.values():
        name = sequence_name(street.index)
        lists["val" if street.is_val else "train"].append(name)
        calibration = {}
        for camera in CAMERAS:
            matrix, mount = camera_calibration(seed, street.index, camera, image_size)
            calibration[camera] = {
                "cam_to_velo": mount.tolist(),
                "cam_intrinsic": matrix.tolist(),
                "distortion": [0.0] * 5,
            }
        rows = [
            {
                "sequence_id": name,
                "frame_id": str(frame.number),
                "pose": frame.pose,
                "annos": frame.annotations,
            }
            for other, _, frame in frames
            if other.index == street.index
        ]
        size = [image_size[0], image_size[1], 3]
        table = {
            "meta_info": {"weather": "sunny", "period": "morning", "image_size": size},
            "calib": calibration,
            "frames": rows,
        }
        _write(root / "data" / name / f"{name}.json", json.dumps(table).encode())
    for split, names in lists.items():
        text = "".join(f"{name}\n" for name in names)
        _write(root / "ImageSets" / f"{split}.txt", text.encode())


def make_street_once(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    frames_per_scene: int = 4,
    image_size: tuple[int, int] = (480, 255),
    val_fraction: float = 0.25,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make synthetic street scenes as a ONCE folder (`out`/data and `out`/ImageSets).

    The same arguments give the same bytes. Validation scenes show layouts, palettes and textures
    that no training scene has.

    Args:
        out: Folder to make; it appears only when everything is in it.
        num_scenes: Number of scenes, the first ones for training.
        seed: Of everything.
        frames_per_scene: Frames of each scene, half a second apart.
        image_size: (width, height) of the images.
        val_fraction: Share of validation scenes, at least one of two or more.
        progress: Called with (done, total) after each frame.

    Raises:
        ValueError: If `out` is in use or an argument is out of range.
    """
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
