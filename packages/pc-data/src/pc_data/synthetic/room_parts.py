"""Pieces that furniture is made of, in the furniture's own frame."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from pc_data.synthetic.solids import BOX, CYLINDER, ELLIPSOID

Color = tuple[float, float, float]
Vector = tuple[float, float, float]


class Finish(IntEnum):
    """How a surface looks; `pc_data.synthetic.room_looks` paints it."""

    PLAIN = 0
    WOOD = 1
    FABRIC = 2
    STRIPES = 3
    CHECKS = 4
    TILES = 5
    CARPET = 6
    PICTURE = 7
    BOOKS = 8
    GLASS = 9
    PLANKS = 10


class Look(NamedTuple):
    """Colours (display values, 0..1) and finish of a piece."""

    color: Color
    finish: Finish = Finish.PLAIN
    accent: Color = (0.15, 0.14, 0.13)


class Piece(NamedTuple):
    """One solid.

    Attributes:
        kind: BOX, CYLINDER or ELLIPSOID.
        center: Metres.
        half: Half sizes, metres.
        look: How it looks.
        yaw: About z, radians.
        tilt: About its own x, before the yaw.
    """

    kind: int
    center: Vector
    half: Vector
    look: Look
    yaw: float = 0.0
    tilt: float = 0.0


class Item(NamedTuple):
    """A piece of furniture: x to its right, y to its front, z up from the floor.

    The origin lies on the floor in the middle of its back.

    Attributes:
        name: Raw category, as ScanNet's annotators wrote it.
        pieces: Its solids.
        extras: Other things on or at it, in the same frame.
    """

    name: str
    pieces: tuple[Piece, ...]
    extras: tuple["Item", ...] = ()

    def extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner of its own pieces."""
        low, high = zip(*(_bounds(piece) for piece in self.pieces), strict=True)
        return np.min(low, axis=0), np.max(high, axis=0)

    def whole_extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner with the extras."""
        corners = [self.extent(), *(extra.whole_extent() for extra in self.extras)]
        low, high = zip(*corners, strict=True)
        return np.min(low, axis=0), np.max(high, axis=0)

    def moved(self, x: float, y: float, z: float = 0.0, *, yaw: float = 0.0) -> "Item":
        """The same turned about z and then shifted."""
        pieces = tuple(_moved(piece, (x, y, z), yaw) for piece in self.pieces)
        extras = tuple(extra.moved(x, y, z, yaw=yaw) for extra in self.extras)
        return Item(self.name, pieces, extras)


def axes_of(piece: Piece) -> np.ndarray:
    """Rotation, frame-from-own."""
    c, s = np.cos(piece.yaw), np.sin(piece.yaw)
    k, m = np.cos(piece.tilt), np.sin(piece.tilt)
    return np.array([[c, -s * k, s * m], [s, c * k, -c * m], [0.0, m, k]])


def _bounds(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    reach = np.abs(axes_of(piece)) @ np.array(piece.half)
    center = np.array(piece.center)
    return center - reach, center + reach


def _moved(piece: Piece, shift: Vector, yaw: float) -> Piece:
    c, s = float(np.cos(yaw)), float(np.sin(yaw))
    x, y, z = piece.center
    center = (c * x - s * y + shift[0], s * x + c * y + shift[1], z + shift[2])
    return piece._replace(center=center, yaw=piece.yaw + yaw)


def block(
    x: tuple[float, float],
    y: tuple[float, float],
    z: tuple[float, float],
    look: Look,
    *,
    tilt: float = 0.0,
) -> Piece:
    """A box between bounds."""
    middle, half = _span(x, y, z)
    return Piece(BOX, middle, half, look, tilt=tilt)


def post(x: float, y: float, z: tuple[float, float], radius: float, look: Look) -> Piece:
    """An upright cylinder."""
    half = (radius, radius, 0.5 * (z[1] - z[0]))
    return Piece(CYLINDER, (x, y, 0.5 * (z[0] + z[1])), half, look)


def ball(center: Vector, half: Vector, look: Look) -> Piece:
    """An ellipsoid."""
    return Piece(ELLIPSOID, center, half, look)


def legs(
    x: tuple[float, float],
    y: tuple[float, float],
    top: float,
    look: Look,
    *,
    thickness: float,
    is_round: bool,
) -> tuple[Piece, ...]:
    """Four legs inside a rectangle, from the floor to `top`."""
    r = 0.5 * thickness
    places = [(a, b) for a in (x[0] + r, x[1] - r) for b in (y[0] + r, y[1] - r)]
    if is_round:
        return tuple(post(a, b, (0.0, top), r, look) for a, b in places)
    return tuple(block((a - r, a + r), (b - r, b + r), (0.0, top), look) for a, b in places)


def _span(*bounds: tuple[float, float]) -> tuple[Vector, Vector]:
    (x0, x1), (y0, y1), (z0, z1) = bounds
    middle = (0.5 * (x0 + x1), 0.5 * (y0 + y1), 0.5 * (z0 + z1))
    return middle, (0.5 * (x1 - x0), 0.5 * (y1 - y0), 0.5 * (z1 - z0))
