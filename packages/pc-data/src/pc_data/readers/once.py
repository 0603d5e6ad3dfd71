"""The ONCE reader: roof LiDAR, seven cameras and boxes of the One Million Scenes dataset.

Source: ONCE (Mao et al., NeurIPS 2021 datasets and benchmarks, arXiv:2106.11037).
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data.errors import DataError
from pc_data.files.image_files import read_image_size
from pc_data.files.json_files import read_json
from pc_data.files.points import raise_defect, read_points
from pc_data.layouts import check_root, known_split
from pc_data.readers.numbering import locate
from pc_data.scan import Boxes, Camera, Scan

BOX_CLASS_NAMES = ("Car", "Bus", "Truck", "Pedestrian", "Cyclist")
CAMERAS = ("cam01", "cam03", "cam05", "cam06", "cam07", "cam08", "cam09")
SPLITS: dict[str, tuple[str, ...]] = {  # lists in ImageSets/, the first one there is read
    "train": ("train.txt",),
    "val": ("val.txt",),
    "test": ("test.txt", "test_set.txt"),
    "raw_small": ("raw_small.txt",),
    "raw_medium": ("raw_medium.txt",),
    "raw_large": ("raw_large.txt",),
    "all": (),
}

_UNIT_TOLERANCE = 0.01  # of a quaternion's norm


class Once:
    """The frames of one split as a map-style sequence of scans.

    Points are in the LiDAR's frame, which in this dataset is x left, y backwards, z up, in
    metres; intensity is raw. Points have no classes. Frames of the raw splits, and some of the
    others, have no boxes: `boxes` is None there (see `labelled`). Cameras and LiDAR are given as
    synchronous. Lens distortion is left out: the paper says that it was removed from the images.
    A frame whose image is absent has no such camera; one whose pose is all zeros has no pose.

    Attributes:
        root: The dataset's folder.
        split: The split read.
        splits: The splits that there are.
        class_names: None; points have no classes.
        box_class_names: The 5 classes of boxes, index = label.
        num_classes: 0.
        intensity_mean: 0; no published value.
        intensity_std: 1.
        min_depth: A point counts as seen by a camera only beyond this depth in metres; no limit.
        min_x: A point counts as seen only beyond this x of the scan's frame; no limit.
        scene_names: The sequences of the split that are present, e.g. `000076`.
    """

    splits = tuple(SPLITS)
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
    ) -> None:
        """Read the table of every sequence.

        Args:
            root: The folder that holds `data/` and `ImageSets/`.
            split: train, val, test, raw_small, raw_medium, raw_large, or all for every sequence
                in `data/`, listed or not.
            labels: Whether scans carry boxes; pre-training needs none.
            on_defect: Is told of each sequence whose table is missing or damaged. The default
                raises; if it returns, the sequence is left out.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's or holds no frame of the split.
            ValueError: If the split is unknown.
        """
        self.root = Path(root)
        self.split = split
        self._has_labels = labels
        known_split(split, self.splits)
        check_root(self.root, "ONCE")
        self._sequences: list[Sequence] = []
        for name in _names_of(self.root, split):
            folder = self.root / "data" / name
            if (folder / "lidar_roof").is_dir():
                try:
                    self._sequences.append(read_sequence(folder))
                except DataError as error:
                    on_defect(str(error))
        self._sequences = [sequence for sequence in self._sequences if sequence.frame.size]
        if not self._sequences:
            raise DataError(
                f"{self.root} has no frame of split {split!r} (data/*/lidar_roof of the sequences "
                "that ImageSets lists); fetch them or pass split='all'"
            )
        self._ends = np.cumsum([sequence.frame.size for sequence in self._sequences])
        self.scene_names = tuple(sequence.folder.name for sequence in self._sequences)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Scan:
        """Read one frame.

        Raises:
            IndexError: If there is no such frame.
            DataError: If the scan is missing or damaged.
        """
        index = range(len(self))[index]
        sequence, place = self._locate(index)
        points = self.load_points(index)
        return Scan(
            name=f"{sequence.folder.name}/{sequence.frame[place]}",
            xyz=np.ascontiguousarray(points[:, :3]),
            intensity=np.ascontiguousarray(points[:, 3]),
            boxes=self.load_boxes(index),
            cameras=self.cameras(index),
            pose=_pose_matrix(sequence.pose[place]),
            timestamp=float(sequence.frame[place]) * 1e-3,
        )

    def scene_of(self, index: int) -> str:
        """Name of the sequence that a frame belongs to."""
        return self._locate(index)[0].folder.name

    def scan_file(self, index: int) -> Path:
        """Where a frame's points are."""
        sequence, place = self._locate(index)
        return sequence.folder / "lidar_roof" / f"{sequence.frame[place]}.bin"

    def labelled(self) -> Int64[np.ndarray, " k"]:
        """Indices of the frames that have boxes (be it none of them), ascending."""
        return np.flatnonzero(np.concatenate([s.has_boxes for s in self._sequences]))

    def load_points(self, index: int) -> Float32[np.ndarray, "n 4"]:
        """Read x, y, z in metres and the intensity of a frame's points.

        Raises:
            DataError: If the file is missing or damaged.
        """
        return read_points(self.scan_file(index), num_columns=4)

    def load_labels(self, index: int) -> Int64[np.ndarray, " n"] | None:  # noqa: ARG002
        """None: points have no classes."""
        return None

    def load_boxes(self, index: int) -> Boxes | None:
        """A frame's boxes in the LiDAR's frame, or None if it is not annotated."""
        sequence, place = self._locate(index)
        if not (self._has_labels and sequence.has_boxes[place]):
            return None
        rows = slice(*sequence.splits[place : place + 2])
        cuboid = sequence.cuboid[rows].copy()
        return Boxes(
            cuboid=cuboid, labels=sequence.kind[rows].astype(np.int64), track=("",) * len(cuboid)
        )

    def cameras(self, index: int) -> tuple[Camera, ...]:
        """The cameras of a frame whose images are present; only the images' headers are read.

        Raises:
            DataError: If an image is no image.
        """
        sequence, place = self._locate(index)
        found = []
        for name, (intrinsics, from_scan) in sequence.lenses.items():
            file = sequence.folder / name / f"{sequence.frame[place]}.jpg"
            if file.is_file():
                found.append(
                    Camera(
                        name=name,
                        image_file=file,
                        image_size=read_image_size(file),
                        intrinsics=intrinsics,
                        from_scan=from_scan,
                    )
                )
        return tuple(found)

    def _locate(self, index: int) -> tuple["Sequence", int]:
        number, row = locate(self._ends, index)
        return self._sequences[number], row


