"""What rooms are made of: colours and finishes; validation rooms draw from other ones."""

import colorsys
from typing import NamedTuple

import numpy as np

from pc_data.synthetic.room_parts import Color, Finish, Look


class RoomStyle(NamedTuple):
    """Ranges that a room's looks are drawn from.

    Attributes:
        hues: Hues of painted and upholstered things, each the middle of a range.
        woods: Hue, saturation and value of the woods.
        floors: Finishes of floors.
        fabrics: Finishes of upholstery, bedding and curtains.
        round_share: Share of round legs, table tops and baths.
        wall_value: Least brightness of walls.
        block_share: Share of rooms with a corner cut off by a wall.
    """

    hues: tuple[float, ...]
    woods: tuple[Color, ...]
    floors: tuple[Finish, ...]
    fabrics: tuple[Finish, ...]
    round_share: float
    wall_value: float
    block_share: float


TRAIN = RoomStyle(
    hues=(0.02, 0.10, 0.58, 0.65),
    woods=((0.075, 0.55, 0.55), (0.09, 0.45, 0.75), (0.06, 0.6, 0.35)),
    floors=(Finish.PLANKS, Finish.CARPET, Finish.TILES),
    fabrics=(Finish.FABRIC, Finish.STRIPES),
    round_share=0.25,
    wall_value=0.72,
    block_share=0.25,
)
VAL = RoomStyle(
    hues=(0.30, 0.42, 0.80, 0.93),
    woods=((0.045, 0.5, 0.42), (0.11, 0.3, 0.82), (0.03, 0.65, 0.28)),
    floors=(Finish.CARPET, Finish.CHECKS, Finish.PLANKS),
    fabrics=(Finish.CHECKS, Finish.FABRIC),
    round_share=0.6,
    wall_value=0.6,
    block_share=0.6,
)


def _rgb(hue: float, saturation: float, value: float) -> Color:
    value = min(max(value, 0.04), 0.97)
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), value)


class Palette:
    """Draws the looks of one room's things; all classes draw from the same colours."""

    def __init__(self, rng: np.random.Generator, style: RoomStyle) -> None:
        self.rng = rng
        self.style = style
        self._hue = float(rng.choice(style.hues))
        self._wood = style.woods[int(rng.integers(len(style.woods)))]

    def chance(self, share: float) -> bool:
        """True in that share of the draws."""
        return bool(self.rng.uniform() < share)

    def size(self, low: float, high: float) -> float:
        """A length between bounds, metres."""
        return float(self.rng.uniform(low, high))

    @property
    def is_round(self) -> bool:
        """Whether the next thing is round."""
        return self.chance(self.style.round_share)

    def paint(self) -> Color:
        """Any colour: grey, of the room's hue, or of another."""
        kind = self.rng.uniform()
        if kind < 0.5:
            return _rgb(0.09, self.size(0.0, 0.14), self.size(0.12, 0.95))
        hue = self._hue if kind < 0.75 else float(self.rng.choice(self.style.hues))
        return _rgb(hue + self.size(-0.04, 0.04), self.size(0.12, 0.62), self.size(0.2, 0.85))

    def wood(self) -> Look:
        """Wood of this room's kind."""
        hue, saturation, value = self._wood
        value += self.size(-0.12, 0.12)
        color = _rgb(hue + self.size(-0.01, 0.01), saturation + self.size(-0.1, 0.1), value)
        return Look(color, Finish.WOOD, _rgb(hue, saturation, 0.6 * value))

    def hard(self) -> Look:
        """Wood, paint or plastic."""
        return self.wood() if self.chance(0.55) else Look(self.paint())

    def soft(self) -> Look:
        """Upholstery or bedding."""
        finishes = self.style.fabrics
        finish = finishes[int(self.rng.integers(len(finishes)))]
        return Look(self.paint(), finish, self.paint())

    def dark(self) -> Look:
        """Metal, rubber and screens."""
        return Look(_rgb(0.6, 0.08, self.size(0.05, 0.4)))

    def white(self) -> Look:
        """Ceramics and appliances; not always white."""
        return Look(_rgb(0.1, self.size(0.0, 0.1), self.size(0.7, 0.95)))

    def wall(self) -> Look:
        """Paint of the walls, now and then tiles."""
        color = _rgb(self._hue, self.size(0.0, 0.3), self.size(self.style.wall_value, 0.95))
        return Look(color, Finish.PLAIN, _rgb(self._hue, 0.1, 0.5))

    def floor(self, *, is_wet: bool) -> Look:
        """Wood, carpet or tiles; tiles where it is wet."""
        finishes = (Finish.TILES, Finish.CHECKS) if is_wet else self.style.floors
        finish = finishes[int(self.rng.integers(len(finishes)))]
        if finish == Finish.PLANKS:
            return self.wood()._replace(finish=Finish.PLANKS)
        red, green, blue = self.paint()
        return Look((red, green, blue), finish, (0.7 * red, 0.7 * green, 0.7 * blue))
