"""Write the street world in the layout of SemanticKITTI.

Source: SemanticKITTI (Behley et al., ICCV 2019, arXiv:1904.01416) and the KITTI odometry
    benchmark's calibration files. Differs from a recording: frames are half a second apart, one
    sequence strings several streets together (their poses lie half a kilometre apart), and only
    the left colour camera is there.
"""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from pc_data.synthetic.categories import KITTI_ID
from pc_data.synthetic.output import check_image_size, check_request, make_frames, whole_folder
from pc_data.synthetic.rig import pose_matrix, small_rotation, yaw_rotation
from pc_data.synthetic.scene import Scene
from pc_data.synthetic.sensors import HDL_64E, render, sweep, turn_rays
from pc_data.synthetic.style import TRAIN, VAL

_PERIOD = 0.5  # seconds between frames
_TRAIN_SEQUENCES = ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10")
_VAL_SEQUENCE = "08"
_LIDAR = (0.81, 0.0, 1.73)  # in the ego frame, metres
_INSTANCES = 800  # instance numbers kept apart for each scene of a sequence
# Offsets of the four cameras against the first, metres along its x, y and z.
_OFFSETS = ((0.0, 0.0, 0.0), (-0.537, 0.0, 0.0), (0.0600, -0.0012, 0.0030), (-0.472, 0.002, 0.003))


class Drive(NamedTuple):
    """A street, the calibration of its sequence, and where its frames go.

    Attributes:
        scene: The street.
        sequence: Name of the sequence, two digits.
        first: Frame number of its first frame in the sequence.
        instances: Added to its instance numbers.
        place: World-from-scene, so that streets of a sequence do not overlap.
        projections: P0..P3.
        camera: Camera-0-from-LiDAR (`Tr`).
        image_size: (width, height).
    """

    scene: Scene
    sequence: str
    first: int
    instances: int
    place: Float64[np.ndarray, "4 4"]
    projections: Float64[np.ndarray, "4 3 4"]
    camera: Float64[np.ndarray, "4 4"]
    image_size: tuple[int, int]


def calibration(
    seed: int, sequence: str, image_size: tuple[int, int]
) -> tuple[Float64[np.ndarray, "4 3 4"], Float64[np.ndarray, "4 4"]]:
    """P0..P3 and camera-0-from-LiDAR of a sequence."""
    rng = np.random.default_rng((seed, int(sequence), 17))
    width, height = image_size
    focal = 718.9 / 1241.0 * width * rng.uniform(0.985, 1.0)
    middle = (0.489 * width, 0.4925 * height)
    matrix = np.array([[focal, 0.0, middle[0]], [0.0, focal, middle[1]], [0.0, 0.0, 1.0]])
    eye = np.eye(3)
    projections = [matrix @ np.column_stack([eye, offset]) for offset in _OFFSETS]
    axes = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    shift = np.array([-0.008, -0.06, -0.31]) + rng.normal(0, 0.01, 3)
    turned = small_rotation(rng.normal(0, 0.006, 3)) @ axes
    return np.array(projections), pose_matrix(turned, shift)


def _drive(
    index: int, *, seed: int, num_train: int, num_frames: int, image_size: tuple[int, int]
) -> Drive:
    """Scene number `index` and its place in a sequence."""
    val = index >= num_train
    turn, sequence = divmod(index, len(_TRAIN_SEQUENCES))
    name = _TRAIN_SEQUENCES[sequence]
    if val:
        turn, name = index - num_train, _VAL_SEQUENCE
    duration = _PERIOD * (num_frames - 1)
    scene = Scene(VAL if val else TRAIN, seed=(seed, index, int(val)), duration=duration)
    rng = np.random.default_rng((seed, index, 19))
    place = pose_matrix(yaw_rotation(rng.uniform(-np.pi, np.pi)), np.array([500.0 * turn, 0, 0]))
    projections, camera = calibration(seed, name, image_size)
    return Drive(
        scene,
        name,
        turn * num_frames,
        turn * _INSTANCES,
        place,
        projections,
        camera,
        image_size,
    )


def _firings(rng: np.random.Generator) -> Float64[np.ndarray, "n 3"]:
    """Unit directions in the LiDAR's frame, top ring first, each counter-clockwise from ahead."""
    count = HDL_64E.num_azimuths
    azimuth = 2 * np.pi / count * (np.arange(count)[None, :] + rng.uniform(0, 1, (64, 1)))
    elevation = np.radians(HDL_64E.elevation[::-1])[:, None]
    flat = np.cos(elevation)
    rays = np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation) + 0 * azimuth], axis=2
    )
    return rays.reshape(-1, 3)


