"""Presets against the papers' values, and on tiny worlds as a user runs them.

Values of ScaLR (Puy et al., CVPR 2024): its released downstream configurations; of SLidR (Sautier
et al., CVPR 2022) and CSC (Chen et al., CVPR 2024): theirs; of MSC (Wu et al., CVPR 2023): Table 6
and its released configuration; of SSPL (Zhang et al., NeurIPS 2022): Sec. 4.3, and the training of
JS3C-Net (Yan et al., AAAI 2021), which it largely follows.
"""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from pc_data.datasets import DataConfig
from pc_train.configs import FineTuneConfig, ProbeConfig
from pc_train.downstream import finetune, probe
from pc_train.hardware import HardwareConfig
from pc_train.protocols import FINETUNES, PROBES

WHERE = {"backbone": Path(), "data": DataConfig(root=Path()), "out": Path()}

SCALR = {
    "augmentation": "lidar",
    "max_points": 20_000,
    "batch_size": 8,
    "head": "norm_linear",
    "optimizer": "adamw",
    "lovasz_weight": 1,
    "absent_classes": "left_out",
}
SCALR_PROBE = {
    **SCALR,
    "lr": 1e-3,
    "weight_decay": 0.003,
    "min_lr": 1e-5,
    "epochs": 20,
    "warmup_epochs": 2,
}
SCALR_TUNE = {
    **SCALR,
    "lr": 2e-3,
    "weight_decay": 0,
    "min_lr": 0,
    "epochs": 25,
    "warmup_epochs": 2,
    "layer_decay": 0.99,
    "drop_path": 0.2,
}
SCALR_FEW = {**SCALR_TUNE, "epochs": 45, "warmup_epochs": 4, "layer_decay": 0.95}
SLIDR = {  # all points; batch norm of the backbone's own momentum
    "augmentation": "cloud",
    "max_points": 0,
    "head": "plain_linear",
    "lovasz_weight": 1,
    "optimizer": "sgd_cosine",
    "weight_decay": 1e-4,
    "min_lr": 0,
    "warmup_epochs": 0,
    "epochs": 100,
    "absent_classes": "one",
}
SLIDR_TUNE = {
    **SLIDR,
    "every_scene": 100,
    "batch_size": 16,
    "lr": 0.02,
    "head_lr": 2.0,
    "layer_decay": 1,
    "drop_path": 0,
}
SLIDR_KITTI = {**SLIDR_TUNE, "every_scene": 1, "every": 100, "batch_size": 10, "lr": 0.05}
SSPL = {
    "fraction": 0.01,
    "head": "two_conv",
    "mean_of_last": 0.15,
    "num_scores": 5,
    "augmentation": "sheared",
    "max_points": 0,
    "optimizer": "adam",
    "lr": 1e-3,
    "min_lr": 1e-6,
    "weight_decay": 1e-4,
    "epochs": 100,
    "batch_size": 6,
    "warmup_epochs": 0,
    "lovasz_weight": 0,
    "layer_decay": 1,
    "drop_path": 0,
}
MSC = {
    "augmentation": "rooms",
    "max_points": 100_000,
    "mix_probability": 0.8,
    "head": "linear",
    "optimizer": "sgd",
    "lr": 0.05,
    "min_lr": 0.05 / 10 / 1e4,
    "weight_decay": 1e-4,
    "epochs": 800,
    "warmup_epochs": 40,
    "batch_size": 48,
    "lovasz_weight": 0,
    "absent_classes": "zero",
    "layer_decay": 1,
    "drop_path": 0,
}
KITTI, PANDA64, PANDAGT = ("semantickitti", ""), ("pandaset", "pandar64"), ("pandaset", "pandargt")

