"""Write synthetic rooms in the layout of ScanNet, or in that of Pointcept's prepared ScanNet.

Source: ScanNet (Dai et al., CVPR 2017, arXiv:1702.04405) and its file formats. Differs from a
    recording: a frame's colour and depth share one camera, only a few frames are there, exported
    as images rather than inside a `.sens` file, and segments are cubes rather than smooth patches.
"""

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data.files.ply import write_ply
from pc_data.readers.scannet_classes import SCANNET20, SCANNET200
from pc_data.readers.scannet_files import vertex_normals
from pc_data.synthetic.output import whole_folder
from pc_data.synthetic.rig import pose_matrix, yaw_rotation
from pc_data.synthetic.room import Room
from pc_data.synthetic.rooms import make_rooms
from pc_data.synthetic.sensors import turn_rays

_SEGMENT = 0.35  # metres, edge of the cubes that segments are cut along
_UNANNOTATED = 0.04  # share of the objects that nobody annotated
# raw category -> (ScanNet200 id, NYU40 id, NYU40 class), as in the official table
_CATEGORIES: dict[str, tuple[int, int, str]] = {
    "wall": (1, 1, "wall"),
    "floor": (3, 2, "floor"),
    "ceiling": (41, 22, "ceiling"),
    "door": (5, 8, "door"),
    "doorframe": (161, 8, "door"),
    "window": (16, 9, "window"),
    "curtain": (21, 16, "curtain"),
    "bed": (11, 4, "bed"),
    "pillow": (13, 18, "pillow"),
    "cushion": (39, 18, "pillow"),
    "nightstand": (34, 32, "night stand"),
    "wardrobe": (99, 39, "otherfurniture"),
    "dresser": (36, 17, "dresser"),
    "cabinet": (7, 3, "cabinet"),
    "file cabinet": (75, 3, "cabinet"),
    "kitchen cabinet": (29, 3, "cabinet"),
    "bathroom vanity": (1164, 3, "cabinet"),
    "kitchen counter": (159, 12, "counter"),
    "chair": (2, 5, "chair"),
    "office chair": (10, 5, "chair"),
    "armchair": (23, 5, "chair"),
    "couch": (6, 6, "sofa"),
    "ottoman": (67, 39, "otherfurniture"),
    "table": (4, 7, "table"),
    "coffee table": (24, 7, "table"),
    "desk": (9, 14, "desk"),
    "monitor": (19, 40, "otherprop"),
    "keyboard": (46, 40, "otherprop"),
    "tv": (33, 25, "television"),
    "tv stand": (51, 39, "otherfurniture"),
    "bookshelf": (18, 10, "bookshelf"),
    "shelf": (8, 15, "shelves"),
    "books": (22, 23, "books"),
    "lamp": (28, 35, "lamp"),
    "picture": (15, 11, "picture"),
    "mirror": (71, 19, "mirror"),
    "whiteboard": (52, 30, "whiteboard"),
    "refrigerator": (27, 24, "refridgerator"),
    "stove": (62, 38, "otherstructure"),
    "microwave": (59, 40, "otherprop"),
    "sink": (14, 34, "sink"),
    "toilet": (17, 33, "toilet"),
    "bathtub": (42, 36, "bathtub"),
    "shower curtain": (55, 28, "shower curtain"),
    "towel": (31, 27, "towel"),
    "radiator": (96, 39, "otherfurniture"),
    "trash can": (56, 39, "otherfurniture"),
    "laundry basket": (106, 40, "otherprop"),
    "box": (26, 29, "box"),
    "backpack": (48, 40, "otherprop"),
    "suitcase": (93, 40, "otherprop"),
    "plant": (40, 40, "otherprop"),
    "rug": (61, 40, "otherprop"),
    "mat": (140, 20, "floor mat"),
}


class _Place(NamedTuple):
    """Where a room goes: its name, its split, and its reconstruction's frame."""

    name: str
    split: str
    world_from_room: Float64[np.ndarray, "4 4"]


