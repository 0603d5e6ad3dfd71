"""Wet ground: a film of water mirrors the light away, and the weakest echoes are lost."""

import dataclasses

import numpy as np
from jaxtyping import Float64

from pc_data.corruptions.ground_echo import ground_echo, intensity_of
from pc_data.corruptions.sensors import Sensor
from pc_data.scan import Scan

_AIR, _WATER = 1.0003, 1.33
"""Refractive indices."""


def wet_ground(
    scan: Scan,
    rng: np.random.Generator,  # noqa: ARG001 - corruptions are made by (scan, rng)
    *,
    sensor: Sensor,
    water_height: float,
    noise_floor: float,
    pavement_depth: float = 1.2e-3,
    min_points: int = 1000,
) -> Scan:
    """Cover the ground with water.

    Water fills the pavement's texture: the share of the ground that it covers returns only what
    passes into the water, is reflected by the pavement and passes out again (Fresnel), the rest as
    before. Points of the ground whose echo becomes too weak are lost; all others keep their place.

    Args:
        scan: A scan with intensities.
        rng: Not used.
        sensor: Its position and height.
        water_height: Of the water, metres.
        noise_floor: Echoes below this share of the ground's weakest are lost.
        pavement_depth: Of the pavement's texture, metres; water of that height covers it.
        min_points: A scan with fewer points on the ground stays as it is.

    Raises:
        DataError: If the scan has no intensities.

    Source: Hahner et al., CVPR 2022 (arXiv:2203.15118), section on wet ground; Robo3D (Kong et
        al., ICCV 2023). Simplified: the ground is flat, absorption in the water is left out, and
        of the two polarisations the one that passes better counts, as in the source. Differs in
        that Robo3D takes road, other flat ground and sidewalk by their labels, and we all ground.
    """
    echo = ground_echo(scan, sensor, min_points=min_points)
    if echo is None:
        return scan
    intensity = intensity_of(scan).copy()
    ground = echo.ground
    reach = np.linalg.norm(scan.xyz[ground].astype(np.float64) - sensor.position, axis=1)
    cosine, full = echo.cosine(reach), echo.full(reach)
    dry = np.clip(intensity[ground] / cosine / full, 0.05, 1.0)
    covered = min(water_height / pavement_depth, 1.0)
    reflected = (1 - covered) * dry + covered * under_water(cosine, dry)
    intensity[ground] = np.minimum(full * cosine * reflected, intensity[ground])
    keep = np.ones(len(scan), bool)
    keep[ground] = intensity[ground] > noise_floor * echo.noise(reach)
    return dataclasses.replace(scan, intensity=intensity).select(keep)


def under_water(
    cosine: Float64[np.ndarray, " n"], reflectivity: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Share of the light that comes back from a surface under a film of water.

    Args:
        cosine: Of the angle of incidence on the water.
        reflectivity: Of the surface, 0..1.
    """
    sine = np.sqrt(1 - cosine**2) * _AIR / _WATER
    inside = np.sqrt(1 - sine**2)
    product = 4 * _AIR * _WATER * cosine * inside
    across = product / (_AIR * cosine + _WATER * inside) ** 2  # polarised along the water
    along = product / (_WATER * cosine + _AIR * inside) ** 2
    passes = np.maximum(across, along)  # the same in both directions
    return passes**2 * reflectivity / (1 - reflectivity * (1 - passes))
