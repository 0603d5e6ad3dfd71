"""MSC on synthetic rooms; chosen to end within minutes on two processor cores."""

from pathlib import Path

from pc_data.datasets import DataConfig
from pc_data.features import ROOM_FEATURES
from pc_data.loading import SampleKey
from pc_data.progress import progress_line
from pc_data.synthetic.scannet import make_room_scannet
from pc_train.configs import FineTuneConfig, ProbeConfig
from pc_train.demo_plan import Demo
from pc_train.hardware import HardwareConfig
from pc_train.report import Report

from msc.config import Config
from msc.pictures import picture_of_reconstruction
from msc.pretrain import load_method, open_samples, pretrain

# The network is too small for two threads; the other core prepares the samples.
_CPU = HardwareConfig(accelerator="cpu", num_workers=1, num_threads=1)
_LATER = DataConfig(root=Path(), name="scannet")  # the demo fills it in
_VOXEL = 0.08


def _make_world(root: Path, small: bool) -> None:
    """100 rooms to train on, so 1% of the labels is one room, and 10 to evaluate on.

    The small one has 5 and 1.
    """
    make_room_scannet(
        root,
        num_scenes=6 if small else 110,
        val_fraction=1 / 11,
        seed=0,
        num_frames=0,
        voxel_size=_VOXEL / 2,
        progress=progress_line("making a world of rooms"),
    )


def _config(out: Path, data: DataConfig, seed: int, num_steps: int) -> Config:
    return Config(
        data=data,
        out=out,
        backbone="spunet14_small",
        voxel_size=_VOXEL,
        match_radius=1.5 * _VOXEL,
        mask_size=0.5,
        max_pairs=512,
        temperature=0.1,
        max_steps=num_steps,
        batch_size=2,
        seed=seed,
        hardware=_CPU,
    )


def _pretrain(out: Path, data: DataConfig, seed: int, num_steps: int) -> Path:
    return pretrain(_config(out, data, seed, num_steps))


def _add_figures(report: Report, run: Path, data: DataConfig) -> None:
    """What was hidden in a room that training never saw, and what the network put there."""
    config = _config(run, DataConfig(root=data.root, name=data.name, split="val"), 0, 0)
    sample = open_samples(config)[SampleKey(0, 0)]
    method = load_method(config)
    report.heading("Hidden and reconstructed")
    for target in config.reconstruct:
        report.figure(
            picture_of_reconstruction(method, sample, target),
            f"The {target} of a room that training never saw: what was hidden (grey), what the "
            "pre-trained network puts there, and the truth.",
        )


DEMO = Demo(
    title="Masked Scene Contrast on synthetic rooms",
    lead=(
        "A small SparseUNet pre-trained on rooms without labels, against the same network from "
        "random weights"
    ),
    loss="Contrast and reconstructions",
    data=_LATER,
    make_world=_make_world,
    pretrain=_pretrain,
    pretraining_steps=340,
    features=ROOM_FEATURES,
    probing=ProbeConfig(
        backbone=Path(),
        data=_LATER,
        out=Path(),
        max_steps=80,
        batch_size=2,
        lr=1e-2,
        augmentation="rooms",
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
        layer_decay=0.5,  # spares what was pre-trained; few labels tell it little
        drop_path=0.0,
        augmentation="rooms",
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
        augmentation="rooms",
        hardware=_CPU,
    ),
    add_figures=_add_figures,
)
