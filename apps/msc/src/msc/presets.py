"""Named settings: pass your own `--data.root`."""

from pathlib import Path

from pc_data.datasets import DataConfig

from msc.config import Config


def scannet() -> Config:
    """The paper's tables 3 to 5 on ScanNet."""
    return Config(data=DataConfig(name="scannet", root=Path()))


def scannet_arkitscenes() -> Config:
    """The same on ScanNet and ARKitScenes, scenes of both counting the same."""
    return Config(
        data=DataConfig(name="scannet", root=Path()),
        more_data=[DataConfig(name="arkitscenes", root=Path("data/arkitscenes"))],
    )


def released() -> Config:
    """What the released configuration has instead of the paper's tables, on ScanNet."""
    return Config(
        data=DataConfig(name="scannet", root=Path(), split="all"),
        backbone="spunet34",
        reconstruct=("color",),
        mask_size=0.1,
        mask_rate=0.4,
        contrast_weight=1 / 8,
        cycle_momentum=True,
    )


def pointcontrast() -> Config:
    """The contrast alone, as PointContrast: nothing hidden, mixed or reconstructed."""
    return Config(
        data=DataConfig(name="scannet", root=Path()),
        backbone="spunet34",
        features=("red", "green", "blue"),
        reconstruct=(),
        mask_rate=0.0,
        mix_probability=0.0,
        max_pairs=1024,
        temperature=0.07,
    )


def lidar() -> Config:
    """LiDAR scans, without colour and normals: the intensity is hidden and reconstructed."""
    return Config(
        data=DataConfig(name="nuscenes", root=Path()),
        backbone="spunet34",
        features=("intensity",),
        reconstruct=("intensity",),
        voxel_size=0.05,
        mask_size=0.5,
        match_radius=0.075,
    )


def small() -> Config:
    """A network that a laptop trains."""
    return Config(
        data=DataConfig(name="scannet", root=Path()),
        backbone="spunet14_small",
        voxel_size=0.05,
        match_radius=0.075,
        max_pairs=1024,
        batch_size=4,
        max_steps=500,
    )


PRESETS = {
    "scannet": scannet,
    "scannet_arkitscenes": scannet_arkitscenes,
    "released": released,
    "pointcontrast": pointcontrast,
    "lidar": lidar,
    "small": small,
}
