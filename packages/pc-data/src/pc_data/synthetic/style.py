"""Two disjoint families of streets: what training scenes show, validation scenes never do."""

from dataclasses import dataclass

import numpy as np

from pc_data.synthetic.ground import Road, Side
from pc_data.synthetic.parts import Color
from pc_data.synthetic.sensors import Light
from pc_data.synthetic.textures import Paving

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Style:
    """Palettes and ranges of one family of scenes; colours linear, lengths in metres.

    Attributes:
        paints: Of vehicles.
        liveries: Of buses, trucks and containers.
        clothes: Jackets and trousers.
        facades: (texture style, wall, trim) of buildings.
        crowns: Shapes of trees.
        greens: Of leaves.
        warning: Of cones and barriers.
        walk: Pavement colours.
        grass: Terrain colours.
        tile: Pavement slab edge.
        lane_width: Of one lane.
        parking: Width of the parking strip, if there is one.
        verge: Width of the green strip, if there is one.
        walk_width: Of the pavement.
        curvature: Magnitude, 1 / metres.
        floors: Storeys of buildings.
        sun_height: Elevation of the sun, degrees.
        cloud: Cloud cover.
    """

    paints: tuple[Color, ...]
    liveries: tuple[Color, ...]
    clothes: tuple[Color, ...]
    facades: tuple[tuple[int, Color, Color], ...]
    crowns: tuple[str, ...]
    greens: tuple[Color, ...]
    warning: tuple[Color, ...]
    walk: tuple[Color, ...]
    grass: tuple[Color, ...]
    tile: Range
    lane_width: Range
    parking: Range
    verge: Range
    walk_width: Range
    curvature: Range
    floors: tuple[int, int]
    sun_height: Range
    cloud: Range


TRAIN = Style(
    paints=(
        (0.55, 0.55, 0.56),
        (0.03, 0.03, 0.035),
        (0.25, 0.26, 0.28),
        (0.35, 0.02, 0.02),
        (0.02, 0.07, 0.3),
        (0.7, 0.7, 0.68),
    ),
    liveries=((0.6, 0.6, 0.6), (0.5, 0.04, 0.03), (0.03, 0.12, 0.35), (0.55, 0.4, 0.05)),
    clothes=((0.03, 0.03, 0.06), (0.35, 0.03, 0.04), (0.05, 0.12, 0.3), (0.4, 0.38, 0.33)),
    facades=(
        (0, (0.3, 0.11, 0.07), (0.6, 0.58, 0.52)),
        (0, (0.2, 0.1, 0.08), (0.45, 0.42, 0.36)),
        (1, (0.52, 0.45, 0.33), (0.65, 0.62, 0.56)),
        (1, (0.5, 0.5, 0.47), (0.25, 0.15, 0.1)),
        (0, (0.36, 0.24, 0.14), (0.6, 0.6, 0.58)),
    ),
    crowns=("round", "round", "cone"),
    greens=((0.10, 0.20, 0.04), (0.15, 0.24, 0.05), (0.07, 0.16, 0.05)),
    warning=((0.85, 0.2, 0.02), (0.7, 0.03, 0.02)),
    walk=((0.33, 0.31, 0.28), (0.27, 0.27, 0.27)),
    grass=((0.10, 0.18, 0.03), (0.14, 0.19, 0.05)),
    tile=(0.5, 0.8),
    lane_width=(3.0, 3.4),
    parking=(2.1, 2.4),
    verge=(1.2, 2.0),
    walk_width=(2.0, 3.0),
    curvature=(0.0, 0.005),
    floors=(2, 4),
    sun_height=(35, 60),
    cloud=(0.25, 0.6),
)
VAL = Style(
    paints=(
        (0.4, 0.42, 0.4),
        (0.07, 0.08, 0.09),
        (0.03, 0.16, 0.1),
        (0.45, 0.3, 0.08),
        (0.12, 0.02, 0.06),
        (0.62, 0.6, 0.52),
    ),
    liveries=((0.62, 0.56, 0.45), (0.05, 0.3, 0.14), (0.1, 0.25, 0.5), (0.45, 0.15, 0.05)),
    clothes=((0.1, 0.1, 0.1), (0.06, 0.2, 0.1), (0.5, 0.3, 0.06), (0.25, 0.1, 0.25)),
    facades=(
        (2, (0.34, 0.36, 0.38), (0.12, 0.13, 0.14)),
        (2, (0.48, 0.4, 0.28), (0.2, 0.2, 0.2)),
        (3, (0.42, 0.38, 0.3), (0.5, 0.48, 0.42)),
        (3, (0.28, 0.27, 0.26), (0.4, 0.38, 0.36)),
    ),
    crowns=("umbrella", "column"),
    greens=((0.13, 0.19, 0.06), (0.06, 0.14, 0.03), (0.2, 0.2, 0.05)),
    warning=((0.8, 0.28, 0.03), (0.75, 0.08, 0.01)),
    walk=((0.38, 0.3, 0.24), (0.3, 0.32, 0.33)),
    grass=((0.08, 0.15, 0.045), (0.17, 0.18, 0.06)),
    tile=(0.25, 0.42),
    lane_width=(3.45, 3.8),
    parking=(2.45, 2.7),
    verge=(0.7, 1.1),
    walk_width=(3.1, 4.2),
    curvature=(0.0055, 0.009),
    floors=(3, 6),
    sun_height=(25, 34),
    cloud=(0.62, 0.8),
)


