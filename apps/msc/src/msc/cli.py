"""The `msc` command."""

from collections.abc import Sequence
from pathlib import Path

from pc_data.commandline import run
from pc_train.notices import is_first_process

from msc.config import Config
from msc.presets import PRESETS


def pretrain(config: Config) -> None:
    """Pre-train a point-cloud backbone from scans alone.

    Args:
        config: Data, network and optimisation.
    """
    from msc.pretrain import pretrain as pretrain_backbone

    weights = pretrain_backbone(config)
    if is_first_process():
        print(f"weights: {weights}; report: {config.out / 'report.html'}")
        recipe = "--preset rooms --data.name scannet" if "red" in config.features else ""
        words = f"pc-train finetune {recipe} --backbone {config.out}".split()
        print("next:", *words, "--data.root LABELLED_DATA --out OUT")


def demo(*, out: Path = Path("runs/msc/demo"), num_seeds: int = 2, max_steps: int = 0) -> None:
    """Show on synthetic rooms that pre-training helps, in minutes on a laptop.

    Args:
        out: Folder for the world, the runs, summary.json and report.html.
        num_seeds: How often pre-training, probing and fine-tuning are repeated.
        max_steps: Cut every run to so many steps, on a smaller world; 0 for the full demo.
    """
    from pc_train.demos.demo import run_demo
    from pc_train.demos.report import summary_text

    from msc.demo import DEMO

    print(summary_text(run_demo(DEMO, out, num_seeds=num_seeds, max_steps=max_steps), out))
    print(
        "next: msc pretrain --preset small --data.name scannet --data.root YOUR_SCANNET "
        "--out runs/mine"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `msc`.

    Args:
        argv: The arguments; those of the process by default.
    """
    return run(
        {"demo": demo, "pretrain": pretrain},
        prog="msc",
        description="Masked Scene Contrast: pre-train a network on scans (Wu et al., CVPR 2023).",
        presets={"pretrain": PRESETS},
        argv=argv,
    )
