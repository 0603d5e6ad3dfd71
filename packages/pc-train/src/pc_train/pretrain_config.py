"""What the settings of every pre-training run share; plain data, without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pc_data.datasets import DataConfig
from pc_data.errors import OnError
from pc_data.limits import require_not_negative, require_positive

from pc_train.hardware import HardwareConfig

OnNonfinite = Literal["raise", "skip"]
"""What a step whose loss or gradient is not finite does: end the run, or be left out."""


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
        max_bad_samples: Damaged scans that may be skipped in the whole run; 0 for 1% of the scans.
        on_nonfinite: What a step whose loss or gradient is not finite does: raise ends the run,
            skip leaves it out, ten in a row at most.
        probe_data: Labelled dataset on which a linear classifier of the frozen features is fitted
            (train) and scored (val) now and then, as a sign of what is learned; none by default.
            The weights do not depend on it.
        probe_every: Steps between two such looks.
        probe_scans: Scans of each split that a look takes.
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
    max_bad_samples: int = 0
    on_nonfinite: OnNonfinite = "raise"
    probe_data: DataConfig | None = None
    probe_every: int = 1000
    probe_scans: int = 20
    save_every: int = 500
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "batch_size", "probe_every", "probe_scans", "save_every")
        require_not_negative(self, "max_steps", "seed", "max_bad_samples")
