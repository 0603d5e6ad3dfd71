"""Fog: it weakens the echoes of surfaces and returns some of its own."""

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from pc_data.corruptions.points import forget
from pc_data.corruptions.sensors import Sensor
from pc_data.scan import Scan

LIGHT_SPEED = 299_792_458.0
_STEP, _FAR = 0.05, 40.0
"""Metres between, and up to, the ranges at which the echo of fog is computed; it peaks before."""


def fog(
    scan: Scan,
    rng: np.random.Generator,
    *,
    sensor: Sensor,
    beta: float,
    alphas: Sequence[float] = (0.0, 0.005, 0.01, 0.02, 0.03, 0.06),
    pulse_width: float = 20e-9,
    reflectivity: float = 1e-6,
    noise: float = 10.0,
) -> Scan:
    """Fill the air with fog.

    The echo of a surface at range r is weakened by exp(-2 alpha r), on its way there and back. The
    fog itself returns a part of the pulse, most of it from a few metres. Where that is the
    stronger one, the point moves to the fog on the same ray and loses its label. No point is lost.

    Args:
        scan: Any scan.
        rng: Chooses the attenuation and the range of fog's echoes.
        sensor: Its position and strongest intensity.
        beta: Backscattering coefficient, 1/sr.
        alphas: Attenuation coefficients, 1/m; one of them is drawn for the scan.
        pulse_width: Half-power width of the pulse, seconds.
        reflectivity: Of surfaces, in the unit of the source, which fitted it to its sensor; over pi
            it is what beta compares with.
        noise: Spread of the range of fog's echoes, metres: they come from another range by the
            ratio r / (r + u), u uniform within this, but at most within r / 2.

    Source: the fog simulation of Hahner et al., ICCV 2021 (arXiv:2108.05249), algorithm 1; the
        coefficients of Robo3D (Kong et al., ICCV 2023). Differs in the noise, which there may carry
        a point to the other side of the sensor, and in the intensity, which is not rounded and
        whose part of the fog ends at the sensor's strongest.
    """
    alpha = float(rng.choice(np.asarray(alphas)))
    spread = rng.uniform(-1.0, 1.0, len(scan))
    offset = scan.xyz - np.asarray(sensor.position, np.float32)
    reach = np.linalg.norm(offset.astype(np.float64), axis=1)
    distance, response = _fog_echo(alpha, pulse_width)
    step = np.minimum((reach / _STEP).astype(np.int64), len(distance) - 1)
    surface = np.exp(-2 * alpha * reach)
    echo = response[step] * reach**2 * beta * np.pi / reflectivity
    foggy = echo > surface
    near = np.maximum(reach, 1e-6)
    at = distance[step] * near / (near + spread * np.minimum(noise, near / 2))
    ratio = np.where(foggy, np.minimum(at / near, 1.0), 1.0)
    xyz = np.where(
        foggy[:, None], sensor.position + offset * ratio[:, None], scan.xyz
    )  # other points keep their bits
    intensity = scan.intensity
    if intensity is not None:
        of_fog = np.minimum(intensity * echo, sensor.max_intensity)
        intensity = np.where(foggy, of_fog, intensity * surface).astype(np.float32)
    moved = dataclasses.replace(scan, xyz=xyz.astype(np.float32), intensity=intensity)
    return forget(moved, foggy)


@lru_cache(maxsize=32)
def _fog_echo(alpha: float, pulse_width: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the strongest echo of fog in front of a surface is, and its strength over beta.

    Both by the range of the surface, in steps of `_STEP`. The echo at time 2 R / c is the sum over
    the pulse, a squared sine of twice its half-power width, of what each depth of fog returns. The
    receiver sees nothing of the beam up to 0.9 m and all of it from 1 m.
    """
    depth = np.arange(0.0, _FAR, _STEP)
    seen = np.clip((depth - 0.9) / 0.1, 0.0, 1.0)
    returned = seen * np.exp(-2 * alpha * depth) / np.maximum(depth, _STEP) ** 2
    length = LIGHT_SPEED * pulse_width  # of the whole pulse, there and back
    pulse = np.sin(np.pi * np.arange(0.0, length, _STEP) / length) ** 2
    echo = np.convolve(returned, pulse)[: len(depth)] * 2 * _STEP / LIGHT_SPEED
    best = np.maximum.accumulate(echo)
    where = np.maximum.accumulate(np.where(echo == best, np.arange(len(echo)), 0))
    return depth[where], best
