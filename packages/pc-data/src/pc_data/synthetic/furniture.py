"""Poles, signs, fences, barriers, cones, kiosks and other street furniture as solids."""

import math

import numpy as np

from pc_data.synthetic.categories import Category
from pc_data.synthetic.parts import Color, Material, Part, ball, box, tube

_STEEL = (0.3, 0.31, 0.32)
_WHITE = (0.75, 0.75, 0.75)


def lamp(rng: np.random.Generator, color: Color) -> tuple[Part, ...]:
    """A street lamp with an arm over the road (towards own +x)."""
    height = rng.uniform(5.0, 8.5)
    arm = rng.uniform(0.6, 1.6)
    radius = rng.uniform(0.06, 0.13)
    return (
        tube((0, 0, 0.3), (1.7 * radius, 1.7 * radius, 0.35), Material.METAL, color),
        tube(
            (0, 0, height / 2),
            (radius, radius, height / 2),
            Material.METAL,
            color,
            taper=(0.6, 0.6),
        ),
        box((arm / 2, 0, height), (arm / 2, 0.04, 0.04), Material.METAL, color),
        box((arm, 0, height - 0.02), (0.32, 0.13, 0.07), Material.PLAIN, _WHITE),
    )


def sign(rng: np.random.Generator) -> tuple[Part, ...]:
    """A traffic sign on a post, facing own -x."""
    height = rng.uniform(2.0, 2.9)
    shape = int(rng.integers(4))
    color, accent = [
        ((0.7, 0.03, 0.03), _WHITE),
        ((0.02, 0.12, 0.5), _WHITE),
        ((0.75, 0.55, 0.03), (0.02, 0.02, 0.02)),
        (_WHITE, (0.7, 0.03, 0.03)),
    ][int(rng.integers(4))]
    post = tube((0, 0, height / 2), (0.035, 0.035, height / 2), Material.METAL, _STEEL)
    radius = rng.uniform(0.28, 0.42)
    look = {"accent": accent, "pattern": (float(shape), 0, 0, 0), "category": Category.SIGN}
    if shape in (0, 1):
        plate = tube(
            (-0.05, 0, height),
            (radius, radius, 0.02),
            Material.SIGN,
            color,
            euler=(0.0, math.pi / 2, 0.0),
            **look,
        )
    else:
        wide = radius * rng.uniform(1.0, 2.2)
        plate = box((-0.05, 0, height), (0.02, wide, radius), Material.SIGN, color, **look)
    return post, plate


def traffic_light(rng: np.random.Generator) -> tuple[Part, ...]:
    """A signal head on a post, facing own -x, sometimes with a second one on an arm."""
    height = rng.uniform(2.6, 3.4)
    state = float(rng.integers(3))
    head = {"pattern": (state, 0, 0, 0), "category": Category.STRUCTURE}
    black = (0.02, 0.02, 0.02)
    parts = [
        tube((0, 0, height / 2), (0.07, 0.07, height / 2), Material.METAL, _STEEL),
        box((-0.15, 0, height - 0.2), (0.13, 0.17, 0.48), Material.SIGNAL, black, **head),
    ]
    if rng.random() < 0.5:
        reach = rng.uniform(2.0, 4.0)
        parts += [
            tube((0, 0, height + 1.2), (0.06, 0.06, 1.2), Material.METAL, _STEEL),
            box((0, reach / 2, height + 2.4), (0.05, reach / 2, 0.05), Material.METAL, _STEEL),
            box((-0.15, reach, height + 2.1), (0.13, 0.17, 0.48), Material.SIGNAL, black, **head),
        ]
    return tuple(parts)


def cone(rng: np.random.Generator, color: Color) -> tuple[Part, ...]:
    """A striped traffic cone or a slim delineator on a dark foot."""
    height = rng.uniform(0.5, 1.05)
    radius = height * rng.uniform(0.16, 0.24)
    slim = rng.random() < 0.25
    return (
        box((0, 0, 0.03), (radius * 1.5, radius * 1.5, 0.03), Material.PLAIN, (0.03, 0.03, 0.03)),
        tube(
            (0, 0, 0.04 + height / 2),
            (radius * (0.4 if slim else 1), radius * (0.4 if slim else 1), height / 2),
            Material.STRIPES,
            color,
            accent=_WHITE,
            taper=(0.9, 0.9) if slim else (0.22, 0.22),
        ),
    )


def barrier(rng: np.random.Generator, length: float, color: Color) -> tuple[Part, ...]:
    """A stretch of Jersey wall, boards on feet, or water-filled blocks along own x."""
    style = int(rng.integers(3))
    half = length / 2
    if style == 0:
        gray = rng.uniform(0.3, 0.5)
        return (
            box((0, 0, 0.14), (half, 0.3, 0.14), Material.WALL, (gray, gray, gray * 0.95)),
            box(
                (0, 0, 0.55),
                (half, 0.2, 0.3),
                Material.WALL,
                (gray, gray, gray * 0.95),
                taper=(1.0, 0.55),
            ),
        )
    if style == 1:
        parts = [
            box((0, 0, 0.92), (half, 0.025, 0.14), Material.DIAGONAL, color, accent=_WHITE),
            box((0, 0, 0.5), (half, 0.02, 0.1), Material.DIAGONAL, color, accent=_WHITE),
        ]
        for x in np.arange(-half + 0.2, half, 1.4):
            parts += [
                box((x, 0, 0.5), (0.03, 0.03, 0.5), Material.METAL, _STEEL),
                box((x, 0, 0.04), (0.1, 0.32, 0.04), Material.PLAIN, (0.03, 0.03, 0.03)),
            ]
        return tuple(parts)
    return tuple(
        box(
            (x, 0, 0.45),
            (0.7, 0.24, 0.45),
            Material.DIAGONAL,
            color if k % 2 else _WHITE,
            accent=_WHITE,
            taper=(0.96, 0.5),
            pattern=(1.0, 0, 0, 0),
        )
        for k, x in enumerate(np.arange(-half + 0.7, half, 1.5))
    )


