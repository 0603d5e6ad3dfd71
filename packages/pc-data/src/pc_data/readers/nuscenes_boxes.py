"""The boxes of the nuScenes keyframes, read once into compact arrays.

`sample_annotation.json` of v1.0-trainval holds 1.2 million rows: they are decoded one at a time,
and ten numbers of each are kept.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int8, Int32, Int64

from pc_data.readers.nuscenes_rows import iter_rows
from pc_data.scan import Boxes

DETECTION_NAMES = (
    "car",
    "truck",
    "bus",
    "trailer",
    "construction_vehicle",
    "pedestrian",
    "motorcycle",
    "bicycle",
    "traffic_cone",
    "barrier",
)
BOX_TABLES = ("sample_annotation", "instance", "category")

_CATEGORIES_OF_CLASS = {
    "car": ("vehicle.car",),
    "truck": ("vehicle.truck",),
    "bus": ("vehicle.bus.bendy", "vehicle.bus.rigid"),
    "trailer": ("vehicle.trailer",),
    "construction_vehicle": ("vehicle.construction",),
    "pedestrian": (
        "human.pedestrian.adult",
        "human.pedestrian.child",
        "human.pedestrian.construction_worker",
        "human.pedestrian.police_officer",
    ),
    "motorcycle": ("vehicle.motorcycle",),
    "bicycle": ("vehicle.bicycle",),
    "traffic_cone": ("movable_object.trafficcone",),
    "barrier": ("movable_object.barrier",),
}
_CLASS_OF_CATEGORY = {
    category: DETECTION_NAMES.index(name)
    for name, categories in _CATEGORIES_OF_CLASS.items()
    for category in categories
}


@dataclass(frozen=True, kw_only=True)
class BoxTable:
    """The boxes of all keyframes, one keyframe after the other.

    Attributes:
        splits: Where the boxes of each keyframe start, and their number.
        cuboid: Centre, length, width, height and heading of each box in the world.
        labels: Index into `DETECTION_NAMES`, -1 = none of them.
        track: Row of `tokens` of each box.
        tokens: Instance tokens, ASCII bytes.
    """

    splits: Int64[np.ndarray, " n_plus_1"]
    cuboid: Float64[np.ndarray, "k 7"]
    labels: Int8[np.ndarray, " k"]
    track: Int32[np.ndarray, " k"]
    tokens: np.ndarray

    def boxes(self, index: int, scan_from_world: Float64[np.ndarray, "4 4"]) -> Boxes:
        """The boxes of one keyframe in the frame of its scan.

        Their centres and sizes are exact. The scanner stands a degree or two off the vertical and
        boxes are turned about its z axis alone, so their lower and upper sides tilt with it.
        """
        rows = slice(self.splits[index], self.splits[index + 1])
        world = self.cuboid[rows]
        rotation, shift = scan_from_world[:3, :3], scan_from_world[:3, 3]
        heading = np.stack([np.cos(world[:, 6]), np.sin(world[:, 6])], axis=1) @ rotation[:2, :2].T
        yaw = np.arctan2(heading[:, 1], heading[:, 0])
        return Boxes(
            cuboid=np.column_stack([world[:, :3] @ rotation.T + shift, world[:, 3:6], yaw]),
            labels=self.labels[rows].astype(np.int64),
            track=tuple(token.decode() for token in self.tokens[self.track[rows]].tolist()),
        )


def read_boxes(
    folder: Path, samples: np.ndarray, *, whole: bool = False, on_defect: Callable[[str], None]
) -> BoxTable | None:
    """Read the boxes of some keyframes from a version's folder.

    Args:
        folder: E.g. `v1.0-trainval`.
        samples: Tokens of the keyframes, ASCII bytes.
        whole: Whether these are all keyframes, so that an annotation of another one is a defect.
        on_defect: Is told of each annotation that contradicts another row or is no box; when it
            returns, the box is left out.

    Returns:
        The boxes, or None if nothing is annotated at all, as in v1.0-test.

    Raises:
        DataError: If a table is missing, is not JSON, or lacks a field.
    """
    classes = _read_classes(folder, on_defect)
    keyframe = {token.decode(): index for index, token in enumerate(samples.tolist())}
    numbers, sample, track, labels = array("d"), array("i"), array("i"), array("b")
    places: dict[str, int] = {}
    table = folder / "sample_annotation.json"
    row: dict[str, Any] | None = None
    fields = ("token", "sample_token", "instance_token", "translation", "size", "rotation")
    for row in iter_rows(table, fields):
        index = keyframe.get(row["sample_token"])
        if index is None and not whole:
            continue
        instance = row["instance_token"]
        box = _numbers(row)
        if index is None:
            defect = f"names the sample {row['sample_token']}, which is no usable keyframe"
        elif instance not in classes:
            defect = f"names the instance {instance}, which instance.json lacks"
        elif box is None:
            defect = "has no finite position, no size above 0 or no rotation of length 1"
        else:
            numbers.extend(box)
            sample.append(index)
            labels.append(classes[instance])
            track.append(places.setdefault(instance, len(places)))
            continue
        on_defect(f"{table}: row {row['token']} {defect}; fetch the tables again")
    if row is None:
        return None
    order = np.argsort(sample, kind="stable")
    counts = np.bincount(np.array(sample, dtype=np.int64), minlength=len(samples))
    return BoxTable(
        splits=np.append(0, np.cumsum(counts)),
        cuboid=_cuboids(np.array(numbers, dtype=np.float64).reshape(-1, 10)[order]),
        labels=np.array(labels, dtype=np.int8)[order],
        track=np.array(track, dtype=np.int32)[order],
        tokens=np.array([token.encode() for token in places], dtype="S"),
    )


def _read_classes(folder: Path, on_defect: Callable[[str], None]) -> dict[str, int]:
    """Class of each instance, -1 = none of `DETECTION_NAMES`."""
    names = {
        row["token"]: row["name"] for row in iter_rows(folder / "category.json", ("token", "name"))
    }
    table = folder / "instance.json"
    classes = {}
    for row in iter_rows(table, ("token", "category_token")):
        if row["category_token"] not in names:
            on_defect(
                f"{table}: row {row['token']} names the category {row['category_token']}, which "
                "category.json lacks; fetch both again"
            )
        classes[row["token"]] = _CLASS_OF_CATEGORY.get(names.get(row["category_token"], ""), -1)
    return classes


def _numbers(row: dict[str, Any]) -> array | None:
    """Translation, size (width, length, height) and unit quaternion of a row, or None."""
    parts = row["translation"], row["size"], row["rotation"]
    if not all(isinstance(part, list) for part in parts) or [*map(len, parts)] != [3, 3, 4]:
        return None
    try:
        numbers = array("d", [number for part in parts for number in part])
    except (TypeError, OverflowError):
        return None
    w, x, y, z = numbers[6:]
    # No NaN passes a comparison.
    fits = all(-_FARTHEST < number < _FARTHEST for number in numbers)
    fits = fits and min(numbers[3:6]) > 0 and abs(w * w + x * x + y * y + z * z - 1) < 2e-2
    return numbers if fits else None


_FARTHEST = 1e9  # metres


def _cuboids(numbers: Float64[np.ndarray, "k 10"]) -> Float64[np.ndarray, "k 7"]:
    w, x, y, z = numbers[:, 6:].T
    yaw = np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)
    return np.column_stack([numbers[:, :3], numbers[:, [4, 3, 5]], yaw])
