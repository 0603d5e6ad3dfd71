"""Cars, vans, trucks, buses, trailers and diggers as solids."""

import math

import numpy as np

from pc_data.synthetic.parts import Color, Material, Part, box, tube

_TIRE = (0.025, 0.025, 0.028)
_DARK = (0.03, 0.03, 0.035)


def _wheels(xs: tuple[float, ...], track: float, radius: float, width: float) -> list[Part]:
    return [
        tube(
            (x, side * (track - width / 2), radius),
            (radius, radius, width / 2),
            Material.WHEEL,
            _TIRE,
            accent=(0.35, 0.35, 0.37),
            euler=(0.0, 0.0, math.pi / 2),
        )
        for x in xs
        for side in (-1, 1)
    ]


def car(rng: np.random.Generator, color: Color) -> tuple[Part, ...]:
    """A hatchback, saloon, estate, off-roader or small van."""
    length = rng.uniform(3.7, 4.9)
    half_width = rng.uniform(0.82, 0.94)
    height = rng.uniform(1.38, 1.75)
    clearance = rng.uniform(0.16, 0.26)
    waist = height * rng.uniform(0.56, 0.64)
    radius = rng.uniform(0.29, 0.37)
    back, front = [(-0.5, 0.18), (-0.42, 0.16), (-0.5, 0.24), (-0.36, 0.15)][rng.integers(4)]
    cabin_half = 0.5 * (front - back) * length
    cabin_x = 0.5 * (front + back) * length
    body_z = 0.5 * (clearance + waist)
    cabin_taper = (rng.uniform(0.68, 0.86), rng.uniform(0.78, 0.88))
    look = {"accent": _DARK, "pattern": (radius, 0.31 * length, 0.0, 0.0)}
    nose = 0.5 * length
    parts = [
        box(
            (0, 0, body_z),
            (nose, half_width, 0.5 * (waist - clearance)),
            Material.CAR_BODY,
            color,
            taper=(0.97, 0.94),
            **look,
        ),
        box(
            (cabin_x, 0, 0.5 * (waist + height)),
            (cabin_half, half_width * 0.94, 0.5 * (height - waist)),
            Material.CAR_CABIN,
            color,
            taper=cabin_taper,
        ),
        box((nose, 0, clearance + 0.13), (0.07, half_width * 0.9, 0.11), Material.PLAIN, _DARK),
        box((-nose, 0, clearance + 0.15), (0.06, half_width * 0.9, 0.12), Material.PLAIN, _DARK),
    ]
    for side in (-1, 1):
        mirror = (front * length - 0.35, side * (half_width + 0.08), waist + 0.07)
        parts.append(box(mirror, (0.07, 0.1, 0.07), Material.CAR_BODY, color))
    parts += _wheels((0.31 * length, -0.31 * length), half_width, radius, 0.21)
    return tuple(parts)


def van(rng: np.random.Generator, color: Color) -> tuple[Part, ...]:
    """A delivery van: box-like, with a short bonnet."""
    length = rng.uniform(4.7, 5.9)
    half_width = rng.uniform(0.92, 1.02)
    height = rng.uniform(1.9, 2.55)
    waist = 1.05
    parts = [
        box(
            (0, 0, 0.5 * (0.25 + waist)),
            (length / 2, half_width, 0.5 * (waist - 0.25)),
            Material.CAR_BODY,
            color,
            pattern=(0.34, 0.32 * length, 0, 0),
        ),
        box(
            (-0.06 * length, 0, 0.5 * (waist + height)),
            (0.44 * length, half_width * 0.98, 0.5 * (height - waist)),
            Material.CAR_CABIN,
            color,
            taper=(0.92, 0.9),
            pattern=(1.0, 0, 0, 0),
        ),
    ]
    parts += _wheels((0.32 * length, -0.32 * length), half_width, 0.34, 0.22)
    return tuple(parts)


