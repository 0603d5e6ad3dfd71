"""ScaLR on a synthetic world of streets; chosen to end within minutes on two processor cores."""

from dataclasses import replace
from pathlib import Path

from pc_data.datasets import DataConfig
from pc_data.features import LIDAR_FEATURES
from pc_train.demos.plan import Demo
from pc_train.demos.recipes import LATER, PROBING, TUNING, with_all_labels
from pc_train.demos.worlds import make_streets
from pc_train.hardware import HardwareConfig

from scalr.config import Config
from scalr.pretrain import pretrain

_CPU = HardwareConfig(accelerator="cpu", num_workers=0)


def _pretrain(out: Path, data: DataConfig, seed: int, num_steps: int) -> Path:
    return pretrain(
        Config(
            data=data,
            out=out,
            teachers=("efficientnet_lite0_offline",),
            backbone="waffleiron_6_64",
            num_neighbors=8,
            max_steps=num_steps,
            batch_size=2,
            lr=5e-3,
            image_size=(160, 320),
            seed=seed,
            hardware=_CPU,
        )
    )


_TUNING = replace(TUNING, augmentation="lidar", hardware=_CPU)

DEMO = Demo(
    title="ScaLR on a synthetic world",
    lead=(
        "A small WaffleIron pre-trained from an ImageNet network that needs no download, against "
        "the same network from random weights"
    ),
    loss="Distance of point and pixel features",
    data=LATER,
    make_world=make_streets,
    pretrain=_pretrain,
    pretraining_steps=600,
    features=LIDAR_FEATURES,
    probing=replace(PROBING, augmentation="lidar", hardware=_CPU),
    tuning=_TUNING,
    ceiling=with_all_labels(replace(_TUNING, batch_size=2)),
)
