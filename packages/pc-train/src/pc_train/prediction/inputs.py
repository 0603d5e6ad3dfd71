"""Clouds to predict: a file, a folder of files, or a dataset."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float64
from pc_data.datasets import Reader, find_dataset
from pc_data.errors import DataError
from pc_data.files.cloud_files import SUFFIXES, read_columns
from pc_data.files.clouds import to_scan, warn_of_unit
from pc_data.files.doubts import doubt_axis
from pc_data.layouts import dataset_name
from pc_data.readers.folder_files import scan_files
from pc_data.readers.folder_schema import NAMES, UNITS, Schema
from pc_data.scan import Scan

from pc_train.prediction.config import PredictConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cloud:
    """One cloud as it was read.

    Attributes:
        scan: Its points, without labels.
        intensity_mean: That the network is to take for the mean of the intensity.
        intensity_std: Likewise.
        has_own_intensity: Whether these two are the cloud's own.
        offset: To add to positions for those of the file in metres with z up.
        notes: Sentences that the user should know of.
    """

    scan: Scan
    intensity_mean: float
    intensity_std: float
    has_own_intensity: bool = False
    offset: Float64[np.ndarray, " 3"] = dataclasses.field(default_factory=lambda: np.zeros(3))
    notes: tuple[str, ...] = ()


class Clouds(Protocol):
    """The clouds to predict, a map-style sequence."""

    is_single: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Cloud:
        """Read one cloud."""
        ...

    def known_name(self, index: int) -> str:
        """Name of a cloud if it is known before it is read, else empty."""
        ...


class Files:
    """Files of one cloud each.

    Args:
        root: Their folder.
        names: Paths from there; the names of the clouds.
        config: How to read them.
        is_single: Whether the user named the one file.

    Raises:
        ValueError: If one does not say what its columns are, and no setting does.
    """

    def __init__(
        self, root: Path, names: Sequence[str], config: PredictConfig, *, is_single: bool
    ) -> None:
        _require_columns(root, names, config)
        self.root, self.names, self.config = root, names, config
        self.is_single = is_single

    def __len__(self) -> int:
        return len(self.names)

    def known_name(self, index: int) -> str:
        """Its path from the folder."""
        return self.names[index]

    def __getitem__(self, index: int) -> Cloud:
        """Read one file.

        Raises:
            DataError: If it is damaged.
        """
        file, config = self.root / self.names[index], self.config
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            columns = _read(file, config)
            num_rows = len(next(iter(columns.values())))
            scan = to_scan(
                columns,
                file,
                names={"label": "", "instance": ""},
                metres=UNITS[config.units],
                up=config.up,
            )
            del columns
            warn_of_unit(scan.xyz, file, remedy="--units mm")
        notes = [str(warning.message) for warning in caught]
        if left_out := num_rows - len(scan):
            notes.append(
                f"{file}: {left_out:,} of {num_rows:,} points have no coordinates and get no row "
                "in the results"
            )
        if doubt := doubt_axis(scan.xyz):
            other = "y" if config.up == "z" else "z"
            notes.append(f"{file}: {doubt}; if so, pass --up {other}")
        scan = dataclasses.replace(scan, name=self.names[index])
        mean, std = config.intensity or own_intensity(scan)
        return Cloud(
            scan=scan,
            intensity_mean=mean,
            intensity_std=std,
            has_own_intensity=config.intensity is None and scan.intensity is not None,
            offset=np.zeros(3) if scan.pose is None else scan.pose[:3, 3],
            notes=tuple(notes),
        )


class DatasetScans:
    """The scans of a dataset's split.

    Args:
        reader: The dataset.
        intensity: Mean and standard deviation instead of its own.
    """

    is_single = False

    def __init__(self, reader: Reader, intensity: tuple[float, float] | None) -> None:
        self.reader = reader
        self.intensity = intensity or (reader.intensity_mean, reader.intensity_std)

    def __len__(self) -> int:
        return len(self.reader)

    def known_name(self, index: int) -> str:  # noqa: ARG002
        """Empty: readers name a scan when they read it."""
        return ""

    def __getitem__(self, index: int) -> Cloud:
        """Read one scan."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scan = self.reader[index]
        notes = tuple(str(warning.message) for warning in caught)
        mean, std = self.intensity
        return Cloud(scan=scan, intensity_mean=mean, intensity_std=std, notes=notes)


def open_clouds(source: Path, config: PredictConfig) -> Clouds:
    """Find the clouds that a path names.

    Raises:
        FileNotFoundError: If there is nothing.
        DataError: If it is no cloud, folder of clouds or dataset.
        ValueError: If a setting says what the dataset says itself.
    """
    if source.is_file():
        _refuse(source, config, ("name", "version", "align"), "a file is no dataset")
        if source.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{source}: not a point cloud of a known type ({', '.join(SUFFIXES)}); convert it, "
                "or pass the dataset's folder"
            )
        return Files(source.parent, [source.name], config, is_single=True)
    name = config.name or dataset_name(source)
    if name == "folder" and not any((source / schema).is_file() for schema in NAMES):
        _refuse(source, config, ("version", "align", "split"), "these are files without splits")
        names = scan_files(source, Schema(file=source / NAMES[0]))
        return Files(source, names, config, is_single=False)
    states = NAMES[0] if name == "folder" else f"the layout of {name}"
    _refuse(source, config, ("columns", "units", "up"), f"{states} says how to read it")
    reader = find_dataset(
        source,
        split=config.split,
        name=config.name,
        version=config.version,
        align=config.align,
        labels=False,
    )
    return DatasetScans(reader, config.intensity)


def own_intensity(scan: Scan) -> tuple[float, float]:
    """Mean and standard deviation of a cloud's intensity; 0 and 1 without, 1 if it is constant."""
    if scan.intensity is None:
        return 0.0, 1.0
    mean = float(scan.intensity.mean(dtype=np.float64))
    return mean, float(scan.intensity.std(dtype=np.float64)) or 1.0


def _read(file: Path, config: PredictConfig) -> dict[str, np.ndarray]:
    """Read a file's columns; those that were named hold for files without names alone."""
    bare = file.suffix.lower() in (".bin", ".npy")
    return read_columns(file, columns=config.columns if bare else ())


def _require_columns(root: Path, names: Sequence[str], config: PredictConfig) -> None:
    first = next((name for name in names if name.lower().endswith(".bin")), None)
    if first is not None and not config.columns:
        raise ValueError(
            f"{root / first}: a .bin file does not say what its values are; name those of a row in "
            "order, e.g. --columns x,y,z,intensity for SemanticKITTI or x,y,z,intensity,_ for "
            "nuScenes (_ is skipped)"
        )


def _refuse(source: Path, config: Any, names: Sequence[str], why: str) -> None:  # noqa: ANN401
    """Refuse settings that mean nothing for a source."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in names:
        if getattr(config, name) != defaults[name]:
            raise ValueError(f"--{name} is not for {source}: {why}; leave it out")
