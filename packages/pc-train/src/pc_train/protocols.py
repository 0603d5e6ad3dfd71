"""The papers' evaluation protocols, as presets of `pc-train probe` and `pc-train finetune`.

A preset leaves open what only the user can say: backbone, data.root and out. Where a protocol has
several shares of the labels, it is one preset, and the share a flag of the user's.

Source: ScaLR (Puy et al., CVPR 2024), SLidR (Sautier et al., CVPR 2022), CSC (Chen et al., CVPR
    2024), SSPL (Zhang et al., NeurIPS 2022) and MSC (Wu et al., CVPR 2023): the papers, and the
    released configurations of all but SSPL.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pc_data.datasets import DataConfig, DatasetName

from pc_train.configs import FineTuneConfig, ProbeConfig


def _data(name: DatasetName, version: str = "") -> DataConfig:
    return DataConfig(root=Path(), name=name, version=version)


def probe_scalr() -> ProbeConfig:
    """ScaLR's linear probing on nuScenes."""
    return ProbeConfig(backbone=Path(), data=_data("nuscenes"), out=Path())


def probe_scalr_kitti() -> ProbeConfig:
    """ScaLR's linear probing on SemanticKITTI."""
    return replace(probe_scalr(), data=_data("semantickitti"))


def probe_scalr_panda64() -> ProbeConfig:
    """ScaLR's linear probing on PandaSet's spinning LiDAR."""
    return replace(probe_scalr(), data=_data("pandaset", "pandar64"), epochs=50, reach=128.0)


def probe_scalr_pandagt() -> ProbeConfig:
    """ScaLR's linear probing on PandaSet's front LiDAR."""
    return replace(probe_scalr_panda64(), data=_data("pandaset", "pandargt"))


def probe_slidr() -> ProbeConfig:
    """SLidR's linear probing on nuScenes."""
    return ProbeConfig(
        backbone=Path(),
        data=_data("nuscenes"),
        out=Path(),
        epochs=100,
        batch_size=16,
        augmentation="cloud",
        head="plain_linear",
        optimizer="sgd_cosine",
        lr=0.05,
        min_lr=0.0,
        weight_decay=1e-4,
        warmup_epochs=0,
        max_points=0,
        absent_classes="one",
    )


def probe_csc() -> ProbeConfig:
    """CSC's linear probing on nuScenes."""
    return replace(probe_slidr(), batch_size=32, lr=2.0)


def probe_rooms() -> ProbeConfig:
    """ScaLR's linear probing with the rooms of ScanNet and MSC's augmentation."""
    return ProbeConfig(
        backbone=Path(),
        data=_data("scannet"),
        out=Path(),
        augmentation="rooms",
        max_points=100_000,
        absent_classes="zero",
    )


def scalr() -> FineTuneConfig:
    """ScaLR's fine-tuning with all labels of nuScenes."""
    return FineTuneConfig(backbone=Path(), data=_data("nuscenes"), out=Path())


def few_labels() -> FineTuneConfig:
    """ScaLR's fine-tuning with 1% or 10% of the labels of nuScenes; pass fraction."""
    return replace(scalr(), epochs=45, warmup_epochs=4, layer_decay=0.95)


def scalr_kitti() -> FineTuneConfig:
    """ScaLR's fine-tuning with all labels of SemanticKITTI."""
    return replace(scalr(), data=_data("semantickitti"), epochs=10, warmup_epochs=1)


def scalr_kitti_1pct() -> FineTuneConfig:
    """ScaLR's fine-tuning with 1% of the labels of SemanticKITTI."""
    return replace(few_labels(), data=_data("semantickitti"), every=100)


def scalr_panda64() -> FineTuneConfig:
    """ScaLR's fine-tuning on PandaSet's spinning LiDAR."""
    return replace(scalr(), data=_data("pandaset", "pandar64"), reach=128.0)


def scalr_pandagt() -> FineTuneConfig:
    """ScaLR's fine-tuning on PandaSet's front LiDAR."""
    return replace(scalr(), data=_data("pandaset", "pandargt"), reach=96.0)


