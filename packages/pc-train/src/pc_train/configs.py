"""Settings of the commands; plain data, without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pc_data.datasets import DataConfig
from pc_data.errors import OnError
from pc_data.limits import require_not_negative, require_positive

from pc_train.hardware import HardwareConfig


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """What probing and fine-tuning share; the defaults are ScaLR's for all labels of nuScenes.

    Attributes:
        backbone: backbone.safetensors, a run folder that holds one, or a published checkpoint.
        data: Labelled dataset to train on.
        out: Run folder; the same command resumes a run.
        random_weights: Start the same network from random weights, as the control.
        fraction: Share of the training scans whose labels are used, drawn at random.
        every: Use every so manieth training scan, and of these the share: 100 for ScaLR's 1% of
            SemanticKITTI, 5 for a fifth of Waymo.
        scenes: Text file of the scenes to train on, one name a line, before `every` and `fraction`
            apply; the lists of limited reconstructions of ScanNet.
        points_per_scene: Labelled points of a training scan (a room is one), drawn at random; 0
            for all.
        points_file: Torch file with the labelled points of each scene instead; the lists of
            limited annotations of ScanNet.
        val_split: Split to evaluate on.
        epochs: Passes over the labelled scans.
        max_steps: End after so many steps instead; 0 for none.
        batch_size: Scans per step, over all devices.
        augmentation: lidar is ScaLR's, which moves points and input features apart; cloud is
            SLidR's, which does not; rooms is MSC's.
        mix_probability: Of laying two training scans over each other (Mix3D); scans then come in
            pairs, so batch_size must be a multiple of twice the number of devices.
        head: norm_linear is ScaLR's batch norm and linear layer, linear is MSC's linear layer.
        optimizer: adamw is ScaLR's (AdamW, warm-up and cosine), sgd is MSC's (SGD with Nesterov
            momentum in one cycle).
        lr: Peak learning rate.
        min_lr: Learning rate at the end.
        weight_decay: Of the optimizer; adamw spares biases and norms when it fine-tunes.
        warmup_epochs: Epochs of warm-up, counted in passes as `epochs`.
        lovasz_weight: Of the Lovasz-softmax loss beside the cross entropy; 0 for the cross entropy
            alone.
        voxel_size: Metres; one point of each voxel stays. 0 for the backbone's own voxels, or 0.1
            where it has none.
        max_points: Points of a training sample.
        seed: Of the label subset, the order, the augmentation and the head.
        on_error: What a damaged training scan does: raise ends the run, skip warns and takes the
            next one. Evaluation never leaves a scan out.
        count_absent_classes: Count classes that neither occur nor are predicted as 0 in the mIoU,
            as MSC's does, instead of leaving them out.
        precise: Score each original point by 13 turned and scaled passes over all of them, as MSC's
            final test does; takes much longer.
        save_every: Steps between checkpoints.
        hardware: Devices and precision.
    """

    backbone: Path
    data: DataConfig
    out: Path
    random_weights: bool = False
    fraction: float = 1.0
    every: int = 1
    scenes: Path | None = None
    points_per_scene: int = 0
    points_file: Path | None = None
    val_split: str = "val"
    epochs: int = 20
    max_steps: int = 0
    batch_size: int = 8
    augmentation: Literal["lidar", "cloud", "rooms"] = "lidar"
    mix_probability: float = 0.0
    head: Literal["norm_linear", "linear"] = "norm_linear"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    min_lr: float = 1e-5
    weight_decay: float = 3e-3
    warmup_epochs: int = 2
    lovasz_weight: float = 1.0
    voxel_size: float = 0.0
    max_points: int = 20_000
    seed: int = 0
    on_error: OnError = "raise"
    count_absent_classes: bool = False
    precise: bool = False
    save_every: int = 500
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "batch_size", "lr", "max_points", "save_every", "every")
        require_not_negative(self, "max_steps", "min_lr", "weight_decay", "warmup_epochs", "seed")
        require_not_negative(self, "voxel_size", "lovasz_weight", "points_per_scene")
        if not 0 <= self.mix_probability <= 1:
            raise ValueError(f"mix_probability must be in [0, 1], got {self.mix_probability}")
        if self.mix_probability and self.batch_size % 2:
            raise ValueError(
                f"batch_size must be even to mix pairs of scans, got {self.batch_size}; change it, "
                "or pass mix_probability 0"
            )
        if self.points_per_scene and self.points_file is not None:
            raise ValueError(
                f"points_per_scene {self.points_per_scene} and points_file {self.points_file} "
                "exclude each other; pass one of them"
            )


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(SegmentationConfig):  # noqa: D101 - the same
    __doc__ = SegmentationConfig.__doc__


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(SegmentationConfig):  # noqa: D101 - the same and two more
    __doc__ = f"""{SegmentationConfig.__doc__}
        layer_decay: Factor of the learning rate per layer away from the head.
        drop_path: Probability that a scan skips a residual branch in training, for networks that
            have it (WaffleIron).
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


def rooms() -> FineTuneConfig:
    """MSC's fine-tuning on the rooms of ScanNet."""
    return FineTuneConfig(
        backbone=Path(),
        data=DataConfig(root=Path(), name="scannet"),
        out=Path(),
        epochs=800,
        batch_size=48,
        augmentation="rooms",
        mix_probability=0.8,
        head="linear",
        optimizer="sgd",
        lr=0.05,
        min_lr=5e-7,
        weight_decay=1e-4,
        warmup_epochs=40,
        lovasz_weight=0.0,
        max_points=100_000,
        count_absent_classes=True,
        layer_decay=1.0,
        drop_path=0.0,
    )


def probe_rooms() -> ProbeConfig:
    """ScaLR's linear probing with the rooms of ScanNet and MSC's augmentation."""
    return ProbeConfig(
        backbone=Path(),
        data=DataConfig(root=Path(), name="scannet"),
        out=Path(),
        augmentation="rooms",
        max_points=100_000,
        count_absent_classes=True,
    )