def make_room_scannet(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    val_fraction: float = 0.25,
    num_frames: int = 4,
    image_size: tuple[int, int] = (320, 240),
    voxel_size: float = 0.03,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make synthetic rooms as a ScanNet folder.

    The same arguments give the same bytes. Validation rooms show colours, finishes and shapes
    that no training room has. A few objects are left without annotation.

    Args:
        out: Folder to make; it appears only when everything is in it.
        num_scenes: Number of rooms, the first ones for training.
        seed: Of everything.
        val_fraction: Share of validation rooms, at least one of two or more.
        num_frames: RGB-D images of each room, exported as `color/0.jpg`, `depth/0.png` and so on.
        image_size: Their (width, height).
        voxel_size: Distance between the meshes' vertices, metres.
        progress: Called with (done, total) after each room.

    Raises:
        ValueError: If `out` is in use or an argument is out of range.
    """
    with whole_folder(out) as root:
        places = make_rooms(
            partial(_write_room, root, seed),
            num_scenes=num_scenes,
            seed=seed,
            val_fraction=val_fraction,
            num_frames=num_frames,
            image_size=image_size,
            voxel_size=voxel_size,
            progress=progress,
        )
        for split in ("train", "val"):
            names = [place.name for place in places if place.split == split]
            (root / f"scannetv2_{split}.txt").write_text("".join(f"{name}\n" for name in names))
        _write_table(root / "scannetv2-labels.combined.tsv")


def make_room_pointcept(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    val_fraction: float = 0.25,
    voxel_size: float = 0.03,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make the same rooms as `make_room_scannet` in the layout of Pointcept's prepared ScanNet.

    `<split>/<room>/{coord,color,normal,segment20,segment200,instance}.npy`; without images.

    Args:
        out: Folder to make; it appears only when everything is in it.
        num_scenes: Number of rooms, the first ones for training.
        seed: Of everything.
        val_fraction: Share of validation rooms, at least one of two or more.
        voxel_size: Distance between the meshes' vertices, metres.
        progress: Called with (done, total) after each room.

    Raises:
        ValueError: If `out` is in use or an argument is out of range.
    """
    with whole_folder(out) as root:
        make_rooms(
            partial(_write_arrays, root, seed),
            num_scenes=num_scenes,
            seed=seed,
            val_fraction=val_fraction,
            voxel_size=voxel_size,
            progress=progress,
        )


def _place(index: int, seed: int, room: Room, *, is_val: bool) -> _Place:
    """A reconstruction starts at any heading, its lowest corner near the origin."""
    rng = np.random.default_rng((seed, index, 41))
    turn = yaw_rotation(rng.uniform(-np.pi, np.pi))
    reach = 0.5 * np.abs(turn[:2, :2]) @ np.array(room.size[:2])
    shift = np.array([*reach, 0.0]) + rng.uniform(0.0, 0.3, 3)
    split = "val" if is_val else "train"
    return _Place(f"scene{index:04d}_00", split, pose_matrix(turn, shift))


# --- annotation


class _Annotation(NamedTuple):
    """What ScanNet's annotators would have stored.

    Attributes:
        rows: Numbers (from 1) of the objects that are annotated and have vertices.
        group_of_vertex: Position in `rows` of each vertex's object, -1 = none.
    """

    rows: Int64[np.ndarray, " g"]
    group_of_vertex: Int64[np.ndarray, " n"]


def _annotate(room: Room, index: int, seed: int) -> _Annotation:
    rng = np.random.default_rng((seed, index, 43))
    forgotten = rng.uniform(size=len(room.objects)) < _UNANNOTATED
    forgotten &= [item.name not in ("wall", "floor") for item in room.objects]
    present = np.unique(room.instance)
    rows = present[~forgotten[present - 1]]
    group = np.full(len(room.objects) + 1, -1)
    group[rows] = np.arange(len(rows))
    return _Annotation(rows, group[room.instance])


def _ids(room: Room, annotation: _Annotation) -> Int64[np.ndarray, "n 2"]:
    """ScanNet200 id and NYU40 id of each vertex, 0 = not annotated."""
    ids = [_CATEGORIES[room.objects[row - 1].name][:2] for row in annotation.rows]
    return np.array([*ids, (0, 0)], dtype=np.int64)[annotation.group_of_vertex]


def _world_xyz(room: Room, place: _Place) -> Float32[np.ndarray, "n 3"]:
    pose = place.world_from_room
    return (turn_rays(room.xyz.astype(np.float64), pose[:3, :3]) + pose[:3, 3]).astype(np.float32)


# --- the release's layout


def _write_room(root: Path, seed: int, index: int, room: Room, is_val: bool) -> _Place:
    place = _place(index, seed, room, is_val=is_val)
    folder = root / "scans" / place.name
    folder.mkdir(parents=True)
    annotation = _annotate(room, index, seed)
    mesh = folder / f"{place.name}_vh_clean_2"
    vertex = dict(zip("xyz", _world_xyz(room, place).T, strict=True))
    opaque = np.full(len(room.xyz), 255, dtype=np.uint8)
    face = {"vertex_indices": room.faces}
    channels = ("red", "green", "blue")
    colors = dict(zip(channels, room.color.T, strict=True))
    write_ply(
        mesh.with_suffix(".ply"), {"vertex": {**vertex, **colors, "alpha": opaque}, "face": face}
    )
    label = _ids(room, annotation)[:, 1].astype(np.uint16)
    colors = dict(zip(channels, _label_colors()[label].T, strict=True))
    columns = {**vertex, **colors, "alpha": opaque, "label": label}
    write_ply(folder / f"{place.name}_vh_clean_2.labels.ply", {"vertex": columns, "face": face})
    _write_annotation(folder, place.name, room, annotation)
    _write_text(folder / f"{place.name}.txt", room, place)
    _write_frames(folder, room, place)
    return place


def _label_colors() -> np.ndarray:
    number = np.arange(41)[:, None]
    colors = (number * np.array([67, 131, 199]) + 40) % 216 + 40
    colors[0] = 0
    return colors.astype(np.uint8)


def _write_annotation(folder: Path, name: str, room: Room, annotation: _Annotation) -> None:
    cube = np.floor(room.xyz / _SEGMENT).astype(np.int64)
    keys = np.column_stack([room.instance, cube])
    _, segment = np.unique(keys, axis=0, return_inverse=True)
    segment = segment.ravel()
    groups = []
    for group, row in enumerate(annotation.rows):
        own = np.unique(segment[annotation.group_of_vertex == group])
        label = room.objects[row - 1].name
        groups.append({"id": group, "objectId": group, "segments": own.tolist(), "label": label})
    segments_file = f"{name}_vh_clean_2.0.010000.segs.json"
    aggregation = {
        "sceneId": f"scannet.{name}",
        "appId": "Aggregator.v2",
        "segGroups": groups,
        "segmentsFile": f"scannet.{segments_file}",
    }
    segments = {"sceneId": name, "segIndices": segment.tolist()}
    (folder / f"{name}.aggregation.json").write_text(json.dumps(aggregation))
    (folder / segments_file).write_text(json.dumps(segments))


def _write_text(file: Path, room: Room, place: _Place) -> None:
    alignment = np.linalg.inv(place.world_from_room)
    lines = [f"axisAlignment = {_join(alignment)}"]
    if room.frames:
        height, width = room.frames[0].color.shape[:2]
        matrix = room.frames[0].intrinsics
        for kind in ("color", "depth"):
            lines += [f"{kind}Height = {height}", f"{kind}Width = {width}"]
            values = {
                "fx": matrix[0, 0],
                "fy": matrix[1, 1],
                "mx": matrix[0, 2],
                "my": matrix[1, 2],
            }
            lines += [f"{key}_{kind} = {value:.6f}" for key, value in values.items()]
    lines += [f"numColorFrames = {len(room.frames)}", f"sceneType = {room.kind.title()}"]
    file.write_text("".join(f"{line}\n" for line in lines))


def _join(matrix: np.ndarray) -> str:
    return " ".join(f"{value:.6f}" for value in matrix.ravel())


def _write_frames(folder: Path, room: Room, place: _Place) -> None:
    if not room.frames:
        return
    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir()
    matrix = np.eye(4)
    matrix[:3, :3] = room.frames[0].intrinsics
    for kind in ("color", "depth"):
        _write_matrix(folder / "intrinsic" / f"intrinsic_{kind}.txt", matrix)
        _write_matrix(folder / "intrinsic" / f"extrinsic_{kind}.txt", np.eye(4))
    for number, frame in enumerate(room.frames):
        (folder / "color" / f"{number}.jpg").write_bytes(_encode(frame.color, "JPEG"))
        (folder / "depth" / f"{number}.png").write_bytes(_encode(frame.depth, "PNG"))
        _write_matrix(folder / "pose" / f"{number}.txt", place.world_from_room @ frame.pose)


def _write_matrix(file: Path, matrix: np.ndarray) -> None:
    file.write_text("".join(" ".join(f"{x:.6f}" for x in row) + "\n" for row in matrix))


def _encode(pixels: np.ndarray, format: str) -> bytes:  # noqa: A002
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=format, quality=90)
    return stream.getvalue()


