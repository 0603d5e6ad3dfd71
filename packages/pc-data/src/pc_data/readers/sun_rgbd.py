"""The SUN RGB-D reader: single RGB-D images as coloured points with oriented boxes.

Source: SUN RGB-D (Song et al., CVPR 2015) in the form that VoteNet (Qi et al., ICCV 2019,
    arXiv:1904.09664) prepares and MMDetection3D reads.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data.errors import DataError
from pc_data.files.cloud_files import read_columns
from pc_data.files.image_files import read_image_size
from pc_data.files.points import raise_defect
from pc_data.layouts import check_root, known_split
from pc_data.scan import Boxes, Camera, Scan

BOX_CLASS_NAMES = (
    "bed",
    "table",
    "sofa",
    "chair",
    "toilet",
    "desk",
    "dresser",
    "night_stand",
    "bookshelf",
    "bathtub",
)
COLUMNS = ("x", "y", "z", "red", "green", "blue")
"""Of the points' files."""

CAMERA_FROM_DEPTH = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""Turns x right, y ahead, z up into x right, y down, z ahead."""

_LABELS = {"v1": "label_v1", "v2": "label"}
_POINTS = (
    "sunrgbd_trainval/lidar/{name}.npz",
    "points/{name}.bin",
    "sunrgbd_pc_bbox_votes_50k_{version}_train/{name}_pc.npz",
    "sunrgbd_pc_bbox_votes_50k_{version}_val/{name}_pc.npz",
)
_LARGEST = 1e4  # metres, of a box


class SunRGBD:
    """The images of one split as a map-style sequence of scans; each is a scene of its own.

    Points are in the upright depth frame: metres, x right, y ahead along the floor, z up, origin
    in the camera; colour is 0..1. They are read from `sunrgbd_trainval/lidar/000001.npz` (array
    `pc`), from MMDetection3D's `points/000001.bin`, or from VoteNet's
    `sunrgbd_pc_bbox_votes_50k_v1_{train,val}/000001_pc.npz`, the first that is there. Points have
    no classes. Boxes come from `label_v1` or `label` (v2); those of other things than the 10
    classes get label -1.

    The camera `image` has the calibration's K, moved by half a pixel: MATLAB counts pixels from 1
    and means their middle, here pixel 0 covers 0 to 1. An image that is absent is no camera.

    Attributes:
        root: The dataset's folder.
        split: The split read.
        splits: The splits that there are. Each but `all` is the list
            `sunrgbd_trainval/<split>_data_idx.txt`, in its order.
        version: Which boxes: v1 or v2.
        class_names: None; points have no classes.
        box_class_names: The 10 classes of boxes, index = label.
        num_classes: 0.
        intensity_mean: 0, there is no intensity.
        intensity_std: 1.
        min_depth: A point counts as seen by a camera only beyond this depth in metres.
        min_x: Minus infinity.
        scene_names: The scans' names, e.g. `000001`.
    """

    splits = ("train", "val", "all")
    class_names: tuple[str, ...] = ()
    box_class_names = BOX_CLASS_NAMES
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
        version: str = "v1",
    ) -> None:
        """List the images.

        Args:
            root: The folder that holds `sunrgbd_trainval/`.
            split: train, val, or all (needs no list).
            labels: Whether scans carry boxes; pre-training needs none.
            on_defect: Is told of each image whose points or calibration are missing. The default
                raises; if it returns, the image is left out.
            version: Which boxes: v1 (VoteNet's) or v2.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's, holds no image of the split, or a list is
                damaged.
            ValueError: If the split or the version is unknown.
        """
        self.root = Path(root)
        self.split = split
        self.version = version
        self._has_labels = labels
        known_split(split, self.splits)
        if version not in _LABELS:
            raise ValueError(f"version must be one of {', '.join(_LABELS)}, got {version!r}")
        check_root(self.root, "SUN RGB-D")
        self._folder = self.root / "sunrgbd_trainval"
        present = _numbers_in(self._folder / "calib", ".txt")
        present |= _numbers_in(self._folder / "image", ".jpg")
        listed = sorted(present)
        if split != "all":
            listed = _read_list(self._folder / f"{split}_data_idx.txt")
        self._numbers = np.array(
            [k for k in listed if k in present and self._is_whole(k, on_defect)], dtype=np.int32
        )
        if not len(self._numbers):
            raise DataError(
                f"{self.root} has no image of split {split!r} (sunrgbd_trainval/calib/*.txt with "
                "points); prepare them or pass split='all'"
            )

    @property
    def scene_names(self) -> tuple[str, ...]:
        """The scans' names, e.g. `000001`."""
        return tuple(f"{number:06d}" for number in self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Scan:
        """Read one image's scan.

        Raises:
            IndexError: If there is no such scan.
            DataError: If one of its files is missing or damaged.
        """
        index = range(len(self))[index]
        points = self.load_points(index)
        return Scan(
            name=self.scene_of(index),
            xyz=np.ascontiguousarray(points[:, :3]),
            color=np.ascontiguousarray(points[:, 3:]),
            boxes=self.load_boxes(index),
            cameras=self.cameras(index),
        )

    def scene_of(self, index: int) -> str:
        """Name of the scan, e.g. `000001`."""
        return f"{self._numbers[index]:06d}"

    def scan_file(self, index: int) -> Path:
        """Where a scan's points are."""
        places = self._places(self.scene_of(index))
        return next((file for file in places if file.is_file()), places[0])

    def load_points(self, index: int) -> Float32[np.ndarray, "n 6"]:
        """Read x, y, z in metres and the colour (0..1) of a scan's points.

        Raises:
            DataError: If the file is missing or damaged.
        """
        file = self.scan_file(index)
        columns = read_columns(file, columns=COLUMNS)
        if set(columns) != set(COLUMNS) or any(c.dtype.kind != "f" for c in columns.values()):
            raise DataError(f"{file}: no array pc [n 6] of x, y, z, r, g, b; prepare it again")
        with np.errstate(over="ignore"):
            points = np.stack([columns[name] for name in COLUMNS], axis=1, dtype=np.float32)
        bad = ~np.isfinite(points).all(1) | (points[:, 3:] < 0).any(1) | (points[:, 3:] > 1).any(1)
        if bad.any():
            raise DataError(
                f"{file}: {np.count_nonzero(bad)} of {len(points)} points are not finite or have a "
                f"colour outside 0..1, the first at index {np.argmax(bad)}; prepare it again"
            )
        return points

    def load_labels(self, index: int) -> Int64[np.ndarray, " n"] | None:  # noqa: ARG002
        """None: points have no classes."""
        return None

    def load_boxes(self, index: int) -> Boxes | None:
        """Read a scan's boxes, or None without labels.

        Raises:
            DataError: If the file is missing or damaged.
        """
        if not self._has_labels:
            return None
        return read_boxes(self._folder / _LABELS[self.version] / f"{self.scene_of(index)}.txt")

    def cameras(self, index: int) -> tuple[Camera, ...]:
        """The image, if it is there; it is not decoded.

        Raises:
            DataError: If it is no image, or its calibration is missing or damaged.
        """
        name = self.scene_of(index)
        image = self._folder / "image" / f"{name}.jpg"
        if not image.is_file():
            return ()
        intrinsics, from_scan = read_calibration(self._folder / "calib" / f"{name}.txt")
        size = read_image_size(image)
        return (
            Camera(
                name="image",
                image_file=image,
                image_size=size,
                intrinsics=intrinsics,
                from_scan=from_scan,
            ),
        )

    def _places(self, name: str) -> list[Path]:
        """Where a scan's points can be."""
        return [self.root / place.format(name=name, version=self.version) for place in _POINTS]

    def _is_whole(self, number: int, on_defect: Callable[[str], None]) -> bool:
        name = f"{number:06d}"
        if not any(file.is_file() for file in self._places(name)):
            on_defect(f"{self._places(name)[0]}: no points of image {name}; prepare them")
            return False
        calibration = self._folder / "calib" / f"{name}.txt"
        if not calibration.is_file():
            on_defect(f"{calibration}: calibration is missing; extract it again")
            return False
        return True


def _numbers_in(folder: Path, suffix: str) -> set[int]:
    """Numbers that files of a folder are called."""
    names = (path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}"))
    return {int(name) for name in names if re.fullmatch(r"[0-9]{6}", name)}


def _read_list(file: Path) -> list[int]:
    if not file.is_file():
        raise DataError(f"{file}: list of the split is missing; restore it or pass split='all'")
    words = file.read_text(encoding="utf-8", errors="replace").split()
    odd = [word for word in words if not re.fullmatch(r"[0-9]{1,6}", word)]
    if odd or len({int(word) for word in words}) != len(words):
        which = f"holds {odd[0][:40]!r}" if odd else "names an image twice"
        raise DataError(f"{file}: {which}; it must hold numbers of images, each once")
    return [int(word) for word in words]


def _read_lines(file: Path) -> list[list[str]]:
    if not file.is_file():
        raise DataError(f"{file}: file is missing; extract it again")
    text = file.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        raise DataError(f"{file}: its last line has no end; it was cut off, extract it again")
    return [line.split() for line in text.splitlines() if line.strip()]


def read_boxes(file: Path) -> Boxes:
    """Read boxes in the upright depth frame.

    Args:
        file: Lines of class, 2D box, centre, half the width, the length and the height in metres,
            and the heading as a vector; the length is along it. An empty file is no box.

    Raises:
        DataError: If the file is missing or damaged.
    """
    names, cuboids = [], []
    for number, words in enumerate(_read_lines(file), start=1):
        try:
            values = np.array(words[-12:], dtype=np.float64)
        except ValueError:
            values = np.zeros(0)
        # A class may be of several words.
        if len(words) < 13 or values.shape != (12,) or not (np.abs(values) < _LARGEST).all():
            raise DataError(f"{file}: line {number} is no class with 12 numbers; extract it again")
        center, (width, length, height), heading = values[4:7], values[7:10], values[10:]
        if min(width, length, height) <= 0 or not np.abs(heading).max() > 1e-6:
            raise DataError(
                f"{file}: box of line {number} has a side that is not above 0 or no heading; "
                "extract it again"
            )
        names.append(" ".join(words[:-12]))
        yaw = np.arctan2(heading[1], heading[0])
        cuboids.append([*center, 2 * length, 2 * width, 2 * height, yaw])
    label_of = {name: label for label, name in enumerate(BOX_CLASS_NAMES)}
    return Boxes(
        cuboid=np.array(cuboids, dtype=np.float64).reshape(-1, 7),
        labels=np.array([label_of.get(name, -1) for name in names], dtype=np.int64),
        track=("",) * len(names),
    )


def read_calibration(
    file: Path,
) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "4 4"]]:
    """Read camera matrix and camera-from-scan.

    Args:
        file: A line of Rtilt (upright depth frame from depth frame) and one of K, both column by
            column.

    Raises:
        DataError: If the file is missing or damaged.
    """
    from pc_geometry.rigid import is_rotation

    lines = _read_lines(file)
    try:
        tilt, matrix = np.array(lines, dtype=np.float64).reshape(2, 3, 3).transpose(0, 2, 1)
    except ValueError as error:
        raise DataError(f"{file}: not two lines of 9 numbers; extract it again") from error
    if not np.isfinite(matrix).all() or tuple(matrix[2]) != (0, 0, 1) or min(np.diag(matrix)) <= 0:
        raise DataError(f"{file}: its second line is no camera matrix; extract it again")
    if not is_rotation(tilt, tolerance=1e-2):
        raise DataError(f"{file}: its first line is no rotation; extract it again")
    matrix[:2, 2] -= 0.5
    from_scan = np.eye(4)
    from_scan[:3, :3] = CAMERA_FROM_DEPTH @ tilt.T
    return matrix, from_scan