def fence(rng: np.random.Generator, length: float, color: Color) -> tuple[Part, ...]:
    """Railings, a lattice, or a solid board or stone wall along own x."""
    height = rng.uniform(0.8, 2.0)
    half = length / 2
    style = int(rng.integers(4))
    if style == 3:
        material = Material.WALL
        return (
            box((0, 0, height / 2), (half, rng.uniform(0.1, 0.3), height / 2), material, color),
        )
    solidity = (-1.0, -3.0, 1.0)[style]
    panel = box(
        (0, 0, height / 2 + 0.05),
        (half, 0.03, height / 2),
        Material.METAL if style < 2 else Material.CARGO,
        color,
        solidity=solidity,
    )
    posts = [
        box((x, 0, height / 2), (0.05, 0.05, height / 2 + 0.05), Material.METAL, color)
        for x in np.arange(-half, half + 0.1, 2.5)
    ]
    return (panel, *posts)


def bollards(rng: np.random.Generator, count: int, color: Color) -> tuple[Part, ...]:
    """A row of posts along own x."""
    height = rng.uniform(0.6, 1.1)
    radius = rng.uniform(0.07, 0.2)
    return tuple(
        tube((1.6 * k, 0, height / 2), (radius, radius, height / 2), Material.METAL, color)
        for k in range(count)
    )


def kiosk(rng: np.random.Generator, color: Color) -> tuple[Part, ...]:
    """A kiosk or container as large as a van, a truck or a bus."""
    half = (rng.uniform(1.2, 5.0), rng.uniform(0.9, 1.3), rng.uniform(1.0, 1.5))
    material = Material.CARGO if rng.random() < 0.6 else Material.WALL
    parts = [box((0, 0, half[2] + 0.05), half, material, color, accent=(0.3, 0.3, 0.3))]
    if rng.random() < 0.5:
        roof = (half[0] + 0.2, half[1] + 0.25, 0.06)
        parts.append(box((0, 0, 2 * half[2] + 0.1), roof, Material.ROOF, (0.2, 0.2, 0.22)))
    return tuple(parts)


def shelter(rng: np.random.Generator) -> tuple[Part, ...]:
    """A bus stop: glass back, roof, bench and an advertisement."""
    half = rng.uniform(1.4, 2.2)
    steel = (0.12, 0.13, 0.14)
    poster = tuple(rng.uniform(0.1, 0.8, 3))
    return (
        box((0, 0.7, 2.4), (half, 0.8, 0.06), Material.METAL, steel),
        box((0, 1.35, 1.25), (half, 0.02, 1.0), Material.GLASS, (0.05, 0.08, 0.08)),
        box((half, 0.85, 1.2), (0.06, 0.5, 1.1), Material.FACADE, poster, pattern=(9, 9, 0, 3)),
        box((0, 1.0, 0.45), (half * 0.7, 0.2, 0.04), Material.PLAIN, (0.2, 0.12, 0.06)),
        *(tube((x, 1.3, 1.2), (0.05, 0.05, 1.2), Material.METAL, steel) for x in (-half, half)),
    )


def bench(rng: np.random.Generator) -> tuple[Part, ...]:
    """A bench with a back, facing own -y."""
    wood = (rng.uniform(0.15, 0.3), 0.12, 0.06)
    return (
        box((0, 0, 0.45), (0.85, 0.22, 0.03), Material.PLAIN, wood),
        box((0, 0.22, 0.7), (0.85, 0.03, 0.2), Material.PLAIN, wood),
        *(box((x, 0, 0.22), (0.04, 0.2, 0.22), Material.METAL, _STEEL) for x in (-0.7, 0.7)),
    )


def bin_box(rng: np.random.Generator, color: Color) -> tuple[Part, ...]:
    """A wheeled bin."""
    half = (0.28, 0.3, rng.uniform(0.45, 0.6))
    return (
        box((0, 0, half[2]), half, Material.PLAIN, color, taper=(1.15, 1.15)),
        box((0, 0, 2 * half[2] + 0.03), (0.36, 0.38, 0.04), Material.PLAIN, (0.05, 0.05, 0.05)),
    )


def cabinet(rng: np.random.Generator) -> tuple[Part, ...]:
    """A switch cabinet, post box or round advertising pillar."""
    gray = rng.uniform(0.15, 0.5)
    if rng.random() < 0.3:
        radius = rng.uniform(0.4, 0.7)
        poster = tuple(rng.uniform(0.1, 0.8, 3))
        return (
            tube((0, 0, 1.4), (radius, radius, 1.4), Material.CARGO, poster, accent=_WHITE),
            ball((0, 0, 2.8), (radius, radius, 0.3), Material.METAL, _STEEL),
        )
    half = (rng.uniform(0.25, 0.9), rng.uniform(0.18, 0.4), rng.uniform(0.5, 0.85))
    return (box((0, 0, half[2]), half, Material.CARGO, (gray, gray, gray * 0.9)),)
