"""Contrastive units on a synthetic world of streets, within minutes on two processor cores."""

from pathlib import Path

from pc_data.datasets import DataConfig
from pc_data.progress import progress_line
from pc_data.synthetic import make_street_nuscenes
from pc_train.configs import FineTuneConfig, ProbeConfig
from pc_train.demo_plan import Demo
from pc_train.hardware import HardwareConfig

from crossmodal.config import Config
from crossmodal.pretrain import pretrain

_CPU = HardwareConfig(accelerator="cpu", num_workers=1, num_threads=1)
_LATER = DataConfig(root=Path())  # the demo fills it in
_FEATURES = ("x", "y", "z", "intensity")


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
            backbone="centerpoint_pillar_small",
            teacher="efficientnet_lite0_offline",
            image_size=(160, 320),
            sensor_height=1.84,
            cluster_radius=1.0,
            num_units=256,
            num_negatives=128,
            max_steps=num_steps,
            batch_size=2,
            seed=seed,
            hardware=_CPU,
        )
    )


DEMO = Demo(
    title="Cross-modal contrastive units on a synthetic world",
    lead=(
        "A small CenterPoint on pillars, pre-trained from an ImageNet network that needs no "
        "download, against the same network from random weights"
    ),
    loss="Contrast of units",
    data=_LATER,
    make_world=_make_world,
    pretrain=_pretrain,
    pretraining_steps=300,
    features=_FEATURES,
    probing=ProbeConfig(
        backbone=Path(),
        data=_LATER,
        out=Path(),
        max_steps=100,
        batch_size=2,
        lr=5e-3,
        max_points=8_000,
        augmentation="cloud",
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
        layer_decay=0.5,
        drop_path=0.0,
        max_points=8_000,
        augmentation="cloud",
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
        max_points=8_000,
        augmentation="cloud",
        hardware=_CPU,
    ),
)
