"""The Waymo Open Dataset v2 reader: five LiDARs, five cameras, boxes and labels from Parquet files.

Source: Waymo Open Dataset (Sun et al., CVPR 2020, arXiv:1912.04838), the Perception dataset's
version 2 tables; 22 classes of its 3D semantic segmentation challenge.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data.errors import DataError
from pc_data.files.points import map_labels, raise_defect
from pc_data.layouts import check_root, known_split
from pc_data.readers.waymo_ranges import LASERS, TOP, Echoes, locate
from pc_data.readers.waymo_tables import CAMERAS, Segment, StoredImage
from pc_data.scan import Boxes, Camera, Scan

CLASS_NAMES = (
    "car",
    "truck",
    "bus",
    "other_vehicle",
    "motorcyclist",
    "bicyclist",
    "pedestrian",
    "sign",
    "traffic_light",
    "pole",
    "construction_cone",
    "bicycle",
    "motorcycle",
    "building",
    "vegetation",
    "tree_trunk",
    "curb",
    "road",
    "lane_marker",
    "other_ground",
    "walkable",
    "sidewalk",
)
BOX_CLASS_NAMES = ("vehicle", "pedestrian", "sign", "cyclist")
SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("training",),
    "val": ("validation",),
    "test": ("testing",),
    "all": ("training", "validation", "testing"),
}

_CLASS_OF_RAW = np.arange(-1, 22, dtype=np.int8)  # raw 0 = undefined
_AXES = np.array(  # Waymo's cameras look along x, with y left and z up
    [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)
_LABELS = "[LiDARSegmentationLabelComponent].range_image_return{}"
_PROJECTION = "[LiDARCameraProjectionComponent].range_image_return{}"


class Projections(NamedTuple):
    """Where the dataset says that points are in images, lens and shutter accounted for.

    Attributes:
        camera: Number of up to two cameras that see the point, 1 FRONT to 5 SIDE_RIGHT, 0 = none.
        pixel: (u, v) in each of them.
    """

    camera: Int64[np.ndarray, "n 2"]
    pixel: Float32[np.ndarray, "n 2 2"]


class Waymo:
    """The frames of one split as a map-style sequence of scans.

    Points are in the vehicle's frame (x forward, y left, z up, metres) at the frame's time: first
    the first returns of each LiDAR, then the second returns. Intensity is raw: it has no upper
    limit, and networks are usually given its tanh. Labels exist for the roof's LiDAR in about
    every fifth frame of training and validation: `labels` is None in the other frames and -1 for
    the other LiDARs (see `labelled`). Cameras go through the world, so they account for the
    vehicle's motion between LiDAR and image; lens distortion and rolling shutter are left out,
    and `camera_projections` has the dataset's own answer, which does not leave them out.

    A frame is read from the row groups that hold it, as far as its last row: with the official
    groups of 256 rows this decodes half a group for a frame on average, a second or more.
    `pc_data.readers.waymo_regroup` makes a copy that is free of it.

    Attributes:
        root: The dataset's folder.
        split: The split read.
        splits: The splits that there are.
        lidars: Whose points scans have.
        class_names: The 22 classes, index = label.
        box_class_names: The 4 classes of boxes, index = label.
        num_classes: 22.
        intensity_mean: 0; no published value for the raw intensity.
        intensity_std: 1.
        min_depth: A point counts as seen by a camera only beyond this depth in metres; no limit.
        min_x: A point counts as seen only beyond this x of the scan's frame; no limit.
        scene_names: The segments of the split that are present.
    """

    splits = tuple(SPLITS)
    class_names = CLASS_NAMES
    box_class_names = BOX_CLASS_NAMES
    num_classes = len(CLASS_NAMES)
    intensity_mean = 0.0
    intensity_std = 1.0
    min_depth = 0.0
    min_x = -np.inf

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        lidars: str = "all",
        labels: bool = True,
        on_defect: Callable[[str], None] = raise_defect,
    ) -> None:
        """List the frames: reads the vehicle's poses of every segment.

        Args:
            root: The folder that holds `training/`, `validation/` or `testing/`, and in these a
                folder for each component.
            split: train, val, test, or all.
            lidars: Points of `all` five LiDARs, or of the one on the `top`, which alone has labels.
            labels: Whether scans carry labels and instances; pre-training needs none.
            on_defect: Is told of each segment whose poses are missing or damaged. The default
                raises; if it returns, the segment is left out.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's or holds no frame of the split.
            ValueError: If the split or `lidars` is unknown.
            ImportError: If pyarrow is not installed.
        """
        self.root = Path(root)
        self.split = split
        self.lidars = lidars
        self._has_labels = labels
        known_split(split, self.splits)
        if lidars not in ("all", "top"):
            raise ValueError(f"lidars must be 'all' or 'top', got {lidars!r}")
        check_root(self.root, "Waymo v2")
        self._list_frames(on_defect)
        if not self._time.size:
            folders = " or ".join(f"{name}/lidar/" for name in SPLITS[split])
            raise DataError(
                f"{self.root} has no frame of split {split!r} ({folders}*.parquet); fetch them or "
                "pass split='all'"
            )
        present = np.unique(self._segment)
        self.scene_names = tuple(self._segments[index].name for index in present)

    def _list_frames(self, on_defect: Callable[[str], None]) -> None:
        self._segments: list[Segment] = []
        times, poses, owners = [np.zeros(0, np.int64)], [np.zeros((0, 4, 4))], [np.zeros(0, int)]
        for name in SPLITS[self.split]:
            for file in sorted((self.root / name / "lidar").glob("*.parquet")):
                segment = Segment(self.root / name, file.stem)
                try:
                    time, pose = segment.frames()
                except DataError as error:
                    on_defect(str(error))
                    continue
                owners.append(np.full(len(time), len(self._segments)))
                times.append(time)
                poses.append(pose)
                self._segments.append(segment)
        self._time = np.concatenate(times)
        self._pose = np.concatenate(poses)
        self._segment = np.concatenate(owners)

    def __len__(self) -> int:
        return self._time.size

    def __getitem__(self, index: int) -> Scan:
        """Read one frame.

        Raises:
            IndexError: If there is no such frame.
            DataError: If one of its tables is missing or damaged.
        """
        index = range(len(self))[index]
        segment, time = self._locate(index)
        echoes = self._echoes(index)
        points = self._points(index, echoes)
        labels, instance = self._labels(index, echoes)
        return Scan(
            name=f"{segment.name}/{time}",
            xyz=np.ascontiguousarray(points[:, :3]),
            intensity=np.ascontiguousarray(points[:, 3]),
            labels=labels,
            instance=instance,
            boxes=self.load_boxes(index),
            cameras=self.cameras(index),
            pose=self._pose[index],
            timestamp=time * 1e-6,
        )

    def scene_of(self, index: int) -> str:
        """Name of the segment that a frame belongs to."""
        return self._locate(index)[0].name

    def scan_file(self, index: int) -> Path:
        """Where a frame's points are, among those of its segment."""
        return self._locate(index)[0].file("lidar")

    def label_file(self, index: int) -> Path | None:
        """Where the labels of a frame's segment are, or None if it has none."""
        file = self._locate(index)[0].file("lidar_segmentation")
        return file if file.is_file() else None

    def labelled(self) -> Int64[np.ndarray, " k"]:
        """Indices of the frames whose points have labels, ascending.

        Raises:
            DataError: If a table of labels is damaged.
        """
        ends = np.cumsum(np.bincount(self._segment, minlength=len(self._segments))).tolist()
        found, start = [], 0
        for segment, end in zip(self._segments, ends, strict=True):
            times = segment.times_of("lidar_segmentation")
            found.append(start + np.flatnonzero(np.isin(self._time[start:end], times)))
            start = end
        return np.concatenate(found).astype(np.int64)

    def load_points(self, index: int) -> Float32[np.ndarray, "n 5"]:
        """Read x, y, z in metres, raw intensity and elongation of a frame's points.

        Raises:
            DataError: If a table is missing or damaged.
        """
        return self._points(index, self._echoes(index))

    def load_labels(self, index: int) -> Int64[np.ndarray, " n"] | None:
        """Read the classes of a frame's points, -1 = ignored, or None without labels.

        Raises:
            DataError: If a table is missing or damaged.
        """
        segment, time = self._locate(index)
        if not self._has_labels or time not in segment.times_of("lidar_segmentation"):
            return None
        return self._labels(index, self._echoes(index))[0]

    def load_boxes(self, index: int) -> Boxes | None:
        """Read a frame's boxes in the vehicle's frame, or None if its segment has none.

        Raises:
            DataError: If the table is damaged.
        """
        segment, time = self._locate(index)
        rows = segment.boxes() if self._has_labels else None
        if rows is None:
            return None
        chosen = np.flatnonzero(rows.time == time)
        return Boxes(
            cuboid=rows.cuboid[chosen],
            labels=rows.kind[chosen] - 1,
            track=tuple(rows.track[row] for row in chosen),
        )

    def cameras(self, index: int) -> tuple[Camera, ...]:
        """The cameras of a frame; no image is fetched.

        Raises:
            DataError: If a table is damaged, or an image has no calibration.
        """
        from pc_geometry.rigid import invert_rigid

        segment, time = self._locate(index)
        if not segment.file("camera_image").is_file():
            return ()
        lenses, photographs = segment.lenses(), segment.photographs()
        found = {}
        for row in np.flatnonzero(photographs.time == time).tolist():
            number = int(photographs.camera[row])
            if number in found or number not in lenses or number not in CAMERAS:
                raise DataError(
                    f"{segment.file('camera_image')}: camera {number} at {time} occurs twice or "
                    "has no calibration; fetch the file again"
                )
            lens = lenses[number]
            vehicle = invert_rigid(photographs.pose[row]) @ self._pose[index]
            found[number] = Camera(
                name=CAMERAS[number],
                image_file=segment.file("camera_image"),
                image_size=lens.size,
                intrinsics=lens.intrinsics,
                from_scan=_AXES @ invert_rigid(lens.extrinsic) @ vehicle,
                load_bytes=StoredImage(segment.file("camera_image"), row),
            )
        return tuple(found[number] for number in sorted(found))

    def camera_projections(self, index: int) -> Projections:
        """Read in which pixels the dataset sees a frame's points.

        Raises:
            DataError: If a table is missing or damaged.
        """
        echoes = self._echoes(index)
        seen = self._per_point(index, echoes, "lidar_camera_projection", _PROJECTION, channels=6)
        pairs = seen.reshape(-1, 2, 3)
        camera = pairs[:, :, 0].astype(np.int64)
        if ((camera < 0) | (camera > max(CAMERAS))).any():
            segment, _ = self._locate(index)
            raise DataError(
                f"{segment.file('lidar_camera_projection')}: a camera is not 0 to "
                f"{max(CAMERAS)}; fetch the file again"
            )
        return Projections(camera, np.ascontiguousarray(pairs[:, :, 1:], dtype=np.float32))

    def _locate(self, index: int) -> tuple[Segment, int]:
        index = range(len(self))[index]
        return self._segments[self._segment[index]], int(self._time[index])

    def _echoes(self, index: int) -> list[Echoes]:
        segment, time = self._locate(index)
        chosen = (TOP,) if self.lidars == "top" else tuple(sorted(segment.lasers()))
        return segment.echoes(time, lasers=chosen)

    def _points(self, index: int, echoes: list[Echoes]) -> Float32[np.ndarray, "n 5"]:
        segment, time = self._locate(index)
        lasers = segment.lasers()
        poses = segment.pixel_poses(time)
        placed = []
        for part in echoes:
            laser = lasers[part.laser]
            if laser.beams.size not in (0, part.size[0]):
                raise DataError(
                    f"{segment.file('lidar')}: {part.size[0]} rows for {laser.beams.size} beams "
                    f"of laser {LASERS[part.laser]}; fetch the file again"
                )
            pixel_pose = None
            if part.laser == TOP:
                pixel_pose = self._pick(part, poses, segment.file("lidar_pose"))
            placed.append(locate(part, laser, pixel_pose=pixel_pose, pose=self._pose[index]))
        measured = np.concatenate([part.measured[:, 1:3] for part in echoes])
        points = np.column_stack([np.concatenate(placed), measured]).astype(np.float32)
        if not len(points):
            raise DataError(f"{segment.file('lidar')}: no point at {time}; leave the frame out")
        return points

    def _pick(self, echoes: Echoes, image: np.ndarray, file: Path) -> Float64[np.ndarray, "n c"]:
        """The pixels of another image that belong to points."""
        if image.shape[:2] != echoes.size:
            raise DataError(
                f"{file}: image of {image.shape[:2]} pixels for a range image of {echoes.size}; "
                "fetch the file again"
            )
        values = image.reshape(-1, image.shape[2])[echoes.pixel].astype(np.float64)
        if not np.isfinite(values).all():
            raise DataError(f"{file}: an image holds NaN or infinite values; fetch it again")
        return values

    def _per_point(
        self, index: int, echoes: list[Echoes], component: str, column: str, *, channels: int
    ) -> Float64[np.ndarray, "n c"]:
        """What a component's images say of each point, 0 where they say nothing."""
        segment, time = self._locate(index)
        names = (column.format(1), column.format(2))
        images = segment.images(component, time, names, channels=channels)
        parts = []
        for part in echoes:
            image = images.get((part.laser, column.format(part.number)))
            if image is None:
                parts.append(np.zeros((part.pixel.size, channels)))
            else:
                parts.append(self._pick(part, image, segment.file(component)))
        return np.concatenate(parts)

    def _labels(
        self, index: int, echoes: list[Echoes]
    ) -> tuple[Int64[np.ndarray, " n"] | None, Int64[np.ndarray, " n"] | None]:
        """Classes and instances of the points."""
        segment, time = self._locate(index)
        if not self._has_labels or time not in segment.times_of("lidar_segmentation"):
            return None, None
        said = self._per_point(index, echoes, "lidar_segmentation", _LABELS, channels=2)
        said = said.astype(np.int64)  # instance, class
        file = segment.file("lidar_segmentation")
        return map_labels(said[:, 1].astype(np.uint32), _CLASS_OF_RAW, file), said[:, 0]
