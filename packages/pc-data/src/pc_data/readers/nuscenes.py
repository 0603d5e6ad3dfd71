"""The nuScenes reader: LiDAR keyframes with cameras, labels, objects, boxes and earlier sweeps.

Source: nuScenes (Caesar et al., CVPR 2020, arXiv:1903.11027): the v1.0 tables, the 16 classes of
its lidarseg challenge and the 10 of its detection challenge; Panoptic nuScenes (Fong et al., RA-L
2022, arXiv:2109.03805).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data.errors import DataError
from pc_data.files.points import count_points, map_labels, raise_defect, read_labels, read_points
from pc_data.layouts import check_root, known_split
from pc_data.readers import nuscenes_splits
from pc_data.readers.common_classes import choose_classes
from pc_data.readers.nuscenes_boxes import DETECTION_NAMES, read_boxes
from pc_data.readers.nuscenes_panoptic import OBJECTS, read_panoptic
from pc_data.readers.nuscenes_sweeps import Sweeps, far_from_car, join_older
from pc_data.readers.nuscenes_tables import CAMERAS, Keyframes, read_keyframes
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
SPLITS = (
    *("train", "val", "test", "mini_train", "mini_val", "slidr_train", "slidr_val"),
    "all",
)
MAX_SWEEPS = 10

CLASS_OF_RAW = np.array(  # by raw id, 0..31
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
    between the two sensors' times. Labels are those of lidarseg, or the panoptic ones where there
    is no lidarseg; `instance` is there with panoptic labels.

    Attributes:
        root: The dataset's folder.
        version: The tables' folder.
        split: The split read.
        sweeps: LiDAR scans joined into one.
        splits: The splits that there are.
        class_names: The 16 lidarseg classes unless others were asked for, index = label.
        box_class_names: The 10 detection classes, index = label of a box.
        num_classes: Their number.
        intensity_mean: Mean of the intensity over the training split (ScaLR's value).
        intensity_std: Standard deviation of it.
        min_depth: A point counts as seen by a camera only beyond this depth in metres (ScaLR).
        min_x: A point counts as seen only beyond this x of the scan's frame; no limit here.
        scene_names: The scenes of the split that are present.
    """

    splits: tuple[str, ...] = SPLITS
    class_names: tuple[str, ...] = CLASS_NAMES
    box_class_names = DETECTION_NAMES
    num_classes = len(CLASS_NAMES)
    intensity_mean = 18.742355
    intensity_std = 22.04632
    min_depth = 1.0
    min_x = -np.inf
    _class_of_raw = CLASS_OF_RAW

    def __init__(
        self,
        root: str | Path,
        *,
        version: str = "v1.0-trainval",
        split: str = "train",
        labels: bool = True,
        classes: str = "",
        boxes: bool = False,
        sweeps: int = 1,
        on_defect: Callable[[str], None] = raise_defect,
    ) -> None:
        """Read the tables.

        Args:
            root: The folder that holds `samples/` and the tables' folder.
            version: The tables' folder: v1.0-trainval, v1.0-mini or v1.0-test.
            split: train, val, test, mini_train, mini_val, slidr_train and slidr_val (SLidR's 600
                and 100 of the training scenes), or all for every scene of the tables. With
                v1.0-mini, train and val mean its 8 and 2 scenes.
            labels: Whether scans carry their labels and instances; pre-training needs none.
            classes: 10 for those shared with SemanticKITTI, 6 for those shared with SemanticPOSS,
                empty for the official 16.
            boxes: Whether scans carry their boxes; their tables are read only then.
            sweeps: LiDAR scans joined into one, 1 to 10: the keyframe and those before it, moved
                into its frame. With more than one, points that hit the car are left out (less
                than 1 m from the sensor in x and y), `time` says how old a point is, and only
                points of the keyframe have labels.
            on_defect: Is told of each contradiction in the tables. The default raises; if it
                returns, the keyframe, camera, box or earlier sweep concerned is left out.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's, or its tables are missing or damaged.
            ValueError: If the split or the classes are unknown, or `sweeps` is out of range.
        """
        self.root = Path(root)
        self.version = version
        self.split = split
        self.sweeps = sweeps
        self._has_labels = labels
        self.class_names, self._class_of_raw = choose_classes(
            classes, "nuscenes", CLASS_NAMES, self._class_of_raw
        )
        self.num_classes = len(self.class_names)
        known_split(split, SPLITS)
        if not 1 <= sweeps <= MAX_SWEEPS:
            raise ValueError(f"sweeps must be in [1, {MAX_SWEEPS}] (half a second), got {sweeps}")
        check_root(self.root, "nuScenes")
        versions = list_versions(self.root)
        if version not in versions:
            raise DataError(
                f"{self.root} has no version {version!r}; it has {', '.join(versions)}: "
                "name one of these as version"
            )
        folder = self.root / version
        self._frames: Keyframes = read_keyframes(
            folder,
            scenes=split_scenes(split, version=version),
            num_before=sweeps - 1,
            on_defect=on_defect,
        )
        if not len(self._frames):
            raise DataError(
                f"{folder} has no keyframe of split {split!r}; pass the version that holds this "
                "split, or split='all' for every scene of the tables"
            )
        self._boxes = (
            read_boxes(folder, self._frames.tokens, whole=split == "all", on_defect=on_defect)
            if boxes
            else None
        )
        present = np.unique(self._frames.scene_index)
        self.scene_names = tuple(self._frames.scene_names[index] for index in present)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Scan:
        """Read one keyframe.

        Raises:
            IndexError: If there is no such keyframe.
            DataError: If the scan, an earlier sweep or the labels are missing or damaged.
        """
        index = range(len(self))[index]
        points = self.load_points(index)
        labels, instance = self._load_labels(index)
        scan = Scan(
            name=self._frames.tokens[index].decode(),
            xyz=np.ascontiguousarray(points[:, :3]),
            intensity=np.ascontiguousarray(points[:, 3]),
            labels=labels,
            instance=instance,
            boxes=self.load_boxes(index),
            cameras=self.cameras(index),
            pose=self._world_from(index, 0),
            timestamp=self._frames.timestamp[index] * 1e-6,
        )
        sweeps = self._frames.sweeps
        if sweeps is None:
            return scan
        return join_older(scan.select(far_from_car(scan.xyz)), self._load_sweeps(index, sweeps))

    def scene_of(self, index: int) -> str:
        """Name of the scene that a keyframe belongs to."""
        return self._frames.scene_names[self._frames.scene_index[index]]

    def scan_file(self, index: int) -> Path:
        """Where a keyframe's points are."""
        return self._file(self._frames.files[index, 0])

    def sweep_files(self, index: int) -> tuple[Path, ...]:
        """Where the points of the sweeps before a keyframe are, the latest first."""
        sweeps = self._frames.sweeps
        if sweeps is None:
            return ()
        return tuple(self._file(sweeps.files[row]) for row in sweeps.chain[index] if row >= 0)

    def label_file(self, index: int) -> Path | None:
        """Where a keyframe's labels are, or None if lidarseg does not list it."""
        names = self._frames.label_files
        return self._file(names[index]) if names is not None and names[index] else None

    def panoptic_file(self, index: int) -> Path | None:
        """Where a keyframe's panoptic labels are, or None if there are none."""
        names = self._frames.panoptic_files
        return self._file(names[index]) if names is not None and names[index] else None

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
            panoptic = self.load_panoptic(index)
            return None if panoptic is None else panoptic[0]
        num_points = count_points(self.scan_file(index), num_columns=5)
        raw = read_labels(file, dtype="u1", num_points=num_points)
        return map_labels(raw, self._class_of_raw, file)

    def load_panoptic(
        self, index: int
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]] | None:
        """Read the class and the object of a keyframe's points, or None without panoptic labels.

        Classes are those of the panoptic challenge: other than in lidarseg, a thing's points in no
        box or in several are ignored.

        Returns:
            Classes, -1 = ignored, and objects, 0 = none; the same in every keyframe of a scene.

        Raises:
            DataError: If the file is missing, damaged, or of another length than the scan.
        """
        file = self.panoptic_file(index)
        if file is None or not self._has_labels:
            return None
        num_points = count_points(self.scan_file(index), num_columns=5)
        raw = read_panoptic(file, num_points=num_points).astype(np.int64)
        labels = map_labels(raw // OBJECTS, self._class_of_raw, file)
        return labels, np.where(raw % OBJECTS > 0, raw, 0)

    def _load_labels(self, index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Classes and objects of a keyframe's points."""
        panoptic = self.load_panoptic(index)
        if panoptic is None or self.label_file(index) is not None:
            return self.load_labels(index), None if panoptic is None else panoptic[1]
        return panoptic

    def load_boxes(self, index: int) -> Boxes | None:
        """The boxes of a keyframe, or None if they were not asked for or nothing is annotated."""
        from pc_geometry.rigid import invert_rigid

        if self._boxes is None:
            return None
        index = range(len(self))[index]
        return self._boxes.boxes(index, invert_rigid(self._world_from(index, 0)))

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
                    image_file=self._image_file(frames.files[index, column]),
                    image_size=(width, height),
                    intrinsics=frames.intrinsics[frames.calibration[index, column]],
                    from_scan=invert_rigid(self._world_from(index, column)) @ world_from_scan,
                )
            )
        return tuple(found)

    def _load_sweeps(self, index: int, sweeps: Sweeps) -> Float32[np.ndarray, "m 5"]:
        """The sweeps before a keyframe, moved into its frame by the vehicle's motion."""
        from pc_geometry.rigid import invert_rigid, transform_points

        scan_from_world = invert_rigid(self._world_from(index, 0))
        parts = [np.zeros((0, 5), np.float32)]
        for row, file in zip(sweeps.chain[index], self.sweep_files(index), strict=False):
            points = read_points(file, num_columns=5)
            points = points[far_from_car(points[:, :3])]
            world_from_sweep = self._world_pose(sweeps.ego[row], int(sweeps.calibration[row]))
            xyz = transform_points(scan_from_world @ world_from_sweep, points[:, :3])
            age = 1e-6 * float(self._frames.timestamp[index] - sweeps.timestamp[row])
            parts.append(np.column_stack([xyz, points[:, 3], np.full(len(xyz), age, np.float32)]))
        return np.concatenate(parts)

    def _file(self, name: bytes) -> Path:
        """Where a scan or its labels are."""
        return self.root / name.decode()

    def _image_file(self, name: bytes) -> Path:
        return self.root / name.decode()

    def _world_from(self, index: int, column: int) -> Float64[np.ndarray, "4 4"]:
        """World-from-sensor at the time that the sensor fired."""
        frames = self._frames
        return self._world_pose(frames.ego[index, column], int(frames.calibration[index, column]))

    def _world_pose(
        self, ego: Float64[np.ndarray, " 7"], calibration: int
    ) -> Float64[np.ndarray, "4 4"]:
        from pc_geometry.rigid import make_transform, rotation_from_quaternion

        vehicle = make_transform(rotation_from_quaternion(ego[3:]), ego[:3])
        return vehicle @ self._frames.mounting[calibration]


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