class Sequence(NamedTuple):
    """One drive.

    Attributes:
        folder: E.g. `data/000076`.
        frame: Number of each frame: its time in milliseconds, and the name of its files.
        pose: Quaternion x, y, z, w and translation of world-from-LiDAR; zeros where unknown.
        has_boxes: Which frames are annotated.
        splits: Frame i has the boxes from `splits[i]` to `splits[i + 1]`.
        cuboid: Centre, length, width, height and heading of all boxes in the LiDAR's frame.
        kind: Class of all boxes.
        lenses: Camera matrix and camera-from-LiDAR by camera.
    """

    folder: Path
    frame: Int64[np.ndarray, " n"]
    pose: Float64[np.ndarray, "n 7"]
    has_boxes: np.ndarray
    splits: Int64[np.ndarray, " n+1"]
    cuboid: Float64[np.ndarray, "k 7"]
    kind: np.ndarray
    lenses: dict[str, tuple[np.ndarray, np.ndarray]]


def read_sequence(folder: Path) -> Sequence:
    """Read the table of a sequence, `<folder>/<name>.json`.

    Raises:
        DataError: If it is missing or damaged.
    """
    file = folder / f"{folder.name}.json"
    table = _read_json(file)
    frames = table.get("frames")
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise DataError(f"{file}: no list of frames; fetch the file again")
    number = np.array([_frame_number(frame, file) for frame in frames], dtype=np.int64)
    order = np.argsort(number, kind="stable")
    number = number[order]
    if (np.diff(number) == 0).any():
        twice = number[:-1][np.diff(number) == 0][0]
        raise DataError(f"{file}: frame {twice} occurs twice; fetch the file again")
    pose = np.zeros((len(frames), 7))
    boxes = []
    for place, row in enumerate(order.tolist()):
        what = f"pose of frame {number[place]}"
        pose[place] = _numbers(frames[row].get("pose"), (7,), what, file)
        norm = np.linalg.norm(pose[place, :4])
        if norm and abs(norm - 1) > _UNIT_TOLERANCE:
            raise DataError(f"{file}: {what} has no quaternion of length 1; fetch the file again")
        boxes.append(_read_boxes(frames[row].get("annos"), int(number[place]), file))
    cuboids = [cuboid for cuboid, _ in filter(None, boxes)]
    kinds = [kind for _, kind in filter(None, boxes)]
    counts = [0 if found is None else len(found[0]) for found in boxes]
    return Sequence(
        folder,
        number,
        pose,
        np.array([found is not None for found in boxes], dtype=bool),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate([np.zeros((0, 7)), *cuboids]),
        np.concatenate([np.zeros(0, np.int8), *kinds]),
        _read_lenses(table.get("calib"), file),
    )


