"""Settings of the commands; plain data, without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pc_data.datasets import DataConfig
from pc_data.errors import OnError
from pc_data.limits import require_not_negative, require_positive

from pc_train.hardware import HardwareConfig
from pc_train.pretrain_config import OnNonfinite

AbsentClasses = Literal["left_out", "zero", "one"]


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
        every_scene: Use every so manieth training scene alone, in the order of the dataset's table:
            100, 20, 10 or 4 for SLidR's 1%, 5%, 10% or 25% of nuScenes.
        scenes: Text file of the scenes to train on, one name a line, before `every_scene`, `every`
            and `fraction` apply; the lists of limited reconstructions of ScanNet.
        points_per_scene: Labelled points of a training scan (a room is one), drawn at random; 0
            for all.
        points_file: Torch file with the labelled points of each scene instead; the lists of
            limited annotations of ScanNet.
        val_split: Split to evaluate on.
        epochs: Passes over the labelled scans.
        max_steps: End after so many steps instead; 0 for none.
        batch_size: Scans per step, over all devices.
        augmentation: lidar is ScaLR's, which moves points and input features apart; cloud is
            SLidR's, which does not; sheared is JS3C-Net's, which SSPL takes; rooms is MSC's.
        mix_probability: Of laying two training scans over each other (Mix3D); scans then come in
            pairs, so batch_size must be a multiple of twice the number of devices.
        head: norm_linear is ScaLR's batch norm and linear layer, linear is MSC's linear layer,
            plain_linear is SLidR's, two_conv is SSPL's decoder.
        optimizer: adamw is ScaLR's (AdamW, warm-up and cosine), sgd is MSC's (SGD with Nesterov
            momentum in one cycle), sgd_cosine is SLidR's (SGD and cosine), adam is JS3C-Net's
            (Adam, 0.7 times the rate after each tenth), which SSPL takes.
        lr: Peak learning rate.
        min_lr: Learning rate at the end.
        weight_decay: Of the optimizer; adamw spares biases and norms when it fine-tunes.
        warmup_epochs: Epochs of warm-up, counted in passes as `epochs`.
        lovasz_weight: Of the Lovasz-softmax loss beside the cross entropy; 0 for the cross entropy
            alone.
        reach: Metres that a network with a grid (WaffleIron) sees to each side, with cells of the
            size that its file has; 0 for the file's reach.
        voxel_size: Metres; one point of each voxel stays. 0 for the backbone's own voxels, or 0.1
            where it has none.
        max_points: Points of a training sample; 0 for all.
        seed: Of the label subset, the order, the augmentation and the head.
        on_error: What a damaged training scan does: raise ends the run, skip warns and takes the
            next one. Evaluation never leaves a scan out.
        absent_classes: What classes that neither occur nor are predicted count in the mIoU: nothing
            (left_out, as ScaLR's), zero as MSC's, or one as SLidR's.
        mean_of_last: Report the mean mIoU over this last part of the training instead of that at
            its end; SSPL's is 0.15.
        num_scores: Evaluations in that part, evenly apart, the last one at the end.
        precise: Score each original point by 13 turned and scaled passes over all of them, as MSC's
            final test does; takes much longer.
        max_bad_samples: Damaged scans that may be skipped in the whole run; 0 for 1% of the scans.
        on_nonfinite: What a step whose loss or gradient is not finite does: raise ends the run,
            skip leaves it out, ten in a row at most.
        save_every: Steps between checkpoints.
        hardware: Devices and precision.
    """

    backbone: Path
    data: DataConfig
    out: Path
    random_weights: bool = False
    fraction: float = 1.0
    every: int = 1
    every_scene: int = 1
    scenes: Path | None = None
    points_per_scene: int = 0
    points_file: Path | None = None
    val_split: str = "val"
    epochs: int = 20
    max_steps: int = 0
    batch_size: int = 8
    augmentation: Literal["lidar", "cloud", "sheared", "rooms"] = "lidar"
    mix_probability: float = 0.0
    head: Literal["norm_linear", "linear", "plain_linear", "two_conv"] = "norm_linear"
    optimizer: Literal["adamw", "sgd", "sgd_cosine", "adam"] = "adamw"
    lr: float = 1e-3
    min_lr: float = 1e-5
    weight_decay: float = 3e-3
    warmup_epochs: int = 2
    lovasz_weight: float = 1.0
    reach: float = 0.0
    voxel_size: float = 0.0
    max_points: int = 20_000
    seed: int = 0
    on_error: OnError = "raise"
    max_bad_samples: int = 0
    on_nonfinite: OnNonfinite = "raise"
    absent_classes: AbsentClasses = "left_out"
    mean_of_last: float = 0.0
    num_scores: int = 5
    precise: bool = False
    save_every: int = 500
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "batch_size", "lr", "save_every", "every", "every_scene")
        require_positive(self, "num_scores")
        require_not_negative(self, "max_steps", "min_lr", "weight_decay", "warmup_epochs", "seed")
        require_not_negative(self, "voxel_size", "lovasz_weight", "points_per_scene", "max_points")
        require_not_negative(self, "reach")
        if not 0 <= self.mean_of_last < 1:
            raise ValueError(f"mean_of_last must be in [0, 1), got {self.mean_of_last}")
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
class FineTuneConfig(SegmentationConfig):  # noqa: D101 - the same and three more
    __doc__ = f"""{SegmentationConfig.__doc__}
        head_lr: Peak learning rate of the head; 0 for `lr`.
        layer_decay: Factor of the learning rate per layer away from the head.
        drop_path: Probability that a scan skips a residual branch in training, for networks that
            have it (WaffleIron).
    """

    epochs: int = 25
    lr: float = 2e-3
    min_lr: float = 0.0
    weight_decay: float = 0.0
    head_lr: float = 0.0
    layer_decay: float = 0.99
    drop_path: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "layer_decay")
        require_not_negative(self, "head_lr")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {self.drop_path}")


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """What to look at features with.

    Attributes:
        backbone: backbone.safetensors, a run folder that holds one, or a published checkpoint.
        data: Dataset; its split is what neighbours are looked up in, where there are labels.
        out: Folder of its own for quality.json and report.html.
        random_weights: Look at the same network with random weights, as the control.
        val_split: Split whose features are looked at.
        num_scans: Scans drawn of each split.
        points_per_scan: Points drawn of each scan; memory grows with both numbers' product.
        num_neighbors: Nearest points of other scans that vote for a point's class.
        augmentation: How two views of a scan differ: cloud as SLidR's, rooms as MSC's.
        voxel_size: Metres; one point of each voxel stays. 0 for the backbone's own voxels, or 0.1
            where it has none.
        seed: Of scans, points, views and random weights.
        accelerator: auto takes a GPU if there is one.
    """

    backbone: Path
    data: DataConfig
    out: Path
    random_weights: bool = False
    val_split: str = "val"
    num_scans: int = 50
    points_per_scan: int = 200
    num_neighbors: int = 20
    augmentation: Literal["cloud", "rooms"] = "cloud"
    voxel_size: float = 0.0
    seed: int = 0
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"

    def __post_init__(self) -> None:
        require_positive(self, "num_scans", "points_per_scan", "num_neighbors")
        require_not_negative(self, "voxel_size", "seed")
        if self.data.split == self.val_split:
            raise ValueError(
                f"data.split and val_split must differ, got {self.val_split!r} twice: each point "
                "would be found as its own neighbour"
            )
