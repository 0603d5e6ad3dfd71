"""How strongly the ground returns a LiDAR's light, read from the scan itself."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64
from pc_geometry import segment_ground

from pc_data.corruptions.sensors import Sensor
from pc_data.errors import DataError
from pc_data.scan import Scan

_POWER_FACTOR = 15.0
"""How much more than the ground a surface returns that reflects all light."""

_BANDS = np.linspace(10.0, 70.0, 51)  # metres, borders of the bands of range
_LEAST_IN_BAND = 10


@dataclass(frozen=True, kw_only=True)
class GroundEcho:
    """What the ground's points tell of the LiDAR.

    Attributes:
        ground: Which of the scan's points are on the ground.
        head_on: Line of the ground's mean intensity over the range, had it been met head-on.
        weakest: The same of its weakest echoes.
        least: The smallest intensity that went into these lines.
        height: Of the sensor, metres.
    """

    ground: Bool[np.ndarray, " n"]
    head_on: Callable[[np.ndarray], np.ndarray]
    weakest: Callable[[np.ndarray], np.ndarray]
    least: float
    height: float

    def cosine(self, reach: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
        """Of the angle at which a ray of that range meets flat ground."""
        return np.clip(self.height / np.maximum(reach, 1e-6), 1e-3, 1.0)

    def full(self, reach: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
        """Intensity of a surface at that range that reflects all light, met head-on."""
        return _POWER_FACTOR * np.maximum(self.head_on(reach), self.least)

    def noise(self, reach: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
        """Intensity of the weakest echoes of ground at that range."""
        return np.maximum(self.weakest(reach), 0.0) * self.cosine(reach)


def intensity_of(scan: Scan) -> Float32[np.ndarray, " n"]:
    """The intensities of a scan.

    Raises:
        DataError: If it has none.
    """
    if scan.intensity is None:
        raise DataError(f"scan {scan.name} has no intensities; snow and wet ground need them")
    return scan.intensity


def ground_echo(scan: Scan, sensor: Sensor, *, min_points: int = 1000) -> GroundEcho | None:
    """Fit the LiDAR's power and its weakest echoes over the range, each by a straight line.

    Args:
        scan: A scan with intensities.
        sensor: Its position and height.
        min_points: Fewer points on the ground tell nothing.

    Returns:
        None where too little ground is seen.

    Raises:
        DataError: If the scan has no intensities.

    Source: Hahner et al., CVPR 2022 (arXiv:2203.15118), section on wet ground. Differs in two
        points: the ground is found by its shape, not by labels, and the weakest echoes of a band
        of range are their first percentile instead of the least frequent value.
    """
    intensity = intensity_of(scan)
    if len(scan) < min_points:
        return None
    offset = scan.xyz - np.asarray(sensor.position, np.float32)
    ground = segment_ground(offset, sensor_height=sensor.height) & (intensity > 0)
    if ground.sum() < max(min_points, 2):
        return None
    reach = np.linalg.norm(offset[ground].astype(np.float64), axis=1)
    cosine = np.clip(sensor.height / reach, 1e-3, 1.0)
    head_on = intensity[ground] / cosine
    line = np.polynomial.Polynomial.fit(reach, head_on, 1)
    return GroundEcho(
        ground=ground,
        head_on=line,
        weakest=_weakest(reach, head_on) or line,
        least=float(head_on.min()),
        height=sensor.height,
    )


def _weakest(reach: np.ndarray, head_on: np.ndarray) -> np.polynomial.Polynomial | None:
    band = np.searchsorted(_BANDS, reach)
    middle, low = [], []
    for number in range(1, len(_BANDS)):
        inside = head_on[band == number]
        if len(inside) >= _LEAST_IN_BAND:
            middle.append((_BANDS[number - 1] + _BANDS[number]) / 2)
            low.append(np.percentile(inside, 1))
    return np.polynomial.Polynomial.fit(middle, low, 1) if len(low) > 3 else None
