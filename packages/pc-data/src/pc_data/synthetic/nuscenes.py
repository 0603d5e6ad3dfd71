"""Write the street world in the layout of nuScenes v1.0 with lidarseg and panoptic labels.

Source: nuScenes (Caesar et al., CVPR 2020, arXiv:1903.11027) and its published table schema;
    Panoptic nuScenes (Fong et al., RA-L 2022, arXiv:2109.03805). Differs from a recording: every
    camera shows the other road users where they are at the LiDAR's time stamp (only the recording
    car moves in between), there is no radar, only the LiDAR has sweeps between keyframes, and
    every point knows its object, so panoptic labels lose none to boxes that overlap.
"""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8, UInt16

from pc_data.readers.nuscenes_panoptic import OBJECTS
from pc_data.readers.nuscenes_splits import TRAIN as TRAIN_NAMES
from pc_data.readers.nuscenes_splits import VAL as VAL_NAMES
from pc_data.synthetic.categories import NUSCENES_INDEX, Category
from pc_data.synthetic.nuscenes_tables import Tables
from pc_data.synthetic.output import check_image_size, check_request, make_frames, whole_folder
from pc_data.synthetic.raycast import MISS, World, cast_rays
from pc_data.synthetic.recording import (
    Keyframe,
    Recording,
    digest,
    lidarseg_file,
    panoptic_file,
    sample_data_token,
    sample_file,
    sweep_file,
)
from pc_data.synthetic.rig import (
    CAMERAS,
    LIDAR_POSITION,
    camera_axes,
    own_car,
    pose_matrix,
    small_rotation,
    yaw_rotation,
)
from pc_data.synthetic.scene import Boxes, Scene
from pc_data.synthetic.sensors import HDL_32E, render, sweep, turn_rays
from pc_data.synthetic.style import TRAIN, VAL

_PERIOD = 0.5  # seconds between keyframes
_JPEG_QUALITY = 88
_MAX_SWEEPS = 9  # 20 scans a second
_FIRST_STUFF = 24  # raw class; things come before
_PLACES = (("boston-seaport", "singapore-onenorth"), ("singapore-queenstown",))


def _record(
    index: int, *, seed: int, num_train: int, num_frames: int, image_size: tuple[int, int]
) -> Recording:
    """Scene number `index` and its rig."""
    val = index >= num_train
    style, names = (VAL, VAL_NAMES) if val else (TRAIN, TRAIN_NAMES)
    name = names[index - num_train if val else index]
    places = _PLACES[int(val)]
    rng = np.random.default_rng((seed, index, 7))
    duration = _PERIOD * (num_frames - 1)
    scene = Scene(style, seed=(seed, index, int(val)), duration=duration)
    width, height = image_size

    def shaken(axes: np.ndarray, position: tuple[float, float, float]) -> np.ndarray:
        axes = axes @ small_rotation(rng.normal(0, 0.006, 3))
        return pose_matrix(axes, np.array(position) + rng.normal(0, 0.008, 3))

    mounts = {"LIDAR_TOP": shaken(yaw_rotation(-np.pi / 2), LIDAR_POSITION)}
    intrinsics = {}
    for camera in CAMERAS:
        mounts[camera.channel] = shaken(camera_axes(np.radians(camera.yaw)), camera.position)
        focal = camera.focal / 1600.0 * width * rng.uniform(0.995, 1.005)
        middle = (width * rng.normal(0.51, 0.004), height * rng.normal(0.545, 0.004))
        intrinsics[camera.channel] = np.array(
            [[focal, 0.0, middle[0]], [0.0, focal, middle[1]], [0.0, 0.0, 1.0]]
        )
    start = 1_532_402_927_000_000 + 90_000_000 * index + int(rng.integers(0, 500_000))
    vehicle = "n008" if places[0].startswith("boston") else "n015"
    date = datetime(2018, 7, 24, 11, 15, 47, tzinfo=UTC) + timedelta(seconds=90 * index)
    log = f"{vehicle}-{date:%Y-%m-%d-%H-%M-%S}+0800"
    where = np.array([*rng.uniform(400, 1600, 2), 0.0])
    return Recording(
        scene=scene,
        name=name,
        token=digest(f"{seed}/{name}"),
        place=places[index % len(places)],
        log=log,
        start=start,
        world=pose_matrix(yaw_rotation(rng.uniform(-np.pi, np.pi)), where),
        mounts=mounts,
        intrinsics=intrinsics,
        image_size=image_size,
    )


