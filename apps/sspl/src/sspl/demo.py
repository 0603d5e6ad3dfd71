"""SSPL on synthetic streets and rooms; chosen to end within minutes on two processor cores."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from pc_data.datasets import DataConfig, open_dataset
from pc_train.demos.plan import Demo
from pc_train.demos.recipes import LATER, ONE_CORE, PROBING, TUNING, with_all_labels
from pc_train.demos.worlds import make_rooms, make_streets
from pc_train.networks import open_backbone
from pc_train.reports.page import Report
from pc_train.scores import sample_to_score

from sspl.config import Config
from sspl.pictures import picture_of_classes_apart, picture_of_features, picture_of_volumes
from sspl.pretrain import pretrain

_ROOMS = replace(LATER, name="scannet")

_STREETS = Config(
    data=LATER,
    backbone="spunet14_small",
    features=("z", "intensity"),
    voxel_size=0.4,
    indoor=False,
    max_points=0,
    volume_size=4.0,
    max_volumes=200,
    local_share=0.3,  # a tenth of so few points is a voxel or two
    global_share=0.8,
    ema=0.99,  # half of the copy's weights are renewed in 70 steps; at 0.999 in 700
    queue_size=20_000,  # an epoch of volumes, as the paper's 300,000
    num_clusters=32,
    num_negatives=1_500,
    batch_size=2,
    hardware=ONE_CORE,
)
_IN_ROOMS = replace(
    _STREETS,
    data=_ROOMS,
    backbone="pointnet2_small",
    features=("height",),
    voxel_size=0.0,
    indoor=True,
    max_points=12_000,
    volume_size=0.75,
    local_share=0.1,
    global_share=0.5,
    queue_size=4_000,
)


def _pretrain(settings: Config, out: Path, data: DataConfig, seed: int, num_steps: int) -> Path:
    return pretrain(replace(settings, out=out, data=data, seed=seed, max_steps=num_steps))


def _add_figures(settings: Config, report: Report, run: Path, data: DataConfig) -> None:
    """Volumes, and what the network makes of a scan that training never saw."""
    dataset = open_dataset(data, split="val")
    scan = dataset[0]
    report.heading("Volumes")
    report.figure(
        picture_of_volumes(scan, settings),
        "A scan that training never saw: its volumes, the crops that the network sees, and those "
        "that its momentum copy sees.",
    )
    pretrained = open_backbone(run)
    networks = {
        "pre-trained": pretrained.network.eval(),
        "random weights": open_backbone(run, random_seed=0).network.eval(),
    }
    sample = sample_to_score(scan, dataset, pretrained, voxel_size=0.0)
    report.heading("Features by class")
    report.figure(
        picture_of_classes_apart(networks, sample, tuple(dataset.class_names)),
        "Features of the same scan's points laid out by t-SNE, as the paper's figure 3.",
    )
    report.figure(
        picture_of_features(networks, sample),
        "Three main directions of the features, as colours.",
    )


# After 100 steps, one scan is learned by heart from any weights.
_TUNING = replace(TUNING, max_steps=40, warmup_epochs=5)
_TUNING_ROOMS = replace(_TUNING, augmentation="rooms")

STREETS = Demo(
    title="SSPL on synthetic streets",
    lead=(
        "A small SparseUNet pre-trained on the volumes of LiDAR scans without labels, against the "
        "same network from random weights"
    ),
    loss=(
        "Contrast of volumes in the scan, and once the queue is full with clusters of all scans, "
        "by whose part it rises there"
    ),
    data=LATER,
    make_world=make_streets,
    pretrain=partial(_pretrain, _STREETS),
    pretraining_steps=500,
    features=_STREETS.features,
    probing=PROBING,
    tuning=_TUNING,
    ceiling=with_all_labels(_TUNING),
    add_figures=partial(_add_figures, _STREETS),
)

ROOMS = replace(
    STREETS,
    title="SSPL on synthetic rooms",
    lead=(
        "A small PointNet++ pre-trained on the volumes of rooms without labels, against the same "
        "network from random weights"
    ),
    data=_ROOMS,
    make_world=make_rooms,
    pretrain=partial(_pretrain, _IN_ROOMS),
    pretraining_steps=350,
    features=_IN_ROOMS.features,
    probing=replace(PROBING, augmentation="rooms"),
    tuning=_TUNING_ROOMS,
    ceiling=with_all_labels(_TUNING_ROOMS),
    add_figures=partial(_add_figures, _IN_ROOMS),
)

DEMOS = {"streets": STREETS, "rooms": ROOMS}
