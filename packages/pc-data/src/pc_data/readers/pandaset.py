"""The PandaSet reader: two LiDARs, six cameras, classes of points and cuboids.

Source: PandaSet (Xiao et al., ITSC 2021, arXiv:2112.12610), whose development kit documents the
files; ScaLR (Puy et al., CVPR 2024, arXiv:2310.17504) for classes, splits and the shift in height.
"""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data.errors import DataError
from pc_data.files.image_files import read_image_size
from pc_data.files.points import map_labels, raise_defect
from pc_data.layouts import check_root, known_split
from pc_data.readers.numbering import locate
from pc_data.readers.pandaset_classes import BOX_CLASS_NAMES, CLASS_NAMES
from pc_data.readers.pandaset_scenes import (
    CAMERAS,
    Scene,
    has_labels,
    list_scenes,
    read_latitude,
    read_scene,
)
from pc_data.readers.pandaset_tables import (
    Cuboids,
    Returns,
    read_classes,
    read_cuboids,
    read_returns,
)
from pc_data.scan import Boxes, Camera, Scan

Sensors = Literal["both", "pandar64", "pandargt"]

SPLITS = ("train", "val", "all")

_NUMBERS: dict[str, tuple[int, ...]] = {"both": (0, 1), "pandar64": (0,), "pandargt": (1,)}
_INTENSITY = {  # mean and standard deviation
    "pandar64": (18.23640649, 25.86983417),
    "pandargt": (23.06113565, 16.76273235),
    "both": (19.99, 23.10),
}
_BORDER = 37.6  # degrees north; San Francisco lies beyond, El Camino Real does not
_DROP = 1.6  # metres from the origin of the dataset's poses up to that of a scan


