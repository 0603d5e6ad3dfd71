"""Which datasets there are, by name, and what each of them offers."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from pc_data.scan import Boxes, Camera, Scan

DatasetName = Literal[
    "nuscenes",
    "semantickitti",
    "semanticposs",
    "pandaset",
    "waymo",
    "once",
    "argoverse2",
    "scannet",
    "pointcept",
    "arkitscenes",
    "sunrgbd",
    "folder",
]


class _Place(NamedTuple):
    """Where a reader is, and what it takes besides root, split and labels."""

    name: str
    version: str = ""  # what `DataConfig.version` is called there
    classes: bool = False


_READERS = {
    "nuscenes": _Place("pc_data.readers.nuscenes:NuScenes", "version", classes=True),
    "semantickitti": _Place("pc_data.readers.semantic_kitti:SemanticKITTI", classes=True),
    "semanticposs": _Place("pc_data.readers.semantic_poss:SemanticPOSS", classes=True),
    "pandaset": _Place("pc_data.readers.pandaset:PandaSet", "sensors"),
    "waymo": _Place("pc_data.readers.waymo:Waymo", "lidars"),
    "once": _Place("pc_data.readers.once:Once"),
    "argoverse2": _Place("pc_data.readers.argoverse2:Argoverse2"),
    "scannet": _Place("pc_data.readers.scannet:ScanNet", classes=True),
    "pointcept": _Place("pc_data.readers.pointcept:PointceptScenes", classes=True),
    "arkitscenes": _Place("pc_data.readers.arkitscenes:ARKitScenes"),
    "sunrgbd": _Place("pc_data.readers.sun_rgbd:SunRGBD", "version"),
    "folder": _Place("pc_data.readers.folder:Folder"),
}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """One dataset on disk.

    Attributes:
        root: The dataset's folder.
        name: Its layout, e.g. nuscenes or semantickitti.
        version: Which form of it: the folder of the tables of nuScenes (v1.0-trainval, v1.0-mini,
            v1.0-test), the sensors of PandaSet (both, pandar64, pandargt), the LiDARs of Waymo
            (all, top), the labels of SUN RGB-D (v1, v2). Empty for the first of these.
        classes: 20 or 200 of ScanNet; 10 or 6 for the classes that nuScenes shares with
            SemanticKITTI or SemanticPOSS. Empty for the dataset's own.
        split: Which scans: train, val, test or all.
    """

    root: Path
    name: DatasetName = "nuscenes"
    version: str = ""
    classes: str = ""
    split: str = "train"


@runtime_checkable
class Reader(Protocol):
    """The scans of one split of a dataset, a map-style sequence, and each scan's parts by index."""

    @property
    def root(self) -> Path:
        """The dataset's folder."""
        ...

    @property
    def split(self) -> str:
        """The split read."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that there are; all of them know `all`."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Training classes of points, index = label."""
        ...

    @property
    def box_class_names(self) -> tuple[str, ...]:
        """Classes of boxes, index = label; empty without boxes."""
        ...

    @property
    def num_classes(self) -> int:
        """Their number."""
        ...

    @property
    def intensity_mean(self) -> float:
        """Mean of the intensity over the training split."""
        ...

    @property
    def intensity_std(self) -> float:
        """Standard deviation of it."""
        ...

    @property
    def min_depth(self) -> float:
        """A point counts as seen by a camera only beyond this depth in metres."""
        ...

    @property
    def min_x(self) -> float:
        """A point counts as seen only beyond this x of the scan's frame."""
        ...

    @property
    def scene_names(self) -> tuple[str, ...]:
        """The scenes (drives, sequences, rooms) of the split that are present."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Scan:
        """Read one scan."""
        ...

    def scene_of(self, index: int) -> str:
        """Name of the scene that a scan belongs to."""
        ...

    def scan_file(self, index: int) -> Path:
        """Where a scan's points are."""
        ...

    def load_points(self, index: int) -> Float32[np.ndarray, "n c"]:
        """Read a scan's points; the first three columns are x, y, z in metres."""
        ...

    def load_labels(self, index: int) -> Int64[np.ndarray, " n"] | None:
        """Read the classes of a scan's points, -1 = ignored, or None without labels."""
        ...

    def load_boxes(self, index: int) -> Boxes | None:
        """Read a scan's boxes, or None without boxes."""
        ...

    def cameras(self, index: int) -> tuple[Camera, ...]:
        """The images taken with a scan; none is decoded."""
        ...


@runtime_checkable
class Labelled(Protocol):
    """A reader whose labels are files of their own."""

    def label_file(self, index: int) -> Path | None:
        """Where a scan's labels are, or None without labels."""
        ...


def reader_class(name: str) -> Callable[..., Reader]:
    """The class that reads a layout; only its module is imported.

    Raises:
        ValueError: If no dataset has that name.
    """
    if name not in _READERS:
        known = get_args(DatasetName)
        nearest = difflib.get_close_matches(name, known, cutoff=0.4) or known
        raise ValueError(f"no dataset is called {name!r}; the nearest are: {', '.join(nearest)}")
    module, _, reader = _READERS[name].name.partition(":")
    return getattr(import_module(module), reader)


def open_dataset(config: DataConfig, *, split: str | None = None, labels: bool = True) -> Reader:
    """Open a dataset, or another split of it, with or without its labels.

    Raises:
        FileNotFoundError: If there is no such folder.
        DataError: If the folder is not such a dataset.
        ValueError: If no dataset has that name, or it has no such split or version.
    """
    reader = reader_class(config.name)
    place = _READERS[config.name]
    form = {"classes": config.classes} if config.classes else {}
    if config.classes and not place.classes:
        raise ValueError(f"classes must be empty for {config.name}, got {config.classes!r}")
    if config.version and not place.version:
        raise ValueError(f"version must be empty for {config.name}, got {config.version!r}")
    if config.version:
        form[place.version] = config.version
    return reader(config.root, split=split or config.split, labels=labels, **form)
