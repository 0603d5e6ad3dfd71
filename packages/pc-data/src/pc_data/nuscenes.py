"""The nuScenes reader: LiDAR keyframes with six cameras and, where present, lidarseg labels.

Source: nuScenes (Caesar et al., CVPR 2020, arXiv:1903.11027): the v1.0 tables, and the 16 classes
of its lidarseg challenge.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data import nuscenes_splits
from pc_data.errors import DataError
from pc_data.layouts import check_root, known_split
from pc_data.nuscenes_tables import CAMERAS, Keyframes, read_keyframes
from pc_data.points import count_points, map_labels, raise_defect, read_labels, read_points
from pc_data.scan import Boxes, Camera, Scan

CLASS_NAMES = (
    "barrier",
    "bicycle",
    "bus",
    "car",
    "construction_vehicle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "trailer",
    "truck",
    "driveable_surface",
    "other_flat",
    "sidewalk",
    "terrain",
    "manmade",
    "vegetation",
)
SPLITS = ("train", "val", "test", "mini_train", "mini_val", "all")

_CLASS_OF_RAW = np.array(  # by raw id, 0..31
    (
        *(-1, -1, 6, 6, 6, -1, 6, -1, -1, 0, -1, -1, 7, -1, 1, 2),
        *(2, 3, 4, -1, -1, 5, 8, 9, 10, 11, 12, 13, 14, -1, 15, -1),
    ),
    dtype=np.int8,
)


class NuScenes:
    """The keyframes of one split as a map-style sequence of scans.

    Points are in the LIDAR_TOP frame (x right, y forward, z up), intensity is raw (0..255), and
    each camera's `from_scan` goes through the world, so it accounts for the vehicle's motion
    between the two sensors' times. Sweeps between keyframes are not read.

    Attributes:
        root: The dataset's folder.
        version: The tables' folder.
        split: The split read.
        splits: The splits that there are.
        class_names: The 16 lidarseg classes, index = label.
        box_class_names: None; boxes are not read.
        num_classes: 16.
        intensity_mean: Mean of the intensity over the training split (ScaLR's value).
        intensity_std: Standard deviation of it.
        min_depth: A point counts as seen by a camera only beyond this depth in metres (ScaLR).
        min_x: A point counts as seen only beyond this x of the scan's frame; no limit here.
        scene_names: The scenes of the split that are present.
    """

    splits = SPLITS
    class_names = CLASS_NAMES
    box_class_names: tuple[str, ...] = ()
    num_classes = len(CLASS_NAMES)
    intensity_mean = 18.742355
    intensity_std = 22.04632
    min_depth = 1.0
    min_x = -np.inf

    def __init__(
        self,
        root: str | Path,
        *,
        version: str = "v1.0-trainval",
        split: str = "train",
        labels: bool = True,
        on_defect: Callable[[str], None] = raise_defect,
    ) -> None:
        """Read the tables.

        Args:
            root: The folder that holds `samples/` and the tables' folder.
            version: The tables' folder: v1.0-trainval, v1.0-mini or v1.0-test.
            split: train, val, test, mini_train, mini_val, or all for every scene of the tables.
                With v1.0-mini, train and val mean its 8 and 2 scenes.
            labels: Whether scans carry their labels; pre-training needs none.
            on_defect: Is told of each contradiction in the tables. The default raises; if it
                returns, the keyframe or camera concerned is left out.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's, or its tables are missing or damaged.
            ValueError: If the split is unknown.
        """
        self.root = Path(root)
        self.version = version
        self.split = split
        self._has_labels = labels
        known_split(split, SPLITS)
        check_root(self.root, "nuScenes")
        versions = list_versions(self.root)
        if version not in versions:
            raise DataError(
                f"{self.root} has no version {version!r}; it has {', '.join(versions)}: "
                "name one of these as version"
            )
        folder = self.root / version
        self._frames: Keyframes = read_keyframes(
            folder, scenes=split_scenes(split, version=version), on_defect=on_defect
        )
        if not len(self._frames):
            raise DataError(
                f"{folder} has no keyframe of split {split!r}; pass the version that holds this "
                "split, or split='all' for every scene of the tables"
            )
        present = np.unique(self._frames.scene_index)
        self.scene_names = tuple(self._frames.scene_names[index] for index in present)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Scan:
        """Read one keyframe.

        Raises:
            IndexError: If there is no such keyframe.
            DataError: If the scan or its labels are missing or damaged.
        """
        index = range(len(self))[index]
        points = self.load_points(index)
        return Scan(
            name=self._frames.tokens[index].decode(),
            xyz=np.ascontiguousarray(points[:, :3]),
            intensity=np.ascontiguousarray(points[:, 3]),
            labels=self.load_labels(index),
            cameras=self.cameras(index),
            pose=self._world_from(index, 0),
            timestamp=self._frames.timestamp[index] * 1e-6,
        )

    def scene_of(self, index: int) -> str:
        """Name of the scene that a keyframe belongs to."""
        return self._frames.scene_names[self._frames.scene_index[index]]

    def scan_file(self, index: int) -> Path:
        """Where a keyframe's points are."""
        return self.root / self._frames.files[index, 0].decode()

    def label_file(self, index: int) -> Path | None:
        """Where a keyframe's labels are, or None if lidarseg does not list it."""
        names = self._frames.label_files
        return self.root / names[index].decode() if names is not None and names[index] else None

    def load_points(self, index: int) -> Float32[np.ndarray, "n 5"]:
        """Read x, y, z in metres, the raw intensity and the ring of a keyframe's points.

        Raises:
            DataError: If the file is missing or damaged.
        """
        return read_points(self.scan_file(index), num_columns=5)

    def load_labels(self, index: int) -> Int64[np.ndarray, " n"] | None:
        """Read the classes of a keyframe's points, -1 = ignored, or None without labels.

        Raises:
            DataError: If the file is missing, damaged, or of another length than the scan.
        """
        file = self.label_file(index)
        if file is None or not self._has_labels:
            return None
        num_points = count_points(self.scan_file(index), num_columns=5)
        return map_labels(read_labels(file, dtype="u1", num_points=num_points), _CLASS_OF_RAW, file)

    def load_boxes(self, index: int) -> Boxes | None:  # noqa: ARG002
        """None: boxes are not read."""
        return None

    def cameras(self, index: int) -> tuple[Camera, ...]:
        """The cameras of a keyframe; no image is opened."""
        from pc_geometry.rigid import invert_rigid

        frames = self._frames
        world_from_scan = self._world_from(index, 0)
        found = []
        for column, name in enumerate(CAMERAS, start=1):
            if not frames.files[index, column]:
                continue
            width, height = frames.image_size[index, column].tolist()
            found.append(
                Camera(
                    name=name,
                    image_file=self.root / frames.files[index, column].decode(),
                    image_size=(width, height),
                    intrinsics=frames.intrinsics[frames.calibration[index, column]],
                    from_scan=invert_rigid(self._world_from(index, column)) @ world_from_scan,
                )
            )
        return tuple(found)

    def _world_from(self, index: int, column: int) -> Float64[np.ndarray, "4 4"]:
        """World-from-sensor at the time that the sensor fired."""
        from pc_geometry.rigid import make_transform, rotation_from_quaternion

        frames = self._frames
        ego = frames.ego[index, column]
        return (
            make_transform(rotation_from_quaternion(ego[3:]), ego[:3])
            @ frames.mounting[frames.calibration[index, column]]
        )


def list_versions(root: Path) -> tuple[str, ...]:
    """Names of the table folders that a nuScenes root holds."""
    return tuple(sorted(path.name for path in root.glob("v1.0-*") if path.is_dir()))


def split_scenes(split: str, *, version: str) -> tuple[str, ...] | None:
    """Scene names of a split, or None for all scenes.

    Args:
        split: One of `SPLITS`.
        version: With v1.0-mini, train and val mean the mini splits.
    """
    if version == "v1.0-mini" and split in ("train", "val"):
        split = f"mini_{split}"
    return None if split == "all" else getattr(nuscenes_splits, split.upper())