def _make_frame(index: int, frame: int, drive: Drive, *, root: Path, seed: int) -> np.ndarray:
    """Simulate one frame, write its files, and return world-from-camera-0."""
    from PIL import Image

    scene = drive.scene
    rng = np.random.default_rng((seed, index, frame, 23))
    time = frame * _PERIOD
    world = scene.world(time)
    lidar = scene.ego_pose(time) @ pose_matrix(np.eye(3), np.array(_LIDAR))
    rays = _firings(rng)
    turn = sweep(
        world,
        scene.look,
        scene.paving,
        model=HDL_64E,
        position=lidar[:3, 3],
        rays=turn_rays(rays, lidar[:3, :3]),
        seed=int(rng.integers(1 << 30)),
    )
    met = turn.distance > 0
    strength = np.round(turn.intensity[met], 2)
    points = np.column_stack([rays[met] * turn.distance[met, None], strength]).astype("<f4")
    instance = turn.instance[met].astype(np.int64)
    labels = KITTI_ID[turn.category[met], scene.moving[instance].astype(np.int64)]
    labels |= np.where(instance > 0, instance + drive.instances, 0) << 16
    folder = root / "dataset" / "sequences" / drive.sequence
    name = f"{drive.first + frame:06d}"
    (folder / "velodyne" / f"{name}.bin").write_bytes(points.tobytes())
    (folder / "labels" / f"{name}.label").write_bytes(labels.astype("<u4").tobytes())
    to_camera = pose_matrix(np.eye(3), np.array(_OFFSETS[2])) @ drive.camera
    picture, _ = render(
        world,
        scene.look,
        scene.paving,
        scene.light,
        pose=lidar @ np.linalg.inv(to_camera),
        intrinsics=drive.projections[2][:, :3],
        image_size=drive.image_size,
    )
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG", compress_level=3)
    (folder / "image_2" / f"{name}.png").write_bytes(stream.getvalue())
    return drive.place @ lidar @ np.linalg.inv(drive.camera)


def _write_sequences(root: Path, drives: dict[str, Drive], poses: dict[str, list]) -> None:
    """Write calibration, poses relative to the first frame, and times of every sequence."""
    for name, drive in drives.items():
        folder = root / "dataset" / "sequences" / name
        rows = [(f"P{k}", p) for k, p in enumerate(drive.projections)] + [("Tr", drive.camera[:3])]
        lines = [f"{key}: {' '.join(f'{x:.12e}' for x in row.ravel())}\n" for key, row in rows]
        (folder / "calib.txt").write_text("".join(lines))
        first = np.linalg.inv(poses[name][0])
        lines = [" ".join(f"{x:.8g}" for x in (first @ p)[:3].ravel()) + "\n" for p in poses[name]]
        (folder / "poses.txt").write_text("".join(lines))
        lines = [f"{_PERIOD * k:.6e}\n" for k in range(len(poses[name]))]
        (folder / "times.txt").write_text("".join(lines))


def make_street_semantic_kitti(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    frames_per_scene: int = 4,
    image_size: tuple[int, int] = (620, 188),
    val_fraction: float = 0.25,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make synthetic street scenes as a SemanticKITTI folder (`out`/dataset/sequences).

    The same arguments give the same bytes. Validation scenes make up sequence 08 and show layouts,
    palettes and textures that no training scene has; the others go round sequences 00-07, 09, 10.

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
    num_val = check_request(
        num_scenes=num_scenes, frames_per_scene=frames_per_scene, val_fraction=val_fraction
    )
    check_image_size(image_size)
    num_train, limit = num_scenes - num_val, 0xFFFF // _INSTANCES
    if num_train > len(_TRAIN_SEQUENCES) * limit or num_val > limit:
        raise ValueError(
            f"num_scenes must leave at most {len(_TRAIN_SEQUENCES) * limit} training and {limit} "
            f"validation scenes (16-bit instances), got {num_train} and {num_val}"
        )
    options = {"seed": seed, "num_train": num_train, "num_frames": frames_per_scene}
    scenes = [
        partial(_drive, index, image_size=image_size, **options) for index in range(num_scenes)
    ]
    drives: dict[str, Drive] = {}
    poses: dict[str, list[np.ndarray]] = {}
    with whole_folder(out) as root:
        train = _TRAIN_SEQUENCES[:num_train]
        for name in (*train, *((_VAL_SEQUENCE,) if num_val else ())):
            for folder in ("velodyne", "labels", "image_2"):
                (root / "dataset" / "sequences" / name / folder).mkdir(parents=True)
        make = partial(_make_frame, root=root, seed=seed)
        frames = make_frames(scenes, make, num_frames=frames_per_scene)
        for done, (_, _, drive, pose) in enumerate(frames, start=1):
            drives.setdefault(drive.sequence, drive)
            poses.setdefault(drive.sequence, []).append(pose)
            if progress is not None:
                progress(done, num_scenes * frames_per_scene)
        _write_sequences(root, drives, poses)
