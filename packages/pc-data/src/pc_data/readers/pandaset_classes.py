"""The classes of PandaSet and what they become in training.

Source: PandaSet (Xiao et al., ITSC 2021, arXiv:2112.12610): 42 classes of points; ScaLR (Puy et
    al., CVPR 2024, arXiv:2310.17504) trains on 17.
"""

import difflib

CLASS_NAMES = (
    "road",
    "traffic sign",
    "barrier",
    "pedestrian",
    "vegetation",
    "road marking",
    "sidewalk",
    "manmade",
    "traffic cone",
    "car",
    "motorcycle",
    "truck",
    "bus",
    "bicycle",
    "other vehicle",
    "ground",
    "driveway",
)

BOX_CLASS_NAMES = (
    "traffic sign",
    "barrier",
    "pedestrian",
    "traffic cone",
    "car",
    "motorcycle",
    "truck",
    "bus",
    "bicycle",
    "other vehicle",
)

RAW_NAMES: dict[int, str] = dict(
    enumerate(
        (
            "Smoke",
            "Exhaust",
            "Spray or rain",
            "Reflection",
            "Vegetation",
            "Ground",
            "Road",
            "Lane Line Marking",
            "Stop Line Marking",
            "Other Road Marking",
            "Sidewalk",
            "Driveway",
            "Car",
            "Pickup Truck",
            "Medium-sized Truck",
            "Semi-truck",
            "Towed Object",
            "Motorcycle",
            "Other Vehicle - Construction Vehicle",
            "Other Vehicle - Uncommon",
            "Other Vehicle - Pedicab",
            "Emergency Vehicle",
            "Bus",
            "Personal Mobility Device",
            "Motorized Scooter",
            "Bicycle",
            "Train",
            "Trolley",
            "Tram / Subway",
            "Pedestrian",
            "Pedestrian with Object",
            "Animals - Bird",
            "Animals - Other",
            "Pylons",
            "Road Barriers",
            "Signs",
            "Cones",
            "Construction Signs",
            "Temporary Construction Barriers",
            "Rolling Containers",
            "Building",
            "Other Static Object",
        ),
        start=1,
    )
)
"""Official names by raw id, as every scene's `classes.json` lists them."""

_RAW_OF_CLASS: dict[str, tuple[int, ...]] = {
    "road": (7,),
    "traffic sign": (36, 38),
    "barrier": (35, 39),
    "pedestrian": (30, 31),
    "vegetation": (5,),
    "road marking": (8, 9, 10),
    "sidewalk": (11,),
    "manmade": (41, 42),
    "traffic cone": (34, 37),
    "car": (13,),
    "motorcycle": (18,),
    "truck": (14, 15, 16),
    "bus": (23,),
    "bicycle": (26,),
    "other vehicle": (17, 19, 20, 21, 27, 28, 29),
    "ground": (6,),
    "driveway": (12,),
}

_CLASS_OF_RAW = {raw: name for name, ids in _RAW_OF_CLASS.items() for raw in ids}
_CLASS_OF_NAME = {name: _CLASS_OF_RAW.get(raw) for raw, name in RAW_NAMES.items()}


def training_class(name: str) -> int:
    """Training class of points that carry an official name, -1 = ignored.

    Raises:
        ValueError: If there is no such name.
    """
    found = _official(name)
    return -1 if found is None else CLASS_NAMES.index(found)


def box_class(name: str) -> int:
    """Class of a cuboid that carries an official name, -1 = none of `BOX_CLASS_NAMES`.

    Raises:
        ValueError: If there is no such name.
    """
    found = _official(name)
    return BOX_CLASS_NAMES.index(found) if found in BOX_CLASS_NAMES else -1


def _official(name: str) -> str | None:
    if name not in _CLASS_OF_NAME:
        nearest = difflib.get_close_matches(name, _CLASS_OF_NAME, n=1, cutoff=0.4)
        hint = f"; the nearest is {nearest[0]!r}" if nearest else ""
        raise ValueError(f"{name!r} is no class of PandaSet{hint}")
    return _CLASS_OF_NAME[name]
