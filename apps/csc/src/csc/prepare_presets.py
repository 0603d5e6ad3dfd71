"""Named settings of `csc prepare`: pass your own `--data.root`."""

import dataclasses
from pathlib import Path

from pc_data.datasets import DataConfig

from csc.prepare_config import SLIC, PrepareConfig


def dinov2() -> PrepareConfig:
    """DINOv2 ViT-g under a linear ADE20K head, for a GPU; the nearest to the paper's."""
    return PrepareConfig(
        data=DataConfig(root=Path()),
        image_size=(630, 1120),  # nuScenes' 9:16 in patches of 14; heads were trained near 640
    )


def oneformer() -> PrepareConfig:
    """OneFormer, the paper's other segmenter."""
    return PrepareConfig(
        data=DataConfig(root=Path()),
        network="oneformer_ade20k_swin_large",  # its processor resizes images on its own
    )


def offline() -> PrepareConfig:
    """Clusters of the image network that needs no download and runs on a laptop."""
    return PrepareConfig(
        data=DataConfig(root=Path()),
        network="offline_clusters",
        image_size=(224, 400),  # a quarter of nuScenes': at half of it things fall into parts
    )


def slic() -> PrepareConfig:
    """SLidR's superpixels, by colour alone: they have no classes."""
    return PrepareConfig(data=DataConfig(root=Path()), network=SLIC)


def slic_voxelnet() -> PrepareConfig:
    """The same for VoxelNet, whose features are coarse: 30 an image."""
    return dataclasses.replace(slic(), num_segments=30)


PREPARE_PRESETS = {
    "dinov2": dinov2,
    "oneformer": oneformer,
    "offline": offline,
    "slic": slic,
    "slic_voxelnet": slic_voxelnet,
}
