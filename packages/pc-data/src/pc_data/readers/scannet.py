"""The ScanNet reader: rooms as coloured meshes with classes, instances, boxes and posed images.

Source: ScanNet (Dai et al., CVPR 2017, arXiv:1702.04405); the 200 classes of ScanNet200
    (Rozenberszki et al., ECCV 2022, arXiv:2204.07761).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data.errors import DataError
from pc_data.files.ply import read_ply
from pc_data.files.points import map_labels, raise_defect
from pc_data.layouts import check_root, known_split
from pc_data.readers.scannet_classes import SCANNET20, SCANNET200
from pc_data.readers.scannet_files import (
    LabelTable,
    Objects,
    boxes_of,
    find_frames,
    list_rooms,
    list_split,
    make_camera,
    read_alignment,
    read_mesh,
    read_objects,
    vertex_normals,
)
from pc_data.scan import Boxes, Camera, Scan

CLASSES: dict[str, dict[int, str]] = {"20": SCANNET20, "200": SCANNET200}
_MISTAKES = (50, 149)  # ids that a few meshes of the first release hold where nothing was meant


def known_classes(classes: str) -> tuple[str, ...]:
    """Names of a set of classes, `20` or `200`.

    Raises:
        ValueError: If there is no such set.
    """
    if classes not in CLASSES:
        raise ValueError(f"classes must be one of {', '.join(CLASSES)}, got {classes!r}")
    return tuple(CLASSES[classes].values())


def _class_of_nyu40() -> np.ndarray:
    table = np.full(max(_MISTAKES) + 1, -2, dtype=np.int8)
    table[: 40 + 1] = -1
    table[list(_MISTAKES)] = -1
    table[list(SCANNET20)] = np.arange(len(SCANNET20))
    return table


_CLASS_OF_NYU40 = _class_of_nyu40()


class ScanNet:
    """The rooms of one split as a map-style sequence; a scan is a room's mesh.

    Points are the vertices of `_vh_clean_2.ply` in the reconstruction's own frame (z up, floor
    near z = 0, arbitrary heading), or in the room's frame (walls along x and y) with `align`.
    Colour is 0..1; normals are the area-weighted means of the adjacent faces', zero where a vertex
    has no face. The 20 classes come from `_vh_clean_2.labels.ply`, or from the aggregation without
    it; the 200 from the aggregation. Instance numbers are the aggregation's `objectId` plus 1.
    Boxes are those of the annotated objects but walls and floors: upright, along the room's axes,
    around the object's vertices.

    Images are those exported from the `.sens` file into `color/`, `depth/`, `pose/` and
    `intrinsic/` inside the room's folder (`color/0.jpg`, `pose/0.txt`,
    `intrinsic/intrinsic_color.txt`), or `posed_images/<room>/` at the root (`00000.jpg`,
    `00000.txt`, `intrinsic.txt`). Frames whose pose is not finite lost track and are left out.

    Attributes:
        root: The dataset's folder.
        split: The split read.
        splits: The splits that there are. Each but `all` is the list `scannetv2_<split>.txt` at
            the root.
        class_names: The 20 or 200 classes, index = label.
        box_class_names: The same without wall and floor; of 20 these are VoteNet's 18.
        num_classes: 20 or 200.
        intensity_mean: 0, there is no intensity.
        intensity_std: 1.
        min_depth: A point counts as seen by a camera only beyond this depth in metres.
        min_x: Minus infinity.
        max_cameras: Images of a room that are used at most, evenly over the recording.
        scene_names: The rooms of the split that are present, e.g. `scene0000_00`.
    """

    splits = ("train", "val", "test", "all")
    intensity_mean = 0.0
    intensity_std = 1.0
    min_depth = 0.0
    min_x = -np.inf
    max_cameras = 20

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        labels: bool = True,
        on_defect: Callable[[str], None] = raise_defect,
        classes: str = "20",
        align: bool = False,
    ) -> None:
        """List the rooms and read the table of labels.

        Args:
            root: The folder that holds `scans/` or `scans_test/`, the table
                `scannetv2-labels.combined.tsv` and the lists `scannetv2_train.txt` and so on.
            split: train, val, test, or all (needs no list).
            labels: Whether scans carry classes, instances and boxes; pre-training needs none.
            on_defect: Is told of each room whose mesh is missing. The default raises; if it
                returns, the room is left out.
            classes: 20 or 200.
            align: Whether to turn rooms by the `axisAlignment` of their text file, with normals,
                cameras and boxes; a room stays where its file gives none.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's, holds no room of the split, or a list or the
                table is damaged.
            ValueError: If the split or the classes are unknown.
        """
        self.root = Path(root)
        self.split = split
        known_split(split, self.splits)
        self.class_names = known_classes(classes)
        check_root(self.root, "ScanNet")
        self.num_classes = len(self.class_names)
        self.box_class_names = tuple(n for n in self.class_names if n not in ("wall", "floor"))
        self._is_20 = classes == "20"
        self._class_of_id = {number: k for k, number in enumerate(CLASSES[classes])}
        self._has_labels = labels
        self._align = align
        names = None if split == "all" else list_split(self.root, split)
        self._folders = list_rooms(self.root, names, on_defect)
        self.scene_names = tuple(folder.name for folder in self._folders)
        if not self._folders:
            raise DataError(
                f"{self.root} has no room of split {split!r} (scans/<room>/<room>_vh_clean_2.ply); "
                "fetch them or pass split='all'"
            )
        self._table = LabelTable(self.root / "scannetv2-labels.combined.tsv") if labels else None

    def __len__(self) -> int:
        return len(self.scene_names)

    def __getitem__(self, index: int) -> Scan:
        """Read one room.

        Raises:
            IndexError: If there is no such room.
            DataError: If one of its files is missing or damaged.
        """
        index = range(len(self))[index]
        points, faces = self._load_mesh(index)
        objects = self._load_objects(index, len(points))
        labels = self._labels_of(index, len(points), objects)
        return Scan(
            name=self.scene_names[index],
            xyz=np.ascontiguousarray(points[:, :3]),
            color=np.ascontiguousarray(points[:, 3:]),
            normal=vertex_normals(points[:, :3], faces),
            labels=labels,
            instance=None if objects is None else objects.instance(),
            boxes=self._boxes_of(index, points[:, :3], objects),
            cameras=self.cameras(index),
        )

    def scene_of(self, index: int) -> str:
        """Name of the room, e.g. `scene0000_00`."""
        return self.scene_names[index]

    def scan_file(self, index: int) -> Path:
        """Where a room's mesh is."""
        return self._file(index, "_vh_clean_2.ply")

    def load_points(self, index: int) -> Float32[np.ndarray, "n 6"]:
        """Read x, y, z in metres and the colour (0..1) of a room's vertices.

        Raises:
            DataError: If the mesh is missing or damaged.
        """
        return self._load_mesh(index)[0]

    def load_labels(self, index: int) -> Int64[np.ndarray, " n"] | None:
        """Read the classes of a room's vertices, -1 = ignored, or None without labels.

        Raises:
            DataError: If a file is missing, damaged, or of another length than the mesh.
        """
        if not self._has_labels:
            return None
        num_points = len(self._load_mesh(index)[0])
        return self._labels_of(index, num_points, self._load_objects(index, num_points))

    def load_boxes(self, index: int) -> Boxes | None:
        """Read a room's boxes, or None without an aggregation.

        Raises:
            DataError: If a file is missing or damaged.
        """
        if not self._has_labels:
            return None
        points = self._load_mesh(index)[0]
        return self._boxes_of(index, points[:, :3], self._load_objects(index, len(points)))

    def cameras(self, index: int) -> tuple[Camera, ...]:
        """The images exported with the room, evenly over the recording; none is decoded.

        Raises:
            DataError: If a pose or the calibration is missing or damaged.
        """
        frames = find_frames(self.root, self._folders[index], limit=self.max_cameras)
        back = np.linalg.inv(self._frame(index))
        return tuple(camera for frame in frames if (camera := make_camera(frame, back)) is not None)

    def _file(self, index: int, suffix: str) -> Path:
        return self._folders[index] / f"{self.scene_names[index]}{suffix}"

    def _alignment(self, index: int) -> Float64[np.ndarray, "4 4"]:
        """Room-from-reconstruction."""
        return read_alignment(self._file(index, ".txt"))

    def _frame(self, index: int) -> Float64[np.ndarray, "4 4"]:
        """Scan-from-reconstruction."""
        if not self._align:
            return np.eye(4)
        file = self._file(index, ".txt")
        if not file.is_file():
            raise DataError(
                f"{file}: file is missing, so the room cannot be aligned; fetch it or pass "
                "align=False"
            )
        return self._alignment(index)

    def _load_mesh(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Vertices with colour, and faces."""
        points, faces = read_mesh(self.scan_file(index))
        if self._align:
            pose = self._frame(index)
            points[:, :3] = points[:, :3].astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
        return points, faces

    def _load_objects(self, index: int, num_points: int) -> Objects | None:
        if not self._has_labels:
            return None
        aggregation = self._file(index, ".aggregation.json")
        segments = self._file(index, "_vh_clean_2.0.010000.segs.json")
        return read_objects(aggregation, segments, num_points=num_points)

    def _labels_of(
        self, index: int, num_points: int, objects: Objects | None
    ) -> Int64[np.ndarray, " n"] | None:
        if not self._has_labels:
            return None
        file = self._file(index, "_vh_clean_2.labels.ply")
        if self._is_20 and file.is_file():
            raw = read_ply(file).get("vertex", {}).get("label", np.zeros(0, np.uint16))
            if raw.shape != (num_points,) or raw.dtype.kind not in "u":
                raise DataError(
                    f"{file}: {raw.size} labels for {num_points} vertices; fetch the labels that "
                    "belong to this mesh"
                )
            return map_labels(raw, _CLASS_OF_NYU40, file)
        if objects is None:
            return None
        return np.append(self._classes_of(objects), -1)[objects.row_of_vertex]

    def _classes_of(self, objects: Objects) -> Int64[np.ndarray, " k"]:
        """Class of each object, -1 = ignored."""
        table: LabelTable = self._table  # pyrefly: ignore[bad-assignment]
        ids = table.ids(objects)[:, 0 if self._is_20 else 1]
        return np.array([self._class_of_id.get(int(k), -1) for k in ids], dtype=np.int64)

    def _boxes_of(self, index: int, xyz: np.ndarray, objects: Objects | None) -> Boxes | None:
        if objects is None:
            return None
        box_of_name = {name: k for k, name in enumerate(self.box_class_names)}
        boxes = [box_of_name.get(name, -2) for name in self.class_names]
        labels = np.array([*boxes, -1])[self._classes_of(objects)]
        to_room = self._alignment(index) @ np.linalg.inv(self._frame(index))
        return boxes_of(xyz, objects, labels, to_room)
