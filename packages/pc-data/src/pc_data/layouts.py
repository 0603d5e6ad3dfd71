"""Which dataset's official layout a folder has, told from the names in it alone."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from pc_data.errors import DataError

_MARKERS = {
    "point clouds": ("dataset.yaml", "dataset.yml", "dataset.json"),
    "nuScenes": ("v1.0-*/scene.json", "v1.0-*/sample.json", "v1.0-*/sample_data.json", "v1.0-*/"),
    # Before SemanticKITTI, which has the same folders without tags.
    "SemanticPOSS": ("dataset/sequences/[0-9][0-9]/tag/", "sequences/[0-9][0-9]/tag/"),
    "SemanticKITTI": ("dataset/sequences/[0-9][0-9]/", "sequences/[0-9][0-9]/"),
    "KITTI object": ("training/velodyne/", "training/label_2/"),
    "PandaSet": ("[0-9][0-9][0-9]/lidar/", "[0-9][0-9][0-9]/camera/"),
    "Argoverse 2": (
        "sensor/*/*/sensors/",
        *(f"{split}/*/sensors/lidar/" for split in ("train", "val", "test")),
    ),
    "ONCE": ("data/[0-9]*/lidar_roof/", "ImageSets/raw_small.txt", "ImageSets/raw_medium.txt"),
    "ScanNet": ("scans/scene*/", "scans_test/scene*/"),
    "Pointcept ScanNet": tuple(f"{split}/scene*/coord.npy" for split in ("train", "val", "test")),
    "ARKitScenes": tuple(
        f"{split}/*/*{part}"
        for split in ("Training", "Validation")
        for part in ("_3dod_mesh.ply", "_frames/")
    ),
    "SUN RGB-D": ("sunrgbd_trainval/",),
    "Waymo v2": ("training/lidar/", "validation/lidar/", "testing/lidar/"),
}


READERS = {
    "nuScenes": "nuscenes",
    "SemanticKITTI": "semantickitti",
    "SemanticPOSS": "semanticposs",
    "PandaSet": "pandaset",
    "Waymo v2": "waymo",
    "ONCE": "once",
    "Argoverse 2": "argoverse2",
    "ScanNet": "scannet",
    "Pointcept ScanNet": "pointcept",
    "ARKitScenes": "arkitscenes",
    "SUN RGB-D": "sunrgbd",
    "point clouds": "folder",
}
"""Layouts that are read, and what `pc_data.datasets` calls them."""


def find_layout(root: Path) -> str | None:
    """Name the dataset whose files lie directly under a folder, or None.

    Args:
        root: An existing folder.

    Returns:
        `nuScenes`, `SemanticKITTI` or the name of a layout that is recognised but not read here.
    """
    for name, patterns in _MARKERS.items():
        if any(True for pattern in patterns for _ in root.glob(pattern)):
            return name
    return None


def dataset_name(root: Path) -> str:
    """Tell which reader a folder is for, as `pc_data.datasets` calls it.

    Raises:
        FileNotFoundError: If there is no such folder.
        DataError: If it is the root of no dataset and holds no point clouds.
    """
    from pc_data.readers.folder_files import holds_clouds

    places = (root, root.parent, root.parent.parent, *_folders(root))
    if not any(find_layout(place) for place in places if place.is_dir()) and holds_clouds(root):
        return READERS["point clouds"]
    return READERS[check_root(root, *READERS)]


def check_root(root: Path, *expected: str) -> str:
    """Refuse a folder that holds none of the expected datasets, and say what to pass instead.

    Args:
        root: The folder a user gave.
        expected: Names of layouts as `find_layout` gives them.

    Returns:
        The one that the folder has.

    Raises:
        FileNotFoundError: If there is no such folder.
        DataError: If the folder has another layout or none.
    """
    names = " or ".join(expected)
    if not root.is_dir():
        siblings = [path.name for path in _folders(root.parent)]
        near = difflib.get_close_matches(root.name, siblings, n=1)
        hint = f"; did you mean {root.parent / near[0]}?" if near else ""
        kind = "is a file, not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(f"root of {names}: {root} {kind}{hint}")
    found = find_layout(root)
    if found in expected:
        return found
    for place in (root.parent, root.parent.parent, *_folders(root)):
        if find_layout(place) in expected:
            raise DataError(f"{root} is not the root of {names}; pass {place}")
    if found is not None:
        reader = READERS.get(found)
        advice = f"read it as {reader}" if reader else f"pass a folder that holds {names}"
        raise DataError(f"{root} holds {found}, not {names}; {advice}")
    markers = " or ".join(_TELLTALE[name] for name in expected)
    content = ", ".join(sorted(path.name for path in root.iterdir())[:6]) or "nothing"
    raise DataError(
        f"{root} does not look like {names}: it holds {content}; pass the folder that holds "
        f"{markers}"
    )


_TELLTALE = {
    "nuScenes": "v1.0-*/ beside samples/",
    "SemanticKITTI": "dataset/sequences/ or sequences/",
    "SemanticPOSS": "dataset/sequences/ or sequences/ with tag/ in each",
    "PandaSet": "001/lidar/, 002/lidar/, ...",
    "Waymo v2": "training/, validation/ or testing/",
    "ONCE": "data/ and ImageSets/",
    "Argoverse 2": "sensor/ or train/, val/, test/",
    "ScanNet": "scans/ beside scannetv2-labels.combined.tsv",
    "Pointcept ScanNet": "train/<room>/coord.npy",
    "ARKitScenes": "Training/ and Validation/",
    "SUN RGB-D": "sunrgbd_trainval/",
    "point clouds": ".ply, .pcd, .las, .npy or .bin files, or a dataset.yaml",
}


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []


def known_split(split: str, splits: Sequence[str]) -> None:
    """Refuse an unknown split with the nearest known one.

    Raises:
        ValueError: If `split` is not one of `splits`.
    """
    if split not in splits:
        near = difflib.get_close_matches(split, splits, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"split must be one of {', '.join(splits)}, got {split!r}{hint}")
