"""The LiDARs whose scans can be corrupted: where they stand and how they measure."""

from dataclasses import dataclass

from pc_data.datasets import DataConfig
from pc_data.limits import require_positive


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """One spinning LiDAR.

    Attributes:
        num_beams: Its beams.
        height: Above the ground, metres.
        max_intensity: A strong return in the dataset's unit, such as that of a white wall ahead.
        position: Where it is in the scan's frame, metres.
    """

    num_beams: int
    height: float
    max_intensity: float
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        require_positive(self, "num_beams", "height", "max_intensity")


SENSORS = {
    "nuscenes": Sensor(num_beams=32, height=1.84, max_intensity=255.0),
    "semantickitti": Sensor(num_beams=64, height=1.73, max_intensity=1.0),
    "semanticposs": Sensor(num_beams=40, height=1.75, max_intensity=255.0),
    "pandaset": Sensor(num_beams=64, height=1.9, max_intensity=255.0),
    "waymo": Sensor(num_beams=64, height=2.18, max_intensity=1.0, position=(1.43, 0.0, 2.18)),
}
"""By the name of the dataset. Of PandaSet it is the Pandar64, of Waymo the one on the roof.

No published value of SemanticPOSS' height and intensities is known to us; these are assumed.
Waymo's intensities have no upper limit, but most are below 1.
"""

_ONE_OF_SEVERAL = {"pandaset": "pandar64", "waymo": "top"}


def sensor_of(config: DataConfig) -> Sensor:
    """The LiDAR of a dataset.

    Raises:
        ValueError: If its scans do not come from one known LiDAR.
    """
    if config.name not in SENSORS:
        raise ValueError(
            f"scans of {config.name} do not come from one known LiDAR, so fog, beams and the like "
            f"have no place to start from; known are {', '.join(SENSORS)}; describe yours by "
            "sensor.num_beams, sensor.height and sensor.max_intensity"
        )
    version = _ONE_OF_SEVERAL.get(config.name)
    if version and config.version != version:
        raise ValueError(
            f"scans of {config.name} hold the points of several LiDARs; pass version {version}, "
            f"got {config.version!r}"
        )
    return SENSORS[config.name]
