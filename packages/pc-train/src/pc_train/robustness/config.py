"""Settings of `pc-train robustness`; plain data, without torch."""

from dataclasses import dataclass
from pathlib import Path

from pc_data.corruptions.names import CORRUPTIONS, SEVERITIES, Corruption, Severity
from pc_data.corruptions.sensors import Sensor
from pc_data.datasets import DataConfig
from pc_data.limits import require_not_negative


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig:
    """Which corruptions of what are scored.

    Attributes:
        run: Folder of a finished probe or finetune run.
        data: Labelled dataset; name its split.
        out: Folder of its own; the same command goes on with what is not scored yet.
        corrupted: Folder of nuScenes-C, of which `data` is then nuScenes; None to generate the
            corruptions from the scans of `data`.
        corruptions: The corruptions to score.
        severities: Their severities.
        baseline: robustness.json of another run, with which the corruption errors are compared.
        sensor: The LiDAR, of a dataset whose own is not known.
        seed: Of the corruptions that are generated.
        num_workers: Loader processes; they do not change the corruptions.
    """

    run: Path
    data: DataConfig
    out: Path
    corrupted: Path | None = None
    corruptions: tuple[Corruption, ...] = CORRUPTIONS
    severities: tuple[Severity, ...] = SEVERITIES
    baseline: Path | None = None
    sensor: Sensor | None = None
    seed: int = 0
    num_workers: int = 2

    def __post_init__(self) -> None:
        require_not_negative(self, "seed", "num_workers")
        for name in ("corruptions", "severities"):
            chosen = getattr(self, name)
            if not chosen or len({*chosen}) < len(chosen):
                raise ValueError(
                    f"{name} must name one or more, each once, got {', '.join(chosen) or 'none'}"
                )
        if self.corrupted is None:
            return
        if self.data.name != "nuscenes" or self.data.classes:
            classes = f" with classes {self.data.classes}" if self.data.classes else ""
            raise ValueError(
                f"corrupted is the folder of nuScenes-C, which goes with the classes of nuscenes, "
                f"got data {self.data.name}{classes}; leave it out to generate the corruptions"
            )
        if self.data.split != "val":
            raise ValueError(
                f"nuScenes-C holds split val alone, got {self.data.split!r}; pass data.split val"
            )
