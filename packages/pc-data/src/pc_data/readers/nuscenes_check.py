"""What only nuScenes has: objects of points, and sweeps between keyframes."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from pc_data.errors import DataError
from pc_data.files.points import read_points
from pc_data.readers.nuscenes import NuScenes

ItemT = TypeVar("ItemT")


def check_objects(dataset: NuScenes, *, notes: list[str], defects: list[str]) -> None:
    """Read the panoptic labels of every keyframe.

    Args:
        dataset: The keyframes.
        notes: Gets what is absent without being wrong.
        defects: Gets what is missing or damaged.
    """
    table = dataset.root / dataset.version / "panoptic.json"
    listed = [index for index in range(len(dataset)) if dataset.panoptic_file(index) is not None]
    if not table.is_file():
        notes.append(f"{table.parent}: no objects of points (panoptic.json is absent)")
    elif len(listed) < len(dataset):
        missing = len(dataset) - len(listed)
        notes.append(f"{table}: no row for {missing} of {len(dataset)} keyframes")
    _try_all(dataset.load_panoptic, listed, defects)


def check_sweeps(dataset: NuScenes, *, notes: list[str], defects: list[str]) -> None:
    """Read every sweep that the keyframes are joined with, once.

    Args:
        dataset: Keyframes with sweeps.
        notes: Gets what is absent without being wrong.
        defects: Gets what is missing or damaged.
    """
    keyframes = {dataset.scan_file(index) for index in range(len(dataset))}
    sweeps = dict.fromkeys(
        file for index in range(len(dataset)) for file in dataset.sweep_files(index)
    )
    files = [file for file in sweeps if file not in keyframes]
    if not files:
        notes.append(f"{dataset.root / dataset.version}: no sweeps between keyframes")
    elif not files[0].parent.is_dir():
        notes.append(f"{files[0].parent} is absent; only sweeps between keyframes need it")
    else:
        _try_all(partial(read_points, num_columns=5), files, defects)


def _try_all(read: Callable[[ItemT], object], items: Iterable[ItemT], defects: list[str]) -> None:
    """Read several at a time and keep what goes wrong."""

    def try_one(item: ItemT) -> str | None:
        try:
            read(item)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        defects.extend(found for found in pool.map(try_one, items) if found)
