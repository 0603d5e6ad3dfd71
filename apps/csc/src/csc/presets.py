"""Named settings: pass your own `--data.root`, and `--superpixels` as prepared."""

import dataclasses
from pathlib import Path

from pc_data.datasets import DataConfig

from csc.config import Config


def nuscenes() -> Config:
    """CSC on nuScenes: MinkUNet on cylindrical voxels, semantic superpixels, blended prototypes."""
    return Config(data=DataConfig(name="nuscenes", root=Path(), split="slidr_train"))


def voxelnet() -> Config:
    """CSC with the VoxelNet of detectors."""
    return dataclasses.replace(
        nuscenes(), backbone="voxelnet", features=("x", "y", "z", "intensity"), lr=0.01
    )


def cylinder3d() -> Config:
    """CSC with Cylinder3D."""
    return dataclasses.replace(
        nuscenes(),
        backbone="cylinder3d_csc",
        optimizer="adam",
        lr=1e-3,
        weight_decay=0.0,
        epochs=15,
    )


def released() -> Config:
    """The released code of CSC where it differs from the paper, but for its shifted classes."""
    return dataclasses.replace(
        nuscenes(),
        data=DataConfig(name="nuscenes", root=Path(), split="train"),
        features=("raw_intensity",),
        prototypes="concat",
        absent_classes=True,
        average_losses=True,
    )


def released_cylinder3d() -> Config:
    """The same with Cylinder3D, whose heads it leaves at random weights."""
    return dataclasses.replace(
        released(),
        backbone="cylinder3d_csc",
        optimizer="adam",
        lr=1e-3,
        weight_decay=0.0,
        learn_heads=False,
    )


def point_prototypes() -> Config:
    """Table 5, row 3: superpoints meet the points' prototypes as they are."""
    return dataclasses.replace(nuscenes(), prototypes="point")


def semantic() -> Config:
    """Table 5, row 2: semantic superpixels, without prototypes."""
    return dataclasses.replace(nuscenes(), prototypes="none")


def slidr() -> Config:
    """Table 5, row 1: SLidR, for superpixels of `csc prepare --preset slic`."""
    return dataclasses.replace(semantic(), batch_size=4, lr=0.5)


def slidr_voxelnet() -> Config:
    """SLidR with VoxelNet, for `csc prepare --preset slic --num_segments 30`."""
    return dataclasses.replace(
        slidr(),
        data=DataConfig(name="nuscenes", root=Path(), split="train"),
        backbone="voxelnet",
        features=("x", "y", "z", "intensity"),
        batch_size=6,
        lr=0.01,
    )


def st_slidr() -> Config:
    """ST-SLidR: superpixels that look alike repel each other less."""
    return dataclasses.replace(slidr(), contrast="tolerant")


def ppkt() -> Config:
    """PPKT as SLidR runs it: pairs of a point and a pixel, without superpixels."""
    return dataclasses.replace(
        slidr(), contrast="pixel", teacher="moco_v2_resnet50", teacher_level=-1
    )


def small() -> Config:
    """A network that a laptop trains, with the image network that needs no download."""
    return dataclasses.replace(
        nuscenes(),
        data=DataConfig(name="nuscenes", root=Path()),
        backbone="minkunet14_small",
        teacher="efficientnet_lite0_offline",
        image_size=(160, 320),
        prototype_epochs=1,
        optimizer="adam",
        lr=2e-3,
        weight_decay=0.0,
        batch_size=2,
        max_steps=500,
    )


PRESETS = {
    "nuscenes": nuscenes,
    "voxelnet": voxelnet,
    "cylinder3d": cylinder3d,
    "released": released,
    "released_cylinder3d": released_cylinder3d,
    "point_prototypes": point_prototypes,
    "semantic": semantic,
    "slidr": slidr,
    "slidr_voxelnet": slidr_voxelnet,
    "st_slidr": st_slidr,
    "ppkt": ppkt,
    "small": small,
}
