"""Write the street world in the layout of PandaSet.

Source: PandaSet (Xiao et al., ITSC 2021, arXiv:2112.12610) and its development kit; the Pandar64's
    beams are those of its user manual, the PandarGT's view and both LiDARs' times and the cameras'
    places those of a recording. Differs from a recording: frames are half a second apart, each
    sensor fires in an instant, and the cameras show the other road users where they are at the
    Pandar64's time.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from pc_data.readers.pandaset_classes import RAW_NAMES
from pc_data.synthetic.capture import Street, boxes_seen, photograph, record_streets, scan_street
from pc_data.synthetic.frames import write_frame
from pc_data.synthetic.output import check_image_size
from pc_data.synthetic.pandaset_tables import (
    Firing,
    class_columns,
    cuboid_columns,
    point_columns,
)
from pc_data.synthetic.rig import camera_axes, pose_matrix, quaternion, yaw_rotation
from pc_data.synthetic.scene import Scene
from pc_data.synthetic.sensors import LidarModel, turn_rays

PANDAR64 = LidarModel(
    elevation=np.array(
        (
            *(-24.897, -18.889, -13.93, -12.974, -12.006, -11.032, -9.885, -9.06, -8.059, -7.063),
            *(-6.061, -5.898, -5.726, -5.565, -5.391, -5.229, -5.057, -4.892, -4.72, -4.558),
            *(-4.385, -4.221, -4.05, -3.884, -3.712, -3.548, -3.375, -3.21, -3.04, -2.873, -2.7),
            *(-2.536, -2.365, -2.198, -2.028, -1.86, -1.688, -1.522, -1.351, -1.184, -1.013),
            *(-0.845, -0.675, -0.508, -0.337, -0.169, 0.0, 0.169, 0.337, 0.508, 0.675, 0.846),
            *(1.013, 1.184, 1.351, 1.522, 1.688, 1.86, 2.028, 3.04, 5.057, 8.059, 11.032, 14.882),
        )
    ),
    num_azimuths=1800,
    far=120.0,
    noise=0.02,
    gain=76.0,
    gamma=1.0,
    ceiling=255.0,
)
PANDAR_GT = LidarModel(
    elevation=np.linspace(-12.2, 7.6, 150),
    num_azimuths=404,
    far=140.0,
    noise=0.02,
    gain=85.0,
    gamma=0.7,
    ceiling=255.0,
)

_PERIOD = 0.5  # seconds between frames
_MAX_FRAMES = 100  # names have two digits
_MAX_SCENES = 999  # names have three
_SEED_OF = {"place": 37, "noise": 41, "camera": 43}
_LATITUDE = (37.7761, 37.3871)  # of training and validation: San Francisco, El Camino Real
_LONGITUDE = (-122.3993, -122.0575)
_ORIGIN = (0.0, 0.0, 0.27)  # of the dataset's poses, in the ego frame, metres
_GT_LATER = 0.04  # seconds from the Pandar64's instant to the PandarGT's


class _Mount(NamedTuple):
    """A sensor of the car.

    Attributes:
        position: In the frame of the LiDAR's pose (x right, y ahead), metres.
        yaw: Where it looks, degrees to the left of ahead.
        focal: Of a camera, in pixels of a 1920 pixels wide image.
        delay: Of a camera's exposure against the LiDAR's time stamp, seconds.
    """

    position: tuple[float, float, float]
    yaw: float = 0.0
    focal: float = 0.0
    delay: float = 0.0


_LIDARS = (_Mount((0.0, 0.0, 1.8)), _Mount((0.0, 0.85, 1.6)))
_CAMERAS = {
    "back_camera": _Mount((0.03, -0.26, 1.65), 180.0, 934.0, -0.0999),
    "front_camera": _Mount((0.0, 0.85, 1.81), 0.0, 1970.0, -0.0498),
    "front_left_camera": _Mount((-0.64, 1.51, 1.53), 57.7, 930.0, -0.0606),
    "front_right_camera": _Mount((0.6, 1.48, 1.6), -57.8, 930.0, -0.0391),
    "left_camera": _Mount((-0.54, 0.54, 1.58), 91.5, 930.0, -0.0812),
    "right_camera": _Mount((0.7, 0.59, 1.55), -88.6, 922.0, -0.0186),
}


class _Moment(NamedTuple):
    """What the text files say of a frame.

    Attributes:
        stamp: Time of the LiDAR, seconds.
        pose: World-from-LiDAR.
        cameras: World-from-camera and time by camera.
        speed: Of the car, metres per second.
    """

    stamp: float
    pose: Float64[np.ndarray, "4 4"]
    cameras: dict[str, tuple[Float64[np.ndarray, "4 4"], float]]
    speed: float


def make_street_pandaset(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    frames_per_scene: int = 4,
    image_size: tuple[int, int] = (480, 270),
    val_fraction: float = 0.25,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make synthetic street scenes as a PandaSet folder with labels and cuboids.

    The same arguments give the same bytes. Scenes are numbered from 001; those of the validation
    split come last, lie on El Camino Real by their GPS, and show layouts, palettes and textures
    that no training scene has.

    Args:
        out: Folder to make; it appears only when everything is in it.
        num_scenes: Number of scenes, the first ones for training.
        seed: Of everything.
        frames_per_scene: Frames of each scene, half a second apart.
        image_size: (width, height) of the six images.
        val_fraction: Share of validation scenes, at least one of two or more.
        progress: Called with (done, total) after each frame.

    Raises:
        ValueError: If `out` is in use or an argument is out of range.
    """
    check_image_size(image_size)
    if num_scenes > _MAX_SCENES or frames_per_scene > _MAX_FRAMES:
        raise ValueError(
            f"num_scenes must be at most {_MAX_SCENES} and frames_per_scene at most {_MAX_FRAMES} "
            f"(the digits of their names), got {num_scenes} and {frames_per_scene}"
        )
    record_streets(
        out,
        partial(_make_frame, seed=seed, image_size=image_size),
        num_scenes=num_scenes,
        seed=seed,
        frames_per_scene=frames_per_scene,
        period=_PERIOD,
        val_fraction=val_fraction,
        finish=partial(_write_texts, image_size=image_size),
        progress=progress,
    )


