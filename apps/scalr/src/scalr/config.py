"""ScaLR's settings; plain data, without torch."""

from dataclasses import dataclass
from pathlib import Path

from pc_data.limits import require_not_negative, require_positive
from pc_train.pretrain_config import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pre-training by distillation; the defaults are the paper's for WI-48-768.

    Attributes:
        data: Dataset with cameras.
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
        lr: Peak learning rate.
        min_lr: Learning rate at the end.
        weight_decay: On every parameter.
        warmup_steps: Steps of linear warm-up; at most a tenth of the run.
    """

    out: Path = Path("runs/scalr/pretrain")
    epochs: int = 25
    batch_size: int = 8
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
    lr: float = 2e-3
    min_lr: float = 1e-5
    weight_decay: float = 0.03
    warmup_steps: int = 3500

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "grids", "num_neighbors", "hidden_dim", "image_size", "voxel_size")
        require_positive(self, "max_points", "lr")
        require_not_negative(self, "min_lr", "weight_decay", "warmup_steps")
        lower, upper = self.fov
        if not all(low < high for low, high in zip(lower, upper, strict=True)):
            raise ValueError(f"fov must be a lower corner and a higher one, got {self.fov}")