def _firings(rng: np.random.Generator) -> Float64[np.ndarray, "n 3"]:
    """Unit directions in the LiDAR's frame (x right, y ahead), clockwise from the rear left."""
    count = HDL_32E.num_azimuths
    azimuth = np.radians(188.0 + rng.uniform(0, 1)) - 2 * np.pi / count * np.arange(count)[:, None]
    azimuth = azimuth + rng.normal(0, 2e-4, (count, 1))
    elevation = np.radians(HDL_32E.elevation)[None, :]
    flat = np.cos(elevation)
    rays = np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation) + 0 * azimuth], axis=2
    )
    return rays.reshape(-1, 3)


class Capture(NamedTuple):
    """One turn of the LiDAR.

    Attributes:
        points: x, y, z, intensity and ring, as nuScenes stores them.
        labels: Raw class ids.
        panoptic: Raw class ids and object numbers, as nuScenes stores them.
        returns: The true returns in the scene's frame.
    """

    points: Float32[np.ndarray, "n 5"]
    labels: UInt8[np.ndarray, " n"]
    panoptic: UInt16[np.ndarray, " n"]
    returns: Float64[np.ndarray, "m 3"]


def _scan(
    recording: Recording, world: World, pose: Float64[np.ndarray, "4 4"], *, seed: tuple[int, ...]
) -> Capture:
    """Fire the LiDAR for one turn at `pose` (scene-from-ego)."""
    rng = np.random.default_rng(seed)
    rays = _firings(rng)
    mount = recording.mounts["LIDAR_TOP"]
    sensor = pose @ mount
    turn = sweep(
        world,
        recording.scene.look,
        recording.scene.paving,
        model=HDL_32E,
        position=sensor[:3, 3],
        rays=turn_rays(rays, sensor[:3, :3]),
        seed=int(rng.integers(1 << 30)),
    )
    distance = turn.distance.astype(np.float64)
    labels = NUSCENES_INDEX[turn.category]
    intensity = turn.intensity.copy()
    body = own_car(turn_rays(rays, mount[:3, :3]))
    own = np.isfinite(body)
    distance[own] = body[own] + rng.normal(0, 0.015, int(own.sum()))
    labels[own] = NUSCENES_INDEX[Category.EGO]
    intensity[own] = rng.gamma(2.0, 6.0, int(own.sum()))
    # Like the recordings, a firing without an echo leaves a point close to the sensor.
    lost = (distance <= 0) & ~own
    distance[lost] = rng.uniform(0.05, 0.45, int(lost.sum()))
    labels[lost] = NUSCENES_INDEX[Category.NONE]
    intensity[lost] = rng.gamma(1.5, 3.0, int(lost.sum()))
    xyz = rays * distance[:, None]
    ring = np.tile(np.arange(32, dtype=np.float32), HDL_32E.num_azimuths)
    strength = np.clip(np.round(intensity), 0, 255)
    points = np.column_stack([xyz, strength, ring]).astype(np.float32)
    real = ~(own | lost)
    return Capture(
        points=points,
        labels=labels,
        panoptic=_panoptic(labels, turn.instance),
        returns=turn_rays(xyz[real], sensor[:3, :3]) + sensor[:3, 3],
    )


