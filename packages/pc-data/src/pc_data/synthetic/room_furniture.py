"""Furniture to sit, lie and work on; sizes and colours overlap between kinds on purpose."""

import numpy as np

from pc_data.synthetic.room_parts import Finish, Item, Look, Piece, ball, block, legs, post
from pc_data.synthetic.room_style import Palette


def make_chair(draw: Palette, *, height: float = 0.0) -> Item:
    """A chair with a seat, a back and four legs; its front is +y."""
    half, depth = 0.5 * draw.size(0.38, 0.5), draw.size(0.4, 0.5)
    seat = height or draw.size(0.4, 0.5)
    back = seat + draw.size(0.35, 0.55)
    hard, soft = draw.hard(), draw.soft() if draw.chance(0.4) else draw.hard()
    pieces = [
        block((-half, half), (0.03, depth), (seat - 0.05, seat), soft),
        block((-half, half), (0.0, 0.045), (seat + 0.12, back), soft, tilt=-0.1),
        block((-half, -half + 0.04), (0.0, 0.04), (seat - 0.05, back - 0.05), hard),
        block((half - 0.04, half), (0.0, 0.04), (seat - 0.05, back - 0.05), hard),
    ]
    thickness = draw.size(0.035, 0.055)
    span = ((-half, half), (0.0, depth))
    pieces += legs(*span, seat - 0.04, hard, thickness=thickness, is_round=draw.is_round)
    return Item("chair", tuple(pieces))


def make_office_chair(draw: Palette) -> Item:
    """A swivel chair on a star of five feet."""
    half, seat = 0.5 * draw.size(0.44, 0.54), draw.size(0.42, 0.55)
    back = seat + draw.size(0.4, 0.7)
    soft, dark = draw.soft(), draw.dark()
    middle = 0.27
    pieces = [
        block((-half, half), (0.04, 0.5), (seat - 0.07, seat), soft),
        block((-half + 0.03, half - 0.03), (0.0, 0.07), (seat + 0.08, back), soft, tilt=-0.12),
        post(0.0, middle, (0.08, seat - 0.05), 0.03, dark),
    ]
    for k in range(5):
        angle = 2 * np.pi * k / 5
        center = (0.14 * float(np.cos(angle)), middle + 0.14 * float(np.sin(angle)), 0.07)
        foot = block((-0.15, 0.15), (-0.025, 0.025), (-0.02, 0.02), dark)
        pieces.append(foot._replace(center=center, yaw=angle))
    if draw.chance(0.6):
        for side in (-1, 1):
            x = side * (half + 0.035)
            bounds = (x - 0.025, x + 0.025)
            pieces.append(block(bounds, (0.1, 0.4), (seat + 0.17, seat + 0.21), dark))
            pieces.append(block(bounds, (0.2, 0.25), (seat - 0.05, seat + 0.17), dark))
    return Item("office chair", tuple(pieces))


def make_sofa(draw: Palette, *, seats: int) -> Item:
    """An armchair (one seat) or a couch, with cushions."""
    width = seats * draw.size(0.55, 0.75) + 0.3
    half, depth, seat = 0.5 * width, draw.size(0.75, 0.95), draw.size(0.36, 0.48)
    back, arm = seat + draw.size(0.25, 0.5), seat + draw.size(0.08, 0.25)
    soft, lower = draw.soft(), draw.size(0.04, 0.14)
    side = draw.size(0.1, 0.2)
    pieces = [
        block((-half, half), (0.0, depth), (lower, seat - 0.12), soft),
        block((-half, half), (0.0, 0.2), (lower, back), soft, tilt=-0.05),
        block((-half, -half + side), (0.0, depth), (lower, arm), soft),
        block((half - side, half), (0.0, depth), (lower, arm), soft),
    ]
    inner = (width - 2 * side) / seats
    for k in range(seats):
        left = -half + side + k * inner
        pieces.append(
            block((left + 0.01, left + inner - 0.01), (0.15, depth), (seat - 0.13, seat), soft)
        )
    span = ((-half, half), (0.0, depth))
    pieces += legs(*span, lower, draw.hard(), thickness=0.06, is_round=draw.is_round)
    cushions = tuple(
        Item(
            "cushion",
            (
                block((-0.2, 0.2), (-0.06, 0.06), (-0.2, 0.2), draw.soft(), tilt=-0.35)._replace(
                    center=(draw.size(-half + 0.4, half - 0.4), 0.3, seat + 0.19)
                ),
            ),
        )
        for _ in range(int(draw.rng.integers(0, seats + 1)) if seats > 1 else 0)
    )
    return Item("couch" if seats > 1 else "armchair", tuple(pieces), cushions)


def make_bed(draw: Palette) -> Item:
    """A bed with its head at the wall, a mattress, a blanket and pillows."""
    half, length = 0.5 * draw.size(0.9, 1.8), draw.size(1.9, 2.15)
    top = draw.size(0.38, 0.65)
    frame, sheet = draw.hard(), draw.soft()
    base = draw.size(0.08, 0.2)
    pieces = [
        block((-half, half), (0.05, length), (base, top - 0.2), frame),
        block((-half + 0.03, half - 0.03), (0.06, length - 0.03), (top - 0.22, top), sheet),
        block((-half, half), (0.0, 0.06), (0.0, top + draw.size(0.15, 0.65)), frame),
    ]
    cover = draw.size(0.45, 0.75) * length
    pieces.append(
        block(
            (-half - 0.01, half + 0.01),
            (length - cover, length),
            (top - 0.25, top + 0.05),
            draw.soft(),
        )
    )
    span = ((-half, half), (0.05, length))
    pieces += legs(*span, base, frame, thickness=0.08, is_round=draw.is_round)
    number = 1 if half < 0.6 else 2
    pillows = []
    for k in range(number):
        x = (k - 0.5 * (number - 1)) * half + draw.size(-0.05, 0.05)
        pillow = ball((x, 0.32, top + 0.07), (0.32, 0.2, 0.1), draw.soft())
        pillows.append(Item("pillow", (pillow,)))
    return Item("bed", tuple(pieces), tuple(pillows))


