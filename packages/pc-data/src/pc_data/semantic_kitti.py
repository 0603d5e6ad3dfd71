"""The SemanticKITTI reader: LiDAR scans of the KITTI odometry sequences with labels and a camera.

Source: SemanticKITTI (Behley et al., ICCV 2019, arXiv:1904.01416); 19 single-scan classes.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data.errors import DataError
from pc_data.layouts import check_root, known_split
from pc_data.points import count_points, map_labels, raise_defect, read_labels, read_points
from pc_data.scan import Boxes, Camera, Scan

CLASS_NAMES = (
    "car",
    "bicycle",
    "motorcycle",
    "truck",
    "other-vehicle",
    "person",
    "bicyclist",
    "motorcyclist",
    "road",
    "parking",
    "sidewalk",
    "other-ground",
    "building",
    "fence",
    "vegetation",
    "trunk",
    "terrain",
    "pole",
    "traffic-sign",
)
SPLITS: dict[str, tuple[str, ...]] = {
    "train": tuple(f"{number:02d}" for number in (0, 1, 2, 3, 4, 5, 6, 7, 9, 10)),
    "val": ("08",),
    "test": tuple(f"{number:02d}" for number in range(11, 22)),
    "all": tuple(f"{number:02d}" for number in range(22)),
}

_RAW_OF_CLASS = (
    (10, 252),
    (11,),
    (15,),
    (18, 258),
    (13, 16, 20, 256, 257, 259),
    (30, 254),
    (31, 253),
    (32, 255),
    (40, 60),
    (44,),
    (48,),
    (49,),
    (50,),
    (51,),
    (70,),
    (71,),
    (72,),
    (80,),
    (81,),
)
_RAW_IGNORED = (0, 1, 52, 99)


def _class_of_raw() -> np.ndarray:
    table = np.full(260, -2, dtype=np.int8)
    table[list(_RAW_IGNORED)] = -1
    for label, raw in enumerate(_RAW_OF_CLASS):
        table[list(raw)] = label
    return table


_CLASS_OF_RAW = _class_of_raw()


class SemanticKITTI:
    """The scans of one split as a map-style sequence.

    Points are in the Velodyne frame (x forward, y left, z up), intensity is the remission (0..1).
    A scan whose image is absent has no camera; a sequence without `labels/` has no labels.

    Attributes:
        root: The dataset's folder.
        split: The split read.
        splits: The splits that there are.
        class_names: The 19 classes, index = label.
        box_class_names: None; boxes are not read.
        num_classes: 19.
        intensity_mean: Mean of the intensity over the training split (ScaLR's value).
        intensity_std: Standard deviation of it.
        min_depth: A point counts as seen by the camera only beyond this depth in metres.
        min_x: A point counts as seen only beyond this x of the scan's frame (ScaLR's rule).
        scene_names: The sequences of the split that are present, e.g. `08`.
    """

    splits = tuple(SPLITS)
    class_names = CLASS_NAMES
    box_class_names: tuple[str, ...] = ()
    num_classes = len(CLASS_NAMES)
    intensity_mean = 0.28613698
    intensity_std = 0.14090556
    min_depth = 0.0
    min_x = 1.0

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        labels: bool = True,
        on_defect: Callable[[str], None] = raise_defect,
    ) -> None:
        """List the scans, and read each sequence's calibration, poses and times.

        Args:
            root: The folder that holds `dataset/sequences` or `sequences`.
            split: train (00-07, 09, 10), val (08), test (11-21), or all.
            labels: Whether scans carry their labels; pre-training needs none.
            on_defect: Is told of each sequence whose files contradict each other. The default
                raises; if it returns, the sequence is left out.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's, holds no scan of the split, or a sequence's
                text files are damaged.
            ValueError: If the split is unknown.
        """
        self.root = Path(root)
        self.split = split
        self._has_labels = labels
        known_split(split, tuple(SPLITS))
        check_root(self.root, "SemanticKITTI")
        self._sequences = _read_sequences(self.root, SPLITS[split], on_defect)
        if not self._sequences:
            raise DataError(
                f"{sequences_folder(self.root)} has no scan of split {split!r} (sequences "
                f"{', '.join(SPLITS[split])} with velodyne/*.bin); fetch them or pass split='all'"
            )
        self.scene_names = tuple(sequence.name for sequence in self._sequences)
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
        file, raw = self._load_raw(index)
        return Scan(
            name=f"{sequence.name}/{frame:06d}",
            xyz=np.ascontiguousarray(points[:, :3]),
            intensity=np.ascontiguousarray(points[:, 3]),
            labels=None if raw is None else map_labels(raw & 0xFFFF, _CLASS_OF_RAW, file),
            instance=None if raw is None else (raw >> 16).astype(np.int64),
            cameras=self.cameras(index),
            pose=sequence.pose(frame),
            timestamp=sequence.timestamp(frame),
        )

    def scene_of(self, index: int) -> str:
        """Name of the sequence that a scan belongs to."""
        return self._locate(index)[0].name

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
        file, raw = self._load_raw(index)
        return None if raw is None else map_labels(raw & 0xFFFF, _CLASS_OF_RAW, file)

    def load_boxes(self, index: int) -> Boxes | None:  # noqa: ARG002
        """None: boxes are not read."""
        return None

    def cameras(self, index: int) -> tuple[Camera, ...]:
        """The left colour camera if the scan has its image; only the image's header is read.

        Raises:
            DataError: If the image is no image.
        """
        sequence, frame = self._locate(index)
        image_file = sequence.folder / "image_2" / f"{frame:06d}.png"
        if sequence.projection is None or not image_file.is_file():
            return ()
        intrinsics, from_scan = sequence.projection
        return (
            Camera(
                name="image_2",
                image_file=image_file,
                image_size=_image_size(image_file),
                intrinsics=intrinsics,
                from_scan=from_scan,
            ),
        )

    def _locate(self, index: int) -> tuple["Sequence", int]:
        index = range(len(self))[index]
        place = int(np.searchsorted(self._ends, index, side="right"))
        sequence = self._sequences[place]
        return sequence, int(sequence.frames[index - self._ends[place]])  # from the end

    def _load_raw(self, index: int) -> tuple[Path, np.ndarray | None]:
        """The label file, and class (lower 16 bits) and instance (upper) of each point."""
        sequence, frame = self._locate(index)
        file = sequence.folder / "labels" / f"{frame:06d}.label"
        if not (self._has_labels and sequence.has_labels):
            return file, None
        num_points = count_points(self.scan_file(index), num_columns=4)
        return file, read_labels(file, dtype="<u4", num_points=num_points)


def _read_sequences(
    root: Path, names: tuple[str, ...], on_defect: Callable[[str], None]
) -> tuple["Sequence", ...]:
    """The sequences that hold scans."""
    found = []
    for name in names:
        try:
            sequence = Sequence(sequences_folder(root) / name)
        except DataError as error:
            on_defect(str(error))
        else:
            found.append(sequence)
    return tuple(sequence for sequence in found if sequence.frames.size)


class Sequence:
    """One drive: its frame numbers, calibration, poses and times.

    Attributes:
        folder: E.g. `dataset/sequences/08`.
        name: E.g. `08`.
        frames: Frame numbers that have a scan, ascending.
        has_labels: Whether the sequence has labels.
        projection: Intrinsics and camera-from-Velodyne of image_2, or None without calibration.
    """

    def __init__(self, folder: Path) -> None:
        """List the scans and read the text files.

        Raises:
            DataError: If a text file is damaged, calib.txt is missing beside images, or a scan's
                name is no frame number.
        """
        self.folder = folder
        self.name = folder.name
        self.frames = _frame_numbers(folder / "velodyne")
        self.has_labels = (folder / "labels").is_dir()
        self._camera_from_scan: np.ndarray | None = None
        self.projection: tuple[np.ndarray, np.ndarray] | None = None
        if (folder / "calib.txt").is_file():
            self._camera_from_scan, self.projection = _read_calibration(folder / "calib.txt")
        elif (folder / "image_2").is_dir():
            raise DataError(f"{folder / 'calib.txt'}: file is missing; extract the calibration")
        last = int(self.frames[-1]) if self.frames.size else -1
        self._poses = _read_numbers(folder / "poses.txt", columns=12, last=last)
        self._times = _read_numbers(folder / "times.txt", columns=1, last=last)

    def pose(self, frame: int) -> Float64[np.ndarray, "4 4"] | None:
        """World-from-scan, the world being the first scan's frame, or None without poses."""
        if self._poses is None or self._camera_from_scan is None:
            return None
        camera_from_scan = self._camera_from_scan
        moved = np.vstack((self._poses[frame].reshape(3, 4), (0, 0, 0, 1))) @ camera_from_scan
        return np.linalg.solve(camera_from_scan, moved)

    def timestamp(self, frame: int) -> float:
        """Seconds since the start of the drive; 0 without times."""
        return 0.0 if self._times is None else float(self._times[frame, 0])


