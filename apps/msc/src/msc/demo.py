"""MSC on synthetic rooms; chosen to end within minutes on two processor cores."""

from dataclasses import replace
from pathlib import Path

from pc_data.datasets import DataConfig
from pc_data.features import ROOM_FEATURES
from pc_data.loading import SampleKey
from pc_train.demos.plan import Demo
from pc_train.demos.recipes import LATER, ONE_CORE, PROBING, TUNING, with_all_labels
from pc_train.demos.worlds import make_rooms
from pc_train.reports.page import Report

from msc.config import Config
from msc.pictures import picture_of_reconstruction
from msc.pretrain import load_method, open_samples, pretrain

_VOXEL = 0.08


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
        hardware=ONE_CORE,
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


_TUNING = replace(TUNING, augmentation="rooms", max_points=20_000)

DEMO = Demo(
    title="Masked Scene Contrast on synthetic rooms",
    lead=(
        "A small SparseUNet pre-trained on rooms without labels, against the same network from "
        "random weights"
    ),
    loss="Contrast and reconstructions",
    data=replace(LATER, name="scannet"),
    make_world=make_rooms,
    pretrain=_pretrain,
    pretraining_steps=400,
    features=ROOM_FEATURES,
    probing=replace(PROBING, max_steps=80, lr=1e-2, augmentation="rooms", max_points=20_000),
    tuning=_TUNING,
    ceiling=with_all_labels(_TUNING),
    add_figures=_add_figures,
)
