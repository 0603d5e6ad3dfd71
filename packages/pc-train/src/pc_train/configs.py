"""Settings of the commands; plain data, without torch."""

from dataclasses import dataclass, field
from pathlib import Path

from pc_data.datasets import DataConfig
from pc_data.errors import OnError
from pc_data.limits import require_not_negative, require_positive

from pc_train.hardware import HardwareConfig


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """What probing and fine-tuning share; the defaults are ScaLR's for all labels of nuScenes.

    Attributes:
        backbone: backbone.safetensors, a run folder that holds one, or a published WaffleIron file.
        data: Labelled dataset to train on.
        out: Run folder; the same command resumes a run.
        random_weights: Start the same network from random weights, as the control.
        fraction: Share of the training scans whose labels are used, drawn at random.
        every: Use every so manieth training scan, and of these the share: 100 for ScaLR's 1% of
            SemanticKITTI, 5 for a fifth of Waymo.
        val_split: Split to evaluate on.
        epochs: Passes over the labelled scans.
        max_steps: End after so many steps instead; 0 for none.
        batch_size: Scans per step, over all devices.
        lr: Peak learning rate.
        min_lr: Learning rate at the end.
        weight_decay: Of AdamW.
        warmup_epochs: Epochs of linear warm-up, counted in passes as `epochs`.
        voxel_size: Metres; one point of each voxel stays.
        max_points: Points of a training sample.
        seed: Of the label subset, the order, the augmentation and the head.
        on_error: What a damaged training scan does: raise ends the run, skip warns and takes the
            next one. Evaluation never leaves a scan out.
        save_every: Steps between checkpoints.
        hardware: Devices and precision.
    """

    backbone: Path
    data: DataConfig
    out: Path
    random_weights: bool = False
    fraction: float = 1.0
    every: int = 1
    val_split: str = "val"
    epochs: int = 20
    max_steps: int = 0
    batch_size: int = 8
    lr: float = 1e-3
    min_lr: float = 1e-5
    weight_decay: float = 3e-3
    warmup_epochs: int = 2
    voxel_size: float = 0.1
    max_points: int = 20_000
    seed: int = 0
    on_error: OnError = "raise"
    save_every: int = 500
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "batch_size", "lr", "voxel_size", "max_points")
        require_positive(self, "save_every", "every")
        require_not_negative(self, "max_steps", "min_lr", "weight_decay", "warmup_epochs", "seed")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(SegmentationConfig):  # noqa: D101 - the same
    __doc__ = SegmentationConfig.__doc__


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(SegmentationConfig):  # noqa: D101 - the same and two more
    __doc__ = f"""{SegmentationConfig.__doc__}
        layer_decay: Factor of the learning rate per layer away from the head.
        drop_path: Probability that a scan skips a residual branch in training.
    """

    epochs: int = 25
    lr: float = 2e-3
    min_lr: float = 0.0
    weight_decay: float = 0.0
    layer_decay: float = 0.99
    drop_path: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "layer_decay")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {self.drop_path}")


def few_labels() -> FineTuneConfig:
    """ScaLR's fine-tuning with 1% or 10% of the labels of nuScenes."""
    return FineTuneConfig(
        backbone=Path(),
        data=DataConfig(root=Path()),
        out=Path(),
        epochs=45,
        warmup_epochs=4,
        layer_decay=0.95,
    )
