"""Cabinets, shelves, kitchens, bathrooms, what hangs on walls, and small things."""

import numpy as np

from pc_data.synthetic.room_furniture import book
from pc_data.synthetic.room_parts import Finish, Item, Look, Piece, ball, block, legs, post
from pc_data.synthetic.room_style import Palette
from pc_data.synthetic.solids import CYLINDER, ELLIPSOID


def make_cabinet(draw: Palette, name: str, width: float, depth: float, height: float) -> Item:
    """A closed cabinet with fronts and handles, to the floor or on legs."""
    half, look = 0.5 * width, draw.hard()
    low = draw.size(0.0, 0.18) if draw.chance(0.4) else 0.0
    pieces = [block((-half, half), (0.0, depth), (low, height), look)]
    columns = max(1, round(width / draw.size(0.4, 0.6)))
    rows = max(1, round((height - low) / draw.size(0.3, 0.9)))
    front, metal = draw.hard() if draw.chance(0.3) else look, draw.dark()
    for i in range(columns):
        for j in range(rows):
            x = -half + width * np.array([i, i + 1]) / columns + (0.015, -0.015)
            z = low + (height - low) * np.array([j, j + 1]) / rows + (0.015, -0.015)
            pieces.append(block(tuple(x), (depth, depth + 0.02), tuple(z), front))
            middle, handle = float(x.mean()), float(z.mean())
            bounds = ((middle - 0.06, middle + 0.06), (depth + 0.02, depth + 0.05))
            pieces.append(block(*bounds, (handle, handle + 0.025), metal))
    if low > 0:
        thickness = 0.06
        span = ((-half, half), (0.0, depth))
        pieces += legs(*span, low, look, thickness=thickness, is_round=draw.is_round)
    return Item(name, tuple(pieces))


def make_bookshelf(draw: Palette) -> Item:
    """An open shelf with books and boxes on its boards."""
    width, depth, height = draw.size(0.7, 1.4), draw.size(0.26, 0.38), draw.size(0.8, 2.1)
    half, look = 0.5 * width, draw.hard()
    pieces = [
        block((-half, half), (0.0, 0.02), (0.0, height), look),
        block((-half, -half + 0.03), (0.0, depth), (0.0, height), look),
        block((half - 0.03, half), (0.0, depth), (0.0, height), look),
    ]
    boards = max(2, round(height / 0.38))
    extras = []
    for z in np.linspace(0.02, height - 0.03, boards + 1):
        pieces.append(block((-half, half), (0.0, depth), (z, z + 0.03), look))
        if z < height - 0.3 and draw.chance(0.7):
            left = draw.size(-half + 0.05, 0.0)
            right = draw.size(left + 0.2, half - 0.04)
            top = z + draw.size(0.18, 0.27)
            bounds = ((left, right), (0.03, depth - draw.size(0.03, 0.1)), (z + 0.03, top))
            extras.append(Item("books", (block(*bounds, book(draw)),)))
    return Item("bookshelf", tuple(pieces), tuple(extras))


def make_wall_shelf(draw: Palette) -> Item:
    """One or two boards on the wall with things on them."""
    half, depth, look = 0.5 * draw.size(0.6, 1.2), draw.size(0.18, 0.3), draw.hard()
    heights = [1.35 + 0.35 * k for k in range(int(draw.rng.integers(1, 3)))]
    pieces = [block((-half, half), (0.0, depth), (z, z + 0.035), look) for z in heights]
    bounds = ((-half + 0.1, 0.1), (0.03, depth - 0.03), (heights[0] + 0.035, heights[0] + 0.26))
    return Item("shelf", tuple(pieces), (Item("books", (block(*bounds, book(draw)),)),))


