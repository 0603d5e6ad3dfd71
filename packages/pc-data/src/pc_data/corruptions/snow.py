"""Snow: flakes in the beam weaken what lies behind them, or are seen instead of it."""

import dataclasses
import math

import numpy as np

from pc_data.corruptions.ground_echo import GroundEcho, ground_echo, intensity_of
from pc_data.corruptions.points import forget
from pc_data.corruptions.sensors import Sensor
from pc_data.scan import Scan

_SNOW_DENSITY = 0.1  # of that of water
_LARGEST_FLAKE = 20e-3  # metres
_FLAKE_REFLECTS = 0.9  # of the strongest intensity, where it fills the beam


def snow(
    scan: Scan,
    rng: np.random.Generator,
    *,
    sensor: Sensor,
    snowfall_rate: float,
    terminal_velocity: float,
    mean_diameter: float = 3e-3,
    divergence: float = 3e-3,
    noise_floor: float = 0.7,
    min_points: int = 1000,
) -> Scan:
    """Let snow fall.

    Each pulse meets flakes at random along its way, the more the longer the way and the wider the
    beam there. A flake takes its share of the beam from what lies behind. If its echo is stronger
    than what is left of the surface's, the point moves to the flake of the strongest echo and loses
    its label. A surface that flakes hide too much of is lost. Points whose pulse met no flake stay
    as they are.

    Args:
        scan: A scan with intensities.
        rng: Draws the flakes.
        sensor: The LiDAR.
        snowfall_rate: Of the equivalent water, mm/h; up to 1 is light, 2.5 is heavy.
        terminal_velocity: Of the flakes, m/s.
        mean_diameter: Of the flakes, metres; diameters are exponential.
        divergence: Opening angle of a beam, radians.
        noise_floor: Echoes below this share of the weakest that ground returns from there, or
            below 1/255 of the strongest, are not noticed.
        min_points: How much ground tells.

    Raises:
        DataError: If the scan has no intensities.

    Source: Hahner et al., CVPR 2022 (arXiv:2203.15118): the number of flakes and what they hide of
        a beam; Robo3D (Kong et al., ICCV 2023). Simplified: each pulse meets flakes of its own
        instead of a plane of them for each beam, their shadows overlap by chance instead of
        exactly, and echoes of two flakes do not add up. Differs in three points: flakes do not
        grow with the rate, so that more snow is more flakes; intensities count as corrected for
        the range, instead of by the focus of one HDL-64E; and only surfaces behind flakes are
        lost, where Robo3D loses all weak ones.
    """
    echo = ground_echo(scan, sensor, min_points=min_points)
    offset = scan.xyz - np.asarray(sensor.position, np.float32)
    reach = np.linalg.norm(offset.astype(np.float64), axis=1)
    per_area = flakes_per_area(snowfall_rate, terminal_velocity, mean_diameter)
    pulse, at, hidden = _meet_flakes(reach, rng, per_area, mean_diameter, divergence)
    seen = np.clip((at - 0.9) / 0.1, 0.0, 1.0)  # the receiver does not see what is nearer
    flake = _FLAKE_REFLECTS * sensor.max_intensity * hidden * seen
    flake[flake <= _floor(echo, at, noise_floor, sensor)] = 0.0
    left = np.exp(np.bincount(pulse, np.log1p(-np.minimum(hidden, 1 - 1e-9)), len(scan)))
    power = flake / at**2
    strongest = np.zeros(len(scan))
    np.maximum.at(strongest, pulse, power)
    clear = intensity_of(scan)
    surface = clear * left
    snowy = strongest > surface / np.maximum(reach, 1e-6) ** 2
    wins = snowy[pulse] & (power == strongest[pulse])
    winner = np.zeros(len(scan), np.int64)
    winner[pulse[wins]] = np.flatnonzero(wins)
    place, intensity = np.zeros((len(scan), 1)), surface
    place[snowy, 0] = at[winner[snowy]] / reach[snowy]
    intensity[snowy] = flake[winner[snowy]]
    xyz = np.where(snowy[:, None], sensor.position + offset * place, scan.xyz)
    floor = _floor(echo, reach, noise_floor, sensor)
    hidden_too_much = ~snowy & (intensity < floor) & (clear >= floor)
    moved = dataclasses.replace(
        scan, xyz=xyz.astype(np.float32), intensity=intensity.astype(np.float32)
    )
    return forget(moved, snowy).select(~hidden_too_much)


def _meet_flakes(
    reach: np.ndarray,
    rng: np.random.Generator,
    per_area: float,
    mean_diameter: float,
    divergence: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the flakes before each surface: its number, their range and the share they hide."""
    # A beam's area in its plane, where flakes may reach into it from both sides.
    area = divergence * reach**2 / 2 + mean_diameter * reach
    pulse = np.repeat(np.arange(len(reach)), rng.poisson(per_area * area))
    within = rng.random(len(pulse)) * area[pulse]
    root = np.sqrt(mean_diameter**2 + 2 * divergence * within)
    at = np.maximum((root - mean_diameter) / divergence, 1e-3)
    diameter = np.minimum(rng.exponential(mean_diameter, len(pulse)), _LARGEST_FLAKE)
    chord = diameter * np.sqrt(1 - rng.uniform(-1.0, 1.0, len(pulse)) ** 2)
    return pulse, at, np.minimum(chord / (divergence * at), 1.0)


def _floor(
    echo: GroundEcho | None, reach: np.ndarray, noise_floor: float, sensor: Sensor
) -> np.ndarray | float:
    """Intensity below which an echo from there is not noticed."""
    step = sensor.max_intensity / 255
    return step if echo is None else np.maximum(noise_floor * echo.noise(reach), step)


def flakes_per_area(snowfall_rate: float, terminal_velocity: float, mean_diameter: float) -> float:
    """Number of flakes that cut a square metre of a plane.

    Args:
        snowfall_rate: Of the equivalent water, mm/h.
        terminal_velocity: m/s.
        mean_diameter: Of exponentially distributed flakes, metres.
    """
    occupied = snowfall_rate / (3.6e6 * _SNOW_DENSITY * terminal_velocity)
    return occupied / (math.pi * mean_diameter**2 / 3)  # mean area of a sphere's cut
