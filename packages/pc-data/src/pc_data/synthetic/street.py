"""Lay a street: what stands, walks and drives where."""

import math

import numpy as np

from pc_data.synthetic import furniture, people, scenery, vehicles
from pc_data.synthetic.categories import Category
from pc_data.synthetic.ground import Road, Side
from pc_data.synthetic.parts import Color, Part, SceneObject
from pc_data.synthetic.style import Style

_REACH = 72.0  # metres of street on either side of the middle
_BARK = ((0.12, 0.08, 0.05), (0.2, 0.17, 0.13))


class Street:
    """Objects laid so far, and which stretches of each strip they take."""

    def __init__(self, rng: np.random.Generator, style: Style, road: Road) -> None:
        self.rng = rng
        self.style = style
        self.road = road
        self.objects: list[SceneObject] = []
        self._taken: dict[str, list[tuple[float, float]]] = {}

    def pick(self, colors: tuple[Color, ...]) -> Color:
        """One of the colours, a little lighter or darker."""
        k = self.rng.uniform(0.8, 1.2)
        r, g, b = colors[self.rng.integers(len(colors))]
        return k * r, k * g, k * b

    def free(self, strip: str, s: float, half: float) -> bool:
        """Take [s - half, s + half] of a strip if nobody has it yet."""
        taken = self._taken.setdefault(strip, [])
        if any(first < s + half and s - half < last for first, last in taken):
            return False
        taken.append((s - half, s + half))
        return True

    def at_crossing(self, s: float, margin: float) -> bool:
        """Whether s lies on the crossing road or within `margin` metres of it."""
        return abs(s - self.road.crossing) < self.road.crossing_half + margin

    def put(
        self,
        category: Category,
        parts: tuple[Part, ...],
        s: float,
        d: float,
        yaw: float = 0.0,
        *,
        speed: float = 0.0,
        instance: bool = False,
        tilts: bool = False,
    ) -> None:
        """Add an object."""
        self.objects.append(
            SceneObject(
                category=category,
                parts=parts,
                s=s,
                d=d,
                yaw=yaw,
                speed=speed,
                instance=instance,
                tilts=tilts,
            )
        )

    def clothes(self) -> tuple[Color, Color]:
        """Jacket and trousers."""
        return self.pick(self.style.clothes), self.pick(self.style.clothes)


class Strips:
    """Offsets (positive, from the road's middle) of the strips of one side."""

    def __init__(self, road: Road, side: Side) -> None:
        self.kerb = road.half_width
        self.parking = self.kerb + side.parking / 2
        self.verge = self.kerb + side.parking + side.verge / 2
        self.inner = self.kerb + side.parking + side.verge
        self.walk = self.inner + side.walk / 2
        self.outer = self.inner + side.walk


def ego_lane(road: Road) -> float:
    """Offset of the lane that the recording car drives in (traffic keeps right)."""
    return -(road.median + (road.half_width - road.median) / road.lanes)


def _vehicle(street: Street, kind: str) -> tuple[Category, tuple[Part, ...], float]:
    """A vehicle of that kind and its half length."""
    rng, style = street.rng, street.style
    paint, livery = street.pick(style.paints), street.pick(style.liveries)
    if kind == "car":
        parts = vehicles.car(rng, paint)
        return Category.CAR, parts, 2.4
    if kind == "van":
        return Category.CAR, vehicles.van(rng, street.pick(style.paints + style.liveries)), 2.9
    if kind == "truck":
        return Category.TRUCK, vehicles.truck(rng, livery, street.pick(style.liveries)), 4.8
    if kind == "bus":
        return Category.BUS, vehicles.bus(rng, livery, street.pick(style.liveries)), 6.0
    if kind == "trailer":
        return Category.TRAILER, vehicles.trailer(rng, livery), 6.5
    if kind == "digger":
        color = street.pick(((0.65, 0.4, 0.02), (0.6, 0.25, 0.02)))
        return Category.CONSTRUCTION, vehicles.digger(rng, color), 3.0
    rider = street.clothes()
    if kind == "motorcycle":
        return Category.MOTORCYCLIST, people.motorcycle(rng, paint, rider), 1.2
    return Category.BICYCLIST, people.bicycle(rng, paint, rider), 1.0