def slidr() -> FineTuneConfig:
    """SLidR's fine-tuning with 1% of the scenes of nuScenes."""
    return FineTuneConfig(
        backbone=Path(),
        data=_data("nuscenes"),
        out=Path(),
        every_scene=100,
        epochs=100,
        batch_size=16,
        augmentation="cloud",
        head="plain_linear",
        optimizer="sgd_cosine",
        lr=0.02,
        head_lr=2.0,
        weight_decay=1e-4,
        warmup_epochs=0,
        max_points=0,
        absent_classes="one",
        layer_decay=1.0,
        drop_path=0.0,
    )


def slidr_scratch() -> FineTuneConfig:
    """SLidR's training of random weights, its baseline, with 1% of the scenes of nuScenes."""
    return replace(slidr(), random_weights=True, lr=0.05, head_lr=0.0)


def slidr_kitti() -> FineTuneConfig:
    """SLidR's fine-tuning with 1% of the scans of SemanticKITTI."""
    return replace(
        slidr(), data=_data("semantickitti"), every_scene=1, every=100, batch_size=10, lr=0.05
    )


def csc() -> FineTuneConfig:
    """CSC's fine-tuning with 1% of the scenes of nuScenes."""
    return replace(slidr(), batch_size=32)


def csc_kitti() -> FineTuneConfig:
    """CSC's fine-tuning with 1% of the scans of SemanticKITTI."""
    return replace(slidr_kitti(), batch_size=20, lr=0.1, head_lr=4.0)


def sspl() -> FineTuneConfig:
    """SSPL's fine-tuning with 1% of the scans of SemanticKITTI; pass fraction for 2%, 5%, 10%."""
    return FineTuneConfig(
        backbone=Path(),
        data=_data("semantickitti"),
        out=Path(),
        fraction=0.01,
        epochs=100,
        batch_size=6,
        augmentation="sheared",
        head="two_conv",
        optimizer="adam",
        lr=1e-3,
        min_lr=1e-6,
        weight_decay=1e-4,
        warmup_epochs=0,
        lovasz_weight=0.0,
        max_points=0,
        mean_of_last=0.15,
        layer_decay=1.0,
        drop_path=0.0,
    )


def sspl_waymo() -> FineTuneConfig:
    """SSPL's fine-tuning with 1% of the labelled frames of Waymo; pass fraction for 2%, 5%, 10%."""
    return replace(sspl(), data=_data("waymo"))


def rooms() -> FineTuneConfig:
    """MSC's fine-tuning on the rooms of ScanNet."""
    return FineTuneConfig(
        backbone=Path(),
        data=_data("scannet"),
        out=Path(),
        epochs=800,
        batch_size=48,
        augmentation="rooms",
        mix_probability=0.8,
        head="linear",
        optimizer="sgd",
        lr=0.05,
        min_lr=5e-7,
        weight_decay=1e-4,
        warmup_epochs=40,
        lovasz_weight=0.0,
        max_points=100_000,
        absent_classes="zero",
        layer_decay=1.0,
        drop_path=0.0,
    )


def few_rooms() -> FineTuneConfig:
    """MSC's fine-tuning on few rooms or points of ScanNet; pass scenes or points_file."""
    return replace(rooms(), batch_size=12)


PROBES: dict[str, Callable[[], ProbeConfig]] = {
    "scalr": probe_scalr,
    "scalr_kitti": probe_scalr_kitti,
    "scalr_panda64": probe_scalr_panda64,
    "scalr_pandagt": probe_scalr_pandagt,
    "slidr": probe_slidr,
    "csc": probe_csc,
    "rooms": probe_rooms,
}
"""Presets of linear probing by name."""

FINETUNES: dict[str, Callable[[], FineTuneConfig]] = {
    maker.__name__: maker
    for maker in (
        *(scalr, few_labels, scalr_kitti, scalr_kitti_1pct, scalr_panda64, scalr_pandagt),
        *(slidr, slidr_scratch, slidr_kitti, csc, csc_kitti, sspl, sspl_waymo),
        *(rooms, few_rooms),
    )
}
"""Presets of fine-tuning by name."""