def truck(rng: np.random.Generator, color: Color, cargo: Color) -> tuple[Part, ...]:
    """A lorry with a box body, a tipper or a flat bed."""
    length = rng.uniform(6.0, 9.5)
    half_width = rng.uniform(1.1, 1.25)
    cab_height = rng.uniform(2.3, 2.9)
    cab_half = rng.uniform(0.8, 1.1)
    cargo_half = length / 2 - cab_half - 0.1
    cargo_top = (cab_height + rng.uniform(0.1, 0.9), 1.9, 1.15)[
        int(rng.choice(3, p=[0.6, 0.25, 0.15]))
    ]
    parts = [
        box((0, 0, 0.75), (length / 2, half_width * 0.5, 0.17), Material.METAL, _DARK),
        box(
            (length / 2 - cab_half, 0, 0.5 * (0.5 + cab_height)),
            (cab_half, half_width * 0.97, 0.5 * (cab_height - 0.5)),
            Material.TRUCK_CAB,
            color,
            taper=(0.94, 0.96),
        ),
        box(
            (cargo_half - length / 2, 0, 0.5 * (0.95 + cargo_top)),
            (cargo_half, half_width, 0.5 * (cargo_top - 0.95)),
            Material.CARGO,
            cargo,
            accent=color,
        ),
    ]
    wheels = (length / 2 - cab_half, -0.22 * length, -0.36 * length)
    return tuple(parts + _wheels(wheels, half_width, rng.uniform(0.44, 0.52), 0.32))


def bus(rng: np.random.Generator, color: Color, accent: Color) -> tuple[Part, ...]:
    """A city bus."""
    half = (rng.uniform(4.6, 6.0), rng.uniform(1.2, 1.28), 0.5 * (rng.uniform(2.85, 3.2) - 0.32))
    parts = [
        box(
            (0, 0, 0.32 + half[2]), half, Material.BUS_BODY, color, accent=accent, taper=(1.0, 0.96)
        ),
        box(
            (-0.3 * half[0], 0, 0.32 + 2 * half[2] + 0.12),
            (1.2, 0.8, 0.14),
            Material.PLAIN,
            (0.6, 0.6, 0.6),
        ),
    ]
    return tuple(parts + _wheels((0.58 * half[0], -0.55 * half[0]), half[1], 0.47, 0.3))


def trailer(rng: np.random.Generator, color: Color) -> tuple[Part, ...]:
    """A parked semi-trailer or a small box trailer."""
    small = rng.random() < 0.35
    half = rng.uniform(1.2, 1.8) if small else rng.uniform(4.0, 6.2)
    width = 0.85 if small else 1.24
    low, top = (0.55, rng.uniform(1.5, 2.1)) if small else (1.05, rng.uniform(2.2, 3.8))
    parts = [
        box(
            (0, 0, 0.5 * (low + top)),
            (half, width, 0.5 * (top - low)),
            Material.CARGO,
            color,
            accent=(0.5, 0.5, 0.5),
        ),
        box((0, 0, low - 0.1), (half, 0.4, 0.1), Material.METAL, _DARK),
        box((half + 0.5, 0, low - 0.1), (0.5, 0.06, 0.06), Material.METAL, _DARK),
        tube((0.85 * half, 0.4, 0.25), (0.07, 0.07, 0.25), Material.METAL, _DARK),
    ]
    axles = (-0.2 * half,) if small else (-0.85 * half, -0.65 * half, -0.45 * half)
    return tuple(parts + _wheels(axles, width, 0.32 if small else 0.48, 0.25))


def digger(rng: np.random.Generator, color: Color) -> tuple[Part, ...]:
    """An excavator on tracks."""
    turn = rng.uniform(-0.5, 0.5)
    c, s = math.cos(turn), math.sin(turn)
    scale = rng.uniform(0.8, 1.15)

    def at(x: float, y: float, z: float) -> tuple[float, float, float]:
        return scale * (c * x - s * y), scale * (s * x + c * y), scale * z

    def size(x: float, y: float, z: float) -> tuple[float, float, float]:
        return scale * x, scale * y, scale * z

    return (
        box(at(0, 0.95, 0.4), size(1.6, 0.28, 0.4), Material.METAL, _DARK),
        box(at(0, -0.95, 0.4), size(1.6, 0.28, 0.4), Material.METAL, _DARK),
        box(at(-0.3, 0, 1.25), size(1.3, 1.1, 0.4), Material.CAR_BODY, color, euler=(turn, 0, 0)),
        box(
            at(0.4, 0.55, 2.1),
            size(0.65, 0.45, 0.6),
            Material.CAR_CABIN,
            color,
            euler=(turn, 0, 0),
            taper=(0.85, 0.95),
        ),
        box(
            at(2.1, -0.25, 2.5), size(1.6, 0.18, 0.22), Material.PLAIN, color, euler=(turn, -0.6, 0)
        ),
        box(
            at(4.0, -0.25, 2.3), size(1.3, 0.14, 0.18), Material.PLAIN, color, euler=(turn, 1.0, 0)
        ),
        box(at(4.6, -0.25, 0.9), size(0.4, 0.45, 0.4), Material.METAL, _DARK, euler=(turn, 0.4, 0)),
    )
