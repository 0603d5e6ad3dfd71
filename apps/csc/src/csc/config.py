"""The settings of CSC, SLidR and PPKT; plain data, without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pc_data.limits import require_not_negative, require_positive
from pc_train.pretrain_config import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class Config(PretrainConfig):
    """Pre-training on superpixels. Defaults are CSC's on nuScenes with MinkUNet.

    Attributes:
        data: Dataset with cameras.
        superpixels: What `csc prepare` made of its images: the run folder, or the folder of PNGs in
            it, or one in the layout of CSC's authors. Contrast pixel takes none.
        more_superpixels: Those of each of `more_data`, made by the same network.
        contrast: superpixel contrasts superpoints with superpixels, tolerant weighs the alike less
            (ST-SLidR), pixel contrasts random pairs of a point and a pixel (PPKT).
        prototypes: What superpoints are compared with across scenes: blend mixes the prototypes of
            both modalities, each projected by itself (the paper); concat mixes them by one MLP (the
            released code); point takes those of the points as they are (Table 5); none.
        absent_classes: Count classes that the dataset does not hold as prototypes of zeros, as the
            released code does.
        average_losses: Take the mean of the two losses in place of their sum, as it does.
        prototype_epochs: Epochs between two passes that make prototypes; the first comes after as
            many, and with it their loss.
        backbone: Point network.
        features: Input of the network, as pc_data.features names them.
        voxel_size: Metres; of the network's voxels. 0 for its own, or where it has none.
        teacher: Image network.
        teacher_weights: File of the image network's weights; MoCo's is needed.
        teacher_level: Stage or block of it to read, negative from the end; its usual one if none.
        image_size: Height and width in pixels of the crops of the images.
        min_depth: Metres in front of a camera from which on a point counts as seen.
        dim: Width of what is contrasted.
        temperature: Of the contrast.
        prototype_temperature: Of the contrast with prototypes.
        num_pairs: Pairs of a batch that contrast pixel draws, in each process.
        optimizer: sgd, or adam as CSC's for Cylinder3D.
        learn_heads: Let the image head and the blending learn; the released code for Cylinder3D
            forgets to.
        lr: Learning rate at the start; it falls by half a cosine to 0.
        momentum: Of sgd.
        dampening: Of sgd.
        weight_decay: On every parameter.
    """

    out: Path = Path("runs/csc/pretrain")
    superpixels: Path = Path("runs/csc/superpixels")
    more_superpixels: list[Path] = field(default_factory=list)
    contrast: Literal["superpixel", "tolerant", "pixel"] = "superpixel"
    prototypes: Literal["blend", "concat", "point", "none"] = "blend"
    absent_classes: bool = False
    average_losses: bool = False
    prototype_epochs: int = 5
    backbone: str = "minkunet34_cylindrical"
    features: tuple[str, ...] = ("intensity",)
    voxel_size: float = 0.0
    teacher: str = "moco_v2_resnet50_dilated"
    teacher_weights: Path | None = None
    teacher_level: int | None = None
    image_size: tuple[int, int] = (224, 416)
    min_depth: float = 1.0
    dim: int = 64
    temperature: float = 0.07
    prototype_temperature: float = 1.0
    num_pairs: int = 4096
    optimizer: Literal["sgd", "adam"] = "sgd"
    learn_heads: bool = True
    epochs: int = 50
    batch_size: int = 16
    lr: float = 2.0
    momentum: float = 0.9
    dampening: float = 0.1
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "prototype_epochs", "image_size", "dim", "temperature")
        require_positive(self, "prototype_temperature", "num_pairs", "lr")
        require_not_negative(self, "voxel_size", "min_depth", "momentum", "dampening")
        require_not_negative(self, "weight_decay")
        if self.contrast == "pixel" and self.prototypes != "none":
            raise ValueError(
                f"prototypes {self.prototypes} are of superpixels, which contrast pixel has not; "
                "pass prototypes none, or contrast superpixel"
            )
        if self.contrast != "pixel" and len(self.more_superpixels) != len(self.more_data):
            raise ValueError(
                f"more_superpixels must be as many as more_data ({len(self.more_data)}), got "
                f"{len(self.more_superpixels)}; run csc prepare for each dataset"
            )
