"""Write the street world as a plain folder of point clouds with its `dataset.yaml`."""

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from pc_data.files.ply import write_ply
from pc_data.synthetic.capture import Returns, Street, record_streets, scan_street
from pc_data.synthetic.categories import Category
from pc_data.synthetic.rig import LIDAR_POSITION, pose_matrix
from pc_data.synthetic.sensors import HDL_32E, turn_rays

_PERIOD = 0.5  # seconds between frames
_MAP_ORIGIN = (448_000.0, 5_411_000.0, 212.0)  # of the first scene on the map, metres
_MAP_STEP = 1000.0  # metres between scenes along the map's x

# Training class -> categories; the raw ids in the files are numbers of `Category`.
_CLASSES: dict[str, tuple[Category, ...]] = {
    "road": (Category.ROAD, Category.MARKING, Category.PARKING),
    "sidewalk": (Category.SIDEWALK,),
    "terrain": (Category.TERRAIN, Category.OTHER_GROUND),
    "building": (Category.BUILDING, Category.STRUCTURE),
    "fence": (Category.FENCE, Category.BARRIER),
    "pole": (Category.POLE, Category.SIGN),
    "vegetation": (Category.VEGETATION, Category.TRUNK),
    "car": (Category.CAR,),
    "large vehicle": (Category.TRUCK, Category.BUS, Category.TRAILER, Category.CONSTRUCTION),
    "two-wheeler": (
        Category.MOTORCYCLE,
        Category.BICYCLE,
        Category.MOTORCYCLIST,
        Category.BICYCLIST,
    ),
    "person": (Category.ADULT, Category.CHILD),
}
_IGNORED = (Category.NONE, Category.CONE, Category.PUSHABLE, Category.EGO)

_LAS_ROW = [
    *(("xyz", "<i4", (3,)), ("intensity", "<u2"), ("returns", "u1"), ("class", "u1")),
    *(("angle", "i1"), ("user", "u1"), ("source", "<u2")),
]

FolderFormat = Literal["ply", "pcd", "npy", "bin", "las"]