def draw_road(rng: np.random.Generator, style: Style, *, salt: int) -> Road:
    """A road of that family."""

    def side() -> Side:
        verge = rng.uniform(*style.verge) if rng.random() < 0.6 else 0.0
        walk = rng.uniform(*style.walk_width) if rng.random() < 0.92 else 0.0
        step = rng.uniform(0.02, 0.15)
        return Side(
            rng.uniform(*style.parking) if rng.random() < 0.65 else 0.0,
            verge,
            walk,
            bool(rng.random() < 0.3),
            step,
            step + rng.uniform(-0.06, 0.05) if rng.random() < 0.6 else 0.0,
        )

    lanes = 2 if rng.random() < 0.7 else 4
    median = rng.uniform(0.6, 1.2) if lanes == 4 and rng.random() < 0.6 else 0.0
    bend = rng.uniform(*style.curvature) * (1 if rng.random() < 0.5 else -1)
    crossing = rng.uniform(16, 34) * (1 if rng.random() < 0.6 else -1)
    return Road(
        bend if rng.random() < 0.7 else 0.0,
        0.5 * lanes * rng.uniform(*style.lane_width) + median,
        lanes,
        median,
        side(),
        side(),
        crossing if rng.random() < 0.6 else 1000.0,
        rng.uniform(3.0, 4.5),
        (float(rng.normal(0, 0.018)), float(rng.normal(0, 0.02))),
        (
            float(rng.uniform(0, 0.7)),
            float(rng.uniform(0.03, 0.07)),
            float(rng.uniform(0, 6.28)),
            float(rng.uniform(0, 0.7)),
            float(rng.uniform(0.03, 0.08)),
            float(rng.uniform(0, 6.28)),
        ),
        float(rng.uniform(0.02, 0.05)),
        salt,
    )


def _pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> np.ndarray:
    return np.array(colors[rng.integers(len(colors))]) * rng.uniform(0.85, 1.15)


def draw_paving(rng: np.random.Generator, style: Style, *, salt: int) -> Paving:
    """Ground colours and reflectivities of that family."""
    asphalt = rng.uniform(0.07, 0.14) * np.array([1.0, 1.0, 1.03])
    color = np.stack(
        [
            np.zeros(3),
            asphalt,
            asphalt * rng.uniform(0.8, 1.3),
            _pick(rng, style.walk),
            _pick(rng, style.walk) * 0.8,
            _pick(rng, style.grass),
        ]
    )
    reflectivity = np.exp(rng.normal(np.log([1, 0.2, 0.21, 0.27, 0.26, 0.29]), 0.3))
    return Paving(color, reflectivity, float(rng.uniform(*style.tile)), salt)


def draw_light(rng: np.random.Generator, style: Style, *, salt: int) -> Light:
    """Sun and sky of that family."""
    height = np.radians(rng.uniform(*style.sun_height))
    turn = rng.uniform(0, 2 * np.pi)
    sun = (
        float(np.cos(height) * np.cos(turn)),
        float(np.cos(height) * np.sin(turn)),
        float(np.sin(height)),
    )
    cloud = float(rng.uniform(*style.cloud))
    power = rng.uniform(2.0, 2.8) * (1.15 - 0.5 * cloud)
    return Light(
        sun,
        (float(power), float(0.95 * power), float(0.85 * power)),
        (0.55 + 0.2 * cloud, 0.62 + 0.15 * cloud, 0.75 + 0.1 * cloud),
        (0.75, 0.82, 0.9),
        (0.14 + 0.3 * cloud, 0.3 + 0.2 * cloud, 0.62),
        float(rng.uniform(0.002, 0.006)),
        cloud,
        salt,
    )