def make_kitchen(draw: Palette) -> Item:
    """A row of cabinets with a counter, a sink, a stove and cabinets above."""
    width, depth, top = draw.size(1.8, 2.8), draw.size(0.58, 0.66), draw.size(0.86, 0.94)
    half = 0.5 * width
    cabinet = make_cabinet(draw, "kitchen cabinet", width, depth - 0.04, top - 0.05)
    board = draw.hard()
    sink, stove = sorted(draw.rng.permutation([-0.5 * half, 0.45 * half])[:2])
    edge = ((-half, half), (0.0, depth), (top - 0.05, top))
    basin = [
        block((sink - 0.25, sink + 0.25), (0.12, 0.5), (top - 0.02, top + 0.02), draw.white()),
        block((sink - 0.21, sink + 0.21), (0.16, 0.46), (top + 0.0, top + 0.025), draw.dark()),
        post(sink, 0.07, (top, top + 0.25), 0.02, draw.dark()),
        block((sink - 0.02, sink + 0.02), (0.07, 0.25), (top + 0.22, top + 0.25), draw.dark()),
    ]
    plates = (
        block((stove - 0.28, stove + 0.28), (0.06, 0.54), (top, top + 0.02), draw.dark()),
        block((stove - 0.28, stove + 0.28), (depth - 0.06, depth), (0.1, top - 0.1), draw.dark()),
    )
    extras = [
        Item("kitchen counter", (block(*edge, board),)),
        Item("sink", tuple(basin)),
        Item("stove", plates),
    ]
    if draw.chance(0.75):
        high = make_cabinet(draw, "kitchen cabinet", width, 0.32, draw.size(0.5, 0.7))
        extras.append(high.moved(0.0, 0.0, draw.size(1.4, 1.5)))
    if draw.chance(0.5):
        x = -half + 0.3
        bounds = ((x - 0.23, x + 0.23), (0.1, 0.45), (top, top + 0.28))
        extras.append(Item("microwave", (block(*bounds, draw.white()),)))
    return Item(cabinet.name, cabinet.pieces, tuple(extras))


def make_refrigerator(draw: Palette) -> Item:
    """A tall box with two doors."""
    item = make_cabinet(draw, "refrigerator", draw.size(0.6, 0.8), 0.65, draw.size(1.4, 1.85))
    look = draw.white() if draw.chance(0.6) else draw.dark()
    return Item(item.name, tuple(piece._replace(look=look) for piece in item.pieces))


def make_toilet(draw: Palette) -> Item:
    """A bowl, a lid and a cistern."""
    look, seat = draw.white(), draw.size(0.38, 0.46)
    pieces = (
        block((-0.2, 0.2), (0.0, 0.2), (seat - 0.02, seat + 0.38), look),
        ball((0.0, 0.42, seat - 0.1), (0.19, 0.26, 0.17), look),
        block((-0.1, 0.1), (0.15, 0.5), (0.0, seat - 0.08), look),
        Piece(CYLINDER, (0.0, 0.44, seat + 0.0), (0.19, 0.25, 0.025), look),
    )
    return Item("toilet", pieces)


def make_washstand(draw: Palette) -> Item:
    """A basin on a pedestal, or in a vanity."""
    top, half = draw.size(0.78, 0.9), 0.5 * draw.size(0.5, 0.9)
    basin = (
        Piece(ELLIPSOID, (0.0, 0.26, top - 0.06), (min(half, 0.3), 0.22, 0.14), draw.white()),
        block((-0.02, 0.02), (0.03, 0.16), (top + 0.03, top + 0.16), draw.dark()),
    )
    if draw.chance(0.5):
        vanity = make_cabinet(draw, "bathroom vanity", 2 * half, 0.48, top - 0.05)
        return Item(vanity.name, vanity.pieces, (Item("sink", basin),))
    column = block((-0.1, 0.1), (0.05, 0.25), (0.0, top - 0.1), draw.white())
    return Item("sink", (*basin, column))


def make_bathtub(draw: Palette) -> Item:
    """A tub along the wall, in part behind a shower curtain."""
    half, depth, top = 0.5 * draw.size(1.4, 1.75), draw.size(0.68, 0.8), draw.size(0.42, 0.6)
    look, rim = draw.white(), 0.07
    pieces = (
        block((-half, half), (0.0, rim), (0.0, top), look),
        block((-half, half), (depth - rim, depth), (0.0, top), look),
        block((-half, -half + rim), (0.0, depth), (0.0, top), look),
        block((half - rim, half), (0.0, depth), (0.0, top), look),
        block((-half, half), (0.0, depth), (0.0, 0.12), look),
    )
    curtain = hang_curtain("shower curtain", half * draw.size(0.7, 1.4), (0.25, 1.95), draw.soft())
    shift = (half - 0.5 * (curtain.extent()[1][0] - curtain.extent()[0][0])) * 0.9
    return Item("bathtub", pieces, (curtain.moved(shift, depth - 0.06),))