def make_street_folder(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    frames_per_scene: int = 4,
    format: FolderFormat = "ply",  # noqa: A002
    val_fraction: float = 0.25,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make synthetic street scans as `out`/{train,val}/scene_0000/000.ply and `dataset.yaml`.

    The same arguments give the same bytes. Each format shows another way to say the same: .ply and
    .pcd name their columns; .npy is one float32 array whose columns the schema names; .bin has its
    ids in .label files beside it, class in the lower 16 bits; .las has map coordinates of survey
    size, and its instances where LAS has the point source. All but .las are in the LiDAR's frame.
    Validation scenes show layouts that no training scene has. There are no images.

    Args:
        out: Folder to make; it appears only when everything is in it.
        num_scenes: Number of scenes, the first ones for training.
        seed: Of everything.
        frames_per_scene: Scans of each scene, half a second apart.
        format: Suffix of the scans.
        val_fraction: Share of validation scenes, at least one of two or more.
        progress: Called with (done, total) after each scan.

    Raises:
        ValueError: If `out` is in use or an argument is out of range.
    """
    if format not in _WRITERS:
        raise ValueError(f"format must be one of {', '.join(_WRITERS)}, got {format!r}")
    record_streets(
        out,
        partial(_make_frame, seed=seed, suffix=format),
        num_scenes=num_scenes,
        seed=seed,
        frames_per_scene=frames_per_scene,
        period=_PERIOD,
        val_fraction=val_fraction,
        finish=partial(_write_schema, suffix=format),
        progress=progress,
    )


def _make_frame(street: Street, frame: int, root: Path, *, seed: int, suffix: str) -> np.ndarray:
    """Scan the street, write the file, and return the stored intensities."""
    time = frame * _PERIOD
    pose = street.scene.ego_pose(time) @ pose_matrix(np.eye(3), np.array(LIDAR_POSITION))
    returns = scan_street(
        street.scene, HDL_32E, time=time, pose=pose, seed=(seed, street.index, frame, 29)
    )
    if suffix == "las":
        east, north, height = _MAP_ORIGIN
        place = pose[:3, 3] + (east + street.index * _MAP_STEP, north, height)
        returns = returns._replace(xyz=turn_rays(returns.xyz, pose[:3, :3]) + place)
    split = "val" if street.is_val else "train"
    file = root / split / f"scene_{street.index:04d}" / f"{frame:03d}.{suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    return _WRITERS[suffix](file, returns)


# --- one function a format: write the file, return the intensities as they are in it


def _columns(returns: Returns) -> dict[str, np.ndarray]:
    x, y, z = returns.xyz.T.astype(np.float32)
    return {
        "x": x,
        "y": y,
        "z": z,
        "intensity": np.round(returns.intensity).astype(np.float32),
        "label": returns.category.astype(np.uint8),
        "instance": returns.instance.astype(np.uint16),
    }


def _write_ply(file: Path, returns: Returns) -> np.ndarray:
    columns = _columns(returns)
    write_ply(file, {"vertex": columns})
    return columns["intensity"]


def _write_pcd(file: Path, returns: Returns) -> np.ndarray:
    columns = _columns(returns)
    types = [values.dtype.newbyteorder("<") for values in columns.values()]
    rows = np.zeros(len(returns.xyz), dtype=list(zip(columns, types, strict=True)))
    for name, values in columns.items():
        rows[name] = values
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\n"
        f"FIELDS {' '.join(columns)}\n"
        f"SIZE {' '.join(str(kind.itemsize) for kind in types)}\n"
        f"TYPE {' '.join(kind.kind.upper() for kind in types)}\n"
        f"COUNT {' '.join('1' for _ in types)}\n"
        f"WIDTH {len(rows)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(rows)}\nDATA binary\n"
    )
    file.write_bytes(header.encode() + rows.tobytes())
    return columns["intensity"]


def _write_npy(file: Path, returns: Returns) -> np.ndarray:
    rows = np.column_stack(list(_columns(returns).values())).astype("<f4")
    np.save(file, rows)
    return rows[:, 3]


def _write_bin(file: Path, returns: Returns) -> np.ndarray:
    columns = _columns(returns)
    rows = np.column_stack([columns[name] for name in ("x", "y", "z", "intensity")])
    file.write_bytes(rows.astype("<f4").tobytes())
    ids = columns["label"].astype("<u4") | columns["instance"].astype("<u4") << 16
    file.with_suffix(".label").write_bytes(ids.astype("<u4").tobytes())
    return rows[:, 3]


def _write_las(file: Path, returns: Returns) -> np.ndarray:
    """LAS 1.2 with point format 0, in millimetres from a corner in whole metres.

    Source: LAS Specification, Version 1.2 (ASPRS, 2008), tables 1 and 5.
    """
    scale = 0.001
    corner = np.floor(returns.xyz.min(axis=0))
    steps = np.round((returns.xyz - corner) / scale)
    strength = np.round(returns.intensity * 257.0).astype("<u2")  # 255 becomes 65535
    rows = np.zeros(len(steps), dtype=_LAS_ROW)
    rows["xyz"], rows["intensity"], rows["class"] = steps, strength, returns.category
    rows["returns"], rows["source"] = 1 | 1 << 3, returns.instance  # the first of one return
    low, high = corner + scale * steps.min(axis=0), corner + scale * steps.max(axis=0)
    header = struct.pack(
        "<4sHH16sBB32s32sHHHIIBHI5I12d",
        *(b"LASF", 0, 0, b"", 1, 2, b"synthetic street", b"pc-data", 1, 2026),
        *(227, 227, 0, 0, rows.itemsize, len(rows), len(rows), 0, 0, 0, 0),
        *(scale, scale, scale, *corner, high[0], low[0], high[1], low[1], high[2], low[2]),
    )
    file.write_bytes(header + rows.tobytes())
    return strength.astype(np.float32)


_WRITERS: dict[str, Callable[[Path, Returns], np.ndarray]] = {
    "ply": _write_ply,
    "pcd": _write_pcd,
    "npy": _write_npy,
    "bin": _write_bin,
    "las": _write_las,
}
_SAID: dict[str, dict[str, Any]] = {  # what only the schema says of a format
    "npy": {"columns": ["x", "y", "z", "intensity", "label", "instance"]},
    "bin": {
        "columns": ["x", "y", "z", "intensity"],
        "labels": {"files": "{folder}/{stem}.label", "dtype": "uint32", "class_bits": 16},
    },
    "las": {"instances": {"column": "point_source_id"}},
}


def _write_schema(root: Path, frames: list[tuple[Street, int, np.ndarray]], *, suffix: str) -> None:
    train = np.concatenate([values for street, _, values in frames if not street.is_val])
    schema: dict[str, Any] = dict(_SAID.get(suffix, {}))
    schema["classes"] = {
        name: [int(category) for category in categories] for name, categories in _CLASSES.items()
    }
    schema["ignore"] = [int(category) for category in _IGNORED]
    schema["intensity"] = {
        "mean": round(float(train.mean(dtype=np.float64)), 4),
        "std": round(float(train.std(dtype=np.float64)), 4),
    }
    if suffix != "las":
        schema["sensor_height"] = LIDAR_POSITION[2]
    schema["splits"] = {"train": "train/**"}
    if any(street.is_val for street, _, _ in frames):
        schema["splits"]["val"] = "val/**"
    text = yaml.safe_dump(schema, sort_keys=False, default_flow_style=None, allow_unicode=True)
    (root / "dataset.yaml").write_text(text, encoding="utf-8")