def _traffic(street: Street, ego_speed: float, ego_start: float) -> None:
    """Moving vehicles on the lanes; the recording car's lane stays clear around it."""
    road, rng = street.road, street.rng
    wide = (road.half_width - road.median) / (road.lanes // 2)
    kinds = [*["car"] * 5, "van", "truck", "bus", *["motorcycle"] * 2, *["bicycle"] * 2]
    for lane in range(road.lanes):
        right = lane < road.lanes // 2
        number = lane % (road.lanes // 2)
        d = (road.median + (number + 0.5) * wide) * (-1 if right else 1)
        own = right and number == 0
        speed = ego_speed if own else ego_speed * rng.uniform(0.7, 1.2)
        s = -_REACH + rng.uniform(0, 12)
        while s < _REACH:
            kind = str(rng.choice(kinds))
            category, parts, half = _vehicle(street, kind)
            clear = not own or abs(s - ego_start) > half + 7.0
            if clear and street.free(f"lane{lane}", s, half + 2.0):
                shift = rng.normal(0, 0.15) + (-0.3 * wide if kind == "bicycle" and right else 0)
                yaw = 0.0 if right else math.pi
                street.put(
                    category, parts, s, d + shift, yaw, speed=speed, instance=True, tilts=True
                )
            s += 2 * half + rng.uniform(9, 34)


def _parked(street: Street, sign: int, strips: Strips, side: Side) -> None:
    """Vehicles in the parking strip."""
    rng = street.rng
    if side.parking <= 0:
        return
    kinds = ["car", "van", "truck", "bus", "trailer", "cycles", "kiosk", "none"]
    odds = [0.28, 0.08, 0.07, 0.05, 0.08, 0.1, 0.03, 0.31]
    s = -_REACH + rng.uniform(0, 5)
    while s < _REACH:
        kind = str(rng.choice(kinds, p=odds))
        if kind == "cycles":
            _parked_cycles(street, s, sign * strips.parking)
            s += 5.0
            continue
        if kind in ("none", "kiosk"):
            if kind == "kiosk" and not street.at_crossing(s, 10) and street.free(f"p{sign}", s, 4):
                parts = furniture.kiosk(rng, street.pick(street.style.liveries))
                street.put(Category.STRUCTURE, parts, s, sign * (strips.parking + 0.2))
            s += rng.uniform(4, 9)
            continue
        category, parts, half = _vehicle(street, kind)
        s += half + 0.5
        if not street.at_crossing(s, half + 5) and street.free(f"p{sign}", s, half):
            yaw = (0.0 if sign < 0 else math.pi) + rng.normal(0, 0.03)
            d = sign * (strips.parking + rng.normal(0, 0.1))
            street.put(category, parts, s, d, yaw, instance=True, tilts=True)
        s += half + rng.uniform(0.3, 1.8)


def _parked_cycles(street: Street, s: float, d: float) -> None:
    """A row of bicycles or motorcycles across the strip."""
    rng = street.rng
    if street.at_crossing(s, 5) or not street.free(f"p{int(math.copysign(1, d))}", s + 1.5, 2.5):
        return
    motor = rng.random() < 0.5
    for k in range(int(rng.integers(2, 6))):
        paint = street.pick(street.style.paints)
        yaw = math.pi / 2 + rng.normal(0, 0.15)
        at = s + k * (0.9 if motor else 0.6)
        if motor:
            parts = people.motorcycle(rng, paint, None)
            street.put(Category.MOTORCYCLE, parts, at, d, yaw, instance=True)
        else:
            street.put(
                Category.BICYCLE, people.bicycle(rng, paint, None), at, d, yaw, instance=True
            )


def _roadside(street: Street, kind: str) -> tuple[Category, tuple[Part, ...]]:
    """Something that stands along the kerb."""
    rng, style = street.rng, street.style
    if kind == "tree":
        crown = style.crowns[rng.integers(len(style.crowns))]
        parts = scenery.tree(rng, crown, street.pick(style.greens), street.pick(_BARK))
        return Category.VEGETATION, parts
    if kind == "bush":
        return Category.VEGETATION, scenery.bush(rng, street.pick(style.greens))
    if kind == "lamp":
        return Category.POLE, furniture.lamp(rng, (0.2, 0.2, 0.21))
    if kind == "sign":
        return Category.POLE, furniture.sign(rng)
    if kind == "bollards":
        count = int(rng.integers(2, 5))
        return Category.POLE, furniture.bollards(rng, count, street.pick(style.paints))
    if kind == "cabinet":
        return Category.STRUCTURE, furniture.cabinet(rng)
    if kind == "bin":
        return Category.PUSHABLE, furniture.bin_box(rng, street.pick(style.paints))
    return Category.BARRIER, furniture.barrier(rng, rng.uniform(2, 4), street.pick(style.warning))


def _verge(street: Street, sign: int, strips: Strips, side: Side) -> None:
    """Trees, lamps, signs, bollards, bushes and cabinets along the kerb."""
    rng = street.rng
    d = strips.verge if side.verge > 0 else strips.inner + 0.45
    turns = {
        "lamp": -sign * math.pi / 2,
        "sign": 0.0 if sign < 0 else math.pi,
    }
    kinds = ["tree", "lamp", "sign", "bollards", "bush", "cabinet", "bin", "barrier", "none"]
    odds = [0.3, 0.13, 0.14, 0.08, 0.13, 0.06, 0.04, 0.05, 0.07]
    s = -_REACH + rng.uniform(0, 4)
    while s < _REACH:
        kind = str(rng.choice(kinds, p=odds))
        clear = not street.at_crossing(s, 3.5) and street.free(f"v{sign}", s, 1.0)
        if clear and kind != "none":
            category, parts = _roadside(street, kind)
            yaw = turns.get(kind, 0.0) + (rng.normal(0, 0.15) if kind == "sign" else 0.0)
            counts = category in (Category.PUSHABLE, Category.BARRIER)
            street.put(category, parts, s, sign * d + rng.normal(0, 0.1), yaw, instance=counts)
        s += rng.uniform(2.0, 6.5)


def _person(street: Street, s: float, d: float, yaw: float, speed: float) -> None:
    child = street.rng.random() < 0.15
    height = street.rng.uniform(1.0, 1.4) if child else street.rng.uniform(1.52, 1.92)
    parts = people.pedestrian(street.rng, height, *street.clothes())
    category = Category.CHILD if child else Category.ADULT
    street.put(category, parts, s, d, yaw, speed=speed, instance=True)


def _walkers(street: Street, sign: int, strips: Strips, side: Side) -> None:
    """People, standing bicycles, shelters, benches and stray cones on the pavement."""
    rng = street.rng
    room = max(side.walk / 2 - 0.4, 0.3)
    for _ in range(int(rng.integers(9, 17))):
        s = rng.normal(0, 24)
        d = sign * (strips.walk + rng.uniform(-room, room))
        for k in range(1 if rng.random() < 0.6 else 2):
            if street.free(f"w{sign}{d > sign * strips.walk}", s + 0.8 * k, 0.35):
                speed = rng.uniform(0.8, 1.6) if rng.random() < 0.6 else 0.0
                _person(
                    street, s + 0.8 * k, d, rng.choice([0, math.pi]) + rng.normal(0, 0.3), speed
                )
    for _ in range(int(rng.integers(1, 5))):
        s = rng.normal(0, 22)
        if street.free(f"w{sign}True", s, 1.2) and street.free(f"w{sign}False", s, 1.2):
            kind = rng.integers(4)
            d = sign * (strips.outer - 0.5)
            turn = 0.0 if sign > 0 else math.pi
            if kind == 0 and side.walk > 2.4:
                street.put(Category.STRUCTURE, furniture.shelter(rng), s, d - sign, turn)
            elif kind == 1:
                street.put(Category.STRUCTURE, furniture.bench(rng), s, d, turn)
            else:
                bicycle = people.bicycle(rng, street.pick(street.style.paints), None)
                street.put(Category.BICYCLE, bicycle, s, d, rng.normal(0, 0.2), instance=True)
    if rng.random() < 0.6:
        speed = rng.uniform(2, 4)
        bicycle = people.bicycle(rng, street.pick(street.style.paints), street.clothes())
        d = sign * (strips.walk if strips.outer > strips.inner else strips.kerb - 0.6)
        yaw = 0.0 if sign < 0 else math.pi
        s = rng.uniform(-25, 25)
        street.put(Category.BICYCLIST, bicycle, s, d, yaw, speed=speed, instance=True)


def _crossing(street: Street) -> None:
    """Traffic lights, waiting vehicles and people on the zebra crossing."""
    road, rng = street.road, street.rng
    if road.crossing > 100:
        return
    for side in (-1, 1):
        for sign in (-1, 1):
            s = road.crossing + side * (road.crossing_half + 1.0)
            yaw = 0.0 if sign < 0 else math.pi
            street.put(
                Category.POLE, furniture.traffic_light(rng), s, sign * (road.half_width + 0.8), yaw
            )
        s = road.crossing + side * (road.crossing_half + 1.3)
        for d in rng.uniform(-road.half_width, road.half_width, int(rng.integers(0, 3))):
            if abs(d - ego_lane(road)) > 1.6:
                _person(street, s, float(d), rng.choice([-1, 1]) * math.pi / 2, 0.0)
        for sign in (-1, 1):
            kind = str(rng.choice(["car", "van", "truck", "bus", "motorcycle"]))
            category, parts, half = _vehicle(street, kind)
            lane = road.crossing + sign * road.crossing_half / 2
            d = side * (road.half_width + 1.5 + half + rng.uniform(0, 12))
            if rng.random() < 0.5:
                yaw = -side * math.pi / 2
                street.put(category, parts, lane, d, yaw, instance=True, tilts=True)


def _works(street: Street) -> None:
    """One or two road works: cones along the lane's edge, barriers, maybe a digger behind."""
    rng, road = street.rng, street.road
    for _ in range(int(rng.integers(1, 3))):
        sign = 1 if rng.random() < 0.5 else -1
        start = rng.uniform(-24, 18)
        d = sign * (road.half_width - rng.uniform(0.1, 0.7))
        color = street.pick(street.style.warning)
        for k in range(int(rng.integers(4, 10))):
            s = start + 1.9 * k
            if street.at_crossing(s, 0.5):
                continue
            if k % 5 < 3 or rng.random() < 0.4:
                parts = furniture.cone(rng, color)
                street.put(Category.CONE, parts, s, d + rng.normal(0, 0.12), instance=True)
            else:
                parts = furniture.barrier(rng, 2.0, color)
                yaw = rng.normal(0, 0.1)
                street.put(Category.BARRIER, parts, s + 0.9, d, yaw, instance=True)
        if rng.random() < 0.5:
            category, parts, _ = _vehicle(street, "digger")
            beside = d + sign * rng.uniform(3.5, 5.0)
            street.put(category, parts, start + 6, beside, rng.uniform(-3, 3), instance=True)


def _background(street: Street, sign: int, strips: Strips) -> None:
    """Buildings, and hedges, fences, trees and lots in the gaps between them."""
    rng, style = street.rng, street.style
    s = -_REACH - 4
    while s < _REACH + 4:
        setback = strips.outer + rng.choice([0.6, 2.5, 5.0, 8.0])
        if rng.random() < 0.5:
            length, depth = rng.uniform(8, 20), rng.uniform(7, 12)
            floors = int(rng.integers(style.floors[0], style.floors[1] + 1))
            middle = s + length / 2
            if not street.at_crossing(middle, length / 2 + 2.5):
                facade = style.facades[rng.integers(len(style.facades))]
                house = scenery.building(rng, (length, depth), facade, floors)
                turn = 0.0 if sign > 0 else math.pi
                street.put(Category.BUILDING, house, middle, sign * (setback + depth / 2), turn)
                if setback - strips.outer > 2 and rng.random() < 0.75:
                    _boundary(street, middle, sign * (strips.outer + 0.5), length * 0.8)
            s += length + rng.uniform(0.2, 4)
            continue
        length = rng.uniform(8, 16)
        _lot(street, s, sign, strips, length)
        s += length


def _boundary(street: Street, s: float, d: float, length: float) -> None:
    """A hedge, a fence or a wall along the pavement."""
    rng, style = street.rng, street.style
    if street.at_crossing(s, length / 2 + 2):
        return
    if rng.random() < 0.5:
        parts = scenery.hedge(rng, length, street.pick(style.greens))
        street.put(Category.VEGETATION, parts, s, d)
    else:
        color = street.pick(((0.05, 0.05, 0.05), (0.3, 0.2, 0.1), (0.4, 0.38, 0.35)))
        street.put(Category.FENCE, furniture.fence(rng, length, color), s, d)


def _lot(street: Street, s: float, sign: int, strips: Strips, length: float) -> None:
    """An open lot: trees, bushes, a container or parked vehicles, maybe behind a boundary."""
    rng, style = street.rng, street.style
    middle = s + length / 2
    if street.at_crossing(middle, length / 2 + 2):
        return
    if rng.random() < 0.4:
        _boundary(street, middle, sign * (strips.outer + 0.5), length)
    for _ in range(int(rng.integers(2, 6))):
        at = s + rng.uniform(1, length - 1)
        d = sign * (strips.outer + rng.uniform(2, 16))
        if rng.random() < 0.6:
            crown = style.crowns[rng.integers(len(style.crowns))]
            parts = scenery.tree(rng, crown, street.pick(style.greens), street.pick(_BARK))
        else:
            parts = scenery.bush(rng, street.pick(style.greens))
        street.put(Category.VEGETATION, parts, at, d)
    if rng.random() < 0.6:
        kind = str(rng.choice(["kiosk", "kiosk", "trailer", "truck", "van", "digger", "bus"]))
        d = sign * (strips.outer + rng.uniform(4, 7))
        yaw = rng.uniform(-0.4, 0.4)
        if kind == "kiosk":
            parts = furniture.kiosk(rng, street.pick(style.liveries))
            street.put(Category.STRUCTURE, parts, middle, d, yaw)
        else:
            category, parts, _ = _vehicle(street, kind)
            street.put(category, parts, middle, d, yaw, instance=True, tilts=True)


def lay_street(
    rng: np.random.Generator, style: Style, road: Road, *, ego_speed: float, ego_start: float
) -> list[SceneObject]:
    """Furnish a road.

    Args:
        rng: Draws everything.
        style: The family.
        road: What to furnish.
        ego_speed: Of the recording car, metres per second; its lane flows with it.
        ego_start: Arc length of the recording car at time 0, metres.
    """
    street = Street(rng, style, road)
    _works(street)
    _traffic(street, ego_speed, ego_start)
    _crossing(street)
    for sign, side in ((1, road.left), (-1, road.right)):
        strips = Strips(road, side)
        _parked(street, sign, strips, side)
        _verge(street, sign, strips, side)
        _walkers(street, sign, strips, side)
        _background(street, sign, strips)
    return street.objects
