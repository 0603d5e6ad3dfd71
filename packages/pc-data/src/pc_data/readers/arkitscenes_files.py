"""The files of an ARKitScenes video: its mesh's boxes, its trajectory and its frames."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from pc_data.errors import DataError
from pc_data.files.json_files import read_json
from pc_data.scan import Boxes, Camera

_APART = 0.0055
"""Seconds that a frame and its pose may be apart: 5 ms as in the official loader, and rounding."""

_FARTHEST = 1e4
"""Radians or metres beyond which a pose is no pose."""


class Trajectory(NamedTuple):
    """Where the camera was.

    Attributes:
        time: Seconds, ascending.
        from_world: Camera-from-world of each time; the camera looks along +z, x right, y down.
    """

    time: Float64[np.ndarray, " f"]
    from_world: Float64[np.ndarray, "f 4 4"]


class Frame(NamedTuple):
    """An image of a video.

    Attributes:
        image: Its file.
        time: Seconds, as its name says.
        from_world: Camera-from-world.
    """

    image: Path
    time: float
    from_world: Float64[np.ndarray, "4 4"]


# --- boxes


def read_boxes(file: Path, class_names: tuple[str, ...]) -> Boxes | None:
    """Read the oriented boxes of a room, in the frame of its mesh.

    Args:
        file: `<video>_3dod_annotation.json`.
        class_names: The classes; a box of no class gets label -1.

    Returns:
        The boxes `obbAligned`, or None if there is no such file or annotation was skipped.

    Raises:
        DataError: If the file is damaged or a box does not stand upright.
    """
    if not file.is_file():
        return None
    content = read_json(file, missing="file is missing; restore it")
    objects = content.get("data") if isinstance(content, dict) else None
    if not isinstance(objects, list):
        raise DataError(f"{file}: holds no list 'data' of boxes; fetch the file again")
    if content.get("skipped"):
        return None
    names = [_name_of(item, f"{file}: box {row}") for row, item in enumerate(objects)]
    cuboids = [_read_cuboid(item, f"{file}: box {row}") for row, item in enumerate(objects)]
    label_of = {name: label for label, name in enumerate(class_names)}
    labels: Int64[np.ndarray, " k"] = np.array(
        [label_of.get(name, -1) for name in names], dtype=np.int64
    )
    return Boxes(
        cuboid=np.array(cuboids, dtype=np.float64).reshape(-1, 7),
        labels=labels,
        track=tuple(str(item.get("uid") or "") for item in objects),
    )


def _name_of(item: Any, what: str) -> str:  # noqa: ANN401
    """The class as the official table writes it, e.g. `tv_monitor`."""
    if not (isinstance(item, dict) and isinstance(item.get("label"), str)):
        raise DataError(f"{what} has no label; fetch the file again")
    return re.sub(r"[ /-]", "_", item["label"])


def _read_cuboid(item: dict[str, Any], what: str) -> list[float]:
    segments = item.get("segments")
    box = segments.get("obbAligned") if isinstance(segments, dict) else None
    if not isinstance(box, dict):
        raise DataError(f"{what} has no segments.obbAligned; fetch the file again")
    center = _numbers(box.get("centroid"), 3, f"{what}: centroid")
    sides = _numbers(box.get("axesLengths"), 3, f"{what}: axesLengths")
    axes = _numbers(box.get("normalizedAxes"), 9, f"{what}: normalizedAxes").reshape(3, 3)
    if (sides <= 0).any() or np.abs(np.concatenate([center, sides])).max() > _FARTHEST:
        raise DataError(f"{what} has a side or a place that no room has; fetch the file again")
    axes = np.clip(axes, -2, 2)  # nothing above 1 is right, and squares must not overflow
    if not np.allclose(axes @ axes.T, np.eye(3), atol=1e-2) or abs(axes[2, 2]) < 0.99:
        raise DataError(f"{what} does not stand upright; fetch the file again")
    return [*center, *sides, float(np.arctan2(axes[0, 1], axes[0, 0]))]  # row k is axis k


def _numbers(values: object, count: int, what: str) -> Float64[np.ndarray, " n"]:
    try:
        numbers = np.array(values).ravel()
    except ValueError:  # lists of several lengths
        numbers = np.array([None])
    if numbers.dtype.kind not in "iuf" or numbers.shape != (count,):
        raise DataError(f"{what} must be {count} numbers; fetch the file again")
    numbers = numbers.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DataError(f"{what} must be finite; fetch the file again")
    return numbers


# --- frames


def read_trajectory(file: Path) -> Trajectory:
    """Read where the camera was: lines of time, rotation vector and translation.

    Raises:
        DataError: If the file is missing, empty or damaged.
    """
    rows = [line.split() for line in _read_text(file).splitlines() if line.strip()]
    wrong = [number for number, row in enumerate(rows, start=1) if len(row) != 7]
    if wrong or not rows:
        which = f"line {wrong[0]} has not 7 numbers" if wrong else "no line"
        raise DataError(f"{file}: {which}; the file was cut off, fetch it again")
    try:
        table = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{file}: holds more than numbers; fetch the file again") from error
    if not (np.abs(table[:, 1:]) < _FARTHEST).all() or not np.isfinite(table[:, 0]).all():
        raise DataError(f"{file}: a pose is not finite or far off; fetch the file again")
    table = table[np.argsort(table[:, 0], kind="stable")]
    from_world = np.tile(np.eye(4), (len(table), 1, 1))
    from_world[:, :3, :3] = _rotations(table[:, 1:4])
    from_world[:, :3, 3] = table[:, 4:]
    return Trajectory(table[:, 0], from_world)


def _rotations(vectors: Float64[np.ndarray, "f 3"]) -> Float64[np.ndarray, "f 3 3"]:
    """Rotations about these axes by their lengths in radians (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=1)
    x, y, z = (vectors / np.maximum(angle, 1e-12)[:, None]).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    sine, versine = np.sin(angle)[:, None, None], (1 - np.cos(angle))[:, None, None]
    return np.eye(3) + sine * cross + versine * cross @ cross


