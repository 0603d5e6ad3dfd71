"""Which datasets there are, by name."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pc_data.nuscenes import NuScenes
from pc_data.semantic_kitti import SemanticKITTI

DatasetName = Literal["nuscenes", "semantickitti"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """One dataset on disk.

    Attributes:
        root: The dataset's folder.
        name: Its layout: nuscenes or semantickitti.
        version: Tables to read (nuScenes only).
        split: Which scans: train, val, test or all.
    """

    root: Path
    name: DatasetName = "nuscenes"
    version: str = "v1.0-trainval"
    split: str = "train"


def open_dataset(
    config: DataConfig, *, split: str | None = None, labels: bool = True
) -> NuScenes | SemanticKITTI:
    """Open a dataset, or another split of it, with or without its labels.

    Raises:
        FileNotFoundError: If there is no such folder.
        DataError: If the folder is not such a dataset.
        ValueError: If no dataset has that name.
    """
    known = get_args(DatasetName)
    if config.name not in known:
        nearest = difflib.get_close_matches(config.name, known, cutoff=0.4) or known
        raise ValueError(
            f"no dataset is called {config.name!r}; the nearest are: {', '.join(nearest)}"
        )
    split = split or config.split
    if config.name == "nuscenes":
        return NuScenes(config.root, version=config.version, split=split, labels=labels)
    return SemanticKITTI(config.root, split=split, labels=labels)
