"""What the settings of every pre-training run share; plain data, without torch."""

from dataclasses import dataclass, field
from pathlib import Path

from pc_data.datasets import DataConfig
from pc_data.errors import OnError
from pc_data.limits import require_not_negative, require_positive

from pc_train.hardware import HardwareConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Data, length and hardware of a pre-training run; an app's Config derives from it.

    The app gives `out`, `epochs` and `batch_size` the defaults of its paper and adds the method's
    own settings. It may document an attribute anew, as `data`, where it asks for more.

    Attributes:
        data: Dataset to pre-train on; its labels are not read.
        more_data: Further datasets; all scans count the same.
        out: Run folder; the same command resumes a run.
        start_from: Weights, or the run folder that holds them, to start a new run from.
        epochs: Passes over all scans.
        max_steps: End after so many steps instead; 0 for none.
        batch_size: Scans per step, over all devices.
        seed: Of weights, order and augmentation.
        on_error: What a damaged scan does: raise ends the run, skip warns and takes the next one.
        save_every: Steps between checkpoints.
        hardware: Devices and precision.
    """

    data: DataConfig
    more_data: list[DataConfig] = field(default_factory=list)
    out: Path
    start_from: Path | None = None
    epochs: int
    max_steps: int = 0
    batch_size: int
    seed: int = 0
    on_error: OnError = "raise"
    save_every: int = 500
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "batch_size", "save_every")
        require_not_negative(self, "max_steps", "seed")