def find_frames(folder: Path, video: str, *, limit: int) -> list[Frame]:
    """List the images of a video that have a pose, in the order of recording.

    Args:
        folder: `<video>_frames`.
        video: The video's number, with which the names of its images begin.
        limit: At most that many, spread evenly.

    Raises:
        DataError: If the trajectory is missing, damaged, or has poses for half of them at most.
    """
    pattern = re.compile(rf"{video}_(\d+\.\d+)\.png", flags=re.ASCII)
    matches = [pattern.fullmatch(path.name) for path in (folder / "lowres_wide").glob("*.png")]
    times = sorted((float(match[1]), match[0]) for match in matches if match)
    if not times:
        return []
    file = folder / "lowres_wide.traj"
    trajectory = read_trajectory(file)
    time = np.array([time for time, _ in times])
    right = np.clip(np.searchsorted(trajectory.time, time), 1, max(len(trajectory.time) - 1, 1))
    near = np.stack([right - 1, np.minimum(right, len(trajectory.time) - 1)])
    apart = np.abs(trajectory.time[near] - time)
    nearest = near[np.argmin(apart, axis=0), np.arange(len(time))]
    posed = np.flatnonzero(apart.min(0) <= _APART)
    if 2 * len(posed) <= len(times):
        raise DataError(
            f"{file}: poses for {len(posed)} of {len(times)} images; it was cut off or belongs to "
            "another video, fetch it again"
        )
    if len(posed) > limit:
        posed = posed[np.linspace(0, len(posed) - 1, limit).astype(int)]
    return [
        Frame(folder / "lowres_wide" / times[k][1], time[k], trajectory.from_world[nearest[k]])
        for k in posed
    ]


def make_camera(folder: Path, frame: Frame) -> Camera:
    """The camera of a frame.

    Raises:
        DataError: If its intrinsics are missing or damaged.
    """
    video = frame.image.stem.partition("_")[0]
    name = frame.image.stem.partition("_")[2]
    # The names of the two files may differ by a millisecond of rounding.
    near = [name, *(f"{frame.time + shift:.3f}" for shift in (-0.001, 0.001))]
    files = [folder / "lowres_wide_intrinsics" / f"{video}_{each}.pincam" for each in near]
    file = next((file for file in files if file.is_file()), files[0])
    words = _read_text(file).split()
    try:
        values = np.array(words, dtype=np.float64)
    except ValueError:
        values = np.zeros(0)
    if values.shape != (6,) or not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise DataError(
            f"{file}: must hold width, height, two focal lengths and the principal point; fetch "
            "the file again"
        )
    width, height, fx, fy, cx, cy = values.tolist()
    if min(width, height, fx, fy) <= 0 or max(width, height) > 1 << 16 or width % 1 or height % 1:
        raise DataError(
            f"{file}: sides {width:g} x {height:g} or focal lengths {fx:g}, {fy:g} are those of no "
            "image; fetch the file again"
        )
    return Camera(
        name=name,
        image_file=frame.image,
        image_size=(int(width), int(height)),
        intrinsics=np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]),
        from_scan=frame.from_world,
    )


def _read_text(file: Path) -> str:
    if not file.is_file():
        raise DataError(f"{file}: file is missing; extract the video's frames again")
    return file.read_text(encoding="utf-8", errors="replace")
