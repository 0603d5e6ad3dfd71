"""Pedestrians, bicycles, motorcycles and their riders as solids."""

import math

import numpy as np

from pc_data.synthetic.parts import Color, Material, Part, ball, box, tube

_TIRE = (0.025, 0.025, 0.028)
_SKINS = ((0.55, 0.36, 0.26), (0.42, 0.26, 0.17), (0.62, 0.44, 0.34), (0.2, 0.12, 0.08))
_HAIRS = ((0.03, 0.02, 0.015), (0.12, 0.07, 0.03), (0.35, 0.26, 0.12), (0.25, 0.25, 0.25))


def pedestrian(
    rng: np.random.Generator, height: float, top: Color, trousers: Color
) -> tuple[Part, ...]:
    """A standing or striding person, maybe with a bag."""
    k = height / 1.75
    wide = rng.uniform(0.9, 1.25)
    stride = rng.uniform(0.0, 0.45)
    swing = rng.uniform(0.0, 0.5)
    skin = _SKINS[rng.integers(len(_SKINS))]
    hair = _HAIRS[rng.integers(len(_HAIRS))]
    parts: list[Part] = []
    for side in (-1, 1):
        lean = side * stride
        leg = (-0.42 * k * math.sin(lean), side * 0.1 * k * wide, 0.43 * k)
        parts.append(
            tube(
                leg,
                (0.075 * k * wide, 0.085 * k * wide, 0.44 * k),
                Material.CLOTH,
                trousers,
                euler=(0, lean, 0),
                taper=(1.25, 1.25),
            )
        )
        arm = (0.28 * k * math.sin(side * swing), side * 0.25 * k * wide, 1.14 * k)
        parts.append(
            tube(
                arm,
                (0.05 * k, 0.055 * k, 0.3 * k),
                Material.CLOTH,
                top,
                euler=(0, -side * swing, side * 0.12),
            )
        )
        shoe = (leg[0] * 2 + 0.05 * k, side * 0.1 * k * wide, 0.04 * k)
        parts.append(box(shoe, (0.13 * k, 0.05 * k, 0.04 * k), Material.PLAIN, (0.03, 0.03, 0.03)))
    parts += [
        tube(
            (0, 0, 1.14 * k),
            (0.13 * k * wide, 0.19 * k * wide, 0.31 * k),
            Material.CLOTH,
            top,
            taper=(1.12, 1.12),
        ),
        tube((0, 0, 1.49 * k), (0.055 * k, 0.055 * k, 0.06 * k), Material.SKIN, skin),
        ball((0.01, 0, 1.62 * k), (0.1 * k, 0.085 * k, 0.125 * k), Material.SKIN, skin),
        ball((-0.02, 0, 1.66 * k), (0.105 * k, 0.095 * k, 0.11 * k), Material.PLAIN, hair),
    ]
    if rng.random() < 0.4:
        bag = (-0.2 * k, 0, 1.2 * k) if rng.random() < 0.5 else (0, 0.32 * k * wide, 0.75 * k)
        parts.append(box(bag, (0.09, 0.13, 0.19), Material.CLOTH, tuple(rng.uniform(0.03, 0.4, 3))))
    return tuple(parts)


def _rider(
    seat: tuple[float, float], lean: float, top: Color, trousers: Color, helmet: Color
) -> list[Part]:
    """A rider on a seat at (x, z), leaning forward."""
    x, z = seat
    chest = (x + 0.27 * math.sin(lean), 0, z + 0.05 + 0.3 * math.cos(lean))
    head = (x + 0.72 * math.sin(lean) + 0.03, 0, z + 0.78 * math.cos(lean) + 0.05)
    parts = [
        tube(chest, (0.13, 0.19, 0.31), Material.CLOTH, top, euler=(0, lean, 0), taper=(1.1, 1.1)),
        ball(head, (0.12, 0.105, 0.14), Material.PLAIN, helmet),
        ball((head[0] + 0.04, 0, head[2] - 0.05), (0.09, 0.08, 0.11), Material.SKIN, _SKINS[0]),
    ]
    for side in (-1, 1):
        thigh = (x + 0.2, side * 0.12, z - 0.1)
        shin = (x + 0.28, side * 0.13, z - 0.45)
        arm = (chest[0] + 0.3, side * 0.22, chest[2] + 0.05)
        parts += [
            tube(thigh, (0.08, 0.08, 0.25), Material.CLOTH, trousers, euler=(0, 1.1, 0)),
            tube(shin, (0.055, 0.055, 0.26), Material.CLOTH, trousers, euler=(0, 0.25, 0)),
            tube(arm, (0.05, 0.05, 0.33), Material.CLOTH, top, euler=(0, 1.9, 0)),
        ]
    return parts


