"""The `scalr` command."""

from pathlib import Path

from pc_data.commandline import run

from scalr.config import Config
from scalr.presets import PRESETS


def pretrain(config: Config) -> None:
    """Pre-train a point-cloud backbone from images.

    Args:
        config: Data, networks and optimisation.
    """
    from scalr.pretrain import pretrain as pretrain_backbone

    weights = pretrain_backbone(config)
    print(f"weights: {weights}; report: {config.out / 'report.html'}")
    print(f"next: pc-train probe --backbone {weights} --data.root LABELLED_DATA --out OUT")


def main() -> int:
    """Run `scalr`."""
    return run(
        {"pretrain": pretrain},
        prog="scalr",
        description="ScaLR: distil image features into a LiDAR backbone (Puy et al., CVPR 2024).",
        presets={"pretrain": PRESETS},
    )
