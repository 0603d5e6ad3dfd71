"""What a surface can be, and its raw class id in each dataset."""

from enum import IntEnum

import numpy as np
from jaxtyping import Int64, UInt8


class Category(IntEnum):
    """Semantic category of a surface of the synthetic world."""

    NONE = 0
    ROAD = 1
    PARKING = 2
    SIDEWALK = 3
    OTHER_GROUND = 4
    TERRAIN = 5
    BUILDING = 6
    FENCE = 7
    STRUCTURE = 8
    POLE = 9
    SIGN = 10
    VEGETATION = 11
    TRUNK = 12
    CAR = 13
    TRUCK = 14
    BUS = 15
    TRAILER = 16
    CONSTRUCTION = 17
    MOTORCYCLE = 18
    BICYCLE = 19
    MOTORCYCLIST = 20
    BICYCLIST = 21
    ADULT = 22
    CHILD = 23
    CONE = 24
    BARRIER = 25
    PUSHABLE = 26
    EGO = 27
    MARKING = 28


# category -> (nuScenes lidarseg index, SemanticKITTI raw id, SemanticKITTI raw id when moving)
_RAW = {
    Category.NONE: (0, 0, 0),
    Category.ROAD: (24, 40, 40),
    Category.MARKING: (24, 60, 60),
    Category.PARKING: (24, 44, 44),
    Category.SIDEWALK: (26, 48, 48),
    Category.OTHER_GROUND: (25, 49, 49),
    Category.TERRAIN: (27, 72, 72),
    Category.BUILDING: (28, 50, 50),
    Category.FENCE: (28, 51, 51),
    Category.STRUCTURE: (28, 52, 52),
    Category.POLE: (28, 80, 80),
    Category.SIGN: (28, 81, 81),
    Category.VEGETATION: (30, 70, 70),
    Category.TRUNK: (30, 71, 71),
    Category.CAR: (17, 10, 252),
    Category.TRUCK: (23, 18, 258),
    Category.BUS: (16, 13, 257),
    Category.TRAILER: (22, 20, 259),
    Category.CONSTRUCTION: (18, 20, 259),
    Category.MOTORCYCLE: (21, 15, 15),
    Category.BICYCLE: (14, 11, 11),
    Category.MOTORCYCLIST: (21, 32, 255),
    Category.BICYCLIST: (14, 31, 253),
    Category.ADULT: (2, 30, 254),
    Category.CHILD: (3, 30, 254),
    Category.CONE: (12, 99, 99),
    Category.BARRIER: (9, 51, 51),
    Category.PUSHABLE: (11, 99, 99),
    Category.EGO: (31, 1, 1),
}

NUSCENES_INDEX: UInt8[np.ndarray, " categories"] = np.array(
    [_RAW[category][0] for category in Category], dtype=np.uint8
)
KITTI_ID: Int64[np.ndarray, "categories 2"] = np.array(
    [_RAW[category][1:] for category in Category], dtype=np.int64
)

NUSCENES_NAMES: tuple[str, ...] = (
    "noise",
    "animal",
    "human.pedestrian.adult",
    "human.pedestrian.child",
    "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer",
    "human.pedestrian.stroller",
    "human.pedestrian.wheelchair",
    "movable_object.barrier",
    "movable_object.debris",
    "movable_object.pushable_pullable",
    "movable_object.trafficcone",
    "static_object.bicycle_rack",
    "vehicle.bicycle",
    "vehicle.bus.bendy",
    "vehicle.bus.rigid",
    "vehicle.car",
    "vehicle.construction",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
    "vehicle.motorcycle",
    "vehicle.trailer",
    "vehicle.truck",
    "flat.driveable_surface",
    "flat.other",
    "flat.sidewalk",
    "flat.terrain",
    "static.manmade",
    "static.other",
    "static.vegetation",
    "vehicle.ego",
)
