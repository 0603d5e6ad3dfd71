"""The files of a ScanNet room: lists, label table, objects, alignment, exported images."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int64

from pc_data.errors import DataError
from pc_data.files.image_files import read_image_size
from pc_data.files.json_files import read_json
from pc_data.files.ply import read_ply
from pc_data.scan import Boxes, Camera

_ROOM = re.compile(r"scene\d{4}_\d{2}")


class Objects(NamedTuple):
    """The annotated objects of a room.

    Attributes:
        file: The aggregation that names them.
        names: Raw category of each.
        number: `objectId` of each.
        row_of_vertex: Row of the object that each vertex is of, -1 = none.
    """

    file: Path
    names: tuple[str, ...]
    number: Int64[np.ndarray, " k"]
    row_of_vertex: Int64[np.ndarray, " n"]

    def instance(self) -> Int64[np.ndarray, " n"]:
        """Instance of each vertex: its object's number plus 1, 0 = none."""
        return np.append(self.number + 1, 0)[self.row_of_vertex]


class PosedImage(NamedTuple):
    """Where an exported frame's image, pose and intrinsics are."""

    image: Path
    pose: Path
    intrinsics: Path


# --- lists


def list_split(root: Path, split: str) -> tuple[str, ...]:
    """Read the rooms of an official split from `scannetv2_<split>.txt`.

    Raises:
        DataError: If the list is missing or holds anything but names of rooms, each once.
    """
    file = root / f"scannetv2_{split}.txt"
    if not file.is_file():
        raise DataError(
            f"{file}: list of the split is missing; copy it from the benchmark, or pass split='all'"
        )
    names = file.read_text(encoding="utf-8", errors="replace").split()
    strange = [name for name in names if not _ROOM.fullmatch(name)]
    if strange or len(set(names)) != len(names):
        which = f"holds {strange[0][:40]!r}" if strange else "names a room twice"
        raise DataError(f"{file}: {which}; it must hold names like scene0000_00, each once")
    return tuple(names)


def list_rooms(
    root: Path, names: Sequence[str] | None, on_defect: Callable[[str], None]
) -> tuple[Path, ...]:
    """Folders of the rooms that are present, sorted by name; `names` of None takes all."""
    folders = {}
    for place in ("scans_test", "scans"):
        if (root / place).is_dir():
            folders.update({path.name: path for path in (root / place).iterdir()})
    found = []
    for name in sorted(folders if names is None else set(names) & set(folders)):
        folder = folders[name]
        if not (_ROOM.fullmatch(name) and folder.is_dir()):
            continue
        if (folder / f"{name}_vh_clean_2.ply").is_file():
            found.append(folder)
        else:
            on_defect(
                f"{folder}: no {name}_vh_clean_2.ply; fetch the room's mesh or remove the folder"
            )
    return tuple(found)


class LabelTable:
    """Class ids of the raw categories, from `scannetv2-labels.combined.tsv`."""

    def __init__(self, file: Path) -> None:
        """Read the table; an absent one has no rows.

        Raises:
            DataError: If it is damaged.
        """
        self.file = file
        self._rows: dict[str, tuple[int, int]] = {}
        if not file.is_file():
            return
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        header = lines[0].split("\t") if lines else []
        try:
            columns = [header.index(name) for name in ("raw_category", "nyu40id", "id")]
            for line in lines[1:]:
                words = line.split("\t")
                name, nyu40, number = (words[column] for column in columns)
                self._rows[name] = (int(np.int64(nyu40 or 0)), int(np.int64(number)))
        except (ValueError, IndexError, OverflowError) as error:
            raise DataError(
                f"{file}: no table with numbers in columns raw_category, nyu40id and id "
                f"({error}); fetch it again"
            ) from error

    def ids(self, objects: Objects) -> Int64[np.ndarray, "k 2"]:
        """NYU40 id and ScanNet200 id of each object.

        Raises:
            DataError: If the table is missing or does not know a category.
        """
        if not self._rows:
            raise DataError(f"{self.file}: table of labels is missing or empty; restore it")
        unknown = [name for name in objects.names if name not in self._rows]
        if unknown:
            raise DataError(
                f"{objects.file}: category {unknown[0]!r} is not in {self.file.name}; fetch the "
                "table that belongs to these annotations"
            )
        rows = [self._rows[name] for name in objects.names]
        return np.array(rows, dtype=np.int64).reshape(-1, 2)


# --- one room


