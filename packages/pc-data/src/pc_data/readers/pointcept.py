"""The reader of ScanNet as Pointcept prepares it: one folder of arrays for each room."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from pc_data.errors import DataError
from pc_data.files.points import raise_defect
from pc_data.layouts import check_root, known_split
from pc_data.readers.scannet import known_classes
from pc_data.scan import Boxes, Camera, Scan

_SPLITS = ("train", "val", "test")


class PointceptScenes:
    """The rooms of one split as a map-style sequence; a scan is a room's vertices.

    A room is `<split>/<room>/` with `coord.npy` (metres, the reconstruction's frame), `color.npy`
    (0..255), `normal.npy`, `segment20.npy`, `segment200.npy` (class, -1 = ignored) and
    `instance.npy` (object, -1 = none; 0 here, the others one more). All but `coord.npy` may be
    absent, labels are in test rooms. There are no images and no boxes. Pickled arrays are refused.

    Source: Pointcept's data format since v1.5.2 (facts of Masked Scene Contrast, CVPR 2023).

    Attributes:
        root: The dataset's folder.
        split: The split read.
        splits: The splits that there are.
        class_names: The 20 or 200 classes of ScanNet, index = label.
        box_class_names: Empty; there are no boxes.
        num_classes: 20 or 200.
        intensity_mean: 0, there is no intensity.
        intensity_std: 1.
        min_depth: 0, there are no cameras.
        min_x: Minus infinity.
        scene_names: The rooms, e.g. `scene0000_00`.
    """

    splits = (*_SPLITS, "all")
    box_class_names: tuple[str, ...] = ()
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
        classes: str = "20",
    ) -> None:
        """List the rooms.

        Args:
            root: The folder that holds `train/` and so on.
            split: train, val, test, or all.
            labels: Whether scans carry classes and instances.
            on_defect: Is told of each room without `coord.npy` or of another split too. The
                default raises; if it returns, the room (its second copy) is left out.
            classes: 20 or 200.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's or holds no room of the split.
            ValueError: If the split or the classes are unknown.
        """
        self.root = Path(root)
        self.split = split
        known_split(split, self.splits)
        self.class_names = known_classes(classes)
        self.num_classes = len(self.class_names)
        check_root(self.root, "Pointcept ScanNet")
        self._segment = f"segment{classes}"
        self._has_labels = labels
        self._folders = _list_rooms(self.root, _SPLITS if split == "all" else (split,), on_defect)
        self.scene_names = tuple(folder.name for folder in self._folders)
        if not self._folders:
            raise DataError(
                f"{self.root} has no room of split {split!r} (<split>/<room>/coord.npy); prepare "
                "them or pass split='all'"
            )

    def __len__(self) -> int:
        return len(self._folders)

    def __getitem__(self, index: int) -> Scan:
        """Read one room.

        Raises:
            IndexError: If there is no such room.
            DataError: If one of its files is missing or damaged.
        """
        index = range(len(self))[index]
        points = self.load_points(index)
        normal = self._load(index, "normal", len(points), columns=3)
        if normal is not None:
            normal = _single(self._folders[index] / "normal.npy", normal)
        instance = self._load(index, "instance", len(points)) if self._has_labels else None
        return Scan(
            name=self.scene_names[index],
            xyz=np.ascontiguousarray(points[:, :3]),
            color=np.ascontiguousarray(points[:, 3:6]) if points.shape[1] > 3 else None,
            normal=normal,
            labels=self._labels_of(index, len(points)),
            instance=None if instance is None else np.maximum(instance.astype(np.int64) + 1, 0),
        )

    def scene_of(self, index: int) -> str:
        """Name of the room."""
        return self.scene_names[index]

    def scan_file(self, index: int) -> Path:
        """Where a room's points are."""
        return self._folders[index] / "coord.npy"

    def load_points(self, index: int) -> Float32[np.ndarray, "n c"]:
        """Read x, y, z in metres and, if there, the colour (0..1) of a room's points.

        Raises:
            DataError: If a file is missing or damaged.
        """
        file = self.scan_file(index)
        coord = _read_array(file)
        if coord.ndim != 2 or coord.shape[1] != 3 or not len(coord) or coord.dtype.kind != "f":
            raise DataError(
                f"{file}: holds {coord.dtype} {list(coord.shape)}, not floats [n 3] with n > 0; "
                "prepare the room again"
            )
        xyz = _single(file, coord)
        color = self._load(index, "color", len(coord), columns=3)
        if color is None:
            return xyz
        low, high = color.min(), color.max()
        if low < 0 or high > 255 or (color.dtype.kind == "f" and 0 < high <= 1):
            raise DataError(
                f"{self._folders[index] / 'color.npy'}: colours go from {low:g} to {high:g} but "
                "must go from 0 to 255; prepare the room again"
            )
        return np.concatenate([xyz, color.astype(np.float32) / 255], axis=1)

    def load_labels(self, index: int) -> Int64[np.ndarray, " n"] | None:
        """Read the classes of a room's points, -1 = ignored, or None without labels.

        Raises:
            DataError: If the file is damaged or of another length than the points.
        """
        return self._labels_of(index, len(_read_array(self.scan_file(index))))

    def load_boxes(self, index: int) -> Boxes | None:  # noqa: ARG002
        """None: there are no boxes."""
        return None

    def cameras(self, index: int) -> tuple[Camera, ...]:  # noqa: ARG002
        """None: there are no images."""
        return ()

    def _labels_of(self, index: int, num_points: int) -> Int64[np.ndarray, " n"] | None:
        if not self._has_labels:
            return None
        labels = self._load(index, self._segment, num_points)
        if labels is None:
            return None
        if labels.min() < -1 or labels.max() >= self.num_classes:
            raise DataError(
                f"{self._folders[index] / self._segment}.npy: classes go from {labels.min()} to "
                f"{labels.max()}, must be in [-1, {self.num_classes}); prepare the room again"
            )
        return labels.astype(np.int64)

    def _load(
        self, index: int, name: str, num_points: int, *, columns: int = 0
    ) -> np.ndarray | None:
        """An array with a row for each point, or None if its file is absent."""
        file = self._folders[index] / f"{name}.npy"
        if not file.is_file():
            return None
        values = _read_array(file)
        values = values.reshape(-1) if not columns and values.shape == (num_points, 1) else values
        shape = (num_points, columns) if columns else (num_points,)
        if values.shape != shape or values.dtype.kind not in ("fiu" if columns else "iu"):
            raise DataError(
                f"{file}: holds {values.dtype} {list(values.shape)} but must be "
                f"{'numbers' if columns else 'whole numbers'} {list(shape)} for the room's "
                f"{num_points} points; prepare the room again"
            )
        _check_finite(file, values)
        return values


def _list_rooms(
    root: Path, splits: tuple[str, ...], on_defect: Callable[[str], None]
) -> tuple[Path, ...]:
    found: dict[str, Path] = {}
    for split in splits:
        folders = sorted((root / split).iterdir()) if (root / split).is_dir() else []
        for folder in folders:
            if folder.name in found:
                on_defect(f"{folder}: the same room is in {found[folder.name]}; remove one of them")
            elif (folder / "coord.npy").is_file():
                found[folder.name] = folder
            elif folder.is_dir():
                on_defect(f"{folder}: no coord.npy; prepare the room again or remove its folder")
    return tuple(found.values())


def _read_array(file: Path) -> np.ndarray:
    """Read an array; mapping it first compares its header's claim with the file's size."""
    if not file.is_file():
        raise DataError(f"{file}: file is missing; prepare the room again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's parser, over what is no header
            mapped = np.load(file, mmap_mode="r", allow_pickle=False)
        return np.array(mapped)
    except Exception as error:  # the header is parsed as Python source, which fails in many ways
        raise DataError(
            f"{file}: not an array of numbers, or cut off ({error}); prepare the room again"
        ) from error


def _single(file: Path, values: np.ndarray) -> Float32[np.ndarray, "n c"]:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    _check_finite(file, single)
    return single


def _check_finite(file: Path, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise DataError(f"{file}: holds NaN or infinite values; prepare the room again")
