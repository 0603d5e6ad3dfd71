"""A room's walls with doors and windows, and where its floor is still free."""

from typing import NamedTuple

import numpy as np

from pc_data.synthetic.room_parts import Finish, Item, Look, Piece, block, post
from pc_data.synthetic.room_storage import hang_curtain
from pc_data.synthetic.room_style import Palette

_THICK = 0.2  # metres, of walls; doors and windows lie inside
_GAP = 0.04  # metres between things


class Opening(NamedTuple):
    """A door or window: bounds along its wall and in height, metres."""

    name: str
    along: tuple[float, float]
    z: tuple[float, float]


class Rectangle(NamedTuple):
    """Floor that something covers, and up to which height."""

    low: tuple[float, float]
    high: tuple[float, float]
    top: float


class Shell:
    """Four walls, a floor and a ceiling around the origin of the floor, and the free floor.

    Wall 0 is at the lowest y and wall 1 at the highest x, on counter-clockwise. Positions along a
    wall count from its middle.

    Attributes:
        size: Width (x), depth (y) and height, metres.
        openings: Of each wall.
    """

    def __init__(self, draw: Palette, size: tuple[float, float, float], *, windows: int) -> None:
        self.size = size
        self.openings: tuple[list[Opening], ...] = ([], [], [], [])
        self._draw = draw
        self._taken: list[Rectangle] = []
        door = int(draw.rng.integers(4))
        self._open(door, "door", draw.size(0.75, 0.95), (0.0, draw.size(1.95, 2.1)))
        for wall in draw.rng.permutation([k for k in range(4) if k != door])[:windows]:
            low = draw.size(0.75, 1.1)
            self._open(int(wall), "window", draw.size(0.8, 1.7), (low, draw.size(1.9, 2.2)))
        for name, along, _ in self.openings[door]:
            if name == "door":
                self._block_door(door, along)

    def wall_length(self, wall: int) -> float:
        """Metres."""
        return self.size[wall % 2]

    def wall_frame(self, wall: int, along: float) -> tuple[float, float, float]:
        """Where an item with its back at a wall stands: x, y and yaw."""
        x, y = 0.5 * self.size[0], 0.5 * self.size[1]
        places = ((along, -y), (x, along), (-along, y), (-x, -along))
        return (*places[wall], wall * np.pi / 2)

    def _open(self, wall: int, name: str, width: float, z: tuple[float, float]) -> None:
        reach = 0.5 * self.wall_length(wall) - 0.5 * width - 0.25
        width = width if reach > 0 else self.wall_length(wall) - 0.6
        middle = self._draw.size(-1.0, 1.0) * max(reach, 0.0)
        high = min(z[1], self.size[2] - 0.15)
        opening = Opening(name, (middle - 0.5 * width, middle + 0.5 * width), (z[0], high))
        self.openings[wall].append(opening)

    def _block_door(self, wall: int, along: tuple[float, float]) -> None:
        x, y, yaw = self.wall_frame(wall, 0.5 * sum(along))
        half = 0.5 * (along[1] - along[0])
        way = Item("door", (block((-half, half), (0.0, 0.8), (0.0, 2.0), Look((0.0, 0.0, 0.0))),))
        self.take(way.moved(x, y, yaw=yaw))

    # --- free floor

    def take(self, item: Item) -> None:
        """Mark the floor under an item as covered."""
        self._taken.append(_footprint(item))

    def is_free(self, item: Item, *, but: Item | None = None) -> bool:
        """Whether an item stands inside the room and in nothing else's place, save that of one."""
        low, high = item.whole_extent()
        inside = 0.5 * np.array(self.size[:2]) + 1e-6
        if (low[:2] < -inside).any() or (high[:2] > inside).any() or high[2] > self.size[2]:
            return False
        mine = None if but is None else _footprint(but)
        return not any(
            other != mine
            and (low[:2] < np.array(other.high) + _GAP).all()
            and (high[:2] > np.array(other.low) - _GAP).all()
            and low[2] < other.top
            for other in self._taken
        )

    def hides_opening(self, wall: int, along: float, item: Item) -> bool:
        """Whether an item in its own frame, its back at that place of a wall, covers an opening."""
        low, high = item.whole_extent()
        return any(
            along + low[0] < opening.along[1] + 0.1
            and along + high[0] > opening.along[0] - 0.1
            and low[2] < opening.z[1]
            and high[2] > opening.z[0] + 0.15
            for opening in self.openings[wall]
        )

    # --- what it is made of

    def items(self, *, is_wet: bool) -> list[Item]:
        """Walls, floor, ceiling, doors, windows and curtains."""
        draw = self._draw
        x, y, top = 0.5 * self.size[0], 0.5 * self.size[1], self.size[2]
        wide = ((-x - _THICK, x + _THICK), (-y - _THICK, y + _THICK))
        white = Look((0.93, 0.92, 0.9))
        items = [
            Item("floor", (block(*wide, (-_THICK, 0.0), draw.floor(is_wet=is_wet)),)),
            Item("ceiling", (block(*wide, (top, top + _THICK), white),)),
        ]
        paint, other = draw.wall(), draw.wall()
        for wall in range(4):
            place = self.wall_frame(wall, 0.0)
            look = other if wall == 2 and draw.chance(0.4) else paint
            pieces = self._wall_pieces(wall, look)
            items.append(Item("wall", pieces).moved(*place[:2], yaw=place[2]))
            for opening in self.openings[wall]:
                fill = _fill_opening(draw, opening)
                items += [item.moved(*place[:2], yaw=place[2]) for item in fill]
        return items

    def _wall_pieces(self, wall: int, look: Look) -> tuple[Piece, ...]:
        """A wall in its own frame, in strips between and around its openings."""
        half, top = 0.5 * self.wall_length(wall) + _THICK, self.size[2]
        behind = (-_THICK, 0.0)
        pieces, start = [], -half
        for opening in sorted(self.openings[wall], key=lambda o: o.along):
            pieces.append(block((start, opening.along[0]), behind, (0.0, top), look))
            pieces.append(block(opening.along, behind, (opening.z[1], top), look))
            if opening.z[0] > 0:
                pieces.append(block(opening.along, behind, (0.0, opening.z[0]), look))
            start = opening.along[1]
        pieces.append(block((start, half), behind, (0.0, top), look))
        return tuple(pieces)


