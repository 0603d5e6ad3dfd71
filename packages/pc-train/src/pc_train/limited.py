"""Training on few labels: some scenes of a dataset, some scans, or some points of each.

Source: the data-efficient benchmark of ScanNet (Hou et al., CVPR 2021, arXiv:2012.09165), limited
    reconstructions (lists of scenes) and limited annotations (points of each scene).
"""

import dataclasses
import difflib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64
from numpy.dtypes import Int32DType, Int64DType
from pc_backbones.published_files import UNREADABLE, load_plain, reason_of
from pc_data.datasets import Reader
from pc_data.errors import DataError
from pc_data.loading import Scans
from pc_data.scan import Scan

# What a file of arrays needs beside tensors and plain values; NumPy 1 called the place otherwise.
_ARRAYS: list[Any] = [
    *(
        (getattr(np._core.multiarray, name), f"numpy.{core}.multiarray.{name}")  # noqa: SLF001
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    *(np.ndarray, np.dtype, Int32DType, Int64DType),
]


def scans_of_scenes(dataset: Reader, file: Path) -> Int64[np.ndarray, " n"]:
    """Find the scans of the scenes that a text file lists, one name a line.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it lists no scene, one twice, or one that the dataset does not have.
    """
    names = _read_names(file)
    if twice := _first_repeated(names):
        raise ValueError(f"{file} lists scene {twice!r} twice; remove one of the lines")
    known = set(dataset.scene_names)
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=3)
            raise ValueError(
                f"{file} lists scene {name!r}, which is not in split {dataset.split!r} of "
                f"{dataset.root}; {_offer(nearest, known)}"
            )
    wanted = set(names)
    return np.array([i for i in range(len(dataset)) if dataset.scene_of(i) in wanted], np.int64)


def scans_of_every_scene(dataset: Reader, step: int) -> Int64[np.ndarray, " n"]:
    """Find the scans of every so manieth scene, the last of each such number of scenes.

    Args:
        dataset: Its scenes count in the order of `scene_names`; those of nuScenes in that of
            their table.
        step: With 1 all scenes.

    Raises:
        ValueError: If the dataset has fewer scenes.

    Source: SLidR (Sautier et al., CVPR 2022), released code: 100 for 1% of nuScenes, 7 scenes.
    """
    names = _scenes_in_order(dataset)
    if len(names) < step:
        raise ValueError(
            f"every_scene {step} needs at least {step} scenes, split {dataset.split!r} of "
            f"{dataset.root} has {len(names)}; pass a smaller one"
        )
    wanted = set(names[step - 1 :: step])
    return np.array([i for i in range(len(dataset)) if dataset.scene_of(i) in wanted], np.int64)


def _scenes_in_order(dataset: Reader) -> tuple[str, ...]:
    from pc_data.readers.nuscenes import NuScenes
    from pc_data.readers.nuscenes_rows import iter_rows

    if not isinstance(dataset, NuScenes):
        return dataset.scene_names
    rows = iter_rows(dataset.root / dataset.version / "scene.json", ("name",))
    present = set(dataset.scene_names)
    return tuple(row["name"] for row in rows if row["name"] in present)


@runtime_checkable
class _PartlyLabelled(Protocol):
    """A dataset of which some scans alone have labels, and that knows which."""

    def labelled(self) -> Int64[np.ndarray, " k"]:
        """Indices of these scans, ascending."""
        ...


class LabelledScans:
    """Some scans of a dataset, with what a score needs to know of it.

    Args:
        dataset: The dataset.
        indices: Of the scans.
    """

    def __init__(self, dataset: Reader, indices: Int64[np.ndarray, " k"]) -> None:
        self.dataset, self.indices = dataset, indices
        self.root, self.split, self.scene_names = dataset.root, dataset.split, dataset.scene_names
        self.class_names, self.num_classes = dataset.class_names, dataset.num_classes
        self.intensity_mean, self.intensity_std = dataset.intensity_mean, dataset.intensity_std

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Scan:
        return self.dataset[int(self.indices[index])]

    def scene_of(self, index: int) -> str:
        """Name of the scene that a scan belongs to."""
        return self.dataset.scene_of(int(self.indices[index]))


def labelled_scans(dataset: Reader) -> Any:  # noqa: ANN401 - a dataset without single parts
    """The scans with labels of a dataset that says which these are (Waymo); else the dataset.

    Raises:
        DataError: If no scan has labels.
    """
    if not isinstance(dataset, _PartlyLabelled):
        return dataset
    indices = dataset.labelled()
    if not len(indices):
        raise DataError(
            f"{dataset.root}: no scan of split {dataset.split!r} has labels; pass a split that has "
            "some"
        )
    return LabelledScans(dataset, indices)


