"""The SemanticKITTI reader: LiDAR scans of the KITTI odometry sequences with labels and a camera.

Source: SemanticKITTI (Behley et al., ICCV 2019, arXiv:1904.01416); 19 single-scan classes.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pc_data.errors import DataError
from pc_data.files.image_files import read_image_size
from pc_data.files.points import raise_defect
from pc_data.layouts import check_root, known_split
from pc_data.readers.common_classes import choose_classes
from pc_data.readers.kitti_sequences import (
    Sequence,
    SequenceScans,
    matrix_of,
    read_calibration,
    read_sequence,
)
from pc_data.readers.kitti_sequences import sequences_folder as sequences_folder
from pc_data.scan import Camera

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


class SemanticKITTI(SequenceScans):
    """The scans of one split as a map-style sequence.

    Points are in the Velodyne frame (x forward, y left, z up), intensity is the remission (0..1).
    A scan whose image is absent has no camera; a sequence without `labels/` has no labels.

    Attributes:
        root: The dataset's folder.
        split: The split read.
        splits: The splits that there are.
        class_names: The 19 classes unless others were asked for, index = label.
        box_class_names: None; boxes are not read.
        num_classes: Their number.
        intensity_mean: Mean of the intensity over the training split (ScaLR's value).
        intensity_std: Standard deviation of it.
        min_depth: A point counts as seen by the camera only beyond this depth in metres.
        min_x: A point counts as seen only beyond this x of the scan's frame (ScaLR's rule).
        scene_names: The sequences of the split that are present, e.g. `08`.
    """

    splits = tuple(SPLITS)
    box_class_names: tuple[str, ...] = ()
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
        classes: str = "",
        on_defect: Callable[[str], None] = raise_defect,
    ) -> None:
        """List the scans, and read each sequence's calibration, poses and times.

        Args:
            root: The folder that holds `dataset/sequences` or `sequences`.
            split: train (00-07, 09, 10), val (08), test (11-21), or all.
            labels: Whether scans carry their labels; pre-training needs none.
            classes: 10 for those shared with nuScenes, empty for the official 19.
            on_defect: Is told of each sequence whose files contradict each other. The default
                raises; if it returns, the sequence is left out.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's, holds no scan of the split, or a sequence's
                text files are damaged.
            ValueError: If the split or the classes are unknown.
        """
        known_split(split, tuple(SPLITS))
        check_root(Path(root), "SemanticKITTI")
        names, class_of_raw = choose_classes(classes, "semantickitti", CLASS_NAMES, _CLASS_OF_RAW)
        super().__init__(
            Path(root),
            split=split,
            names=SPLITS[split],
            read=_read_sequence,
            class_names=names,
            class_of_raw=class_of_raw,
            labels=labels,
            on_defect=on_defect,
        )

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
                image_size=read_image_size(image_file),
                intrinsics=intrinsics,
                from_scan=from_scan,
            ),
        )


def _read_sequence(folder: Path) -> Sequence:
    """A sequence with the calibration of its left colour camera."""
    file = folder / "calib.txt"
    if not file.is_file():
        if (folder / "image_2").is_dir():
            raise DataError(f"{file}: file is missing; extract the calibration")
        return read_sequence(folder, reference_from_scan=None)
    values = read_calibration(file)
    p2, tr = matrix_of(values, "P2", file), matrix_of(values, "Tr", file)
    camera_from_scan = np.vstack((tr, (0, 0, 0, 1)))
    if min(p2[0, 0], p2[1, 1]) <= 0 or p2[1, 0] or tuple(p2[2, :3]) != (0, 0, 1):
        raise DataError(
            f"{file}: P2 has a focal length that is not above 0 or is no camera matrix; fetch the "
            "calibration again"
        )
    # P2 = K [I | t]: the camera sits at an offset from camera 0.
    offset = np.eye(4)
    offset[:3, 3] = np.linalg.solve(p2[:, :3], p2[:, 3])
    return read_sequence(
        folder,
        reference_from_scan=camera_from_scan,
        projection=(p2[:, :3].copy(), offset @ camera_from_scan),
    )
