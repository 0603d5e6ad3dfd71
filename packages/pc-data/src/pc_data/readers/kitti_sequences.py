"""Sequences in the layout of the KITTI odometry benchmark, which several datasets share.

A sequence is a folder `dataset/sequences/NN` with scans `velodyne/NNNNNN.bin`, labels
`labels/NNNNNN.label` (class in the lower 16 bits, instance in the upper), and the text files
`calib.txt`, `poses.txt` and `times.txt`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int8, Int64, UInt32

from pc_data.errors import DataError
from pc_data.files.points import count_points, map_labels, read_labels, read_points
from pc_data.readers.numbering import locate
from pc_data.scan import Boxes, Camera, Scan


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """One drive: its frame numbers, poses and times.

    Attributes:
        folder: E.g. `dataset/sequences/08`.
        frames: Frame numbers that have a scan, ascending.
        has_labels: Whether the sequence has labels.
        poses: World-from-reference of each frame number, or None; the world is that of frame 0.
        times: Seconds of each frame number since the start, or None.
        reference_from_scan: From the LiDAR to the sensor that `poses` are of, or None if unknown.
        projection: Intrinsics and camera-from-LiDAR of a camera, or None.
    """

    folder: Path
    frames: Int64[np.ndarray, " n"]
    has_labels: bool
    poses: Float64[np.ndarray, "f 12"] | None
    times: Float64[np.ndarray, "f 1"] | None
    reference_from_scan: Float64[np.ndarray, "4 4"] | None
    projection: tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "4 4"]] | None = None

    def pose(self, frame: int) -> Float64[np.ndarray, "4 4"] | None:
        """World-from-scan, the world being the first scan's frame, or None without poses."""
        if self.poses is None or self.reference_from_scan is None:
            return None
        moved = np.vstack((self.poses[frame].reshape(3, 4), (0, 0, 0, 1)))
        return np.linalg.solve(self.reference_from_scan, moved @ self.reference_from_scan)

    def timestamp(self, frame: int) -> float:
        """Seconds since the start of the drive; 0 without times."""
        return 0.0 if self.times is None else float(self.times[frame, 0])


class SequenceScans:
    """The scans of some sequences, numbered through: what the readers of this layout share.

    Attributes:
        root: The dataset's folder.
        split: The split read.
        class_names: The training classes, index = label.
        num_classes: Their number.
        scene_names: The sequences of the split that are present, e.g. `08`.
    """

    def __init__(
        self,
        root: Path,
        *,
        split: str,
        names: tuple[str, ...],
        read: Callable[[Path], Sequence],
        class_names: tuple[str, ...],
        class_of_raw: Int8[np.ndarray, " r"],
        labels: bool,
        on_defect: Callable[[str], None],
    ) -> None:
        """Read the sequences that hold scans.

        Args:
            root: The folder that holds `dataset/sequences` or `sequences`.
            split: For messages.
            names: Of the sequences of the split.
            read: Reads the sequence of a folder.
            class_names: The training classes.
            class_of_raw: Training class by raw id, -1 = ignored, -2 = no such id.
            labels: Whether scans carry their labels.
            on_defect: Is told what is wrong with a sequence; when it returns, the sequence is left
                out.

        Raises:
            DataError: If none of them holds a scan.
        """
        self.root = root
        self.split = split
        self.class_names = class_names
        self.num_classes = len(class_names)
        self._class_of_raw = class_of_raw
        self._has_labels = labels
        found = []
        for name in names:
            try:
                found.append(read(sequences_folder(root) / name))
            except DataError as error:
                on_defect(str(error))
        self._sequences = tuple(sequence for sequence in found if sequence.frames.size)
        if not self._sequences:
            raise DataError(
                f"{sequences_folder(root)} has no scan of split {split!r} (sequences "
                f"{', '.join(names)} with velodyne/*.bin); fetch them or pass split='all'"
            )
        self.scene_names = tuple(sequence.folder.name for sequence in self._sequences)
        self._ends = np.cumsum([sequence.frames.size for sequence in self._sequences])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Scan:
        """Read one scan.

        Raises:
            IndexError: If there is no such scan.
            DataError: If the scan or its labels are missing or damaged.
        """
        index = range(len(self))[index]
        sequence, frame = self._locate(index)
        points = self.load_points(index)
        raw = self._load_raw(index)
        return Scan(
            name=f"{self.scene_of(index)}/{frame:06d}",
            xyz=np.ascontiguousarray(points[:, :3]),
            intensity=np.ascontiguousarray(points[:, 3]),
            labels=None if raw is None else self._classes(index, raw),
            instance=None if raw is None else (raw >> 16).astype(np.int64),
            cameras=self.cameras(index),
            pose=sequence.pose(frame),
            timestamp=sequence.timestamp(frame),
        )

    def scene_of(self, index: int) -> str:
        """Name of the sequence that a scan belongs to."""
        return self._locate(index)[0].folder.name

    def scan_file(self, index: int) -> Path:
        """Where a scan's points are."""
        sequence, frame = self._locate(index)
        return sequence.folder / "velodyne" / f"{frame:06d}.bin"

    def label_file(self, index: int) -> Path | None:
        """Where a scan's labels are, or None if its sequence has none."""
        sequence, frame = self._locate(index)
        folder = sequence.folder / "labels"
        return folder / f"{frame:06d}.label" if sequence.has_labels else None

    def load_points(self, index: int) -> Float32[np.ndarray, "n 4"]:
        """Read x, y, z in metres and the intensity of a scan's points.

        Raises:
            DataError: If the file is missing or damaged.
        """
        return read_points(self.scan_file(index), num_columns=4)

    def load_labels(self, index: int) -> Int64[np.ndarray, " n"] | None:
        """Read the classes of a scan's points, -1 = ignored, or None without labels.

        Raises:
            DataError: If the file is missing, damaged, or of another length than the scan.
        """
        raw = self._load_raw(index)
        return None if raw is None else self._classes(index, raw)

    def load_boxes(self, index: int) -> Boxes | None:  # noqa: ARG002
        """None: boxes are not read."""
        return None

    def cameras(self, index: int) -> tuple[Camera, ...]:  # noqa: ARG002
        """None, unless the dataset has images."""
        return ()

    def _locate(self, index: int) -> tuple[Sequence, int]:
        """The sequence and the frame number of a scan."""
        place, row = locate(self._ends, index)
        sequence = self._sequences[place]
        return sequence, int(sequence.frames[row])

    def _load_raw(self, index: int) -> UInt32[np.ndarray, " n"] | None:
        """Class (lower 16 bits) and instance (upper) of each point."""
        file = self.label_file(index)
        if file is None or not self._has_labels:
            return None
        num_points = count_points(self.scan_file(index), num_columns=4)
        return read_labels(file, dtype="<u4", num_points=num_points)

    def _classes(self, index: int, raw: UInt32[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        file = self.label_file(index) or self.scan_file(index)
        return map_labels(raw & 0xFFFF, self._class_of_raw, file)


def read_sequence(
    folder: Path,
    *,
    reference_from_scan: Float64[np.ndarray, "4 4"] | None,
    projection: tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "4 4"]] | None = None,
) -> Sequence:
    """List a sequence's scans and read its poses and times, where it has any.

    Raises:
        DataError: If a text file is damaged, a scan's name is no frame number, or
            `reference_from_scan` or a pose is no rigid motion.
    """
    if reference_from_scan is not None and not _are_rigid(reference_from_scan[None]):
        raise DataError(
            f"{folder / 'calib.txt'}: Tr is no rigid motion; fetch the calibration again"
        )
    frames = _frame_numbers(folder / "velodyne")
    last = int(frames[-1]) if frames.size else -1
    poses = _read_rows(folder / "poses.txt", columns=12, last=last)
    if poses is not None and not _are_rigid(poses.reshape(-1, 3, 4)):
        raise DataError(
            f"{folder / 'poses.txt'}: a pose is no rigid motion; fetch the file again or remove it"
        )
    return Sequence(
        folder=folder,
        frames=frames,
        has_labels=(folder / "labels").is_dir(),
        poses=poses,
        times=_read_rows(folder / "times.txt", columns=1, last=last),
        reference_from_scan=reference_from_scan,
        projection=projection,
    )