class PandaSet:
    """The frames of one split as a map-style sequence of scans.

    Points are in the frame of the LiDAR's pose, raised by 1.6 m: x right, y forward, z up, the
    road about 1.9 m below the origin. Intensity is raw (0..255). Each camera's `from_scan` goes
    through the world and accounts for the car's motion between the two sensors' times. A scan
    whose image is absent lacks that camera, a scene without `annotations/semseg` has no labels and
    one without `annotations/cuboids` no boxes and instances.

    Where a moving object has a cuboid for each LiDAR, the points of each LiDAR are looked up in
    its own one; with both LiDARs the box of the Pandar64 stands for the object.

    Attributes:
        root: The dataset's folder.
        sensors: The LiDARs read.
        split: The split read.
        splits: The splits that there are.
        class_names: ScaLR's 17 classes, index = label.
        box_class_names: Those of them that objects have, index = label of a box.
        num_classes: 17.
        intensity_mean: Mean of the intensity over the training split (ScaLR's values for each
            LiDAR; for both the two are pooled with the shares 64 % and 36 % of their points).
        intensity_std: Standard deviation of it.
        min_depth: A point counts as seen by a camera only beyond this depth in metres (ScaLR).
        min_x: A point counts as seen only beyond this x of the scan's frame; no limit here.
        scene_names: The scenes of the split that are present, e.g. `002`.
    """

    splits = SPLITS
    class_names = CLASS_NAMES
    box_class_names = BOX_CLASS_NAMES
    num_classes = len(CLASS_NAMES)
    min_depth = 0.0
    min_x = -np.inf

    def __init__(
        self,
        root: str | Path,
        *,
        sensors: Sensors = "both",
        split: str = "train",
        labels: bool = True,
        on_defect: Callable[[str], None] = raise_defect,
    ) -> None:
        """List the scans, and read each scene's poses, times and calibration.

        Args:
            root: The folder that holds the scenes' folders `001`, `002`, ...
            sensors: pandar64 (spinning), pandargt (looks ahead; only the front camera then, as in
                ScaLR) or both.
            split: train or val: scenes that start north or south of 37.6 degrees, of those with
                labels if any has labels (ScaLR's 49 and 27); or all.
            labels: Whether scans carry labels, instances and boxes; pre-training needs none.
            on_defect: Is told of each scene, camera or frame whose text files are missing, damaged
                or contradict each other. The default raises; if it returns, that part is left
                out.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's, or holds no scan of the split.
            ValueError: If the split or the sensors are unknown.
        """
        self.root = Path(root)
        if sensors not in _NUMBERS:
            known = get_args(Sensors)
            near = difflib.get_close_matches(str(sensors), known, n=1) or known
            raise ValueError(
                f"sensors must be one of {', '.join(known)}, got {sensors!r}; the "
                f"nearest is {near[0]!r}"
            )
        self.sensors = sensors
        self.split = split
        self.intensity_mean, self.intensity_std = _INTENSITY[sensors]
        self._has_labels = labels
        known_split(split, SPLITS)
        check_root(self.root, "PandaSet")
        cameras = ("front_camera",) if sensors == "pandargt" else CAMERAS
        self._scenes = _read_scenes(self.root, split, cameras, on_defect)
        if not self._scenes:
            raise DataError(
                f"{self.root} has no scan of split {split!r} (NNN/lidar/*.pkl.gz); fetch them or "
                "pass split='all'"
            )
        self.scene_names = tuple(scene.name for scene in self._scenes)
        self._ends = np.cumsum([scene.frames.size for scene in self._scenes])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Scan:
        """Read one frame.

        Raises:
            IndexError: If there is no such frame.
            DataError: If the scan, its labels or its cuboids are missing or damaged.
        """
        index = range(len(self))[index]
        scene, frame = self._locate(index)
        returns = read_returns(self.scan_file(index))
        points = self._points(index, returns)
        cuboids = self._cuboids(index)
        boxes, instance = None, None
        if cuboids is not None:
            chosen, owner = _own_boxes(cuboids, _NUMBERS[self.sensors])
            boxes = self._boxes(index, cuboids, chosen)
            instance = _instances(returns, cuboids, owner)[self._keep(index, returns)]
        return Scan(
            name=f"{scene.name}/{frame:02d}",
            xyz=np.ascontiguousarray(points[:, :3]),
            intensity=np.ascontiguousarray(points[:, 3]),
            labels=self._labels(index, returns),
            instance=instance,
            boxes=boxes,
            cameras=self.cameras(index),
            pose=self._world_from_scan(index),
            timestamp=float(scene.times[frame]),
        )

    def scene_of(self, index: int) -> str:
        """Name of the scene that a frame belongs to."""
        return self._locate(index)[0].name

    def scan_file(self, index: int) -> Path:
        """Where a frame's points are."""
        return self._file(index, "lidar")

    def load_points(self, index: int) -> Float32[np.ndarray, "n 6"]:
        """Read a frame's points.

        Returns:
            x, y, z in metres in the scan's frame, the raw intensity, the time in seconds after the
            scan's time stamp, and the sensor (0 = Pandar64, 1 = PandarGT).

        Raises:
            DataError: If the file is missing or damaged.
        """
        return self._points(index, read_returns(self.scan_file(index)))

    def load_labels(self, index: int) -> Int64[np.ndarray, " n"] | None:
        """Read the classes of a frame's points, -1 = ignored, or None without labels.

        Raises:
            DataError: If the file is missing, damaged, or of another length than the scan.
        """
        if self._locate(index)[0].class_of_raw is None or not self._has_labels:
            return None
        return self._labels(index, read_returns(self.scan_file(index)))

    def load_boxes(self, index: int) -> Boxes | None:
        """Read a frame's boxes, or None without cuboids.

        Raises:
            DataError: If the file is missing or damaged.
        """
        cuboids = self._cuboids(index)
        if cuboids is None:
            return None
        return self._boxes(index, cuboids, _own_boxes(cuboids, _NUMBERS[self.sensors])[0])

    def cameras(self, index: int) -> tuple[Camera, ...]:
        """The cameras of a frame; only the images' headers are read.

        Raises:
            DataError: If an image is no image.
        """
        from pc_geometry.rigid import invert_rigid

        scene, frame = self._locate(index)
        world_from_scan = self._world_from_scan(index)
        found = []
        for track in scene.cameras:
            image_file = scene.folder / "camera" / track.name / f"{frame:02d}.jpg"
            if image_file.is_file():
                camera = Camera(
                    name=track.name,
                    image_file=image_file,
                    image_size=read_image_size(image_file),
                    intrinsics=track.intrinsics,
                    from_scan=invert_rigid(_transform(track.poses[frame])) @ world_from_scan,
                )
                found.append(camera)
        return tuple(found)

    def _locate(self, index: int) -> tuple[Scene, int]:
        place, row = locate(self._ends, index)
        scene = self._scenes[place]
        return scene, int(scene.frames[row])

    def _file(self, index: int, folder: str) -> Path:
        scene, frame = self._locate(index)
        return scene.folder / folder / f"{frame:02d}.pkl.gz"

    def _world_from_scan(self, index: int) -> Float64[np.ndarray, "4 4"]:
        scene, frame = self._locate(index)
        pose = _transform(scene.poses[frame])
        pose[:3, 3] += _DROP * pose[:3, 2]
        return pose

    def _keep(self, index: int, returns: Returns) -> np.ndarray:
        """Rows of the points wanted."""
        keep = np.flatnonzero(np.isin(returns.sensor, _NUMBERS[self.sensors]))
        if not keep.size:
            raise DataError(
                f"{self.scan_file(index)}: has no point of {self.sensors}; drop the scan or read "
                "both sensors"
            )
        return keep

    def _points(self, index: int, returns: Returns) -> Float32[np.ndarray, "n 6"]:
        scene, frame = self._locate(index)
        keep = self._keep(index, returns)
        pose = self._world_from_scan(index)
        points = np.empty((len(keep), 6), dtype=np.float32)
        points[:, :3] = _turn(returns.xyz[keep] - pose[:3, 3], pose)
        points[:, 3] = returns.intensity[keep]
        points[:, 4] = returns.time[keep] - scene.times[frame]
        points[:, 5] = returns.sensor[keep]
        return points

    def _labels(self, index: int, returns: Returns) -> Int64[np.ndarray, " n"] | None:
        table = self._locate(index)[0].class_of_raw
        if table is None or not self._has_labels:
            return None
        file = self._file(index, "annotations/semseg")
        raw = read_classes(file, num_points=len(returns.xyz))
        return map_labels(raw, table, file)[self._keep(index, returns)]

    def _cuboids(self, index: int) -> Cuboids | None:
        if not (self._has_labels and self._locate(index)[0].has_cuboids):
            return None
        return read_cuboids(self._file(index, "annotations/cuboids"))

    def _boxes(self, index: int, cuboids: Cuboids, chosen: Int64[np.ndarray, " b"]) -> Boxes:
        pose = self._world_from_scan(index)
        cuboid = cuboids.cuboid[chosen]
        cuboid[:, :3] = _turn(cuboid[:, :3] - pose[:3, 3], pose)
        yaw = cuboid[:, 6]
        ahead = _turn(np.stack([np.cos(yaw), np.sin(yaw), np.zeros(len(yaw))], axis=1), pose)
        cuboid[:, 6] = np.arctan2(ahead[:, 1], ahead[:, 0])  # the car's tilt is left out
        return Boxes(
            cuboid=cuboid,
            labels=cuboids.labels[chosen],
            track=tuple(cuboids.uuid[row] for row in chosen),
        )


