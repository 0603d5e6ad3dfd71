"""Named settings: pass your own `--data.root`."""

import dataclasses
from pathlib import Path

from pc_data.datasets import DataConfig

from sspl.config import Config


def scannet() -> Config:
    """The paper on the aligned rooms of ScanNet, 50,000 points each."""
    return Config(data=DataConfig(name="scannet", root=Path(), align=True))


def semantickitti() -> Config:
    """The paper on SemanticKITTI, all points of a scan."""
    return Config(
        data=DataConfig(name="semantickitti", root=Path()),
        backbone="spunet_js3c",
        features=("intensity",),  # JS3C-Net's; x and y would tell volumes apart by where they are
        voxel_size=0.1,
        indoor=False,
        max_points=0,
        volume_size=4.0,
    )


def waymo() -> Config:
    """The same on Waymo, for as many steps.

    The paper has 24,000 frames of 158,000, about as many as have labels; this takes all.
    """
    return dataclasses.replace(
        semantickitti(), data=DataConfig(name="waymo", root=Path()), epochs=76
    )


def byol() -> Config:
    """The baseline BYOL on ScanNet: the whole view predicts the other."""
    return dataclasses.replace(
        scannet(),
        level="scan",
        local="byol",
        across="none",
        features=(),  # its views tilt: there is no height
        ema=0.996,
        ema_to_one=True,
    )


def byol_lidar() -> Config:
    """The same on SemanticKITTI."""
    return dataclasses.replace(
        semantickitti(), level="scan", local="byol", across="none", ema=0.996, ema_to_one=True
    )


def depthcontrast() -> Config:
    """The baseline DepthContrast on ScanNet: the whole view against a queue, as MoCo."""
    return dataclasses.replace(
        scannet(),
        level="scan",
        local="none",
        across="queue",
        features=(),  # as DepthContrast
        queue_size=131_072,
    )


def depthcontrast_lidar() -> Config:
    """The same on SemanticKITTI."""
    return dataclasses.replace(
        semantickitti(), level="scan", local="none", across="queue", queue_size=65_536
    )


def small() -> Config:
    """A network that a laptop trains, on rooms."""
    return Config(
        data=DataConfig(name="scannet", root=Path()),
        backbone="pointnet2_small",
        max_points=20_000,
        max_volumes=200,
        queue_size=10_000,
        num_clusters=32,
        num_negatives=2_000,
        batch_size=4,
        max_steps=500,
    )


PRESETS = {
    "scannet": scannet,
    "semantickitti": semantickitti,
    "waymo": waymo,
    "byol": byol,
    "byol_lidar": byol_lidar,
    "depthcontrast": depthcontrast,
    "depthcontrast_lidar": depthcontrast_lidar,
    "small": small,
}
