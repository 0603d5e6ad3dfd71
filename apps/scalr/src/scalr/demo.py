"""ScaLR on a synthetic world of streets; chosen to end within minutes on two processor cores."""

from pathlib import Path

from pc_data.datasets import DataConfig
from pc_data.features import LIDAR_FEATURES
from pc_data.progress import progress_line
from pc_data.synthetic import make_street_nuscenes
from pc_train.configs import FineTuneConfig, ProbeConfig
from pc_train.demo_plan import Demo
from pc_train.hardware import HardwareConfig

from scalr.config import Config
from scalr.pretrain import pretrain

_CPU = HardwareConfig(accelerator="cpu", num_workers=0)
_LATER = DataConfig(root=Path())  # the demo fills it in
_MAX_POINTS = 8_000


def _make_world(root: Path, small: bool) -> None:
    """25 scenes to train on and 4 to evaluate on; of 100 keyframes, 1% of the labels is one scan.

    The small one has 5 and 1, of two keyframes each.
    """
    make_street_nuscenes(
        root,
        num_scenes=6 if small else 29,
        frames_per_scene=2 if small else 4,
        val_fraction=4 / 29,
        seed=0,
        image_size=(336, 190),
        progress=progress_line("making a world of streets"),
    )


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


DEMO = Demo(
    title="ScaLR on a synthetic world",
    lead=(
        "A small WaffleIron pre-trained from an ImageNet network that needs no download, against "
        "the same network from random weights"
    ),
    loss="Distance of point and pixel features",
    data=_LATER,
    make_world=_make_world,
    pretrain=_pretrain,
    pretraining_steps=600,
    features=LIDAR_FEATURES,
    probing=ProbeConfig(
        backbone=Path(),
        data=_LATER,
        out=Path(),
        max_steps=100,
        batch_size=2,
        lr=5e-3,
        max_points=_MAX_POINTS,
        hardware=_CPU,
    ),
    tuning=FineTuneConfig(
        backbone=Path(),
        data=_LATER,
        out=Path(),
        fraction=0.01,
        max_steps=100,
        batch_size=1,
        warmup_epochs=9,  # of one step each
        lr=2e-3,
        layer_decay=0.5,  # over 6 layers; 0.95 over 48 spares the first ones as well
        drop_path=0.0,
        max_points=_MAX_POINTS,
        hardware=_CPU,
    ),
    ceiling=FineTuneConfig(
        backbone=Path(),
        data=_LATER,
        out=Path(),
        batch_size=2,
        warmup_epochs=9,
        lr=5e-3,
        layer_decay=0.99,
        drop_path=0.0,
        max_points=_MAX_POINTS,
        hardware=_CPU,
    ),
)
