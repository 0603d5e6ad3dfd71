"""Which things stand in a room of some kind, and where."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pc_data.synthetic import room_furniture as furniture
from pc_data.synthetic import room_storage as storage
from pc_data.synthetic.room_parts import Item, block
from pc_data.synthetic.room_shell import Shell
from pc_data.synthetic.room_style import Palette, RoomStyle

_TRIES = 30


class RoomKind(NamedTuple):
    """Bounds of a kind of room: width, depth and windows; and what furnishes it."""

    width: tuple[float, float]
    depth: tuple[float, float]
    max_windows: int
    furnish: Callable[[Palette, "Furnishing"], None]


class Furnishing:
    """Finds places for things in a shell."""

    def __init__(self, draw: Palette, shell: Shell) -> None:
        self.draw = draw
        self.shell = shell
        self.items: list[Item] = []

    def at_wall(self, item: Item) -> tuple[int, float] | None:
        """Put or hang an item with its back at some wall; returns wall and place, or None."""
        for _ in range(_TRIES):
            wall = int(self.draw.rng.integers(4))
            low, high = item.whole_extent()
            half = 0.5 * self.shell.wall_length(wall)
            if high[0] - low[0] > 2 * half:
                continue
            along = self.draw.size(-half - low[0], half - high[0])
            if self.put_at(item, wall, along):
                return wall, along
        return None

    def beside(self, item: Item, place: tuple[int, float], other: Item) -> bool:
        """Put an item at the wall left or right of another that stands there."""
        low, high = item.whole_extent()
        for side in self.draw.rng.permutation([-1, 1]):
            edge = other.whole_extent()[1 if side > 0 else 0][0]
            along = place[1] + edge + (0.06 - low[0] if side > 0 else -0.06 - high[0])
            if self.put_at(item, place[0], along):
                return True
        return False

    def put_at(self, item: Item, wall: int, along: float) -> bool:
        """Put an item with its back at that place of a wall if it is free."""
        x, y, yaw = self.shell.wall_frame(wall, along)
        behind = max(0.0, -float(item.whole_extent()[0][1]))  # leaning backs
        turned = item.moved(0.0, behind).moved(x, y, yaw=yaw)
        if self.shell.hides_opening(wall, along, item) or not self.shell.is_free(turned):
            return False
        self._keep(turned)
        return True

    def anywhere(self, item: Item, *, turned: bool = True) -> Item | None:
        """Put an item on the free floor; returns it where it stands, or None."""
        width, depth, _ = self.shell.size
        for _ in range(_TRIES):
            x, y = self.draw.size(-0.5, 0.5) * width, self.draw.size(-0.5, 0.5) * depth
            yaw = self.draw.size(-np.pi, np.pi) if turned else self.draw.size(-0.06, 0.06)
            placed = item.moved(x, y, yaw=yaw)
            if self.shell.is_free(placed):
                self._keep(placed)
                return placed
        return None

    def around(self, make: Callable[[], Item], table: Item, *, most: int) -> None:
        """Put chairs at the sides of a table, facing it, a little under it or away."""
        low, high = table.extent()
        middle = 0.5 * (low + high)[:2]
        places = []
        for x in np.arange(low[0] + 0.35, high[0] - 0.25, 0.6):
            places += [(x, low[1], 0.0), (x, high[1], np.pi)]
        places += [(low[0], middle[1], -np.pi / 2), (high[0], middle[1], np.pi / 2)]
        for k in self.draw.rng.permutation(len(places))[:most]:
            x, y, yaw = places[k]
            back = self.draw.size(0.28, 0.55)
            ahead = np.array([-np.sin(yaw), np.cos(yaw)])
            spot = np.array([x, y]) - back * ahead
            chair = make().moved(0.0, 0.0, yaw=self.draw.size(-0.35, 0.35))
            chair = chair.moved(float(spot[0]), float(spot[1]), yaw=yaw)
            if self.shell.is_free(chair, but=table):
                self._keep(chair)

    def at_desk(self, place: tuple[int, float], desk: Item, chair: Item) -> None:
        """Put a chair before a desk that stands at a wall, facing it."""
        front = desk.extent()[1][1] + self.draw.size(0.3, 0.6)
        x, y, yaw = self.shell.wall_frame(*place)
        chair = chair.moved(0.0, front, yaw=np.pi + self.draw.size(-0.5, 0.5))
        chair = chair.moved(self.draw.size(-0.2, 0.2), 0.0).moved(x, y, yaw=yaw)
        if self.shell.is_free(chair):
            self._keep(chair)

    def lay(self, name: str, width: float, depth: float) -> None:
        """Lay a rug; things may stand on it."""
        x, y = (self.draw.size(-0.15, 0.15) * self.shell.size[k] for k in range(2))
        look = self.draw.soft()
        bounds = ((-0.5 * width, 0.5 * width), (-0.5 * depth, 0.5 * depth), (0.0, 0.015))
        rug = Item(name, (block(*bounds, look),)).moved(x, y, yaw=self.draw.size(-0.2, 0.2))
        self.items.append(rug)

    def _keep(self, item: Item) -> None:
        self.shell.take(item)
        self.items.append(item)


def _bedroom(draw: Palette, put: Furnishing) -> None:
    bed = furniture.make_bed(draw)
    place = put.at_wall(bed)
    if place is not None:
        for _ in range(int(draw.rng.integers(1, 3))):
            stand = storage.make_cabinet(draw, "nightstand", 0.45, 0.4, draw.size(0.42, 0.65))
            if draw.chance(0.6):
                stand = _with(stand, furniture.make_lamp(draw, tall=False))
            put.beside(stand, place, bed)
    height = draw.size(1.8, 2.1)
    put.at_wall(storage.make_cabinet(draw, "wardrobe", draw.size(0.9, 1.8), 0.58, height))
    if draw.chance(0.6):
        width, height = draw.size(0.8, 1.3), draw.size(0.7, 1.1)
        put.at_wall(storage.make_cabinet(draw, "dresser", width, 0.48, height))
    if draw.chance(0.6):
        _desk(draw, put)
    _extras(draw, put, ("laundry basket", "backpack", "box", "suitcase"))
    put.lay("rug", draw.size(1.0, 2.0), draw.size(0.8, 1.5))


def _living_room(draw: Palette, put: Furnishing) -> None:
    put.at_wall(furniture.make_sofa(draw, seats=int(draw.rng.integers(2, 4))))
    width, height = draw.size(1.1, 1.8), draw.size(0.42, 0.65)
    stand = storage.make_cabinet(draw, "tv stand", width, 0.42, height)
    screen = furniture.make_monitor(draw, name="tv", width=draw.size(0.8, 1.2))
    put.at_wall(_with(stand, screen))
    width, depth = draw.size(0.8, 1.2), draw.size(0.5, 0.7)
    table = furniture.make_table(draw, "coffee table", width, depth, draw.size(0.36, 0.5))
    put.anywhere(table, turned=False)
    for _ in range(int(draw.rng.integers(1, 3))):
        put.anywhere(furniture.make_sofa(draw, seats=1))
    if draw.chance(0.5):
        put.anywhere(furniture.make_bench(draw))
    put.at_wall(storage.make_bookshelf(draw))
    if draw.chance(0.5):
        _dining(draw, put)
    put.at_wall(furniture.make_lamp(draw, tall=True))
    _extras(draw, put, ("plant", "box", "trash can"))
    put.lay("rug", draw.size(1.5, 2.4), draw.size(1.2, 1.8))


def _office(draw: Palette, put: Furnishing) -> None:
    for _ in range(int(draw.rng.integers(1, 4))):
        _desk(draw, put)
    put.at_wall(storage.make_bookshelf(draw))
    for _ in range(int(draw.rng.integers(1, 3))):
        height = draw.size(0.6, 1.4)
        put.at_wall(storage.make_cabinet(draw, "file cabinet", draw.size(0.4, 0.9), 0.5, height))
    if draw.chance(0.6):
        put.at_wall(storage.hang_whiteboard(draw))
    if draw.chance(0.5):
        _dining(draw, put)
    if draw.chance(0.5):
        put.at_wall(furniture.make_sofa(draw, seats=2))
    _extras(draw, put, ("trash can", "box", "backpack", "plant", "box"))


def _kitchen(draw: Palette, put: Furnishing) -> None:
    row = storage.make_kitchen(draw)
    place = put.at_wall(row)
    fridge = storage.make_refrigerator(draw)
    if place is None or not put.beside(fridge, place, row):
        put.at_wall(fridge)
    _dining(draw, put)
    if draw.chance(0.5):
        height = draw.size(0.8, 1.9)
        put.at_wall(storage.make_cabinet(draw, "cabinet", draw.size(0.6, 1.2), 0.45, height))
    if draw.chance(0.5):
        put.at_wall(storage.make_wall_shelf(draw))
    _extras(draw, put, ("trash can", "box", "plant"))


def _bathroom(draw: Palette, put: Furnishing) -> None:
    put.at_wall(storage.make_bathtub(draw))
    put.at_wall(storage.make_toilet(draw))
    put.at_wall(storage.make_washstand(draw))
    put.at_wall(storage.hang_mirror(draw))
    for _ in range(2):
        put.at_wall(storage.hang_towel(draw))
    if draw.chance(0.4):
        height = draw.size(0.8, 1.7)
        put.at_wall(storage.make_cabinet(draw, "cabinet", 0.45, 0.35, height))
    _extras(draw, put, ("trash can", "laundry basket"))
    put.lay("mat", 0.7, 0.5)


def _meeting_room(draw: Palette, put: Furnishing) -> None:
    width, depth = draw.size(1.6, 2.6), draw.size(0.9, 1.2)
    table = furniture.make_table(draw, "table", width, depth, draw.size(0.7, 0.78))
    placed = put.anywhere(table, turned=False)
    if placed is not None:
        put.around(lambda: furniture.make_chair(draw), placed, most=8)
    put.at_wall(storage.hang_whiteboard(draw))
    put.at_wall(storage.make_cabinet(draw, "cabinet", draw.size(0.8, 1.6), 0.45, 0.8))
    for _ in range(int(draw.rng.integers(0, 4))):
        put.anywhere(furniture.make_chair(draw))
    put.at_wall(storage.make_wall_shelf(draw))
    _extras(draw, put, ("trash can", "plant", "box"))


def _desk(draw: Palette, put: Furnishing) -> None:
    desk = furniture.make_desk(draw)
    place = put.at_wall(desk)
    if place is not None:
        chair = furniture.make_office_chair(draw)
        chair = chair if draw.chance(0.7) else furniture.make_chair(draw)
        put.at_desk(place, desk, chair)


def _dining(draw: Palette, put: Furnishing) -> None:
    width, depth = draw.size(0.9, 1.5), draw.size(0.7, 0.9)
    table = furniture.make_table(draw, "table", width, depth, draw.size(0.68, 0.78))
    placed = put.anywhere(table, turned=False)
    if placed is not None:
        put.around(lambda: furniture.make_chair(draw), placed, most=int(draw.rng.integers(2, 6)))


def _extras(draw: Palette, put: Furnishing, names: tuple[str, ...]) -> None:
    for name in names:
        if draw.chance(0.7):
            put.anywhere(storage.make_small(draw, name))
    if draw.chance(0.5):
        put.at_wall(storage.hang_radiator(draw))
    for _ in range(int(draw.rng.integers(1, 4))):
        put.at_wall(storage.hang_picture(draw))
    if draw.chance(0.3):
        put.at_wall(storage.make_wall_shelf(draw))


def _with(item: Item, thing: Item) -> Item:
    """An item with something on its top."""
    top = float(item.extent()[1][2])
    return item._replace(extras=(*item.extras, thing.moved(0.0, 0.12, top)))


KINDS: dict[str, RoomKind] = {
    "bedroom": RoomKind((3.0, 4.6), (3.0, 4.4), 2, _bedroom),
    "living room": RoomKind((3.8, 6.0), (3.6, 5.2), 2, _living_room),
    "office": RoomKind((3.2, 5.5), (3.0, 4.8), 2, _office),
    "kitchen": RoomKind((3.0, 4.8), (2.8, 4.2), 2, _kitchen),
    "bathroom": RoomKind((2.1, 3.2), (1.9, 2.8), 1, _bathroom),
    "meeting room": RoomKind((3.8, 6.0), (3.4, 4.8), 2, _meeting_room),
}
_SHARES = (0.24, 0.22, 0.18, 0.15, 0.13, 0.08)


def furnish_room(
    rng: np.random.Generator, style: RoomStyle, *, kind: str | None = None
) -> tuple[str, tuple[float, float, float], list[Item]]:
    """Draw a room: its kind, its width, depth and height, and all that is in it."""
    kind = kind or str(rng.choice(list(KINDS), p=_SHARES))
    plan = KINDS[kind]
    draw = Palette(rng, style)
    size = (draw.size(*plan.width), draw.size(*plan.depth), draw.size(2.35, 2.9))
    windows = int(rng.integers(0 if kind == "bathroom" else 1, plan.max_windows + 1))
    shell = Shell(draw, size, windows=windows)
    put = Furnishing(draw, shell)
    walls = shell.items(is_wet=kind in ("bathroom", "kitchen"))
    if kind != "bathroom" and draw.chance(style.block_share):
        _cut_corner(draw, put, walls)
    plan.furnish(draw, put)
    return kind, size, [*walls, *put.items]


def _cut_corner(draw: Palette, put: Furnishing, walls: list[Item]) -> None:
    """A shaft or closet takes a corner of the room."""
    top = put.shell.size[2]
    look = next(item for item in walls if item.name == "wall").pieces[0].look
    half, deep = 0.5 * draw.size(0.5, 1.3), draw.size(0.4, 1.0)
    corner = Item("wall", (block((-half, half), (0.0, deep), (0.0, top - 0.001), look),))
    for wall in draw.rng.permutation(4):
        along = 0.5 * put.shell.wall_length(int(wall)) - half
        if put.put_at(corner, int(wall), along):
            return