def _visibility(
    world: World, origin: Float64[np.ndarray, " 3"], boxes: Boxes, chosen: list[int]
) -> list[int]:
    """Token 1..4: how much of each box's inside can be reached from the LiDAR."""
    steps = np.array([-0.35, 0.0, 0.35])
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    tokens = []
    for k in chosen:
        targets = boxes.center[k] + (grid * boxes.size[k]) @ boxes.axes[k].T
        rays = targets - origin
        reach = np.linalg.norm(rays, axis=1)
        t, hit = cast_rays(world, origin, rays / reach[:, None])
        slack = 0.5 * float(np.linalg.norm(boxes.size[k]))
        share = float(np.mean((hit == MISS) | (t > reach - slack)))
        tokens.append(1 + sum(share > limit for limit in (0.4, 0.6, 0.8)))
    return tokens


def _jpeg(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


def _panoptic(
    labels: UInt8[np.ndarray, " n"], instance: Int32[np.ndarray, " n"]
) -> UInt16[np.ndarray, " n"]:
    """Raw class and object number in one; things that are no object have neither."""
    thing = (labels > 0) & (labels < _FIRST_STUFF)
    both = OBJECTS * labels.astype(np.int64) + np.where(thing, instance, 0)
    return np.where(thing & (instance == 0), 0, both).astype(np.uint16)


def _archive(panoptic: UInt16[np.ndarray, " n"]) -> bytes:
    """The labels as a compressed archive, which NumPy dates 1 January 1980."""
    stream = io.BytesIO()
    np.savez_compressed(stream, data=panoptic)
    return stream.getvalue()


def _write_sweeps(
    recording: Recording, stamp: int, *, count: int, root: Path, seed: tuple[int, ...]
) -> list[tuple[int, Float64[np.ndarray, "4 4"]]]:
    """Scan `count` times at even steps before a keyframe; time stamps and global-from-ego."""
    scene, sweeps = recording.scene, []
    for number in range(count, 0, -1):
        time = stamp - int(number * _PERIOD * 1e6 / (count + 1))
        pose = scene.ego_pose(recording.time(time))
        capture = _scan(recording, scene.world(recording.time(time)), pose, seed=(*seed, number))
        (root / sweep_file(recording, time)).write_bytes(capture.points.tobytes())
        sweeps.append((time, recording.world @ pose))
    return sweeps


def _make_keyframe(
    index: int,
    frame: int,
    recording: Recording,
    *,
    root: Path,
    seed: int,
    version: str,
    num_sweeps: int,
) -> Keyframe:
    """Simulate one sample, write its sensor files, and return what the tables need."""
    scene = recording.scene
    rng = np.random.default_rng((seed, index, frame, 11))
    stamp = recording.start + int(frame * _PERIOD * 1e6) + int(rng.integers(0, 2000))
    stamps = {"LIDAR_TOP": stamp}
    for camera in CAMERAS:
        stamps[camera.channel] = stamp + camera.delay + int(rng.integers(-500, 500))
    poses = {channel: scene.ego_pose(recording.time(t)) for channel, t in stamps.items()}
    world = scene.world(recording.time(stamp))
    capture = _scan(recording, world, poses["LIDAR_TOP"], seed=(seed, index, frame, 13))
    (root / sample_file(recording, "LIDAR_TOP", stamp)).write_bytes(capture.points.tobytes())
    token = sample_data_token(recording, "LIDAR_TOP", stamp)
    (root / lidarseg_file(version, token)).write_bytes(capture.labels.tobytes())
    (root / panoptic_file(version, token)).write_bytes(_archive(capture.panoptic))
    for camera in CAMERAS:
        channel = camera.channel
        picture, _ = render(
            world,
            scene.look,
            scene.paving,
            scene.light,
            pose=poses[channel] @ recording.mounts[channel],
            intrinsics=recording.intrinsics[channel],
            image_size=recording.image_size,
        )
        path = root / sample_file(recording, channel, stamps[channel])
        path.write_bytes(_jpeg(picture))
    boxes = scene.boxes(recording.time(stamp))
    counts = boxes.count_points(capture.returns).tolist()
    seen = [k for k, count in enumerate(counts) if count]
    lidar = (poses["LIDAR_TOP"] @ recording.mounts["LIDAR_TOP"])[:3, 3]
    return Keyframe(
        stamps=stamps,
        poses={channel: recording.world @ pose for channel, pose in poses.items()},
        boxes=boxes.select(np.array(seen, dtype=np.int64)),
        num_points=[counts[k] for k in seen],
        visibility=_visibility(world, lidar, boxes, seen),
        sweeps=_write_sweeps(
            recording,
            stamp,
            count=num_sweeps if frame else 0,
            root=root,
            seed=(seed, index, frame, 31),
        ),
    )


def _make_folders(root: Path, version: str, *, has_sweeps: bool) -> None:
    for channel in ("LIDAR_TOP", *(camera.channel for camera in CAMERAS)):
        (root / "samples" / channel).mkdir(parents=True)
    for folder in (f"lidarseg/{version}", f"panoptic/{version}", version, "maps"):
        (root / folder).mkdir(parents=True)
    if has_sweeps:
        (root / "sweeps" / "LIDAR_TOP").mkdir(parents=True)


def make_street_nuscenes(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    frames_per_scene: int = 4,
    image_size: tuple[int, int] = (448, 252),
    val_fraction: float = 0.25,
    version: str = "v1.0-trainval",
    sweeps_per_keyframe: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make synthetic street scenes as a nuScenes folder with lidarseg and panoptic labels.

    The same arguments give the same bytes. Scenes of the validation split come last, carry
    official validation names, and show layouts, palettes and textures that no training scene has.

    Args:
        out: Folder to make; it appears only when everything is in it.
        num_scenes: Number of scenes, the first ones for training.
        seed: Of everything.
        frames_per_scene: Keyframes of each scene, half a second apart.
        image_size: (width, height) of the six images.
        val_fraction: Share of validation scenes, at least one of two or more.
        version: Name of the table folder.
        sweeps_per_keyframe: LiDAR scans between two keyframes, 0 to 9; none come before the first
            of a scene, as in a recording.
        progress: Called with (done, total) after each keyframe.

    Raises:
        ValueError: If `out` is in use or an argument is out of range.
    """
    num_val = check_request(
        num_scenes=num_scenes, frames_per_scene=frames_per_scene, val_fraction=val_fraction
    )
    check_image_size(image_size)
    if not 0 <= sweeps_per_keyframe <= _MAX_SWEEPS:
        raise ValueError(
            f"sweeps_per_keyframe must be in [0, {_MAX_SWEEPS}] (20 scans a second), got "
            f"{sweeps_per_keyframe}"
        )
    num_train = num_scenes - num_val
    if num_train > len(TRAIN_NAMES) or num_val > len(VAL_NAMES):
        raise ValueError(
            f"num_scenes must leave at most {len(TRAIN_NAMES)} training and {len(VAL_NAMES)} "
            f"validation scenes (the official names), got {num_train} and {num_val}"
        )
    total = num_scenes * frames_per_scene
    with whole_folder(out) as root:
        _make_folders(root, version, has_sweeps=sweeps_per_keyframe > 0)
        scenes = [
            partial(
                _record,
                index,
                seed=seed,
                num_train=num_train,
                num_frames=frames_per_scene,
                image_size=image_size,
            )
            for index in range(num_scenes)
        ]
        make = partial(
            _make_keyframe,
            root=root,
            seed=seed,
            version=version,
            num_sweeps=sweeps_per_keyframe,
        )
        tables = Tables(version)
        frames = make_frames(scenes, make, num_frames=frames_per_scene)
        for done, (_, frame, recording, keyframe) in enumerate(frames, start=1):
            tables.add(recording, keyframe, last=frame == frames_per_scene - 1)
            if progress is not None:
                progress(done, total)
        for name, rows in tables.finish(root).items():
            (root / version / f"{name}.json").write_text(json.dumps(rows, indent=0))