def _read_scenes(
    root: Path, split: str, cameras: tuple[str, ...], on_defect: Callable[[str], None]
) -> tuple[Scene, ...]:
    """The scenes of a split that hold scans."""
    folders = list_scenes(root)
    if split != "all":
        folders = tuple(filter(has_labels, folders)) or folders
    found = []
    for folder in folders:
        try:
            if split == "all" or (read_latitude(folder) > _BORDER) == (split == "train"):
                found.append(read_scene(folder, cameras=cameras, on_defect=on_defect))
        except DataError as error:
            on_defect(str(error))
    return tuple(scene for scene in found if scene.frames.size)


def _transform(row: Float64[np.ndarray, " 7"]) -> Float64[np.ndarray, "4 4"]:
    """World-from-sensor of a position and a quaternion (w, x, y, z)."""
    from pc_geometry.rigid import make_transform, rotation_from_quaternion

    return make_transform(rotation_from_quaternion(row[3:]), row[:3])


def _turn(
    vectors: Float64[np.ndarray, "n 3"], pose: Float64[np.ndarray, "4 4"]
) -> Float64[np.ndarray, "n 3"]:
    """The world's vectors in the axes of a pose; a matrix product takes several times as long."""
    return np.einsum("nj,ji->ni", vectors, pose[:3, :3])


def _own_boxes(
    cuboids: Cuboids, sensors: tuple[int, ...]
) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " k"]]:
    """Choose one box of each object that the sensors see.

    Returns:
        Rows of the boxes, and for every row its place among them, or -1 if the box holds no points
        of these sensors. Two boxes of one object have the same place, that of the Pandar64's.
    """
    mine = cuboids.of_sensors(sensors)
    stand_in = np.arange(len(mine))
    twins = np.flatnonzero(mine & (cuboids.sensor == 1) & (cuboids.twin >= 0))
    twins = twins[(cuboids.sensor[cuboids.twin[twins]] == 0) & mine[cuboids.twin[twins]]]
    stand_in[twins] = cuboids.twin[twins]
    chosen = np.unique(stand_in[mine])
    owner = np.searchsorted(chosen, stand_in)
    return chosen, np.where(mine, owner, -1)


def _instances(
    returns: Returns, cuboids: Cuboids, owner: Int64[np.ndarray, " k"]
) -> Int64[np.ndarray, " n"]:
    """Number of the box that holds each point, from 1; the smallest of several, 0 = none."""
    from pc_geometry.boxes import points_in_boxes

    instance = np.zeros(len(returns.xyz), dtype=np.int64)
    inside, splits = points_in_boxes(returns.xyz, cuboids.cuboid)
    volume = cuboids.cuboid[:, 3:6].prod(1)
    for row in np.argsort(-volume, kind="stable"):
        held = inside[splits[row] : splits[row + 1]]
        if cuboids.sensor[row] >= 0:
            held = held[returns.sensor[held] == cuboids.sensor[row]]
        if owner[row] >= 0:
            instance[held] = owner[row] + 1
    return instance
