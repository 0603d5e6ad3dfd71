"""The settings of cross-modal contrastive units; plain data, without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pc_data.limits import require_not_negative, require_positive
from pc_train.pretrain_config import PretrainConfig

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pre-training on contrastive units. The paper leaves most values open: a comment says why.

    Attributes:
        data: Dataset with cameras.
        modality: cross contrasts points with images, single two augmented clouds, multi is the sum.
        backbone: Point network.
        features: Input of the network, as pc_data.features names them.
        teacher: Image network.
        teacher_weights: File of the image network's weights; MoCo's and EsViT's are needed.
        random_teacher: Leave the image network at random weights, as a control.
        levels: Levels of the image network, read as if resized to the finest and concatenated.
        image_size: Height and width in pixels that images are resized to.
        min_depth: Metres in front of a camera from which on a point counts as seen.
        sensor_height: Of the scan's origin above the ground, metres; 0 in a vehicle's frame.
        num_units: Units sampled in a scan, before merging.
        sampling: farthest from above, or random.
        context: neighbors are the nearest points of a unit, pillar all above and below it.
        num_neighbors: Points of a unit with context neighbors.
        pillar_size: Metres; side of a unit with context pillar.
        instances: Merge the units of one cluster.
        cluster_radius: Metres; longest step within a cluster.
        min_cluster_points: Smaller clusters are dropped.
        num_negatives: The least similar units of a scan that are its negatives in the contrast
            with images; 0 for all others, as always between two clouds.
        temperature: Of the contrast.
        hidden_dim: Width of the projection heads' hidden layer.
        projection_dim: Width of what is contrasted.
        scale: Range of the factor of the augmented cloud.
        lr: Peak learning rate.
        min_lr: Learning rate at the end.
        weight_decay: On every parameter.
        warmup_epochs: Epochs in which the learning rate rises, counted in passes as epochs.
    """

    out: Path = Path("runs/crossmodal/pretrain")
    modality: Literal["cross", "single", "multi"] = "cross"
    backbone: str = "centerpoint_pillar_waymo"
    features: tuple[str, ...] = ("x", "y", "z", "intensity")
    teacher: str = "moco_v3_resnet50"
    teacher_weights: Path | None = None
    random_teacher: bool = False
    levels: tuple[int, ...] = (1, 2, 3)  # P2, P3, P4 of a ResNet: the paper's
    image_size: tuple[int, int] = (320, 480)  # a quarter of Waymo's: 4 px a cell of P2 stay 16
    min_depth: float = 1.0  # as SLidR
    sensor_height: float = 0.0  # Waymo's frame is the vehicle's
    num_units: int = 1024  # half of ProposalContrast's 2048 in the full turn: what images see
    sampling: Literal["farthest", "random"] = "farthest"
    context: Literal["neighbors", "pillar"] = "neighbors"
    num_neighbors: int = 16  # ProposalContrast's
    pillar_size: float = 0.5  # stays on one object
    instances: bool = True
    cluster_radius: float = 0.5  # keeps parked cars apart; 1 for 32 beams
    min_cluster_points: int = 10
    num_negatives: int = 512  # half of the units, before they merge
    temperature: float = 0.1  # ProposalContrast's
    hidden_dim: int = 256  # ProposalContrast's
    projection_dim: int = 128  # ProposalContrast's
    scale: Range = (0.8, 1.25)  # ProposalContrast's
    epochs: int = 50  # ProposalContrast's; the ablations have 20
    batch_size: int = 32  # ProposalContrast's, four on each of eight GPUs
    lr: float = 3e-3  # ProposalContrast's
    min_lr: float = 3e-8
    weight_decay: float = 0.01  # ProposalContrast's
    warmup_epochs: int = 5  # a tenth, ProposalContrast's

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "image_size", "num_units", "num_neighbors", "pillar_size")
        require_positive(self, "cluster_radius", "min_cluster_points", "temperature", "hidden_dim")
        require_positive(self, "projection_dim", "scale", "lr")
        require_not_negative(self, "min_depth", "sensor_height", "num_negatives", "min_lr")
        require_not_negative(self, "weight_decay", "warmup_epochs")
        if self.modality == "single" and (self.teacher_weights is not None or self.random_teacher):
            raise ValueError(
                "modality single uses no image network, got teacher_weights "
                f"{self.teacher_weights} and random_teacher={self.random_teacher}; leave them out"
            )
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must be a lower and a higher factor, got {self.scale}")
