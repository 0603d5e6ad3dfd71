"""The tables of a synthetic PandaSet frame: points, their raw classes, and cuboids."""

import uuid
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from pc_data.synthetic.capture import Returns, SeenBoxes
from pc_data.synthetic.categories import Category
from pc_data.synthetic.recording import digest

_RAW_ID = {
    Category.NONE: 0,
    Category.ROAD: 7,
    Category.MARKING: 8,
    Category.PARKING: 7,
    Category.SIDEWALK: 11,
    Category.OTHER_GROUND: 6,
    Category.TERRAIN: 6,
    Category.BUILDING: 41,
    Category.FENCE: 42,
    Category.STRUCTURE: 42,
    Category.POLE: 42,
    Category.SIGN: 36,
    Category.VEGETATION: 5,
    Category.TRUNK: 5,
    Category.CAR: 13,
    Category.TRUCK: 15,
    Category.BUS: 23,
    Category.TRAILER: 17,
    Category.CONSTRUCTION: 19,
    Category.MOTORCYCLE: 18,
    Category.BICYCLE: 26,
    Category.MOTORCYCLIST: 18,
    Category.BICYCLIST: 26,
    Category.ADULT: 30,
    Category.CHILD: 30,
    Category.CONE: 37,
    Category.BARRIER: 39,
    Category.PUSHABLE: 40,
    Category.EGO: 0,
}
RAW_ID: Int64[np.ndarray, " categories"] = np.array([_RAW_ID[k] for k in Category], dtype=np.int64)

_PEOPLE = (Category.ADULT, Category.CHILD)
_RIDERS = {
    Category.MOTORCYCLIST: "With Rider",
    Category.BICYCLIST: "With Rider",
    Category.MOTORCYCLE: "Without Rider",
    Category.BICYCLE: "Without Rider",
}
_STILL = (Category.CONE, Category.BARRIER, Category.PUSHABLE)


class Firing(NamedTuple):
    """What one LiDAR recorded.

    Attributes:
        sensor: 0 = Pandar64, 1 = PandarGT.
        xyz: Metres in the world's frame.
        time: Seconds of each return.
        returns: The returns, in the order of `xyz`.
        boxes: Those of the objects that it hit, in the world's frame.
    """

    sensor: int
    xyz: Float64[np.ndarray, "n 3"]
    time: Float64[np.ndarray, " n"]
    returns: Returns
    boxes: SeenBoxes


def point_columns(firings: tuple[Firing, ...]) -> dict[str, np.ndarray]:
    """The columns x, y, z, i, t, d of all returns."""
    # To the precision of float32, so that the files stay small.
    xyz = np.concatenate([firing.xyz for firing in firings]).astype(np.float32).astype(np.float64)
    intensity = np.concatenate([firing.returns.intensity for firing in firings])
    sensor = [np.full(len(firing.xyz), firing.sensor, dtype=np.int64) for firing in firings]
    return {
        "x": xyz[:, 0],
        "y": xyz[:, 1],
        "z": xyz[:, 2],
        "i": np.round(intensity.astype(np.float64)),
        "t": np.concatenate([firing.time for firing in firings]),
        "d": np.concatenate(sensor),
    }


def class_columns(firings: tuple[Firing, ...]) -> dict[str, np.ndarray]:
    """The column of raw classes."""
    category = np.concatenate([firing.returns.category for firing in firings])
    return {"class": RAW_ID[category]}


def cuboid_columns(
    firings: tuple[Firing, ...], *, names: dict[int, str], scene: str
) -> dict[str, np.ndarray]:
    """The 17 columns of cuboids; a moving object that both LiDARs hit has one for each.

    Args:
        firings: Of both LiDARs.
        names: Official names of classes by raw id.
        scene: Unique name of the scene, from which those of the objects are made.
    """
    twice = np.intersect1d(*(f.boxes.instance[f.boxes.speed != 0] for f in firings)).tolist()
    rows: list[dict[str, object]] = []
    for firing in firings:
        for k, number in enumerate(firing.boxes.instance.tolist()):
            if number in twice:
                rows.append(_row(firing.boxes, k, names, scene, firing.sensor))
            elif not any(row["number"] == number for row in rows):
                rows.append(_row(firing.boxes, k, names, scene, -1))
    texts = ("uuid", "label", "cuboids.sibling_id")
    kinds = {"stationary": np.bool_, "camera_used": np.int64, "cuboids.sensor_id": np.int64}
    kinds |= {name: np.object_ for name in _COLUMNS if name.startswith("attr") or name in texts}
    return {
        name: np.array([row[name] for row in rows], dtype=kinds.get(name, np.float64))
        for name in _COLUMNS
    }


_COLUMNS = (
    *("uuid", "label", "yaw", "stationary", "camera_used"),
    *("position.x", "position.y", "position.z"),
    *("dimensions.x", "dimensions.y", "dimensions.z"),
    *("attributes.object_motion", "cuboids.sibling_id", "cuboids.sensor_id"),
    *("attributes.rider_status", "attributes.pedestrian_behavior", "attributes.pedestrian_age"),
)


def _row(
    boxes: SeenBoxes, k: int, names: dict[int, str], scene: str, sensor: int
) -> dict[str, object]:
    x, y, z, length, width, height, heading = boxes.cuboid[k].tolist()
    number, category = int(boxes.instance[k]), Category(int(boxes.category[k]))
    moves = bool(boxes.speed[k] != 0)
    person = category in _PEOPLE
    walk = "Walking" if moves else "Standing"
    age = "Child" if category == Category.CHILD else "Adult"
    motion = "Moving" if moves else "Parked"
    own_yaw = (heading - np.pi / 2 + np.pi) % (2 * np.pi) - np.pi  # from where the length is +y
    return {
        "number": number,
        "uuid": _name(scene, number, sensor),
        "label": names[int(RAW_ID[category])],
        "yaw": own_yaw,
        "stationary": not moves,
        "camera_used": -1,
        "position.x": x,
        "position.y": y,
        "position.z": z,
        "dimensions.x": width,
        "dimensions.y": length,
        "dimensions.z": height,
        "attributes.object_motion": np.nan if person or category in _STILL else motion,
        "cuboids.sibling_id": "-" if sensor < 0 else _name(scene, number, 1 - sensor),
        "cuboids.sensor_id": sensor,
        "attributes.rider_status": _RIDERS.get(category, np.nan),
        "attributes.pedestrian_behavior": walk if person else np.nan,
        "attributes.pedestrian_age": age if person else np.nan,
    }


def _name(scene: str, number: int, sensor: int) -> str:
    """The PandarGT's box of an object has a name of its own."""
    return str(uuid.UUID(digest(f"{scene}/{number}/{max(sensor, 0)}")))