def make_table(draw: Palette, name: str, width: float, depth: float, height: float) -> Item:
    """A table on legs, on panels or on a foot; now and then round."""
    look, under = draw.hard(), draw.hard()
    half, thick = 0.5 * width, draw.size(0.025, 0.06)
    middle = 0.5 * depth
    if draw.is_round:
        radius = 0.5 * min(width, depth)
        pieces: list[Piece] = [
            post(0.0, middle, (height - thick, height), radius, look),
            post(0.0, middle, (0.03, height - thick), 0.05, under),
            post(0.0, middle, (0.0, 0.04), 0.5 * radius, under),
        ]
        return Item(name, tuple(pieces))
    pieces = [block((-half, half), (0.0, depth), (height - thick, height), look)]
    if draw.chance(0.3):
        for x in (-half + 0.05, half - 0.09):
            bounds = ((x, x + 0.04), (0.05, depth - 0.05), (0.0, height - thick))
            pieces.append(block(*bounds, under))
    else:
        span = ((-half + 0.02, half - 0.02), (0.02, depth - 0.02))
        thickness = draw.size(0.045, 0.09)
        pieces += legs(*span, height - thick, under, thickness=thickness, is_round=draw.is_round)
    return Item(name, tuple(pieces))


def make_desk(draw: Palette) -> Item:
    """A desk with drawers, a monitor, a keyboard, papers or books."""
    width, depth, top = draw.size(1.1, 1.7), draw.size(0.6, 0.8), draw.size(0.68, 0.78)
    half, look = 0.5 * width, draw.hard()
    pieces = [
        block((-half, half), (0.0, depth), (top - 0.035, top), look),
        block((-half, -half + 0.04), (0.02, depth - 0.02), (0.0, top), draw.hard()),
    ]
    if draw.chance(0.6):
        pieces.append(
            block((half - draw.size(0.38, 0.48), half), (0.03, depth - 0.03), (0.03, top), look)
        )
    else:
        pieces.append(block((half - 0.04, half), (0.02, depth - 0.02), (0.0, top), look))
    if draw.chance(0.5):
        pieces.append(block((-half, half), (0.02, 0.05), (0.3, top), look))
    extras = []
    if draw.chance(0.75):
        extras.append(make_monitor(draw).moved(draw.size(-0.2, 0.2), 0.18, top))
        keys = block((-0.22, 0.22), (0.36, 0.5), (top, top + 0.035), draw.dark())
        extras.append(Item("keyboard", (keys,)))
    if draw.chance(0.5):
        x = draw.size(-half + 0.2, -half + 0.35)
        pile = block((x - 0.1, x + 0.1), (0.1, 0.35), (top, top + draw.size(0.05, 0.2)), book(draw))
        extras.append(Item("books", (pile,)))
    if draw.chance(0.3):
        extras.append(make_lamp(draw, tall=False).moved(half - 0.2, 0.15, top))
    return Item("desk", tuple(pieces), tuple(extras))


def make_monitor(draw: Palette, *, name: str = "monitor", width: float = 0.0) -> Item:
    """A screen on a foot."""
    half = 0.5 * (width or draw.size(0.45, 0.65))
    dark = draw.dark()
    low, high = 0.1, 0.1 + 1.2 * half
    pieces = (
        block((-half, half), (0.0, 0.05), (low, high), dark),
        block((-0.03, 0.03), (-0.02, 0.02), (0.0, low + 0.1), dark),
        block((-0.12, 0.12), (-0.06, 0.12), (0.0, 0.02), dark),
    )
    return Item(name, pieces)


def make_lamp(draw: Palette, *, tall: bool) -> Item:
    """A floor lamp or a table lamp."""
    top = draw.size(1.3, 1.7) if tall else draw.size(0.4, 0.55)
    radius = draw.size(0.13, 0.2) if tall else draw.size(0.08, 0.14)
    shade = draw.size(0.2, 0.3) if tall else 0.17
    metal = draw.dark() if draw.chance(0.6) else draw.hard()
    y = radius
    pieces = (
        post(0.0, y, (0.0, 0.03), 0.7 * radius, metal),
        post(0.0, y, (0.0, top - 0.05), 0.018 if tall else 0.03, metal),
        post(0.0, y, (top - shade, top), radius, draw.soft()),
    )
    return Item("lamp", pieces)


def make_bench(draw: Palette) -> Item:
    """An ottoman or a stool."""
    if draw.is_round:
        radius, top = draw.size(0.18, 0.3), draw.size(0.38, 0.5)
        return Item("ottoman", (post(0.0, radius, (0.03, top), radius, draw.soft()),))
    half, depth, top = 0.5 * draw.size(0.4, 0.7), draw.size(0.4, 0.6), draw.size(0.36, 0.48)
    pieces = [block((-half, half), (0.0, depth), (top - 0.25, top), draw.soft())]
    span = ((-half, half), (0.0, depth))
    pieces += legs(*span, top - 0.25, draw.hard(), thickness=0.05, is_round=draw.is_round)
    return Item("ottoman", tuple(pieces))


def book(draw: Palette) -> Look:
    """Backs of books."""
    return Look(draw.paint(), Finish.BOOKS, draw.paint())
