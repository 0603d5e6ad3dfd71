"""MSC's settings; plain data, without torch."""

from dataclasses import dataclass, field
from pathlib import Path

from pc_data.features import ROOM_FEATURES, require_features
from pc_data.limits import require_not_negative, require_positive
from pc_train.hardware import HardwareConfig
from pc_train.pretrain_config import PretrainConfig

from msc.targets import columns_of


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pre-training by masked scene contrast; the defaults are the paper's tables 3 to 5.

    Attributes:
        backbone: Point network.
        features: Input of the network, as pc_data.features names them.
        reconstruct: What is reconstructed where it is hidden: color, normal, intensity.
        voxel_size: Metres; of the network's voxels, one random point of each stays in a view.
        crop: Share of a scan's points that a view keeps.
        mask_size: Metres; edge of the cells that are hidden as a whole.
        mask_rate: Share of the cells that is hidden in each view, at most one half.
        mix_probability: Of laying the query view of a scan over that of the next in the batch.
        match_radius: Metres that two points of a pair stay below in the scan; 1.5 voxels are the
            paper's.
        max_pairs: Pairs of a scan; the paper's 8192 for the four scans of a GPU.
        temperature: Of the contrast.
        contrast_weight: Factor of the contrast.
        reconstruct_weight: Factor of the sum of the reconstructions.
        gather: Contrast with the keys of all processes instead of one's own.
        lr: Peak learning rate.
        momentum: Of SGD.
        cycle_momentum: Let it go from 0.95 to 0.85 and back instead, as the released code does.
        weight_decay: On every parameter.
        warmup_epochs: Epochs in which the learning rate rises, counted in passes as epochs; at most
            a tenth of the run.
        hardware: Devices and precision; 32-bit as in the released code, auto is faster on a GPU.
    """

    out: Path = Path("runs/msc/pretrain")
    backbone: str = "spunet34_paper"
    features: tuple[str, ...] = ROOM_FEATURES
    reconstruct: tuple[str, ...] = ("color", "normal")
    voxel_size: float = 0.02
    crop: float = 0.6
    mask_size: float = 0.15
    mask_rate: float = 0.3
    mix_probability: float = 0.8
    match_radius: float = 0.03
    max_pairs: int = 2048
    temperature: float = 0.4
    contrast_weight: float = 1.0
    reconstruct_weight: float = 1.0
    gather: bool = False
    epochs: int = 600
    batch_size: int = 32
    lr: float = 0.1
    momentum: float = 0.8
    cycle_momentum: bool = False
    weight_decay: float = 1e-4
    warmup_epochs: int = 6
    hardware: HardwareConfig = field(default_factory=lambda: HardwareConfig(precision="32"))

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "voxel_size", "crop", "mask_size", "match_radius", "max_pairs")
        require_positive(self, "temperature", "lr")
        require_not_negative(self, "contrast_weight", "reconstruct_weight", "weight_decay")
        require_not_negative(self, "mask_rate", "mix_probability", "momentum", "warmup_epochs")
        for name, most in (("crop", 1), ("mask_rate", 0.5), ("mix_probability", 1)):
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most}, got {getattr(self, name)}")
        if self.reconstruct and not self.mask_rate:
            raise ValueError(
                f"mask_rate 0 hides nothing to reconstruct {', '.join(self.reconstruct)} from; "
                "raise it, or pass an empty reconstruct"
            )
        self._check_together()

    def _check_together(self) -> None:
        """Refuse settings of which one makes another useless."""
        require_features(self.features)
        for target in self.reconstruct:
            columns_of(target, self.features)
        if self.mix_probability and self.batch_size == 1:
            raise ValueError(
                "batch_size 1 leaves no second scan to mix with; raise it, or pass "
                "mix_probability 0"
            )
        if self.match_radius < self.voxel_size:
            raise ValueError(
                f"match_radius {self.match_radius} is below voxel_size {self.voxel_size}: two "
                "views hardly share points that near; pass 1.5 voxels, as the paper has"
            )
        if not self.contrast_weight and not (self.reconstruct and self.reconstruct_weight):
            raise ValueError(
                "contrast_weight 0 without a reconstruction leaves nothing to learn; raise it, or "
                "reconstruct with a reconstruct_weight above 0"
            )
