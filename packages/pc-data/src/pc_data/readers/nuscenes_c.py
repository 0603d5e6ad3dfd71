"""The nuScenes-C reader: the validation keyframes of nuScenes with corrupted points.

Source: Robo3D (Kong et al., ICCV 2023, arXiv:2303.17597): eight corruptions, three severities.
"""

import difflib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pc_data.corruptions.names import CORRUPTIONS, SEVERITIES, Corruption, Severity
from pc_data.errors import DataError
from pc_data.files.points import raise_defect
from pc_data.layouts import known_split
from pc_data.readers.nuscenes import CLASS_OF_RAW, NuScenes

_ADDED = (41, 42, 43)  # raw classes of points that are fog, snow and crosstalk


class NuScenesC(NuScenes):
    """The validation keyframes of nuScenes with the points of one corruption.

    Points and lidarseg labels come from `root/<corruption>/<severity>`, in the layout
    `samples/LIDAR_TOP/` and `lidarseg/v1.0-trainval/`; there may be fewer than in nuScenes, and a
    point that the corruption made is ignored. Tables, images, calibration and boxes are those of
    nuScenes itself. Panoptic labels belong to the uncorrupted points and are not read, and the
    sweeps between keyframes were not corrupted. The last column of `load_points` is the ring only
    where the corruption left it so (snow does not).

    Attributes:
        root: The folder of nuScenes-C.
        nuscenes_root: The folder of nuScenes.
        corruption: The corruption read.
        severity: Its severity.
        splits: val, and all for the same.
    """

    splits: tuple[str, ...] = ("val", "all")
    _class_of_raw = np.append(
        CLASS_OF_RAW, [-1 if raw in _ADDED else -2 for raw in range(32, 44)]
    ).astype(np.int8)

    def __init__(
        self,
        root: str | Path,
        *,
        nuscenes_root: str | Path,
        corruption: Corruption,
        severity: Severity,
        version: str = "v1.0-trainval",
        split: str = "val",
        labels: bool = True,
        boxes: bool = False,
        on_defect: Callable[[str], None] = raise_defect,
    ) -> None:
        """Read the tables of nuScenes.

        Args:
            root: The folder that holds a folder for each corruption.
            nuscenes_root: The folder of nuScenes, with `samples/` and the tables' folder.
            corruption: fog, wet_ground, snow, motion_blur, beam_missing, crosstalk,
                incomplete_echo or cross_sensor.
            severity: light, moderate or heavy.
            version: The tables' folder.
            split: val, or all for the same.
            labels: Whether scans carry their labels.
            boxes: Whether scans carry their boxes.
            on_defect: Is told of each contradiction in the tables. The default raises; if it
                returns, the keyframe, camera or box concerned is left out.

        Raises:
            FileNotFoundError: If there is no such folder.
            DataError: If it lacks the corruption, or nuScenes is missing or damaged.
            ValueError: If the corruption, the severity or the split is unknown.
        """
        _known("corruption", corruption, CORRUPTIONS)
        _known("severity", severity, SEVERITIES)
        known_split(split, self.splits)
        self._folder = Path(root) / corruption / severity
        _check_folder(Path(root), self._folder)
        super().__init__(
            nuscenes_root,
            version=version,
            split="val",
            labels=labels,
            boxes=boxes,
            on_defect=on_defect,
        )
        self.root = Path(root)
        self.nuscenes_root = Path(nuscenes_root)
        self.corruption = corruption
        self.severity = severity
        self.split = split

    def panoptic_file(self, index: int) -> Path | None:  # noqa: ARG002
        """None: panoptic labels belong to the uncorrupted points."""
        return None

    def _file(self, name: bytes) -> Path:
        return self._folder / name.decode()

    def _image_file(self, name: bytes) -> Path:
        return self.nuscenes_root / name.decode()


def _known(what: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"{what} must be one of {', '.join(names)}, got {name!r}{hint}")


def _check_folder(root: Path, folder: Path) -> None:
    if not root.is_dir():
        raise FileNotFoundError(f"root of nuScenes-C: {root} is no folder")
    if not (folder / "samples" / "LIDAR_TOP").is_dir():
        content = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise DataError(
            f"{folder} has no samples/LIDAR_TOP; fetch this corruption, or pass the folder that "
            f"holds a folder for each corruption: {root} holds {content}"
        )
