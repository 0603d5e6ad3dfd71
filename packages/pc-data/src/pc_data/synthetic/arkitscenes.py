"""Write synthetic rooms in the layout of ARKitScenes' part for 3D object detection.

Source: ARKitScenes (Baruch et al., NeurIPS 2021 datasets and benchmarks, arXiv:2111.08897) and its
    file formats. Differs from a recording: only a few images are there, and depth is that of a
    structured-light sensor without ARKit's filling.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from pc_geometry.rigid import invert_rigid, quaternion_from_rotation

from pc_data.files.ply import write_ply
from pc_data.synthetic.output import whole_folder
from pc_data.synthetic.rig import pose_matrix, yaw_rotation
from pc_data.synthetic.room import Room
from pc_data.synthetic.room_solids import RoomObject
from pc_data.synthetic.rooms import make_rooms
from pc_data.synthetic.sensors import turn_rays

_FIRST_VIDEO = 40753600
_FEWEST_VERTICES = 30  # that an object is annotated with
_LABELS = {  # of the objects that ARKitScenes' annotators box
    "cabinet": "cabinet",
    "wardrobe": "cabinet",
    "dresser": "cabinet",
    "nightstand": "cabinet",
    "file cabinet": "cabinet",
    "kitchen cabinet": "cabinet",
    "bathroom vanity": "cabinet",
    "tv stand": "cabinet",
    "refrigerator": "refrigerator",
    "bookshelf": "shelf",
    "shelf": "shelf",
    "stove": "stove",
    "bed": "bed",
    "sink": "sink",
    "toilet": "toilet",
    "bathtub": "bathtub",
    "ottoman": "stool",
    "chair": "chair",
    "office chair": "chair",
    "armchair": "chair",
    "table": "table",
    "coffee table": "table",
    "desk": "table",
    "tv": "tv_monitor",
    "monitor": "tv_monitor",
    "couch": "sofa",
}


def make_room_arkitscenes(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    val_fraction: float = 0.25,
    num_frames: int = 4,
    image_size: tuple[int, int] = (256, 192),
    voxel_size: float = 0.03,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make synthetic rooms as an ARKitScenes folder.

    The same arguments give the same bytes. Validation rooms show colours, finishes and shapes
    that no training room has.

    Args:
        out: Folder to make; it appears only when everything is in it.
        num_scenes: Number of rooms, each a video; the first ones for training.
        seed: Of everything.
        val_fraction: Share of validation rooms, at least one of two or more.
        num_frames: RGB-D images of each room.
        image_size: Their (width, height).
        voxel_size: Distance between the meshes' vertices, metres.
        progress: Called with (done, total) after each room.

    Raises:
        ValueError: If `out` is in use or an argument is out of range.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    with whole_folder(out) as root:
        for name in ("Training", "Validation"):
            (root / name).mkdir()
        make_rooms(
            partial(_write_video, root, seed),
            num_scenes=num_scenes,
            seed=seed,
            val_fraction=val_fraction,
            num_frames=num_frames,
            image_size=image_size,
            voxel_size=voxel_size,
            progress=progress,
        )


def _write_video(root: Path, seed: int, index: int, room: Room, is_val: bool) -> None:
    video = str(_FIRST_VIDEO + index)
    folder = root / ("Validation" if is_val else "Training") / video
    folder.mkdir()
    rng = np.random.default_rng((seed, index, 47))
    pose = _world_from_room(room, rng)
    xyz = turn_rays(room.xyz.astype(np.float64), pose[:3, :3]) + pose[:3, 3]
    vertex = dict(zip("xyz", xyz.astype(np.float32).T, strict=True))
    vertex |= dict(zip(("red", "green", "blue"), room.color.T, strict=True))
    vertex["alpha"] = np.full(len(xyz), 255, dtype=np.uint8)
    mesh = {"vertex": vertex, "face": {"vertex_indices": room.faces}}
    write_ply(folder / f"{video}_3dod_mesh.ply", mesh)
    annotation = json.dumps(_annotate(room, video, pose))
    (folder / f"{video}_3dod_annotation.json").write_text(annotation)
    _write_frames(folder / f"{video}_frames", video, room, pose, rng)


def _world_from_room(room: Room, rng: np.random.Generator) -> Float64[np.ndarray, "4 4"]:
    """The world's origin is where recording began, its heading is arbitrary."""
    turn = yaw_rotation(rng.uniform(-np.pi, np.pi))
    start = turn_rays(room.frames[0].pose[None, :3, 3], turn)[0]
    return pose_matrix(turn, -start)


def _annotate(room: Room, video: str, pose: Float64[np.ndarray, "4 4"]) -> dict:
    counts = np.bincount(room.instance, minlength=len(room.objects) + 1)
    boxes = []
    for number, item in enumerate(room.objects, start=1):
        if item.name in _LABELS and counts[number] >= _FEWEST_VERTICES:
            boxes.append(_box(item, number, f"{video}-{number}", pose))
    return {
        "data": boxes,
        "skipped": False,
        "stats": {"numObjects": len(boxes)},
        "comment": "",
        "confirm": True,
    }


def _box(item: RoomObject, number: int, uid: str, pose: Float64[np.ndarray, "4 4"]) -> dict:
    center = turn_rays(item.cuboid[None, :3], pose[:3, :3])[0] + pose[:3, 3]
    axes = yaw_rotation(item.cuboid[6] + np.arctan2(pose[1, 0], pose[0, 0])).T  # row k is axis k
    box = {
        "centroid": center.tolist(),
        "axesLengths": item.cuboid[3:6].tolist(),
        "normalizedAxes": axes.ravel().tolist(),
    }
    return {
        "uid": uid,
        "label": _LABELS[item.name],
        "modelId": "",
        "children": [],
        "objectId": number,
        "segments": {"obb": box, "obbAligned": box},
        "hierarchy": [],
        "isInGroup": False,
        "labelType": "",
        "attributes": {},
    }


def _write_frames(
    folder: Path,
    video: str,
    room: Room,
    world_from_room: Float64[np.ndarray, "4 4"],
    rng: np.random.Generator,
) -> None:
    from PIL import Image

    for name in ("lowres_wide", "lowres_depth", "lowres_wide_intrinsics"):
        (folder / name).mkdir(parents=True)
    time = rng.uniform(100.0, 9000.0)
    lines = []
    for frame in room.frames:
        time += 0.1 + rng.normal(0.0, 2e-4)
        name = f"{video}_{time:.3f}"
        Image.fromarray(frame.color).save(folder / "lowres_wide" / f"{name}.png")
        Image.fromarray(frame.depth).save(folder / "lowres_depth" / f"{name}.png")
        height, width = frame.depth.shape
        matrix = frame.intrinsics
        numbers = (width, height, matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
        text = " ".join(f"{value:g}" for value in numbers)
        (folder / "lowres_wide_intrinsics" / f"{name}.pincam").write_text(text)
        from_world = invert_rigid(world_from_room @ frame.pose)
        place = [*_rotation_vector(from_world[:3, :3]), *from_world[:3, 3]]
        lines.append(" ".join([f"{time:.8f}", *(f"{value:.12f}" for value in place)]))
    (folder / "lowres_wide.traj").write_text("".join(f"{line}\n" for line in lines))


def _rotation_vector(rotation: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, " 3"]:
    """Axis times angle in radians."""
    w, *axis = quaternion_from_rotation(rotation)
    length = float(np.linalg.norm(axis))
    return np.array(axis) * (2 * np.arctan2(length, w) / max(length, 1e-12))
