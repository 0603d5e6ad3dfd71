"""The Argoverse 2 sensor dataset reader: LiDAR sweeps, seven ring cameras and boxes.

Source: Argoverse 2 (Wilson et al., NeurIPS 2021 datasets and benchmarks, arXiv:2301.00493).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data.errors import DataError
from pc_data.files.points import raise_defect
from pc_data.layouts import check_root, known_split
from pc_data.readers.argoverse2_logs import (
    CATEGORIES,
    RING_CAMERAS,
    Log,
    image_times,
    nearest,
    pose_matrix,
)
from pc_data.readers.arrow import column_array, read_feather
from pc_data.scan import Boxes, Camera, Scan

SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val",),
    "test": ("test",),
    "all": ("train", "val", "test"),
}
_COLUMNS = ("x", "y", "z", "intensity", "laser_number")
_APART = 50_000_000
"""Nanoseconds that an image may be apart from its sweep; cameras record every 50 ms."""


class Argoverse2:
    """The sweeps of one split as a map-style sequence of scans.

    Points of both LiDARs are in the vehicle's frame (x forward, y left, z up, origin at the rear
    axle) at the sweep's time, with the vehicle's motion taken out by the dataset; they are stored
    as 16-bit floats. Intensity is raw, 0 to 255. Points have no classes. Each camera shows the
    image that is nearest in time, and its `from_scan` goes through the city's frame, so it
    accounts for the motion in between; lens distortion is left out. A log without images has no
    cameras, a sweep without annotations (as in test) no boxes.

    Attributes:
        root: The dataset's folder.
        split: The split read.
        splits: The splits that there are.
        class_names: None; points have no classes.
        box_class_names: The 30 categories of annotations, index = label.
        num_classes: 0.
        intensity_mean: 0; no published value.
        intensity_std: 1.
        min_depth: A point counts as seen by a camera only beyond this depth in metres; no limit.
        min_x: A point counts as seen only beyond this x of the scan's frame; no limit.
        scene_names: The logs of the split that are present.
    """

    splits = tuple(SPLITS)
    class_names: tuple[str, ...] = ()
    box_class_names = CATEGORIES
    num_classes = 0
    intensity_mean = 0.0
    intensity_std = 1.0
    min_depth = 0.0
    min_x = -np.inf

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        labels: bool = True,
        on_defect: Callable[[str], None] = raise_defect,
    ) -> None:
        """List the sweeps, and read the poses of every log.

        Args:
            root: The folder that holds `sensor/`, or in it `train/`, `val/` and `test/`.
            split: train, val, test, or all.
            labels: Whether scans carry boxes; pre-training needs none.
            on_defect: Is told of each log whose poses are missing or damaged. The default raises;
                if it returns, the log is left out.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's or holds no sweep of the split.
            ValueError: If the split is unknown.
            ImportError: If pyarrow is not installed.
        """
        self.root = Path(root)
        self.split = split
        self._has_labels = labels
        known_split(split, self.splits)
        check_root(self.root, "Argoverse 2")
        self._list_sweeps(on_defect)
        if not self._time.size:
            raise DataError(
                f"{self.root} has no sweep of split {split!r} "
                f"({' or '.join(SPLITS[split])}/*/sensors/lidar/*.feather); fetch them or pass "
                "split='all'"
            )
        self.scene_names = tuple(self._logs[k].folder.name for k in np.unique(self._log))

    def _list_sweeps(self, on_defect: Callable[[str], None]) -> None:
        inner = self.root / "sensor"
        base = inner if inner.is_dir() else self.root
        self._logs: list[Log] = []
        times, poses, owners = [np.zeros(0, np.int64)], [np.zeros((0, 7))], [np.zeros(0, int)]
        for name in SPLITS[self.split]:
            for folder in sorted((base / name).glob("*/")):
                log = Log(folder)
                try:
                    time = log.sweep_times()
                    pose = log.poses_at(time) if time.size else np.zeros((0, 7))
                except DataError as error:
                    on_defect(str(error))
                    continue
                owners.append(np.full(time.size, len(self._logs)))
                times.append(time)
                poses.append(pose)
                self._logs.append(log)
        self._time = np.concatenate(times)
        self._pose = np.concatenate(poses)
        self._log = np.concatenate(owners)

    def __len__(self) -> int:
        return self._time.size

    def __getitem__(self, index: int) -> Scan:
        """Read one sweep.

        Raises:
            IndexError: If there is no such sweep.
            DataError: If one of its files is missing or damaged.
        """
        index = range(len(self))[index]
        log, time = self._locate(index)
        points = self.load_points(index)
        return Scan(
            name=f"{log.folder.name}/{time}",
            xyz=np.ascontiguousarray(points[:, :3]),
            intensity=np.ascontiguousarray(points[:, 3]),
            boxes=self.load_boxes(index),
            cameras=self.cameras(index),
            pose=self._world_from(index),
            timestamp=time * 1e-9,
        )

    def scene_of(self, index: int) -> str:
        """Name of the log that a sweep belongs to."""
        return self._locate(index)[0].folder.name

    def scan_file(self, index: int) -> Path:
        """Where a sweep's points are."""
        log, time = self._locate(index)
        return log.folder / "sensors" / "lidar" / f"{time}.feather"

    def load_points(self, index: int) -> Float32[np.ndarray, "n 5"]:
        """Read x, y, z in metres, intensity and the number of the laser of a sweep's points.

        Raises:
            DataError: If the file is missing, empty or damaged.
        """
        file = self.scan_file(index)
        table = read_feather(file, _COLUMNS)
        if not table.num_rows:
            raise DataError(f"{file}: sweep has no points; fetch the file again")
        columns = [column_array(table, name, file, dtype="float32") for name in _COLUMNS]
        return np.stack(columns, axis=1)

    def load_labels(self, index: int) -> Int64[np.ndarray, " n"] | None:  # noqa: ARG002
        """None: points have no classes."""
        return None

    def load_boxes(self, index: int) -> Boxes | None:
        """Read a sweep's boxes in the vehicle's frame, or None if its log has none.

        Raises:
            DataError: If the annotations are damaged.
        """
        log, time = self._locate(index)
        rows = log.annotations() if self._has_labels else None
        if rows is None:
            return None
        chosen = np.flatnonzero(rows.time == time)
        return Boxes(
            cuboid=rows.cuboid[chosen],
            labels=rows.kind[chosen],
            track=tuple(rows.track[row] for row in chosen),
        )

    def cameras(self, index: int) -> tuple[Camera, ...]:
        """The ring cameras that have an image near a sweep's time; no image is opened.

        Raises:
            DataError: If the calibration or the poses are missing or damaged.
        """
        from pc_geometry.rigid import invert_rigid

        log, time = self._locate(index)
        shots = {}
        for name in RING_CAMERAS:
            taken = image_times(log.folder / "sensors" / "cameras" / name)
            if taken.size and abs(nearest(taken, time) - time) <= _APART:
                shots[name] = nearest(taken, time)
        if not shots:
            return ()
        lenses = log.lenses()
        poses = log.poses_at(np.array(list(shots.values()), dtype=np.int64))
        found = []
        for (name, taken), pose in zip(shots.items(), poses, strict=True):
            if name not in lenses:
                raise DataError(
                    f"{log.folder / 'calibration'}: camera {name} has images but no calibration; "
                    "fetch the calibration again"
                )
            lens = lenses[name]
            vehicle = invert_rigid(pose_matrix(pose)) @ self._world_from(index)
            found.append(
                Camera(
                    name=name,
                    image_file=log.folder / "sensors" / "cameras" / name / f"{taken}.jpg",
                    image_size=lens.size,
                    intrinsics=lens.intrinsics,
                    from_scan=invert_rigid(lens.extrinsic) @ vehicle,
                )
            )
        return tuple(found)

    def _locate(self, index: int) -> tuple[Log, int]:
        index = range(len(self))[index]
        return self._logs[self._log[index]], int(self._time[index])

    def _world_from(self, index: int) -> Float64[np.ndarray, "4 4"]:
        """City-from-vehicle at a sweep's time."""
        return pose_matrix(self._pose[index])