def _footprint(item: Item) -> Rectangle:
    low, high = item.whole_extent()
    return Rectangle(tuple(low[:2].tolist()), tuple(high[:2].tolist()), float(high[2]))


def _fill_opening(draw: Palette, opening: Opening) -> list[Item]:
    """A door's leaf or a window's panes, frames, and perhaps curtains, in the wall's frame."""
    (left, right), (low, high) = opening.along, opening.z
    look, width = draw.hard(), right - left
    if opening.name == "door":
        edges = (
            block((left - 0.06, left + 0.02), (-0.12, 0.02), (0.0, high + 0.06), look),
            block((right - 0.02, right + 0.06), (-0.12, 0.02), (0.0, high + 0.06), look),
            block((left, right), (-0.12, 0.02), (high - 0.02, high + 0.06), look),
        )
        leaf_look = draw.hard()
        leaf = block((left, right), (-0.12, -0.07), (0.0, high), leaf_look)
        handle = post(right - 0.1, -0.02, (0.98, 1.03), 0.05, draw.dark())
        return [Item("door", (leaf, handle)), Item("doorframe", edges)]
    glass = Look((0.85, 0.9, 0.95), Finish.GLASS)
    panes: list[Piece] = [block((left, right), (-0.16, -0.13), (low, high), glass)]
    panes += [
        block((x, x + 0.06), (-0.13, -0.08), (low, high), look)
        for x in (left, 0.5 * (left + right) - 0.03, right - 0.06)
    ]
    panes += [block((left, right), (-0.13, -0.08), (z, z + 0.06), look) for z in (low, high - 0.06)]
    panes.append(block((left - 0.04, right + 0.04), (-0.1, 0.05), (low - 0.04, low), look))
    items = [Item("window", tuple(panes))]
    if draw.chance(0.55):
        bottom = 0.05 if draw.chance(0.6) else low - 0.15
        cloth, share = draw.soft(), draw.size(0.25, 0.45)
        curtain = hang_curtain("curtain", share * width, (bottom, high + 0.1), cloth)
        items += [curtain.moved(side, 0.0) for side in (left, right)]
    return items