def _read_names(file: Path) -> list[str]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file; pass a list of scenes, one a line")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text; pass a list of scenes, one a line") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"{file} lists no scene; write one name a line")
    return names


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _offer(nearest: list[str], known: Iterable[str]) -> str:
    return f"the nearest are: {', '.join(nearest or sorted(known)[:3])}"


class DrawnLabels:
    """A dataset of which each scan keeps the labels of a few random points; the others get -1.

    The points follow from the seed and the scan's name; those of a smaller number are among those
    of a larger one. A scan with fewer labelled points keeps them all.

    Args:
        scans: The dataset.
        num_points: Labelled points of a scan; a room is one scan.
        seed: Of the draw.
    """

    def __init__(self, scans: Scans, *, num_points: int, seed: int) -> None:
        self.scans, self.num_points, self.seed = scans, num_points, seed

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> Scan:
        scan = self.scans[index]
        if scan.labels is None:
            return scan
        digest = hashlib.sha256(f"{self.seed}/{scan.name}".encode()).digest()
        rng = np.random.default_rng(np.frombuffer(digest, np.uint32))
        labelled = np.flatnonzero(scan.labels >= 0)
        return keep_labels(scan, rng.permutation(labelled)[: self.num_points])


class ListedLabels:
    """A dataset of which each scan keeps the labels of listed points; the others get -1.

    Args:
        scans: The dataset.
        points: Indices of the labelled points by name of the scan.
    """

    def __init__(self, scans: Scans, points: Mapping[str, Int64[np.ndarray, " m"]]) -> None:
        self.scans, self.points = scans, points

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> Scan:
        """Read one scan.

        Raises:
            DataError: If the scan is not listed, or has fewer points than the list says.
        """
        scan = self.scans[index]
        if scan.name not in self.points:
            raise DataError(
                f"scan {scan.name} is not among the {len(self.points)} with listed points; pass "
                "the list of this dataset"
            )
        return keep_labels(scan, self.points[scan.name])


def require_listed(
    dataset: Reader, indices: Int64[np.ndarray, " n"], points: Mapping[str, Any], file: Path
) -> None:
    """Check that a file lists the scenes of all scans to train on.

    Raises:
        ValueError: Names the first that it lacks.
    """
    missing = [name for i in indices if (name := dataset.scene_of(int(i))) not in points]
    if missing:
        nearest = difflib.get_close_matches(missing[0], points, n=3)
        raise ValueError(
            f"{file} lacks {len(missing)} of the {len(indices)} scans to train on, the first is "
            f"{missing[0]}; {_offer(nearest, points)}; pass the file of this split"
        )


def keep_labels(scan: Scan, points: Int64[np.ndarray, " m"]) -> Scan:
    """Set the labels of all points but some to -1.

    Raises:
        DataError: If the scan does not have such a point.
    """
    if scan.labels is None:
        return scan
    if len(points) and not 0 <= points.min() <= points.max() < len(scan):
        worst = points[(points < 0) | (points >= len(scan))][0]
        raise DataError(
            f"scan {scan.name} has {len(scan)} points, but point {worst} is to keep its label; "
            "the list is of other points (the vertices of another mesh, or another order)"
        )
    labels = np.full_like(scan.labels, -1)
    labels[points] = scan.labels[points]
    return dataclasses.replace(scan, labels=labels)


def read_points(file: Path) -> dict[str, Int64[np.ndarray, " m"]]:
    """Read which points are labelled, from a file by `torch.save`: scene name to point indices.

    Reads tensors, arrays and plain values, and executes nothing.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds code or anything else.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file; pass a torch file of points by scene")
    try:
        with torch.serialization.safe_globals(_ARRAYS):
            content = load_plain(file)
        if not isinstance(content, dict) or not content:
            raise TypeError(f"it holds {type(content).__name__}")
        return {str(name): _indices(name, value) for name, value in content.items()}
    except UNREADABLE as error:
        raise ValueError(
            f"{file} is no dictionary from scene to point indices ({reason_of(error)}); pass "
            "one that torch.save wrote"
        ) from error


def _indices(name: str, value: Any) -> Int64[np.ndarray, " m"]:  # noqa: ANN401
    array = np.asarray(value)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and len(array)):
        raise TypeError(f"of scene {name} it holds {array.dtype} {list(array.shape)}")
    return array.astype(np.int64)
