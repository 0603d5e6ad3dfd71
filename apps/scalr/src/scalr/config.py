"""ScaLR's settings; plain data, without torch."""

from dataclasses import dataclass, field
from pathlib import Path

from pc_data.datasets import DataConfig
from pc_data.errors import OnError
from pc_data.limits import require_not_negative, require_positive
from pc_train.hardware import HardwareConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """Pre-training by distillation; the defaults are the paper's for WI-48-768.

    Attributes:
        data: Dataset with cameras.
        more_data: Further datasets; all scans count the same.
        out: Run folder; the same command resumes a run.
        start_from: Weights, or the run folder that holds them, to start a new run from.
        teachers: Image networks; the features of several are concatenated.
        teacher_weights: File of the teacher's weights, where the model hub cannot be reached.
        random_teacher: Leave the teacher at random weights, as a control.
        backbone: Point network.
        grids: Cells of the xy, xz and yz planes.
        fov: Lower and upper corner in metres of the box that the grids divide.
        num_neighbors: Neighbours that enter a point's embedding.
        hidden_dim: Width of the two-layer head that several teachers get.
        image_size: Height and width in pixels that images are resized to.
        antialias: Low-pass images before resizing.
        voxel_size: Metres; one random point of each voxel stays.
        max_points: Points of a sample, those nearest to a random one.
        epochs: Passes over all scans.
        max_steps: End after so many steps instead; 0 for none.
        batch_size: Scans per step, over all devices.
        lr: Peak learning rate.
        min_lr: Learning rate at the end.
        weight_decay: On every parameter.
        warmup_steps: Steps of linear warm-up; at most a tenth of the run.
        seed: Of weights, order and augmentation.
        on_error: What a damaged scan does: raise ends the run, skip warns and takes the next one.
        save_every: Steps between checkpoints.
        hardware: Devices and precision.
    """

    data: DataConfig
    more_data: list[DataConfig] = field(default_factory=list)
    out: Path = Path("runs/scalr/pretrain")
    start_from: Path | None = None
    teachers: tuple[str, ...] = ("dinov2_vit_l14",)
    teacher_weights: Path | None = None
    random_teacher: bool = False
    backbone: str = "waffleiron_48_768"
    grids: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = (
        (256, 256),
        (256, 32),
        (256, 32),
    )
    fov: tuple[tuple[float, float, float], tuple[float, float, float]] = (
        (-64.0, -64.0, -8.0),
        (64.0, 64.0, 8.0),
    )
    num_neighbors: int = 16
    hidden_dim: int = 2048
    image_size: tuple[int, int] = (224, 448)
    antialias: bool = False
    voxel_size: float = 0.1
    max_points: int = 20_000
    epochs: int = 25
    max_steps: int = 0
    batch_size: int = 8
    lr: float = 2e-3
    min_lr: float = 1e-5
    weight_decay: float = 0.03
    warmup_steps: int = 3500
    seed: int = 0
    on_error: OnError = "raise"
    save_every: int = 500
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        require_positive(self, "grids", "num_neighbors", "hidden_dim", "image_size", "voxel_size")
        require_positive(self, "max_points", "epochs", "batch_size", "lr", "save_every")
        require_not_negative(self, "max_steps", "min_lr", "weight_decay", "warmup_steps", "seed")
        lower, upper = self.fov
        if not all(low < high for low, high in zip(lower, upper, strict=True)):
            raise ValueError(f"fov must be a lower corner and a higher one, got {self.fov}")