def _wheel(x: float, radius: float, width: float, solidity: float) -> Part:
    return tube(
        (x, 0, radius),
        (radius, radius, width),
        Material.WHEEL,
        _TIRE,
        accent=(0.3, 0.3, 0.32),
        euler=(0.0, 0.0, math.pi / 2),
        solidity=solidity,
    )


def bicycle(
    rng: np.random.Generator, color: Color, clothes: tuple[Color, Color] | None
) -> tuple[Part, ...]:
    """A bicycle; `clothes` (jacket, trousers) seat a rider on it."""
    radius = rng.uniform(0.31, 0.36)

    def bar(x: float, z: float, half: float, pitch: float) -> Part:
        return tube((x, 0, z), (0.025, 0.025, half), Material.METAL, color, euler=(0, pitch, 0))

    parts = [
        _wheel(0.52, radius, 0.025, -2.0),
        _wheel(-0.52, radius, 0.025, -2.0),
        bar(0.13, 0.62, 0.33, 0.75),
        bar(0.05, 0.83, 0.3, 1.5),
        bar(-0.2, 0.58, 0.32, -0.25),
        bar(-0.3, 0.38, 0.25, 1.55),
        bar(0.45, 0.65, 0.35, -0.28),
        box((-0.28, 0, 0.95), (0.13, 0.07, 0.035), Material.PLAIN, (0.03, 0.03, 0.03)),
        tube((0.36, 0, 1.0), (0.02, 0.02, 0.29), Material.METAL, _TIRE, euler=(0, 0, math.pi / 2)),
    ]
    if rng.random() < 0.4:
        parts.append(box((-0.55, 0, 0.82), (0.17, 0.13, 0.13), Material.METAL, (0.15, 0.15, 0.15)))
    if clothes:
        helmet = tuple(rng.uniform(0.05, 0.6, 3))
        parts += _rider((-0.28, 0.95), rng.uniform(0.3, 0.65), *clothes, helmet)
    return tuple(parts)


def motorcycle(
    rng: np.random.Generator, color: Color, clothes: tuple[Color, Color] | None
) -> tuple[Part, ...]:
    """A motorcycle or scooter; `clothes` (jacket, trousers) seat a rider on it."""
    radius = rng.uniform(0.25, 0.33)
    scooter = rng.random() < 0.4
    parts = [
        _wheel(0.66, radius, 0.07, 1.0),
        _wheel(-0.62, radius, 0.08, 1.0),
        ball((0.14, 0, 0.78), (0.34, 0.17, 0.17), Material.CAR_BODY, color),
        box((-0.38, 0, 0.8), (0.4, 0.14, 0.07), Material.PLAIN, (0.03, 0.03, 0.03)),
        box((-0.02, 0, 0.45), (0.3, 0.16, 0.2), Material.METAL, (0.12, 0.12, 0.13)),
        tube((0.55, 0, 0.65), (0.05, 0.08, 0.4), Material.METAL, _TIRE, euler=(0, -0.38, 0)),
        tube(
            (0.4, 0, 1.03), (0.025, 0.025, 0.36), Material.METAL, _TIRE, euler=(0, 0, math.pi / 2)
        ),
        ball((0.55, 0, 0.93), (0.09, 0.1, 0.1), Material.PLAIN, (0.7, 0.7, 0.65)),
        box((-0.75, 0, 0.68), (0.16, 0.11, 0.06), Material.CAR_BODY, color),
        tube(
            (-0.5, 0.2, 0.4), (0.06, 0.06, 0.32), Material.METAL, (0.4, 0.4, 0.4), euler=(0, 1.5, 0)
        ),
    ]
    if scooter:
        parts += [
            box((0.42, 0, 0.68), (0.05, 0.2, 0.32), Material.CAR_BODY, color, euler=(0, -0.25, 0)),
            box((0.1, 0, 0.3), (0.35, 0.18, 0.05), Material.CAR_BODY, color),
            box((-0.72, 0, 1.0), (0.19, 0.19, 0.16), Material.PLAIN, (0.05, 0.05, 0.05)),
        ]
    if clothes:
        helmet = tuple(rng.uniform(0.03, 0.6, 3))
        parts += _rider((-0.28, 0.87), rng.uniform(0.15, 0.4), *clothes, helmet)
    return tuple(parts)