PAPERS = [  # preset, dataset, what differs from the settings' own defaults
    (PROBES, "scalr", ("nuscenes", ""), SCALR_PROBE),
    (PROBES, "scalr_kitti", KITTI, SCALR_PROBE),
    (PROBES, "scalr_panda64", PANDA64, {**SCALR_PROBE, "epochs": 50, "reach": 128}),
    (PROBES, "scalr_pandagt", PANDAGT, {**SCALR_PROBE, "epochs": 50, "reach": 128}),
    (PROBES, "slidr", ("nuscenes", ""), {**SLIDR, "batch_size": 16, "lr": 0.05}),
    (PROBES, "csc", ("nuscenes", ""), {**SLIDR, "batch_size": 32, "lr": 2.0}),
    (
        *(PROBES, "rooms", ("scannet", "")),
        {
            **SCALR_PROBE,
            "augmentation": "rooms",
            "max_points": 100_000,
            "absent_classes": "zero",
        },
    ),
    (FINETUNES, "scalr", ("nuscenes", ""), SCALR_TUNE),
    (FINETUNES, "few_labels", ("nuscenes", ""), SCALR_FEW),
    (FINETUNES, "scalr_kitti", KITTI, {**SCALR_TUNE, "epochs": 10, "warmup_epochs": 1}),
    (FINETUNES, "scalr_kitti_1pct", KITTI, {**SCALR_FEW, "every": 100}),
    (FINETUNES, "scalr_panda64", PANDA64, {**SCALR_TUNE, "reach": 128}),
    (FINETUNES, "scalr_pandagt", PANDAGT, {**SCALR_TUNE, "reach": 96}),
    (FINETUNES, "slidr", ("nuscenes", ""), SLIDR_TUNE),
    (
        *(FINETUNES, "slidr_scratch", ("nuscenes", "")),
        {**SLIDR_TUNE, "random_weights": True, "lr": 0.05, "head_lr": 0},
    ),
    (FINETUNES, "slidr_kitti", KITTI, SLIDR_KITTI),
    (FINETUNES, "csc", ("nuscenes", ""), {**SLIDR_TUNE, "batch_size": 32}),
    (FINETUNES, "csc_kitti", KITTI, {**SLIDR_KITTI, "batch_size": 20, "lr": 0.1, "head_lr": 4.0}),
    (FINETUNES, "sspl", KITTI, SSPL),
    (FINETUNES, "sspl_waymo", ("waymo", ""), SSPL),
    (FINETUNES, "rooms", ("scannet", ""), MSC),
    (FINETUNES, "few_rooms", ("scannet", ""), {**MSC, "batch_size": 12}),
]


@pytest.mark.parametrize(("presets", "name", "dataset", "paper"), PAPERS)
def test_values_of_the_papers(presets, name, dataset, paper):
    config = presets[name]()
    kind = ProbeConfig if presets is PROBES else FineTuneConfig
    assert type(config) is kind
    assert (config.data.name, config.data.version) == dataset
    usual = {field.name: getattr(kind(**WHERE), field.name) for field in fields(kind)}
    wanted = usual | paper | {"data": config.data}
    assert {name: getattr(config, name) for name in wanted} == pytest.approx(wanted)


def test_every_preset_is_of_a_paper():
    for presets in (PROBES, FINETUNES):
        assert list(presets) == [name for kind, name, *_ in PAPERS if kind is presets]


@pytest.fixture(scope="module")
def world(tmp_path_factory, street_world, rooms):
    """Makes the tiny world of a layout, once."""
    from tests.pc_data.layouts import make_world

    folder = tmp_path_factory.mktemp("worlds")
    made = {"nuscenes": street_world, "scannet": rooms}

    def make(name):
        if name not in made:
            made[name] = make_world(name, folder / name)
        return made[name]

    return make


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Run folders of tiny networks: one on a grid, a sparse one for streets, one for rooms."""
    import torch
    from pc_data.features import LIDAR_FEATURES, ROOM_FEATURES
    from pc_train.networks import new_backbone, save_model

    torch.manual_seed(0)
    small = {
        "stem_width": 8,
        "encoder_widths": (8, 8, 8, 8),
        "decoder_widths": (8, 8, 8, 8),
    }
    waffle = new_backbone(
        "waffleiron_6_64",
        len(LIDAR_FEATURES),
        channels=16,
        depth=3,
        num_neighbors=4,
        grids=((64, 64), (64, 8), (64, 8)),
    )
    sparse = new_backbone("minkunet14_small", 1, voxel_size=1.0, down_widths=(8, 8, 8, 8), **small)
    room = new_backbone("spunet14_small", len(ROOM_FEATURES), voxel_size=0.3, **small)
    made = {}
    for name, network, features in (
        ("waffle", waffle, LIDAR_FEATURES),
        ("sparse", sparse, ("intensity",)),
        ("room", room, ROOM_FEATURES),
    ):
        made[name] = tmp_path_factory.mktemp(name)
        save_model(made[name], network, card={"features": list(features)})
    return made


def _cut(config, world, networks, out):
    """The same protocol in two steps, with all of a tiny world's scans."""
    kind = {"scannet": "room", "pandaset": "waffle"}.get(config.data.name, "sparse")
    if config.augmentation == "lidar":
        kind = "waffle"
    return replace(
        config,
        backbone=networks[kind],
        data=replace(config.data, root=world(config.data.name)),
        out=out,
        max_steps=2,
        batch_size=2,
        fraction=1.0,
        every=1,
        every_scene=1,
        voxel_size=1.0,
        max_points=500,
        hardware=HardwareConfig(accelerator="cpu", num_workers=0),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("presets", "name"), [(kind, name) for kind, name, *_ in PAPERS])
def test_presets_run(presets, name, world, networks, tmp_path, monkeypatch):
    monkeypatch.setattr("pc_train.downstream.report_segmentation", lambda *_, **__: None)
    config = _cut(presets[name](), world, networks, tmp_path)
    score = (probe if presets is PROBES else finetune)(config)
    assert 0 <= score.miou <= 1
    assert len(score.miou_by_step) == (1 if name.startswith("sspl") else 0)
    assert (tmp_path / "head.safetensors").is_file()
