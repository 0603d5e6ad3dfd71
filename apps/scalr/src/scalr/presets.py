"""Named settings: pass your own `--data.root`."""

from pathlib import Path

from pc_data.datasets import DataConfig

from scalr.config import Config


def nuscenes() -> Config:
    """The paper's WI-48-768 on the 700 training scenes of nuScenes."""
    return Config(data=DataConfig(name="nuscenes", root=Path()))


def semantickitti() -> Config:
    """The same on SemanticKITTI's training sequences and their left colour images."""
    return Config(data=DataConfig(name="semantickitti", root=Path()))


def merged() -> Config:
    """The paper's four datasets at once, scans of each counting the same."""
    pandaset = Path("data/pandaset")
    return Config(
        data=DataConfig(name="nuscenes", root=Path()),
        more_data=[
            DataConfig(name="semantickitti", root=Path("data/semantickitti")),
            DataConfig(name="pandaset", root=pandaset, version="pandar64"),
            DataConfig(name="pandaset", root=pandaset, version="pandargt"),
        ],
    )


def small() -> Config:
    """A network that a laptop trains, from the teacher that needs no download."""
    return Config(
        data=DataConfig(name="nuscenes", root=Path()),
        teachers=("efficientnet_lite0_offline",),
        backbone="waffleiron_6_64",
        batch_size=4,
        warmup_steps=50,
        max_steps=500,
    )


PRESETS = {
    "nuscenes": nuscenes,
    "semantickitti": semantickitti,
    "merged": merged,
    "small": small,
}