def read_mesh(file: Path) -> tuple[Float32[np.ndarray, "n 6"], Int[np.ndarray, "f 3"]]:
    """Read a mesh.

    Returns:
        x, y, z in metres and colour in 0..1 of the vertices, and the faces.

    Raises:
        DataError: If the file is missing, damaged, or no triangle mesh with colours.
    """
    elements = read_ply(file)
    vertex, face = elements.get("vertex", {}), elements.get("face", {})
    columns = ("x", "y", "z", "red", "green", "blue")
    missing = [name for name in columns if name not in vertex or vertex[name].ndim != 1]
    if missing:
        raise DataError(f"{file}: vertices have no {', '.join(missing)}; fetch the mesh again")
    points = np.stack([vertex[name] for name in columns], axis=1, dtype=np.float32)
    finite = np.isfinite(points).all(1)
    if not len(points) or not finite.all():
        raise DataError(
            f"{file}: {np.count_nonzero(~finite)} of {len(points)} vertices have NaN or infinite "
            "values, but there must be some and all finite; fetch the mesh again"
        )
    points[:, 3:] /= 255
    faces = face.get("vertex_indices", face.get("vertex_index", np.zeros((0, 3), np.int32)))
    faces = faces if len(faces) else np.zeros((0, 3), np.int32)
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        raise DataError(f"{file}: its faces are no triangles; fetch the mesh again")
    if len(faces) and not 0 <= faces.min() <= faces.max() < len(points):
        raise DataError(
            f"{file}: faces name vertices {faces.min()} to {faces.max()} of {len(points)}; fetch "
            "the mesh again"
        )
    return points, faces


def vertex_normals(
    xyz: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"]
) -> Float32[np.ndarray, "n 3"]:
    """Unit normals of vertices: the sum of their faces' normals weighted by area.

    Zero where a vertex has no face.

    Source: Pointcept's preparation of ScanNet, as Masked Scene Contrast uses it. It adds 1e-8 to
        the length; here tiny faces have unit normals too.
    """
    corners = xyz.astype(np.float64)[faces]
    doubled = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    around = faces.ravel()
    total = [
        np.bincount(around, weights=np.repeat(doubled[:, axis], 3), minlength=len(xyz))
        for axis in range(3)
    ]
    normal = np.stack(total, axis=1)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return (normal / np.maximum(length, 1e-12)).astype(np.float32)


def read_alignment(file: Path) -> Float64[np.ndarray, "4 4"]:
    """Room-from-reconstruction from a room's text file; the identity where it gives none.

    Raises:
        DataError: If it holds no `key = value`, or `axisAlignment` is no turn about the vertical
            and shift.
    """
    if not file.is_file():
        return np.eye(4)
    text = file.read_text(encoding="utf-8", errors="replace")
    if "=" not in text:
        raise DataError(f"{file}: holds no line 'key = value'; fetch the file again")
    for line in text.splitlines():
        key, _, numbers = line.partition("=")
        if key.strip() != "axisAlignment":
            continue
        try:
            matrix = np.array(numbers.split(), dtype=np.float64).reshape(4, 4)
        except ValueError:
            matrix = np.zeros((4, 4))
        if not _is_rigid(matrix) or abs(matrix[2, 2] - 1) > 1e-3:
            raise DataError(
                f"{file}: axisAlignment is no turn about the vertical with a shift; fetch the file "
                "again"
            )
        return matrix
    return np.eye(4)


def read_objects(aggregation: Path, segments: Path, *, num_points: int) -> Objects | None:
    """Read which object each vertex is of; None if neither file is there.

    Args:
        aggregation: `<room>.aggregation.json`, the objects as groups of segments.
        segments: `<room>_vh_clean_2.0.010000.segs.json`, the segment of each vertex.
        num_points: Vertices of the mesh.

    Raises:
        DataError: If one is missing beside the other, damaged, or does not fit the mesh.
    """
    if not aggregation.is_file() and not segments.is_file():
        return None
    segment = _integers(_read_json(segments, "segIndices"), f"{segments}: segIndices")
    if len(segment) != num_points:
        raise DataError(
            f"{segments}: {len(segment)} segments for {num_points} vertices; fetch the file that "
            "belongs to this mesh"
        )
    known, place = np.unique(segment, return_inverse=True)
    row_of_segment = np.full(len(known), -1)
    names, number = [], []
    for row, group in enumerate(_read_json(aggregation, "segGroups")):
        where = f"{aggregation}: object {row}"
        if not (isinstance(group, dict) and isinstance(group.get("label"), str)):
            raise DataError(f"{where} has no label; fetch the file again")
        names.append(group["label"])
        number.append(_integers([group.get("objectId")], f"{where}: objectId")[0])
        own = _integers(group.get("segments"), f"{where}: segments")
        row_of_segment[np.isin(known, own)] = row
    fits = min(number, default=0) >= 0 and max(number, default=0) < np.iinfo(np.int64).max
    if len(set(number)) != len(number) or not fits:
        raise DataError(
            f"{aggregation}: its objectIds are not distinct numbers from 0; fetch the file again"
        )
    if names and (row_of_segment < 0).all():
        raise DataError(
            f"{aggregation}: none of its segments is in {segments.name}; fetch the two files that "
            "belong together"
        )
    return Objects(aggregation, tuple(names), np.array(number, np.int64), row_of_segment[place])


def _read_json(file: Path, key: str) -> list[Any]:
    missing = "file is missing; restore it or remove the room's annotations"
    content = read_json(file, missing=missing)
    values = content.get(key) if isinstance(content, dict) else None
    if not isinstance(values, list):
        raise DataError(f"{file}: holds no list {key!r}; fetch the file again")
    return values


