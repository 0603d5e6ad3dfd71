"""SSPL's settings; plain data, without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pc_data.features import require_features
from pc_data.limits import require_not_negative, require_positive
from pc_train.hardware import HardwareConfig
from pc_train.pretrain_config import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pre-training on volumes. Where the paper leaves a value open, a comment says why this one.

    Attributes:
        level: volume contrasts the volumes of a scan by a local and a global crop; scan contrasts
            whole scans, as the baselines do, in DepthContrast's views.
        local: What a feature learns from its own scan: info_nce (the partner among the other
            volumes of the scan), byol (to predict the partner, without negatives) or none.
        across: What it learns from earlier scans: clusters (ClusterInfoNCE over a queue),
            classification (the cluster of its volume), queue (the partner among the whole queue,
            as MoCo; memory grows with volumes times queue) or none.
        negatives: Where ClusterInfoNCE draws them: from other clusters, hard (from the volume's
            own) or random (from any).
        backbone: Point network.
        features: Input of the network, as pc_data.features names them; PointNet++ has coordinates
            besides and needs none.
        voxel_size: Metres; of the network's voxels. 0 for its own, or where it has none.
        indoor: Rooms, which may turn by any angle; else LiDAR scans, by 45 degrees.
        max_points: Random points of a scan that are used; 0 for all.
        view_points: Points of a view at level scan; 0 for DepthContrast's 20,000 of a room and all
            of a LiDAR scan.
        volume_size: Metres; edge of a volume.
        max_volumes: Random volumes of a scan that are used.
        min_points: Volumes with fewer points do not count.
        local_share: Of a volume's points that its local crop keeps.
        global_share: Of a volume's points that its global crop keeps.
        temperature: Of all contrasts.
        ema: Share of the momentum network that a step keeps.
        ema_to_one: Let that share rise to 1, by BYOL's cosine.
        hidden_dim: Width of the projection head's hidden layer.
        projection_dim: Width of what is contrasted.
        queue_size: Features of earlier scans that are kept.
        num_clusters: Clusters of the queue.
        num_negatives: Features drawn from the queue for all clusters together.
        refresh_every: Steps between two clusterings of the queue.
        sharpness: Of the Sinkhorn assignment: the power to which class probabilities are raised.
        train_clusters: Let the clusters' head learn the assignment; else it stays random.
        lr: Learning rate at the start.
        min_lr: Learning rate at the end.
        momentum: Of SGD.
        weight_decay: On every parameter.
        hardware: Devices and precision; 32-bit for PointNet++, auto is faster for sparse networks
            on a GPU.
    """

    out: Path = Path("runs/sspl/pretrain")
    level: Literal["volume", "scan"] = "volume"
    local: Literal["info_nce", "byol", "none"] = "info_nce"
    across: Literal["clusters", "classification", "queue", "none"] = "clusters"
    negatives: Literal["other", "hard", "random"] = "other"
    backbone: str = "pointnet2_votenet"
    features: tuple[str, ...] = ("height",)  # VoteNet's, whose scratch result the paper has
    voxel_size: float = 0.0
    indoor: bool = True
    max_points: int = 50_000
    view_points: int = 0
    volume_size: float = 0.5  # two real rooms hold 119 and 686 of 8 points; the paper has about 300
    max_volumes: int = 400
    min_points: int = 8  # a local crop of 10% is one point then
    local_share: float = 0.1
    global_share: float = 0.5
    temperature: float = 0.1
    ema: float = 0.999
    ema_to_one: bool = False
    hidden_dim: int = 512  # DepthContrast's
    projection_dim: int = 128  # DepthContrast's
    queue_size: int = 300_000
    num_clusters: int = 64
    num_negatives: int = 20_000
    refresh_every: int = 5  # the queue lives 8 to 11; rows pushed between are labelled as well
    sharpness: float = 25.0  # that of the clustering that the paper cites
    train_clusters: bool = True  # else clusters are random parts of the directions
    epochs: int = 500
    batch_size: int = 96
    lr: float = 0.06
    min_lr: float = 0.00006
    momentum: float = 0.9
    weight_decay: float = 1e-4  # DepthContrast's
    hardware: HardwareConfig = field(default_factory=lambda: HardwareConfig(precision="32"))

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "volume_size", "max_volumes", "min_points", "local_share")
        require_positive(self, "global_share", "temperature", "hidden_dim", "projection_dim")
        require_positive(self, "queue_size", "num_negatives", "refresh_every", "sharpness", "lr")
        require_not_negative(self, "voxel_size", "max_points", "view_points", "ema", "min_lr")
        require_not_negative(self, "momentum", "weight_decay")
        for name in ("local_share", "global_share", "ema"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be at most 1, got {getattr(self, name)}")
        if self.num_clusters < 2:
            raise ValueError(f"num_clusters must be at least 2, got {self.num_clusters}")
        if self.features:
            require_features(self.features)
        self._check_together()

    def _check_together(self) -> None:
        """Refuse settings that contradict each other."""
        if self.local == "none" and self.across == "none":
            raise ValueError(
                "local none and across none leave nothing to learn; choose one of them"
            )
        if self.level == "scan" and self.local == "info_nce":
            raise ValueError(
                "local info_nce needs the other volumes of a scan, which level scan has not; pass "
                "local byol or none, or level volume"
            )
        if self.level == "scan" and self.across in ("clusters", "classification"):
            raise ValueError(
                f"across {self.across} is of volumes, which level scan has not; pass across queue "
                "or none, or level volume"
            )
        if self.level == "volume" and self.view_points:
            raise ValueError(
                f"view_points {self.view_points} is of level scan; at level volume pass "
                "max_points, max_volumes or the crops' shares"
            )
        if self.level == "scan" and 0 < self.view_points < 4:
            raise ValueError(f"view_points must be 0 or at least 4, got {self.view_points}")
        if self.negatives != "other" and self.across != "clusters":
            raise ValueError(
                f"negatives {self.negatives} are those of across clusters, got across "
                f"{self.across}; pass that, or negatives other"
            )
        if self.across in ("clusters", "classification") and self.queue_size < self.num_clusters:
            raise ValueError(
                f"queue_size {self.queue_size} is below num_clusters {self.num_clusters}; a "
                "cluster needs a feature at least, so raise it"
            )
