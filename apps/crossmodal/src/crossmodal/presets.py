"""Named settings: pass your own `--data.root`."""

import dataclasses
from pathlib import Path

from pc_data.datasets import DataConfig

from crossmodal.config import Config


def waymo() -> Config:
    """Points meet images on Waymo: the paper's main setting."""
    return Config(data=DataConfig(name="waymo", root=Path()))


def nuscenes() -> Config:
    """The same on nuScenes, whose 32 beams want larger steps within a cluster."""
    return Config(
        data=DataConfig(name="nuscenes", root=Path()),
        backbone="centerpoint_pillar_nuscenes",
        sensor_height=1.84,
        cluster_radius=1.0,
        image_size=(224, 416),
    )


def once() -> Config:
    """The same on ONCE."""
    return Config(
        data=DataConfig(name="once", root=Path()),
        backbone="centerpoint_pillar_once",
        sensor_height=1.9,
    )


def single() -> Config:
    """Two augmented clouds of nuScenes, units as they were sampled: no images, no clusters.

    Stands in for ProposalContrast in the paper's comparison: units that a camera sees, off the
    ground, without the similarity balance.
    """
    return dataclasses.replace(nuscenes(), modality="single", instances=False)


def single_units() -> Config:
    """Two augmented clouds of nuScenes, one unit for each object found.

    Stands in for the paper's stronger ProposalContrast, as `single` does for the plain one.
    """
    return dataclasses.replace(nuscenes(), modality="single")


def multi() -> Config:
    """Points with images, and with points of another augmentation, on nuScenes."""
    return dataclasses.replace(nuscenes(), modality="multi")


def small() -> Config:
    """A network that a laptop trains, with the image network that needs no download."""
    return dataclasses.replace(
        nuscenes(),
        backbone="centerpoint_pillar_small",
        teacher="efficientnet_lite0_offline",
        image_size=(160, 320),
        num_units=256,
        num_negatives=128,
        batch_size=2,
        max_steps=500,
    )


PRESETS = {
    "waymo": waymo,
    "nuscenes": nuscenes,
    "once": once,
    "single": single,
    "single_units": single_units,
    "multi": multi,
    "small": small,
}