def _integers(values: object, what: str) -> Int64[np.ndarray, " n"]:
    try:
        numbers = np.array(values)
    except ValueError:  # lists of several lengths
        numbers = np.array(None)
    if numbers.ndim != 1 or (len(numbers) and numbers.dtype.kind != "i"):
        raise DataError(f"{what} must be whole numbers; fetch the file again")
    return numbers.astype(np.int64)


def boxes_of(
    xyz: Float32[np.ndarray, "n 3"],
    objects: Objects,
    labels: Int64[np.ndarray, " k"],
    room_from_scan: Float64[np.ndarray, "4 4"],
) -> Boxes:
    """Upright boxes along the room's axes around the vertices of each object that has any.

    Args:
        xyz: Vertices in the scan's frame.
        objects: Of the room.
        labels: Class of each object's box; objects of -2 get none.
        room_from_scan: A turn about the vertical and a shift.
    """
    turn, shift = room_from_scan[:3, :3], room_from_scan[:3, 3]
    row = objects.row_of_vertex
    order = np.argsort(row, kind="stable")[np.count_nonzero(row < 0) :]
    present, first = np.unique(row[order], return_index=True)
    present, first = present.astype(np.int64), first.astype(np.int64)
    corners = np.zeros((2, len(present), 3))
    if len(present):
        inside = xyz[order].astype(np.float64) @ turn.T + shift
        corners[0] = np.minimum.reduceat(inside, first)
        corners[1] = np.maximum.reduceat(inside, first)
    center = (corners.mean(0) - shift) @ turn
    yaw = np.full(len(present), -np.arctan2(turn[1, 0], turn[0, 0]))
    cuboid = np.column_stack([center, corners[1] - corners[0], yaw])
    kept = labels[present] > -2
    return Boxes(
        cuboid=cuboid[kept],
        labels=labels[present][kept],
        track=tuple(str(number + 1) for number in objects.number[present][kept]),
    )


# --- images


def find_frames(root: Path, folder: Path, *, limit: int) -> tuple[PosedImage, ...]:
    """Exported images of a room, in the order of recording, at most `limit` spread evenly."""
    calibration = folder / "intrinsic" / "intrinsic_color.txt"
    images, poses = folder / "color", folder / "pose"
    if not images.is_dir():
        images = poses = root / "posed_images" / folder.name
        calibration = images / "intrinsic.txt"
    files = [path for path in images.glob("*.jpg") if path.stem.isascii() and path.stem.isdigit()]
    files.sort(key=lambda path: int(path.stem))
    if len(files) > limit:
        files = [files[k] for k in np.linspace(0, len(files) - 1, limit).astype(int)]
    return tuple(PosedImage(file, poses / f"{file.stem}.txt", calibration) for file in files)


def make_camera(frame: PosedImage, from_scan: Float64[np.ndarray, "4 4"]) -> Camera | None:
    """The camera of a frame, or None if its pose was lost.

    Args:
        frame: Its files.
        from_scan: Reconstruction-from-scan.

    Raises:
        DataError: If one of its files is missing or damaged.
    """
    pose = _read_matrix(frame.pose)
    if not np.isfinite(pose).all():
        return None
    if not _is_rigid(pose):
        raise DataError(f"{frame.pose}: pose is no turn with a shift; fetch the file again")
    intrinsics = _read_matrix(frame.intrinsics)[:3, :3]
    if not np.isfinite(intrinsics).all() or min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
        raise DataError(f"{frame.intrinsics}: focal lengths are not positive; fetch it again")
    if tuple(intrinsics[2]) != (0, 0, 1):
        raise DataError(f"{frame.intrinsics}: is no camera matrix; fetch it again")
    size = read_image_size(frame.image)
    middle = intrinsics[:2, 2] / size
    if not ((middle > 0.25) & (middle < 0.75)).all():
        raise DataError(
            f"{frame.image}: the principal point of {frame.intrinsics.name} is not near the middle "
            f"of its {size[0]}x{size[1]} pixels; export the images in the size of the calibration"
        )
    return Camera(
        name=frame.image.stem,
        image_file=frame.image,
        image_size=size,
        intrinsics=intrinsics,
        from_scan=np.linalg.inv(pose) @ from_scan,
    )


def _read_matrix(file: Path) -> Float64[np.ndarray, "4 4"]:
    if not file.is_file():
        raise DataError(f"{file}: file is missing; export the room's frames again")
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
        return np.array(text.split(), dtype=np.float64).reshape(4, 4)
    except ValueError as error:
        raise DataError(f"{file}: not 4 x 4 numbers; export the frames again") from error


def _is_rigid(matrix: np.ndarray) -> bool:
    from pc_geometry.rigid import is_rotation

    return bool(
        np.isfinite(matrix).all()
        and is_rotation(matrix[:3, :3], tolerance=1e-2)
        and np.allclose(matrix[3], (0, 0, 0, 1))
    )