def hang_curtain(name: str, width: float, z: tuple[float, float], look: Look) -> Item:
    """Cloth in folds."""
    folds = max(2, round(width / 0.11))
    pieces = []
    for k in range(folds):
        x = width * ((k + 0.5) / folds - 0.5)
        half = (0.62 * width / folds, 0.035 + 0.015 * (k % 2), 0.5 * (z[1] - z[0]))
        center = (x, 0.07 + 0.03 * (k % 2), 0.5 * (z[0] + z[1]))
        pieces.append(Piece(CYLINDER, center, half, look))
    return Item(name, tuple(pieces))


def hang_flat(draw: Palette, name: str, width: float, z: tuple[float, float], look: Look) -> Item:
    """A picture, mirror, whiteboard, screen or towel flat on the wall, with a frame."""
    half, thick = 0.5 * width, draw.size(0.02, 0.05)
    frame = draw.hard()
    pieces = (
        block((-half, half), (0.0, thick), z, frame),
        block((-half + 0.03, half - 0.03), (0.0, thick + 0.01), (z[0] + 0.03, z[1] - 0.03), look),
    )
    return Item(name, pieces)


def hang_picture(draw: Palette) -> Item:
    """A picture."""
    low = draw.size(1.1, 1.5)
    look = Look(draw.paint(), Finish.PICTURE, draw.paint())
    return hang_flat(draw, "picture", draw.size(0.3, 1.0), (low, low + draw.size(0.3, 0.7)), look)


def hang_mirror(draw: Palette) -> Item:
    """A mirror; depth sensors see little of it."""
    low = draw.size(1.0, 1.2)
    look = Look((0.72, 0.76, 0.78), Finish.GLASS)
    return hang_flat(draw, "mirror", draw.size(0.4, 0.9), (low, low + draw.size(0.5, 0.8)), look)


def hang_whiteboard(draw: Palette) -> Item:
    """A whiteboard."""
    look = Look((0.93, 0.94, 0.94))
    return hang_flat(draw, "whiteboard", draw.size(1.2, 2.0), (0.9, draw.size(1.8, 2.0)), look)


def hang_towel(draw: Palette) -> Item:
    """A towel."""
    low = draw.size(0.7, 1.0)
    bounds = ((-0.22, 0.22), (0.02, 0.07), (low, low + draw.size(0.5, 0.7)))
    return Item("towel", (block(*bounds, draw.soft()),))


def hang_radiator(draw: Palette) -> Item:
    """A radiator."""
    half, top, look = 0.5 * draw.size(0.6, 1.3), draw.size(0.55, 0.75), draw.white()
    pieces = [block((-half, half), (0.04, 0.08), (0.12, top - 0.02), look)]
    pieces += [
        block((x - 0.035, x + 0.035), (0.03, 0.12), (0.1, top), look)
        for x in np.arange(-half + 0.05, half, 0.1)
    ]
    return Item("radiator", tuple(pieces))


def make_small(draw: Palette, name: str) -> Item:
    """Something small that stands about: trash can, box, backpack, basket, suitcase or plant."""
    if name == "plant":
        radius, top = draw.size(0.12, 0.22), draw.size(0.25, 0.45)
        leaves = draw.paint() if draw.chance(0.3) else (0.2, 0.42, 0.16)
        pieces = [post(0.0, 0.25, (0.0, top), radius, draw.hard())]
        for _ in range(7):
            x, y = (draw.size(-0.18, 0.18) for _ in range(2))
            center = (x, 0.25 + y, top + draw.size(0.1, 0.6))
            half = (draw.size(0.08, 0.2), draw.size(0.08, 0.2), draw.size(0.06, 0.16))
            pieces.append(ball(center, half, Look(leaves, Finish.FABRIC)))
        return Item(name, tuple(pieces))
    if name == "backpack":
        half = (draw.size(0.14, 0.2), draw.size(0.1, 0.15), draw.size(0.2, 0.28))
        return Item(name, (ball((0.0, half[1], half[2]), half, draw.soft()),))
    half, depth, top = 0.5 * draw.size(0.25, 0.5), draw.size(0.22, 0.45), draw.size(0.25, 0.6)
    look = draw.soft() if name == "suitcase" else draw.hard()
    if name in ("trash can", "laundry basket") and draw.chance(0.6):
        radius = draw.size(0.12, 0.22)
        return Item(name, (post(0.0, radius, (0.0, top), radius, look),))
    return Item(name, (block((-half, half), (0.0, depth), (0.0, top), look),))
