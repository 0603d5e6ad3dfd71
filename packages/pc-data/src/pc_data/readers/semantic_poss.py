"""The SemanticPOSS reader: LiDAR scans of a campus with labels, in the layout of SemanticKITTI.

Source: SemanticPOSS (Pan et al., IV 2020, arXiv:2002.09147). The 13 classes and the split are those
    of domain adaptation (SALUDA, Michele et al., 3DV 2024, arXiv:2304.03251), which ScaLR follows.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pc_data.errors import DataError
from pc_data.files.points import raise_defect
from pc_data.layouts import check_root, find_layout, known_split
from pc_data.readers.common_classes import choose_classes
from pc_data.readers.kitti_sequences import (
    Sequence,
    SequenceScans,
    matrix_of,
    read_calibration,
    read_sequence,
    sequences_folder,
)

CLASS_NAMES = (
    "person",
    "rider",
    "car",
    "trunk",
    "plants",
    "traffic sign",
    "pole",
    "garbage can",
    "building",
    "cone/stone",
    "fence",
    "bike",
    "ground",
)
SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("00", "01", "02", "04", "05"),
    "val": ("03",),
    "all": ("00", "01", "02", "03", "04", "05"),
}

_RAW_OF_CLASS = (
    (4, 5),
    (6,),
    (7,),
    (8,),
    (9,),
    (10, 11, 12),
    (13,),
    (14,),
    (15,),
    (16,),
    (17,),
    (21,),
    (22,),
)
# Ids without a name are ignored, not refused: 20 does occur in the dataset.
_NUM_RAW = 23


def _class_of_raw() -> np.ndarray:
    table = np.full(_NUM_RAW, -1, dtype=np.int8)
    for label, raw in enumerate(_RAW_OF_CLASS):
        table[list(raw)] = label
    return table


_CLASS_OF_RAW = _class_of_raw()


class SemanticPOSS(SequenceScans):
    """The scans of one split as a map-style sequence.

    Points are in the frame of the Pandora (z up), intensity is as in the file. There are no images
    and no boxes; instances are numbered within a sequence. Where a sequence has `poses.txt`, these
    are taken as poses of the sensor that `Tr` of `calib.txt` leads to, or of the LiDAR itself
    without such a file; scans have no pose if the file has no `Tr`.

    Attributes:
        root: The dataset's folder.
        split: The split read.
        splits: The splits that there are.
        class_names: The 13 classes unless others were asked for, index = label.
        box_class_names: None; there are no boxes.
        num_classes: Their number.
        intensity_mean: 0: no value is published, and intensity is left as it is.
        intensity_std: 1.
        min_depth: 0; there are no cameras.
        min_x: No limit; there are no cameras.
        scene_names: The sequences of the split that are present, e.g. `03`.
    """

    splits = tuple(SPLITS)
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
        classes: str = "",
        on_defect: Callable[[str], None] = raise_defect,
    ) -> None:
        """List the scans, and read each sequence's poses and times if it has them.

        Args:
            root: The folder that holds `dataset/sequences` or `sequences`.
            split: train (00, 01, 02, 04, 05), val (03), or all.
            labels: Whether scans carry their labels; pre-training needs none.
            classes: 6 for those shared with nuScenes, empty for the official 13.
            on_defect: Is told of each sequence whose files contradict each other. The default
                raises; if it returns, the sequence is left out.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it is another dataset's, holds no scan of the split, or a sequence's
                text files are damaged.
            ValueError: If the split or the classes are unknown.
        """
        known_split(split, tuple(SPLITS))
        _check_root(Path(root))
        names, class_of_raw = choose_classes(classes, "semanticposs", CLASS_NAMES, _CLASS_OF_RAW)
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


def _check_root(root: Path) -> None:
    """Refuse what is another dataset's; SemanticKITTI has folders of the same names.

    The official folders hold `tag/`, by which the layout is told. Nothing needs it, so that copies
    without it are common: they are taken unless they hold what only SemanticKITTI has.
    """
    if find_layout(root) != "SemanticKITTI":
        check_root(root, "SemanticPOSS")
        return
    folder = sequences_folder(root)
    foreign = [path for path in sorted(folder.glob("[0-9][0-9]")) if path.name not in SPLITS["all"]]
    foreign += sorted(folder.glob("[0-9][0-9]/image_2"))
    if foreign:
        raise DataError(
            f"{root} holds SemanticKITTI, not SemanticPOSS, which has no {foreign[0]}; read it as "
            "semantickitti"
        )


def _read_sequence(folder: Path) -> Sequence:
    file = folder / "calib.txt"
    reference_from_scan = np.eye(4)
    if file.is_file():
        values = read_calibration(file)
        if "Tr" not in values:  # nobody says which sensor the poses are of
            return read_sequence(folder, reference_from_scan=None)
        reference_from_scan[:3] = matrix_of(values, "Tr", file)
    return read_sequence(folder, reference_from_scan=reference_from_scan)