def _make_frame(
    street: Street, frame: int, root: Path, *, seed: int, image_size: tuple[int, int]
) -> _Moment:
    """Write one frame's tables and images."""
    scene, time = street.scene, frame * _PERIOD
    rng = np.random.default_rng((seed, street.index, _SEED_OF["place"]))
    # The world starts where the car does, is level, and x points east.
    place = pose_matrix(yaw_rotation(rng.uniform(-np.pi, np.pi)), np.zeros(3))
    place[:3, 3] = -place[:3, :3] @ _car(scene, 0.0)[:3, 3]
    start = 1.557e9 + 1000.0 * street.index + float(rng.uniform(0, 1))
    stamp = start + time
    firings = (
        _fire(scene, 0, time=time, stamp=stamp, place=place, seed=(seed, street.index, frame)),
        _fire(scene, 1, time=time, stamp=stamp, place=place, seed=(seed, street.index, frame)),
    )
    folder = root / f"{street.index + 1:03d}"
    uuid_seed = f"{seed}/{street.index}"
    tables = {
        "lidar": point_columns(firings),
        "annotations/semseg": class_columns(firings),
        "annotations/cuboids": cuboid_columns(firings, names=RAW_NAMES, scene=uuid_seed),
    }
    for name, columns in tables.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_frame(folder / name / f"{frame:02d}.pkl.gz", columns)
    cameras = {}
    for name, mount in _CAMERAS.items():
        pose = _car(scene, time + mount.delay) @ _camera_mount(mount)
        picture = photograph(
            scene,
            time=time,
            pose=pose,
            intrinsics=_intrinsics(name, image_size),
            image_size=image_size,
        )
        (folder / "camera" / name).mkdir(parents=True, exist_ok=True)
        (folder / "camera" / name / f"{frame:02d}.jpg").write_bytes(picture)
        cameras[name] = (place @ pose, stamp + mount.delay)
    return _Moment(stamp, place @ _car(scene, time), cameras, scene.ego_speed)


def _car(scene: Scene, time: float) -> Float64[np.ndarray, "4 4"]:
    """Scene-from-LiDAR, as the dataset's poses have it: x right, y ahead."""
    return scene.ego_pose(time) @ pose_matrix(yaw_rotation(-np.pi / 2), np.array(_ORIGIN))