def _read_json(file: Path) -> dict[str, Any]:
    table = read_json(file, missing="table is missing; extract the annotations")
    if not isinstance(table, dict):
        raise DataError(f"{file}: no table of a sequence; fetch the file again")
    return table


def _frame_number(frame: dict[str, Any], file: Path) -> int:
    """The number of a frame, whose files have no other name than it."""
    text = str(frame.get("frame_id"))
    if not re.fullmatch(r"0|[1-9][0-9]{0,17}", text, flags=re.ASCII):
        raise DataError(f"{file}: frame_id {text[:40]!r} is no number; fetch the file again")
    return int(text)


def _numbers(values: Any, shape: tuple[int, ...], what: str, file: Path) -> np.ndarray:  # noqa: ANN401
    """Finite numbers of a shape, -1 = any length."""
    try:
        array = np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{file}: {what} holds no numbers; fetch the file again") from error
    wrong = array.ndim != len(shape) or any(
        due not in (-1, came) for due, came in zip(shape, array.shape, strict=True)
    )
    if wrong or not np.isfinite(array).all():
        raise DataError(
            f"{file}: {what} must be finite numbers of shape {shape}, got {array.shape}; fetch the "
            "file again"
        )
    return array


def _read_boxes(annos: Any, frame: int, file: Path) -> tuple[np.ndarray, np.ndarray] | None:  # noqa: ANN401
    """Cuboids and classes of a frame, or None if it is not annotated."""
    if annos is None:
        return None
    names = annos.get("names") if isinstance(annos, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file}: no names of the boxes of frame {frame}; fetch the file again")
    unknown = sorted(set(names) - set(BOX_CLASS_NAMES))
    if unknown:
        raise DataError(
            f"{file}: a box of frame {frame} is a {unknown[0]!r}, not one of "
            f"{', '.join(BOX_CLASS_NAMES)}; fetch the file again"
        )
    boxes = annos.get("boxes_3d") or np.zeros((0, 7))
    cuboid = _numbers(boxes, (-1, 7), f"boxes_3d of frame {frame}", file)
    if len(cuboid) != len(names) or (cuboid[:, 3:6] <= 0).any():
        raise DataError(
            f"{file}: frame {frame} has {len(names)} names for {len(cuboid)} boxes, or a side that "
            "is not above 0; fetch the file again"
        )
    return cuboid, np.array([BOX_CLASS_NAMES.index(name) for name in names], dtype=np.int8)


def _read_lenses(calibration: Any, file: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:  # noqa: ANN401
    """Camera matrix and camera-from-LiDAR of the cameras that are calibrated."""
    from pc_geometry.rigid import is_rotation

    if not isinstance(calibration, dict):
        raise DataError(f"{file}: no calibration; fetch the file again")
    lenses = {}
    for name in CAMERAS:
        values = calibration.get(name)
        if values is None:
            continue
        if not isinstance(values, dict):
            raise DataError(f"{file}: calibration of {name} is no table; fetch the file again")
        place = _numbers(values.get("cam_to_velo"), (4, 4), f"cam_to_velo of {name}", file)
        matrix = _numbers(values.get("cam_intrinsic"), (3, 3), f"cam_intrinsic of {name}", file)
        rigid = is_rotation(place[:3, :3], tolerance=1e-3)
        if not rigid or tuple(place[3]) != (0, 0, 0, 1) or min(matrix[0, 0], matrix[1, 1]) <= 0:
            raise DataError(
                f"{file}: cam_to_velo of {name} is not rigid or a focal length is not above 0; "
                "fetch the file again"
            )
        lenses[name] = matrix, np.linalg.inv(place)
    return lenses


def _names_of(root: Path, split: str) -> list[str]:
    """The sequences of a split, ascending."""
    if split == "all":
        return sorted(path.name for path in (root / "data").iterdir() if path.is_dir())
    files = [root / "ImageSets" / name for name in SPLITS[split]]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise DataError(
            f"{files[0]}: list of sequences is missing; fetch ImageSets or pass split='all'"
        )
    names = file.read_text(encoding="utf-8", errors="replace").split()
    odd = [name for name in names if not re.fullmatch(r"[0-9]+", name, flags=re.ASCII)]
    if odd:
        raise DataError(f"{file}: {odd[0][:40]!r} is no sequence's number; fetch ImageSets again")
    return sorted(set(names))


def _pose_matrix(pose: Float64[np.ndarray, " 7"]) -> Float64[np.ndarray, "4 4"] | None:
    """World-from-LiDAR out of x, y, z, w and translation; None for a quaternion of zeros."""
    from pc_geometry.rigid import make_transform, rotation_from_quaternion

    if not pose[:4].any():
        return None
    return make_transform(rotation_from_quaternion(pose[[3, 0, 1, 2]]), pose[4:])
