"""Which datasets there are, by name, and what each of them offers."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from pc_data.errors import DataError
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
    align: bool = False


_READERS = {
    "nuscenes": _Place("pc_data.readers.nuscenes:NuScenes", "version", classes=True),
    "semantickitti": _Place("pc_data.readers.semantic_kitti:SemanticKITTI", classes=True),
    "semanticposs": _Place("pc_data.readers.semantic_poss:SemanticPOSS", classes=True),
    "pandaset": _Place("pc_data.readers.pandaset:PandaSet", "sensors"),
    "waymo": _Place("pc_data.readers.waymo:Waymo", "lidars"),
    "once": _Place("pc_data.readers.once:Once"),
    "argoverse2": _Place("pc_data.readers.argoverse2:Argoverse2"),
    "scannet": _Place("pc_data.readers.scannet:ScanNet", classes=True, align=True),
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
        align: Whether to turn the rooms of ScanNet until their walls stand along x and y. Other
            datasets have no such choice.
        split: Which scans: train, val, test or all.
    """

    root: Path
    name: DatasetName = "nuscenes"
    version: str = ""
    classes: str = ""
    align: bool = False
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
        ValueError: If no dataset has that name, or it has no such split, version or classes, or no
            alignment.
    """
    reader = reader_class(config.name)
    place = _READERS[config.name]
    form: dict[str, str | bool] = {"classes": config.classes} if config.classes else {}
    if config.classes and not place.classes:
        raise ValueError(f"classes must be empty for {config.name}, got {config.classes!r}")
    if config.version and not place.version:
        raise ValueError(f"version must be empty for {config.name}, got {config.version!r}")
    if config.align and not place.align:
        with_it = ", ".join(name for name, other in _READERS.items() if other.align)
        raise ValueError(f"align must be false for {config.name}, got true; {with_it} has it")
    if config.align:
        form["align"] = True
    if config.version:
        form[place.version] = config.version
    return reader(config.root, split=split or config.split, labels=labels, **form)


def find_dataset(
    root: Path,
    *,
    split: str = "all",
    name: DatasetName | None = None,
    version: str = "",
    align: bool = False,
    labels: bool = True,
) -> Reader:
    """Open the dataset that a folder holds.

    Args:
        root: The folder.
        split: Which scans.
        name: Its layout; told from its files by default.
        version: Which form of it; by default that of `DataConfig`, of nuScenes the fullest that
            has the split.
        align: As for `DataConfig`.
        labels: Whether scans carry their labels.

    Raises:
        FileNotFoundError: If there is no such folder.
        DataError: If the folder is no dataset, or not of that layout.
        ValueError: If the dataset has no such split, version or alignment.
    """
    from pc_data.layouts import dataset_name

    found: DatasetName = name or dataset_name(root)  # type: ignore[assignment]
    config = DataConfig(root=root, name=found, version=version, align=align, split=split)
    if found != "nuscenes" or version:
        return open_dataset(config, labels=labels)
    from pc_data.readers.nuscenes import list_versions

    refusal: Exception = DataError(f"{root} has no tables of nuScenes (v1.0-*)")
    for place in reversed(list_versions(root)):  # trainval, test, mini
        try:
            return open_dataset(replace(config, version=place), labels=labels)
        except DataError as error:
            refusal = error
    raise refusal