def _write_table(file: Path) -> None:
    lines = ["id\traw_category\tcategory\tcount\tnyu40id\tnyu40class"]
    for name, (number, nyu40, nyu40_name) in _CATEGORIES.items():
        category = "book" if name == "books" else name
        lines.append(f"{number}\t{name}\t{category}\t1\t{nyu40}\t{nyu40_name}")
    file.write_text("".join(f"{line}\n" for line in lines))


# --- Pointcept's layout


def _write_arrays(root: Path, seed: int, index: int, room: Room, is_val: bool) -> None:
    place = _place(index, seed, room, is_val=is_val)
    folder = root / place.split / place.name
    folder.mkdir(parents=True)
    annotation = _annotate(room, index, seed)
    coord = _world_xyz(room, place)
    ids = _ids(room, annotation)
    arrays = {
        "coord": coord,
        "color": room.color,
        "normal": vertex_normals(coord, room.faces),
        "segment20": _positions(ids[:, 1], tuple(SCANNET20)),
        "segment200": _positions(ids[:, 0], tuple(SCANNET200)),
        "instance": annotation.group_of_vertex,
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)


def _positions(ids: Int64[np.ndarray, " n"], known: tuple[int, ...]) -> Int64[np.ndarray, " n"]:
    table = np.full(max(max(known), int(ids.max())) + 1, -1, dtype=np.int64)
    table[list(known)] = np.arange(len(known))
    return table[ids]