def _camera_mount(mount: _Mount) -> Float64[np.ndarray, "4 4"]:
    # The axes of `camera_axes` start from x ahead; here y is.
    axes = yaw_rotation(np.pi / 2) @ camera_axes(np.radians(mount.yaw))
    return pose_matrix(axes, np.array(mount.position))


def _intrinsics(name: str, image_size: tuple[int, int]) -> Float64[np.ndarray, "3 3"]:
    width, height = image_size
    focal = _CAMERAS[name].focal / 1920.0 * width
    return np.array([[focal, 0.0, 0.503 * width], [0.0, focal, 0.459 * height], [0.0, 0.0, 1.0]])


def _fire(
    scene: Scene,
    sensor: int,
    *,
    time: float,
    stamp: float,
    place: Float64[np.ndarray, "4 4"],
    seed: tuple[int, ...],
) -> Firing:
    """One turn of the Pandar64, or one picture of the PandarGT a little later."""
    moment = time + (_GT_LATER if sensor else 0.0)
    pose = _car(scene, moment) @ pose_matrix(np.eye(3), np.array(_LIDARS[sensor].position))
    if sensor:
        model, start, turn = PANDAR_GT, np.radians(60.0), np.radians(60.0)
        first, last = -0.0136, 0.085
    else:
        model, start, turn = PANDAR64, -np.pi / 2, -2 * np.pi  # clockwise, from behind
        first, last = -0.1014, 0.0015
    returns = scan_street(
        scene,
        model,
        time=moment,
        pose=pose,
        seed=(*seed, _SEED_OF["noise"], sensor),
        start=start,
        turn=turn,
    )
    sensed = place @ pose
    xyz = turn_rays(returns.xyz, sensed[:3, :3]) + sensed[:3, 3]
    return Firing(
        sensor=sensor,
        xyz=xyz,
        time=stamp + first + (last - first) * returns.phase,
        returns=returns,
        boxes=boxes_seen(scene, time=moment, pose=np.linalg.inv(place), xyz=xyz),
    )


def _write_texts(
    root: Path, frames: list[tuple[Street, int, _Moment]], *, image_size: tuple[int, int]
) -> None:
    """Write each scene's poses, times, calibration, GPS and names of classes."""
    moments: dict[int, list[_Moment]] = {}
    validates: dict[int, bool] = {}
    for street, _, moment in frames:
        moments.setdefault(street.index, []).append(moment)
        validates[street.index] = street.is_val
    for index, scene in moments.items():
        folder = root / f"{index + 1:03d}"
        stamps = [moment.stamp for moment in scene]
        _write_json(folder / "lidar" / "poses.json", [_pose(moment.pose) for moment in scene])
        _write_json(folder / "lidar" / "timestamps.json", stamps)
        _write_json(folder / "meta" / "timestamps.json", stamps)
        _write_json(folder / "meta" / "gps.json", _gps(scene, is_val=validates[index]))
        names = {str(raw): name for raw, name in RAW_NAMES.items()}
        _write_json(folder / "annotations" / "semseg" / "classes.json", names)
        for name in _CAMERAS:
            camera = folder / "camera" / name
            poses, times = zip(*(moment.cameras[name] for moment in scene), strict=True)
            _write_json(camera / "poses.json", [_pose(pose) for pose in poses])
            _write_json(camera / "timestamps.json", list(times))
            (fx, _, cx), (_, fy, cy), _ = _intrinsics(name, image_size).tolist()
            _write_json(camera / "intrinsics.json", {"fx": fx, "fy": fy, "cx": cx, "cy": cy})


def _pose(matrix: Float64[np.ndarray, "4 4"]) -> dict[str, dict[str, float]]:
    position: dict[str, float] = dict(zip("xyz", matrix[:3, 3].tolist(), strict=True))
    heading: dict[str, float] = dict(zip("wxyz", quaternion(matrix[:3, :3]), strict=True))
    return {"position": position, "heading": heading}


def _gps(scene: list[_Moment], *, is_val: bool) -> list[dict[str, float]]:
    rows = []
    for moment in scene:
        x, y, z = moment.pose[:3, 3].tolist()
        ahead = moment.pose[:3, 1] * moment.speed
        rows.append(
            {
                "lat": _LATITUDE[is_val] + y / 111_320.0,
                "long": _LONGITUDE[is_val] + x / 88_200.0,
                "height": 3.0 + z,
                "xvel": float(ahead[0]),
                "yvel": float(ahead[1]),
            }
        )
    return rows


def _write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
