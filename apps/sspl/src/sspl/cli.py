"""The `sspl` command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pc_data.commandline import run
from pc_train.notices import is_first_process

from sspl.config import Config
from sspl.presets import PRESETS


def pretrain(config: Config) -> None:
    """Pre-train a point-cloud backbone on the volumes of scans.

    Args:
        config: Data, network and optimisation.
    """
    from sspl.pretrain import pretrain as pretrain_backbone

    weights = pretrain_backbone(config)
    if is_first_process():
        print(f"weights: {weights}; report: {config.out / 'report.html'}")
        print(
            f"next: pc-train finetune --backbone {config.out} --data.root LABELLED_DATA --out OUT"
        )


def demo(
    *,
    world: Literal["streets", "rooms"] = "streets",
    out: Path = Path("runs/sspl/demo"),
    num_seeds: int = 2,
    max_steps: int = 0,
) -> None:
    """Show on a synthetic world that pre-training helps, in minutes on a laptop.

    Args:
        world: streets as a LiDAR sees them, or rooms.
        out: Folder for the world, the runs, summary.json and report.html.
        num_seeds: How often pre-training, probing and fine-tuning are repeated.
        max_steps: Cut every run to so many steps, on a smaller world; 0 for the full demo.
    """
    from pc_train.demos.demo import run_demo
    from pc_train.demos.report import summary_text

    from sspl.demo import DEMOS

    folder = out / world
    summary = run_demo(DEMOS[world], folder, num_seeds=num_seeds, max_steps=max_steps)
    print(summary_text(summary, folder))
    print("next: sspl pretrain --preset small --data.root YOUR_SCANNET --out runs/mine")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sspl`.

    Args:
        argv: The arguments; those of the process by default.
    """
    return run(
        {"demo": demo, "pretrain": pretrain},
        prog="sspl",
        description="Pre-train a network on the volumes of scans (Zhang et al., NeurIPS 2022).",
        presets={"pretrain": PRESETS},
        argv=argv,
    )
