"""Trees, hedges and buildings as solids."""

import math

import numpy as np

from pc_data.synthetic.categories import Category
from pc_data.synthetic.parts import Color, Material, Part, ball, box, tube

_CROWNS = ("round", "cone", "column", "umbrella")


def tree(rng: np.random.Generator, crown: str, green: Color, bark: Color) -> tuple[Part, ...]:
    """A trunk with a porous crown: round or cone (training), column or umbrella (validation).

    Raises:
        ValueError: If the crown is unknown.
    """
    if crown not in _CROWNS:
        raise ValueError(f"crown must be one of {', '.join(_CROWNS)}, got {crown!r}")
    height = rng.uniform(4.0, 9.0)
    radius = rng.uniform(0.09, 0.28)
    bare = rng.uniform(1.4, 2.6) if crown != "cone" else rng.uniform(0.5, 1.2)
    lean = rng.normal(0, 0.04, 2)
    parts = [
        tube(
            (0, 0, 0.5 * (bare + 1.2)),
            (radius, radius, 0.5 * (bare + 1.2)),
            Material.BARK,
            bark,
            euler=(0, lean[0], lean[1]),
            taper=(0.7, 0.7),
            category=Category.TRUNK,
        )
    ]
    leaf = {"accent": tuple(0.5 * c for c in green), "solidity": float(rng.uniform(0.3, 0.6))}
    half = 0.5 * (height - bare)
    if crown == "cone":
        wide = rng.uniform(1.1, 2.0)
        size = (wide, wide, half)
        parts.append(
            tube((0, 0, bare + half), size, Material.FOLIAGE, green, taper=(0.08, 0.08), **leaf)
        )
    elif crown == "column":
        wide = rng.uniform(0.7, 1.3)
        parts.append(ball((0, 0, bare + half), (wide, wide, half), Material.FOLIAGE, green, **leaf))
    elif crown == "umbrella":
        wide = rng.uniform(2.0, 3.4)
        for k in range(4):
            turn = math.pi / 2 * k + rng.uniform(0, 1)
            at = (0.45 * wide * math.cos(turn), 0.45 * wide * math.sin(turn), bare + half * 1.2)
            size = (0.65 * wide, 0.65 * wide, rng.uniform(0.5, 0.9))
            parts.append(ball(at, size, Material.FOLIAGE, green, **leaf))
            parts.append(
                tube(
                    (0.5 * at[0], 0.5 * at[1], bare + 0.9),
                    (0.06, 0.06, 0.9),
                    Material.BARK,
                    bark,
                    euler=(turn, 0.5, 0),
                    category=Category.TRUNK,
                )
            )
    else:
        wide = rng.uniform(1.2, 2.4)
        for _ in range(int(rng.integers(3, 6))):
            shift = rng.normal(0, 0.4 * wide, 3) * (1, 1, 0.7)
            size = (wide * rng.uniform(0.5, 0.9), wide * rng.uniform(0.5, 0.9), 0.7 * half)
            at = (shift[0], shift[1], bare + half + 0.4 * shift[2])
            parts.append(ball(at, size, Material.FOLIAGE, green, **leaf))
    return tuple(parts)


def bush(rng: np.random.Generator, green: Color) -> tuple[Part, ...]:
    """One to three leafy lumps, as tall as a person at most."""
    leaf = {"accent": tuple(0.5 * c for c in green), "solidity": float(rng.uniform(0.4, 0.8))}
    parts = []
    for k in range(int(rng.integers(1, 4))):
        size = (rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.9))
        at = (0.8 * k, rng.normal(0, 0.2), 0.85 * size[2])
        parts.append(ball(at, size, Material.FOLIAGE, green, **leaf))
    return tuple(parts)


def hedge(rng: np.random.Generator, length: float, green: Color) -> tuple[Part, ...]:
    """A trimmed hedge along own x."""
    half = (length / 2, rng.uniform(0.3, 0.8), rng.uniform(0.4, 1.1))
    dark = tuple(0.5 * c for c in green)
    solidity = float(rng.uniform(0.6, 0.9))
    taper = (1.0, float(rng.uniform(0.8, 1.0)))
    look = {"accent": dark, "solidity": solidity, "taper": taper}
    return (box((0, 0, half[2]), half, Material.FOLIAGE, green, **look),)


def building(
    rng: np.random.Generator,
    size: tuple[float, float],
    facade: tuple[int, Color, Color],
    floors: int,
) -> tuple[Part, ...]:
    """A house; its front looks along own -y.

    Args:
        rng: Draws the details.
        size: Length along the street and depth, metres.
        facade: Texture style (0 brick, 1 plaster, 2 panels, 3 stone), wall and trim colour.
        floors: Number of storeys.
    """
    style, wall, trim = facade
    storey = rng.uniform(2.8, 3.4)
    height = storey * floors + 0.4
    half = (size[0] / 2, size[1] / 2, height / 2)
    spacing = rng.uniform(1.9, 3.6)
    share = rng.uniform(0.35, 0.6) if style != 2 else rng.uniform(0.7, 0.9)
    pattern = (storey, spacing, share, float(style))
    parts = [
        box((0, 0, height / 2 - 0.5), half, Material.FACADE, wall, accent=trim, pattern=pattern)
    ]
    front = -half[1]
    if rng.random() < 0.5:
        roof = (half[0] + 0.3, half[1] + 0.3, rng.uniform(0.9, 1.8))
        parts.append(
            box(
                (0, 0, height + roof[2] - 0.5),
                roof,
                Material.ROOF,
                tuple(rng.uniform(0.08, 0.3) * c for c in (1.0, 0.6, 0.5)),
                taper=(0.7, 0.1),
            )
        )
    else:
        parts.append(
            box((0, 0, height - 0.4), (half[0] + 0.12, half[1] + 0.12, 0.15), Material.WALL, trim)
        )
    parts.append(box((0, front - 0.06, 0.25), (half[0], 0.08, 0.35), Material.WALL, trim))
    if rng.random() < 0.6:
        for floor in range(1, floors):
            for x in np.arange(-half[0] + 2.0, half[0] - 1.5, rng.uniform(4.0, 7.0)):
                at = (x, front - 0.45, floor * storey)
                parts.append(box(at, (1.0, 0.5, 0.07), Material.WALL, trim))
                rail = (x, front - 0.92, floor * storey + 0.5)
                parts.append(
                    box(rail, (1.0, 0.03, 0.45), Material.METAL, (0.1, 0.1, 0.1), solidity=-1.0)
                )
    if rng.random() < 0.5:
        x = rng.uniform(-0.6, 0.6) * half[0]
        awning = tuple(rng.uniform(0.1, 0.6, 3))
        at = (x, front - 0.6, 2.7)
        parts.append(box(at, (1.6, 0.65, 0.05), Material.STRIPES, awning, euler=(0, 0, 0.25)))
        parts.append(box((x, front - 0.3, 0.15), (0.9, 0.35, 0.15), Material.WALL, trim))
    return tuple(parts)
