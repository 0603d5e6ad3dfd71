"""Contrastive units on a synthetic world of streets, within minutes on two processor cores."""

from collections.abc import Callable
from pathlib import Path

from pc_data.datasets import DataConfig, open_dataset
from pc_train.demos.plan import Demo
from pc_train.demos.recipes import LATER, ONE_CORE, PROBING, TUNING, with_all_labels
from pc_train.demos.worlds import make_streets
from pc_train.reports.page import Report

from crossmodal.config import Config
from crossmodal.pictures import picture_of_units
from crossmodal.presets import nuscenes
from crossmodal.pretrain import pretrain

_FEATURES = ("x", "y", "z", "intensity")


def pretrain_on_streets(
    out: Path,
    data: DataConfig,
    seed: int,
    num_steps: int,
    *,
    preset: Callable[[], Config] = nuscenes,
) -> Path:
    """Pre-train the demo's network in the modality of a preset, with its kind of units."""
    return pretrain(_config(out, data, seed, num_steps, preset()))


def _config(out: Path, data: DataConfig, seed: int, num_steps: int, chosen: Config) -> Config:
    return Config(
        data=data,
        out=out,
        modality=chosen.modality,
        instances=chosen.instances,
        backbone="centerpoint_pillar_small",
        teacher="efficientnet_lite0_offline",
        image_size=(128, 256),
        sensor_height=1.84,
        cluster_radius=1.0,
        num_units=256,
        num_negatives=128,
        max_steps=num_steps,
        batch_size=2,
        seed=seed,
        hardware=ONE_CORE,
    )


def _add_figures(report: Report, run: Path, data: DataConfig) -> None:
    """What was contrasted: the units of one scan."""
    scan = open_dataset(data, labels=False)[0]
    report.heading("Units")
    report.figure(
        picture_of_units(scan, _config(run, data, 0, 0, nuscenes())),
        f"Scan {scan.name}: units as sampled, clusters, and units after those of one cluster "
        "became one.",
    )


DEMO = Demo(
    title="Cross-modal contrastive units on a synthetic world",
    lead=(
        "A small CenterPoint on pillars, pre-trained from an ImageNet network that needs no "
        "download, against the same network from random weights"
    ),
    loss="Contrast of units",
    data=LATER,
    make_world=make_streets,
    pretrain=pretrain_on_streets,
    pretraining_steps=200,
    features=_FEATURES,
    probing=PROBING,
    tuning=TUNING,
    ceiling=with_all_labels(TUNING),
    add_figures=_add_figures,
)
