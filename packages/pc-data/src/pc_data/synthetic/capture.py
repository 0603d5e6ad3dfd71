"""What the sensors of any car record of a scene at one moment, before it is put into a layout."""

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data.synthetic.output import check_request, make_frames, whole_folder
from pc_data.synthetic.scene import Scene
from pc_data.synthetic.sensors import LidarModel, render, sweep, turn_rays
from pc_data.synthetic.style import TRAIN, VAL

FrameT = TypeVar("FrameT")


class Street(NamedTuple):
    """A scene and its place in the dataset.

    Attributes:
        scene: The street.
        index: Number of the scene in the dataset, from 0.
        is_val: Whether it is for validation: layouts and textures that no training scene has.
    """

    scene: Scene
    index: int
    is_val: bool


class Returns(NamedTuple):
    """The echoes of one turn of a LiDAR, in the order of firing.

    Attributes:
        xyz: Metres in the sensor's frame.
        intensity: In the unit of the LiDAR's model.
        category: Number of `pc_data.synthetic.categories.Category`.
        instance: Number of the object, 0 = none.
        ring: Row of the model's `elevation`.
        phase: When in the turn the ray was fired, 0 to 1.
    """

    xyz: Float64[np.ndarray, "n 3"]
    intensity: Float32[np.ndarray, " n"]
    category: Int64[np.ndarray, " n"]
    instance: Int64[np.ndarray, " n"]
    ring: Int64[np.ndarray, " n"]
    phase: Float64[np.ndarray, " n"]


def scan_street(
    scene: Scene,
    model: LidarModel,
    *,
    time: float,
    pose: Float64[np.ndarray, "4 4"],
    seed: tuple[int, ...],
    start: float = 0.0,
    turn: float = 2 * np.pi,
) -> Returns:
    """Fire every ring at every azimuth of a turn; the scene stands still meanwhile.

    Args:
        scene: The street.
        model: The LiDAR.
        time: In the scene, seconds.
        pose: Scene-from-sensor; the sensor's z is its axis.
        seed: Of all noise.
        start: First azimuth in radians, counter-clockwise from the sensor's x.
        turn: How far it turns, radians; negative for clockwise. A part of a circle is what a
            LiDAR without moving parts sees.
    """
    rng = np.random.default_rng(seed)
    steps = (np.arange(model.num_azimuths) + rng.uniform()) / model.num_azimuths
    azimuth = start + turn * steps[:, None]
    elevation = np.radians(model.elevation)[None, :]
    flat = np.cos(elevation)
    rays = np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation) + 0 * azimuth], axis=2
    ).reshape(-1, 3)
    echoes = sweep(
        scene.world(time),
        scene.look,
        scene.paving,
        model=model,
        position=pose[:3, 3],
        rays=turn_rays(rays, pose[:3, :3]),
        seed=int(rng.integers(1 << 30)),
    )
    met = np.flatnonzero(echoes.distance > 0)
    return Returns(
        xyz=rays[met] * echoes.distance[met, None].astype(np.float64),
        intensity=echoes.intensity[met],
        category=echoes.category[met].astype(np.int64),
        instance=echoes.instance[met].astype(np.int64),
        ring=met % len(model.elevation),
        phase=steps[met // len(model.elevation)],
    )


def photograph(
    scene: Scene,
    *,
    time: float,
    pose: Float64[np.ndarray, "4 4"],
    intrinsics: Float64[np.ndarray, "3 3"],
    image_size: tuple[int, int],
    format: str = "JPEG",  # noqa: A002
) -> bytes:
    """Take a picture and encode it; `pose` is scene-from-camera, looking along +z."""
    from PIL import Image

    picture, _ = render(
        scene.world(time),
        scene.look,
        scene.paving,
        scene.light,
        pose=pose,
        intrinsics=intrinsics,
        image_size=image_size,
    )
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format=format, quality=88)
    return stream.getvalue()


class SeenBoxes(NamedTuple):
    """Boxes of the objects that returns hit, in a sensor's frame.

    Attributes:
        instance: Number of the object.
        category: Number of `Category`.
        cuboid: x, y, z, length, width, height, yaw; see `pc_geometry.boxes`.
        num_points: Returns in each box.
        speed: Along the heading, metres per second.
    """

    instance: Int64[np.ndarray, " b"]
    category: Int64[np.ndarray, " b"]
    cuboid: Float64[np.ndarray, "b 7"]
    num_points: Int64[np.ndarray, " b"]
    speed: Float64[np.ndarray, " b"]


def boxes_seen(
    scene: Scene,
    *,
    time: float,
    pose: Float64[np.ndarray, "4 4"],
    xyz: Float64[np.ndarray, "n 3"],
) -> SeenBoxes:
    """Boxes of the objects with at least one of the points `xyz`, all in the frame of `pose`."""
    boxes = scene.boxes(time)
    counts = boxes.count_points(turn_rays(xyz, pose[:3, :3]) + pose[:3, 3])
    seen = np.flatnonzero(counts)
    boxes = boxes.select(seen)
    axes = np.einsum("ij,njk->nik", pose[:3, :3].T, boxes.axes)
    center = turn_rays(boxes.center - pose[:3, 3], pose[:3, :3].T)
    yaw = np.arctan2(axes[:, 1, 0], axes[:, 0, 0])
    return SeenBoxes(
        instance=boxes.instance.astype(np.int64),
        category=boxes.category.astype(np.int64),
        cuboid=np.column_stack([center, boxes.size, yaw]),
        num_points=counts[seen].astype(np.int64),
        speed=boxes.speed,
    )


def record_streets(
    out: Path,
    make_frame: Callable[[Street, int, Path], FrameT],
    *,
    num_scenes: int,
    seed: int,
    frames_per_scene: int,
    period: float,
    val_fraction: float,
    finish: Callable[[Path, list[tuple[Street, int, FrameT]]], None],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Furnish streets, record every frame on all cores, and write the dataset's own files last.

    Args:
        out: Folder to make; it appears only when everything is in it.
        make_frame: Gets a street, a frame number and the folder, writes the frame's files and
            returns what `finish` needs of it.
        num_scenes: The first ones are for training.
        seed: Of the streets.
        frames_per_scene: Frames of each scene.
        period: Seconds from a frame to the next; the first is at time 0.
        val_fraction: Share of validation scenes, at least one of two or more.
        finish: Gets the folder and (street, frame number, result) of all frames in order.
        progress: Called with (done, total) after each frame.

    Raises:
        ValueError: If `out` is in use or an argument is out of range.
    """
    num_val = check_request(
        num_scenes=num_scenes, frames_per_scene=frames_per_scene, val_fraction=val_fraction
    )
    duration = period * (frames_per_scene - 1)

    def furnish(index: int) -> Street:
        is_val = index >= num_scenes - num_val
        style = VAL if is_val else TRAIN
        scene = Scene(style, seed=(seed, index, int(is_val)), duration=duration)
        return Street(scene, index, is_val)

    with whole_folder(out) as root:

        def make(index: int, frame: int, street: Street) -> FrameT:  # noqa: ARG001
            return make_frame(street, frame, root)

        furnished = [partial(furnish, index) for index in range(num_scenes)]
        recorded: Iterator = make_frames(furnished, make, num_frames=frames_per_scene)
        frames = []
        for done, (_, frame, street, result) in enumerate(recorded, start=1):
            frames.append((street, frame, result))
            if frame == frames_per_scene - 1:
                street.scene.release()
            if progress is not None:
                progress(done, num_scenes * frames_per_scene)
        finish(root, frames)
