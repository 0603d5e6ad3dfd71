"""CSC on a synthetic world of streets, within minutes on two processor cores."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pc_data.datasets import DataConfig, open_dataset
from pc_data.superpixel_files import open_superpixels
from pc_train.demos.plan import Demo
from pc_train.demos.recipes import LATER, ONE_CORE, PROBING, TUNING, with_all_labels
from pc_train.demos.worlds import make_streets
from pc_train.reports.page import Report

from csc.config import Config
from csc.prepare import prepare
from csc.prepare_config import SUPERPIXELS, PrepareConfig
from csc.prepare_presets import offline
from csc.prepare_report import CAPTION, picture_of_superpixels
from csc.presets import nuscenes
from csc.pretrain import pretrain


def pretrain_on_streets(
    out: Path,
    data: DataConfig,
    seed: int,
    num_steps: int,
    *,
    preset: Callable[[], Config] = nuscenes,
    superpixels: Callable[[], PrepareConfig] = offline,
    image_size: tuple[int, int] = (96, 192),
) -> Path:
    """Pre-train the demo's network as a preset does, on superpixels of one kind."""
    chosen = preset()
    config = Config(
        data=data,
        out=out,
        superpixels=_prepare(data, superpixels()),
        contrast=chosen.contrast,
        prototypes=chosen.prototypes,
        prototype_epochs=2,
        backbone="minkunet14_small",
        voxel_size=0.2,
        teacher="efficientnet_lite0_offline",
        image_size=image_size,
        max_steps=num_steps,
        batch_size=2,
        optimizer="adam",
        lr=2e-3,
        weight_decay=0.0,
        seed=seed,
        hardware=ONE_CORE,
    )
    return pretrain(config)


def _prepare(data: DataConfig, kind: PrepareConfig) -> Path:
    """Superpixels of the world's images, beside it; made once for all runs."""
    out = data.root.with_name(f"superpixels-{kind.network}")
    return prepare(
        replace(kind, data=data, out=out, image_size=None, fit_scans=25, accelerator="cpu")
    )


def _add_figures(report: Report, run: Path, data: DataConfig) -> None:  # noqa: ARG001
    """What was contrasted: the superpixels of one scan."""
    scan = open_dataset(data, labels=False)[0]
    files = open_superpixels(_prepare(data, offline()) / SUPERPIXELS)
    report.heading("Superpixels and superpoints")
    report.figure(picture_of_superpixels(scan, files), CAPTION.format(scan.name))


DEMO = Demo(
    title="CSC on a synthetic world",
    lead=(
        "A small MinkUNet, pre-trained on semantic superpixels of an ImageNet network that needs "
        "no download, against the same network from random weights"
    ),
    loss=(
        "Contrast of superpoints with superpixels, and from the third epoch with prototypes of "
        "their classes, by whose part it rises there"
    ),
    data=LATER,
    make_world=make_streets,
    pretrain=pretrain_on_streets,
    pretraining_steps=160,
    features=("intensity",),
    probing=PROBING,
    tuning=TUNING,
    ceiling=with_all_labels(TUNING),
    add_figures=_add_figures,
)