def sequences_folder(root: Path) -> Path:
    """The folder of the sequences under a root, `dataset/sequences` or `sequences`."""
    official = root / "dataset" / "sequences"
    return official if official.is_dir() else root / "sequences"


def _frame_numbers(folder: Path) -> Int64[np.ndarray, " n"]:
    stems = [path.stem for path in folder.glob("*.bin")] if folder.is_dir() else []
    for stem in stems:
        if not (stem.isascii() and stem.isdigit() and len(stem) == 6):
            raise DataError(
                f"{folder / stem}.bin: name is not a frame number of 6 digits; rename or remove it"
            )
    return np.array(sorted(map(int, stems)), dtype=np.int64)


def _read_calibration(file: Path) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Camera-0-from-Velodyne, and intrinsics and camera-from-Velodyne of image_2."""
    values: dict[str, np.ndarray] = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, numbers = line.partition(":")
        try:
            values[key.strip()] = np.array(numbers.split(), dtype=np.float64)
        except ValueError as error:
            raise DataError(f"{file}: line {key!r} holds no numbers; fetch it again") from error
    for key in ("P2", "Tr"):
        if key not in values or values[key].size != 12 or not np.isfinite(values[key]).all():
            raise DataError(
                f"{file}: no line '{key}:' with 12 numbers; fetch the calibration again"
            )
    camera_from_scan = np.vstack((values["Tr"].reshape(3, 4), (0, 0, 0, 1)))
    p2 = values["P2"].reshape(3, 4)
    # P2 = K [I | t]: the camera sits at an offset from camera 0.
    offset = np.eye(4)
    try:
        offset[:3, 3] = np.linalg.solve(p2[:, :3], p2[:, 3])
    except np.linalg.LinAlgError as error:
        raise DataError(f"{file}: P2 is singular; fetch the calibration again") from error
    return camera_from_scan, (p2[:, :3].copy(), offset @ camera_from_scan)


def _read_numbers(file: Path, *, columns: int, last: int) -> Float64[np.ndarray, "n c"] | None:
    """Rows of numbers, at least up to row `last`, or None if the file is absent."""
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        rows = np.array(text.split(), dtype=np.float64).reshape(-1, columns)
    except ValueError as error:
        raise DataError(f"{file}: not rows of {columns} numbers; fetch the file again") from error
    if len(rows) <= last or not np.isfinite(rows).all():
        raise DataError(
            f"{file}: {len(rows)} rows of finite numbers are due for frame {last}; needs "
            f"{last + 1}, fetch the file again"
        )
    return rows


def _image_size(file: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: not an image ({error}); fetch the file again") from error
