"""Write synthetic rooms as single RGB-D images in the layout of VoteNet's prepared SUN RGB-D.

Source: SUN RGB-D (Song et al., CVPR 2015); the layout of VoteNet (Qi et al., ICCV 2019,
    arXiv:1904.09664). Differs from it: no `.mat` files of all points, and images of one size.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from pc_data.readers.sun_rgbd import CAMERA_FROM_DEPTH
from pc_data.synthetic.output import whole_folder
from pc_data.synthetic.rig import yaw_rotation
from pc_data.synthetic.room import Room
from pc_data.synthetic.room_solids import RoomObject
from pc_data.synthetic.room_views import RoomFrame
from pc_data.synthetic.rooms import make_rooms
from pc_data.synthetic.sensors import turn_rays

_FOLDERS = ("calib", "image", "label", "label_v1", "lidar")
_COARSE = 0.1  # metres between the vertices of a mesh that nobody sees
_SMALLEST = {"label": 0.002, "label_v1": 0.005}  # share of the pixels that annotators notice
_WITHOUT_BOX = ("wall", "floor", "ceiling")
_NAMES = {  # of things that SUN RGB-D's annotators called otherwise
    "couch": "sofa",
    "armchair": "sofa_chair",
    "office chair": "chair",
    "nightstand": "night_stand",
    "tv stand": "tv_stand",
    "trash can": "garbage_bin",
    "refrigerator": "fridge",
    "kitchen counter": "counter",
}


def make_room_sun_rgbd(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    val_fraction: float = 0.25,
    num_frames: int = 4,
    image_size: tuple[int, int] = (320, 240),
    num_points: int = 50_000,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make images of synthetic rooms as a SUN RGB-D folder.

    The same arguments give the same bytes. Validation rooms show colours, finishes and shapes
    that no training room has.

    Args:
        out: Folder to make; it appears only when everything is in it.
        num_scenes: Number of rooms, the first ones for training.
        seed: Of everything.
        val_fraction: Share of validation rooms, at least one of two or more.
        num_frames: Images of each room; each is a scan of its own.
        image_size: Their (width, height).
        num_points: Points of each image at most, drawn from those that its depth gives.
        progress: Called with (done, total) after each room.

    Raises:
        ValueError: If `out` is in use or an argument is out of range.
    """
    if num_points < 1:
        raise ValueError(f"num_points must be at least 1, got {num_points}")
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    with whole_folder(out) as root:
        folder = root / "sunrgbd_trainval"
        for name in _FOLDERS:
            (folder / name).mkdir(parents=True)
        written = make_rooms(
            partial(_write_room, folder, seed, num_points),
            num_scenes=num_scenes,
            seed=seed,
            val_fraction=val_fraction,
            num_frames=num_frames,
            image_size=image_size,
            voxel_size=_COARSE,
            progress=progress,
        )
        for split, is_val in (("train", False), ("val", True)):
            listed = [
                number for validates, part in written if validates == is_val for number in part
            ]
            text = "".join(f"{number}\n" for number in listed)
            (folder / f"{split}_data_idx.txt").write_text(text)


def _write_room(
    folder: Path, seed: int, num_points: int, index: int, room: Room, is_val: bool
) -> tuple[bool, list[int]]:
    first = index * len(room.frames) + 1
    for number, frame in enumerate(room.frames, start=first):
        rng = np.random.default_rng((seed, number, 53))
        _write_frame(folder, f"{number:06d}", room, frame, num_points, rng)
    return is_val, list(range(first, first + len(room.frames)))


def _write_frame(
    folder: Path,
    name: str,
    room: Room,
    frame: RoomFrame,
    num_points: int,
    rng: np.random.Generator,
) -> None:
    from PIL import Image

    turn = _upright_from_room(frame)
    tilt = np.einsum("ij,jk,kl->il", turn, frame.pose[:3, :3], CAMERA_FROM_DEPTH)
    matrix = frame.intrinsics.copy()
    matrix[:2, 2] += 0.5  # pixels count from 1
    lines = [" ".join(f"{value:.5g}" for value in m.T.ravel()) for m in (tilt, matrix)]
    (folder / "calib" / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    Image.fromarray(frame.color).save(folder / "image" / f"{name}.jpg", quality=90)
    points = _points(frame, turn)
    chosen = rng.permutation(len(points))[:num_points]
    np.savez_compressed(folder / "lidar" / f"{name}.npz", pc=points[chosen])
    for place, share in _SMALLEST.items():
        lines = list(_label_lines(room, frame, turn, share))
        (folder / place / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def _upright_from_room(frame: RoomFrame) -> Float64[np.ndarray, "3 3"]:
    """Turns what is ahead of the camera, along the floor, to +y."""
    return yaw_rotation(0.5 * np.pi - np.arctan2(frame.pose[1, 2], frame.pose[0, 2]))


def _points(frame: RoomFrame, turn: Float64[np.ndarray, "3 3"]) -> Float32[np.ndarray, "n 6"]:
    """All measured pixels as points in the upright depth frame, with their colours in 0..1."""
    rows, columns = np.nonzero(frame.depth)
    depth = frame.depth[rows, columns] / 1000
    (fx, _, cx), (_, fy, cy), _ = frame.intrinsics
    rays = np.stack([(columns + 0.5 - cx) / fx, (rows + 0.5 - cy) / fy, np.ones(len(rows))], axis=1)
    xyz = turn_rays(turn_rays(rays * depth[:, None], frame.pose[:3, :3]), turn)
    return np.column_stack([xyz, frame.color[rows, columns] / 255]).astype(np.float32)


def _label_lines(
    room: Room, frame: RoomFrame, turn: Float64[np.ndarray, "3 3"], share: float
) -> Iterable[str]:
    shown = np.where(frame.depth > 0, frame.instance, 0)
    counts = np.bincount(shown.ravel(), minlength=len(room.objects) + 1)
    for number, item in enumerate(room.objects, start=1):
        if item.name in _WITHOUT_BOX or counts[number] < max(share * shown.size, 8):
            continue
        rows, columns = np.nonzero(frame.instance == number)
        x, y = columns.min() + 1, rows.min() + 1
        box = (x, y, columns.max() + 2 - x, rows.max() + 2 - y)
        name = _NAMES.get(item.name, item.name.replace(" ", "_"))
        numbers = [f"{value:.6f}" for value in _place(item, frame, turn)]
        yield " ".join([name, *(str(value) for value in box), *numbers])


def _place(
    item: RoomObject, frame: RoomFrame, turn: Float64[np.ndarray, "3 3"]
) -> Float64[np.ndarray, " 8"]:
    """Centre, half the width, length and height, and the heading, which is that of the front."""
    center = turn_rays((item.cuboid[:3] - frame.pose[:3, 3])[None], turn)[0]
    yaw = item.cuboid[6] + 0.5 * np.pi  # the front of furniture is its own +y
    heading = turn_rays(np.array([[np.cos(yaw), np.sin(yaw), 0.0]]), turn)[0, :2]
    return np.concatenate([center, item.cuboid[3:6] / 2, heading])
