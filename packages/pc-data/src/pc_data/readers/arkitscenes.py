"""The ARKitScenes reader: rooms as coloured meshes with oriented boxes and posed images.

Source: ARKitScenes (Baruch et al., NeurIPS 2021 datasets and benchmarks, arXiv:2111.08897), the
    part for 3D object detection (`3dod`).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from pc_data.errors import DataError
from pc_data.files.points import raise_defect
from pc_data.layouts import check_root, known_split
from pc_data.readers.arkitscenes_files import find_frames, make_camera, read_boxes
from pc_data.readers.scannet_files import read_mesh, vertex_normals
from pc_data.scan import Boxes, Camera, Scan

BOX_CLASS_NAMES = (
    "cabinet",
    "refrigerator",
    "shelf",
    "stove",
    "bed",
    "sink",
    "washer",
    "toilet",
    "bathtub",
    "oven",
    "dishwasher",
    "fireplace",
    "stool",
    "chair",
    "table",
    "tv_monitor",
    "sofa",
)
_FOLDERS = {"train": ("Training",), "val": ("Validation",), "all": ("Training", "Validation")}


class ARKitScenes:
    """The videos of one split as a map-style sequence; a scan is the mesh of a video's room.

    Points are the vertices of `<video>_3dod_mesh.ply` in the frame of the recording: metres, z up,
    origin and heading arbitrary. Colour is 0..1; normals are the area-weighted means of the
    adjacent faces', zero where a vertex has no face. Points have no classes. Boxes are those called
    `obbAligned`, in the same frame; those of other things than the 17 classes get label -1.

    Images are those of `lowres_wide`, with the pose of `lowres_wide.traj` that is nearest in time;
    an image without a pose within 5 ms is left out. A video that is there but has no images has no
    cameras, one without annotation no boxes.

    Attributes:
        root: The dataset's folder.
        split: The split read.
        splits: The splits that there are: Training, Validation, or both.
        class_names: None; points have no classes.
        box_class_names: The 17 classes of boxes, index = label.
        num_classes: 0.
        intensity_mean: 0, there is no intensity.
        intensity_std: 1.
        min_depth: A point counts as seen by a camera only beyond this depth in metres.
        min_x: Minus infinity.
        max_cameras: Images of a video that are used at most, evenly over the recording.
        scene_names: The videos of the split that are present, e.g. `40753679`.
    """

    splits = tuple(_FOLDERS)
    class_names: tuple[str, ...] = ()
    box_class_names = BOX_CLASS_NAMES
    num_classes = 0
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
    ) -> None:
        """List the videos.

        Args:
            root: The folder that holds `Training/` and `Validation/`, usually called `3dod`.
            split: train, val or all.
            labels: Whether scans carry boxes; pre-training needs none.
            on_defect: Is told of each video whose mesh is missing or that is in both folders. The
                default raises; if it returns, the video (its second copy) is left out.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's or holds no video of the split.
            ValueError: If the split is unknown.
        """
        self.root = Path(root)
        self.split = split
        self._has_labels = labels
        known_split(split, self.splits)
        check_root(self.root, "ARKitScenes")
        self._folders = _list_videos(self.root, _FOLDERS[split], on_defect)
        self.scene_names = tuple(folder.name for folder in self._folders)
        if not self._folders:
            raise DataError(
                f"{self.root} has no video of split {split!r} "
                f"({'/'.join(_FOLDERS[split])}/<video>/<video>_3dod_mesh.ply); fetch them or pass "
                "split='all'"
            )

    def __len__(self) -> int:
        return len(self.scene_names)

    def __getitem__(self, index: int) -> Scan:
        """Read one room.

        Raises:
            IndexError: If there is no such room.
            DataError: If one of its files is missing or damaged.
        """
        index = range(len(self))[index]
        points, faces = read_mesh(self.scan_file(index))
        return Scan(
            name=self.scene_names[index],
            xyz=np.ascontiguousarray(points[:, :3]),
            color=np.ascontiguousarray(points[:, 3:]),
            normal=vertex_normals(points[:, :3], faces),
            boxes=self.load_boxes(index),
            cameras=self.cameras(index),
        )

    def scene_of(self, index: int) -> str:
        """Name of the video, e.g. `40753679`."""
        return self.scene_names[index]

    def scan_file(self, index: int) -> Path:
        """Where a room's mesh is."""
        return self._path(index, "_3dod_mesh.ply")

    def load_points(self, index: int) -> Float32[np.ndarray, "n 6"]:
        """Read x, y, z in metres and the colour (0..1) of a room's vertices.

        Raises:
            DataError: If the mesh is missing or damaged.
        """
        return read_mesh(self.scan_file(index))[0]

    def load_labels(self, index: int) -> Int64[np.ndarray, " n"] | None:  # noqa: ARG002
        """None: points have no classes."""
        return None

    def load_boxes(self, index: int) -> Boxes | None:
        """Read a room's boxes, or None if it is not annotated.

        Raises:
            DataError: If the annotation is damaged.
        """
        if not self._has_labels:
            return None
        return read_boxes(self._path(index, "_3dod_annotation.json"), self.box_class_names)

    def cameras(self, index: int) -> tuple[Camera, ...]:
        """Images of the video that have a pose, evenly over the recording; none is decoded.

        Raises:
            DataError: If the trajectory or an image's intrinsics are missing or damaged.
        """
        folder = self._path(index, "_frames")
        frames = find_frames(folder, self.scene_names[index], limit=self.max_cameras)
        return tuple(make_camera(folder, frame) for frame in frames)

    def _path(self, index: int, suffix: str) -> Path:
        return self._folders[index] / f"{self.scene_names[index]}{suffix}"


def _list_videos(
    root: Path, places: tuple[str, ...], on_defect: Callable[[str], None]
) -> tuple[Path, ...]:
    """Folders of the videos that are present, those of each place sorted by name."""
    found: dict[str, Path] = {}
    for place in places:
        for folder in sorted((root / place).iterdir()) if (root / place).is_dir() else ():
            name = folder.name
            if not (name.isascii() and name.isdigit() and folder.is_dir()):
                continue
            if name in found:
                on_defect(f"{folder}: the same video is in {found[name]}; remove one of the two")
            elif (folder / f"{name}_3dod_mesh.ply").is_file():
                found[name] = folder
            else:
                on_defect(
                    f"{folder}: no {name}_3dod_mesh.ply; fetch the video's mesh or remove the "
                    "folder"
                )
    return tuple(found.values())