def sequences_folder(root: Path) -> Path:
    """The folder of the sequences under a root, `dataset/sequences` or `sequences`."""
    official = root / "dataset" / "sequences"
    return official if official.is_dir() else root / "sequences"


def read_calibration(file: Path) -> dict[str, Float64[np.ndarray, " n"]]:
    """Read lines `name: numbers`.

    Raises:
        DataError: If a line holds anything else.
    """
    values: dict[str, np.ndarray] = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, numbers = line.partition(":")
        try:
            values[key.strip()] = np.array(numbers.split(), dtype=np.float64)
        except ValueError as error:
            raise DataError(f"{file}: line {key!r} holds no numbers; fetch it again") from error
    return values


def matrix_of(
    values: dict[str, Float64[np.ndarray, " n"]], key: str, file: Path
) -> Float64[np.ndarray, "3 4"]:
    """One of the matrices of a calibration.

    Raises:
        DataError: If it is not there or not 12 finite numbers.
    """
    if key not in values or values[key].size != 12 or not np.isfinite(values[key]).all():
        raise DataError(f"{file}: no line '{key}:' with 12 numbers; fetch the calibration again")
    return values[key].reshape(3, 4)


def _are_rigid(matrices: Float64[np.ndarray, "k r 4"]) -> bool:
    """Whether all are rotations with a translation."""
    from pc_geometry.rigid import is_rotation

    return bool(is_rotation(matrices[:, :3, :3], tolerance=1e-2).all())


def _frame_numbers(folder: Path) -> Int64[np.ndarray, " n"]:
    stems = [path.stem for path in folder.glob("*.bin")] if folder.is_dir() else []
    for stem in stems:
        if not (stem.isascii() and stem.isdigit() and len(stem) == 6):
            raise DataError(
                f"{folder / stem}.bin: name is not a frame number of 6 digits; rename or remove it"
            )
    return np.array(sorted(map(int, stems)), dtype=np.int64)


def _read_rows(file: Path, *, columns: int, last: int) -> Float64[np.ndarray, "f c"] | None:
    """Rows of numbers, at least up to row `last`, or None if the file is absent."""
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        rows = np.array(text.split(), dtype=np.float64).reshape(-1, columns)
    except ValueError as error:
        raise DataError(f"{file}: not rows of {columns} numbers; fetch the file again") from error
    if not np.isfinite(rows).all():
        raise DataError(f"{file}: holds NaN or infinite numbers; fetch the file again")
    if len(rows) <= last:
        raise DataError(
            f"{file}: {len(rows)} rows for frames up to {last:06d}; needs {last + 1}, fetch the "
            "file again"
        )
    return rows
