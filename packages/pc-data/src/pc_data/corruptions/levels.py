"""The eight corruptions by name and severity, and datasets that are corrupted while read."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int64

from pc_data.corruptions.beams import beam_missing, cross_sensor
from pc_data.corruptions.fog import fog
from pc_data.corruptions.names import CORRUPTIONS, SEVERITIES, Corruption, Severity
from pc_data.corruptions.points import crosstalk, incomplete_echo, motion_blur
from pc_data.corruptions.sensors import Sensor
from pc_data.corruptions.snow import snow
from pc_data.corruptions.wet_ground import wet_ground
from pc_data.datasets import Reader
from pc_data.loading import sample_rng
from pc_data.scan import Scan

_FUNCTIONS: dict[Corruption, Callable[..., Scan]] = {
    "fog": fog,
    "wet_ground": wet_ground,
    "snow": snow,
    "motion_blur": motion_blur,
    "beam_missing": beam_missing,
    "crosstalk": crosstalk,
    "incomplete_echo": incomplete_echo,
    "cross_sensor": cross_sensor,
}

LEVELS: dict[Corruption, tuple[dict[str, float], ...]] = {
    "fog": ({"beta": 0.008}, {"beta": 0.05}, {"beta": 0.2}),
    "wet_ground": (
        {"water_height": 0.2e-3, "noise_floor": 0.2},
        {"water_height": 1.0e-3, "noise_floor": 0.3},
        {"water_height": 1.2e-3, "noise_floor": 0.7},
    ),
    "snow": (
        {"snowfall_rate": 0.5, "terminal_velocity": 2.0},
        {"snowfall_rate": 1.0, "terminal_velocity": 1.6},
        {"snowfall_rate": 2.5, "terminal_velocity": 1.6},
    ),
    "motion_blur": ({"std": 0.2}, {"std": 0.25}, {"std": 0.3}),
    "beam_missing": ({"share": 0.25}, {"share": 0.5}, {"share": 0.75}),
    "crosstalk": ({"share": 0.03}, {"share": 0.04}, {"share": 0.05}),
    "incomplete_echo": ({"share": 0.75}, {"share": 0.85}, {"share": 0.95}),
    "cross_sensor": ({"share": 0.75}, {"share": 0.5}, {"share": 0.25}),
}
"""The parameters of light, moderate and heavy.

They are those of nuScenes-C (Robo3D, Kong et al., ICCV 2023), which gives beams by their number.
Of its crosstalk only the light level is known to us; the others stand to it as in SemanticKITTI-C,
whose own are five times weaker (0.6, 0.8 and 1%). Moderate and heavy motion blur are those of
SemanticKITTI-C, whose light level is the same.
"""

_OF_THE_SENSOR = ("fog", "wet_ground", "snow", "beam_missing", "crosstalk", "cross_sensor")
_VEHICLES = frozenset(
    {
        *("bicycle", "bike", "bus", "car", "construction vehicle", "motorcycle"),
        *("other vehicle", "trailer", "truck", "van"),
    }
)


def corrupt(
    scan: Scan,
    rng: np.random.Generator,
    corruption: Corruption,
    severity: Severity,
    *,
    sensor: Sensor,
    class_names: Sequence[str] = (),
    beams: Int64[np.ndarray, " n"] | None = None,
) -> Scan:
    """Corrupt a scan at one of the three levels.

    Args:
        scan: The scan.
        rng: Of the corruption.
        corruption: Which.
        severity: How much.
        sensor: The LiDAR that took the scan.
        class_names: Of the scan's labels; vehicles among them lose echoes.
        beams: The beam of each point, where it is known; else found from the points.

    Raises:
        DataError: If the scan lacks intensities (snow, wet ground) or labels (incomplete echo).
        ValueError: If no class is a vehicle (incomplete echo).
    """
    extra: dict[str, Any] = {}
    if corruption in _OF_THE_SENSOR:
        extra["sensor"] = sensor
    if corruption in ("beam_missing", "cross_sensor"):
        extra["beams"] = beams
    if corruption == "incomplete_echo":
        extra["classes"] = vehicles(class_names)
    level = LEVELS[corruption][SEVERITIES.index(severity)]
    return partial(_FUNCTIONS[corruption], **level, **extra)(scan, rng)


def vehicles(class_names: Sequence[str]) -> list[int]:
    """Labels of the vehicles among some classes.

    Raises:
        ValueError: If none is one.
    """
    plain = [name.replace("_", " ").replace("-", " ") for name in class_names]
    found = [label for label, name in enumerate(plain) if name in _VEHICLES]
    if not found:
        raise ValueError(
            f"none of the {len(plain)} classes ({', '.join(class_names[:4])}, ...) is a vehicle, "
            "and incomplete_echo is about these; leave it out of the corruptions"
        )
    return found


class CorruptedScans:
    """The scans of a dataset, corrupted when they are read.

    What happens to a scan follows from seed, corruption, severity and its index alone.

    Args:
        dataset: A dataset.
        corruption: Which.
        severity: How much.
        sensor: The LiDAR that took the scans.
        seed: Of all randomness.

    Raises:
        ValueError: If the corruption cannot happen to these classes.
    """

    def __init__(
        self,
        dataset: Reader,
        corruption: Corruption,
        severity: Severity,
        *,
        sensor: Sensor,
        seed: int = 0,
    ) -> None:
        if corruption == "incomplete_echo":
            vehicles(dataset.class_names)
        self.dataset, self.corruption, self.severity = dataset, corruption, severity
        self.sensor, self.seed = sensor, seed
        self.root, self.split = dataset.root, dataset.split
        self.class_names, self.num_classes = dataset.class_names, dataset.num_classes
        self.intensity_mean = dataset.intensity_mean
        self.intensity_std = dataset.intensity_std

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Scan:
        return self.apply(self.dataset[index], index)

    def apply(self, scan: Scan, index: int) -> Scan:
        """Corrupt a scan as the one of that index is."""
        condition = 3 * CORRUPTIONS.index(self.corruption) + SEVERITIES.index(self.severity)
        return corrupt(
            scan,
            sample_rng(self.seed, condition, index),
            self.corruption,
            self.severity,
            sensor=self.sensor,
            class_names=self.class_names,
            beams=self._known_beams(index, len(scan)),
        )

    def _known_beams(self, index: int, num_points: int) -> np.ndarray | None:
        """The rings of nuScenes: the fifth column of its files."""
        from pc_data.readers.nuscenes import NuScenes

        if self.corruption not in ("beam_missing", "cross_sensor"):
            return None
        if not isinstance(self.dataset, NuScenes):
            return None
        points = self.dataset.load_points(index)
        return points[:, 4].astype(np.int64) if len(points) == num_points else None
