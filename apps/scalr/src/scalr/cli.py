"""The `scalr` command."""

from collections.abc import Sequence
from pathlib import Path

from pc_data.commandline import run
from pc_train.notices import is_first_process

from scalr.config import Config
from scalr.presets import PRESETS


def pretrain(config: Config) -> None:
    """Pre-train a point-cloud backbone from images.

    Args:
        config: Data, networks and optimisation.
    """
    from scalr.pretrain import pretrain as pretrain_backbone

    weights = pretrain_backbone(config)
    if is_first_process():
        print(f"weights: {weights}; report: {config.out / 'report.html'}")
        print(f"next: pc-train probe --backbone {config.out} --data.root LABELLED_DATA --out OUT")


def demo(*, out: Path = Path("runs/scalr/demo"), num_seeds: int = 2, max_steps: int = 0) -> None:
    """Show on a synthetic world that pre-training helps, in minutes on a laptop.

    Args:
        out: Folder for the world, the runs, summary.json and report.html.
        num_seeds: How often pre-training, probing and fine-tuning are repeated.
        max_steps: Cut every run to so many steps, on a smaller world; 0 for the full demo.
    """
    from pc_train.demos.demo import run_demo
    from pc_train.demos.report import summary_text

    from scalr.demo import DEMO

    print(summary_text(run_demo(DEMO, out, num_seeds=num_seeds, max_steps=max_steps), out))
    print("next: scalr pretrain --data.root YOUR_NUSCENES --preset small --out runs/mine")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `scalr`.

    Args:
        argv: The arguments; those of the process by default.
    """
    return run(
        {"demo": demo, "pretrain": pretrain},
        prog="scalr",
        description="ScaLR: distil image features into a LiDAR backbone (Puy et al., CVPR 2024).",
        presets={"pretrain": PRESETS},
        argv=argv,
    )
