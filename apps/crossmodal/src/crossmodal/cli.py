"""The `crossmodal` command."""

from collections.abc import Sequence
from pathlib import Path

from pc_data.commandline import run
from pc_train.notices import is_first_process

from crossmodal.config import Config
from crossmodal.presets import PRESETS


def pretrain(config: Config) -> None:
    """Pre-train a point-cloud backbone on units that images and points share.

    Args:
        config: Data, network and optimisation.
    """
    from crossmodal.pretrain import pretrain as pretrain_backbone

    weights = pretrain_backbone(config)
    if is_first_process():
        print(f"weights: {weights}; report: {config.out / 'report.html'}")
        print(f"next: pc-train probe --backbone {config.out} --data.root LABELLED_DATA --out OUT")


def demo(
    *, out: Path = Path("runs/crossmodal/demo"), num_seeds: int = 2, max_steps: int = 0
) -> None:
    """Show on synthetic streets that pre-training helps, in minutes on a laptop.

    Args:
        out: Folder for the world, the runs, summary.json and report.html.
        num_seeds: How often pre-training, probing and fine-tuning are repeated.
        max_steps: Cut every run to so many steps, on a smaller world; 0 for the full demo.
    """
    from pc_train.demos.demo import run_demo
    from pc_train.demos.report import summary_text

    from crossmodal.demo import DEMO

    print(summary_text(run_demo(DEMO, out, num_seeds=num_seeds, max_steps=max_steps), out))
    print("next: crossmodal pretrain --preset small --data.root YOUR_NUSCENES --out runs/mine")


def study(
    *, out: Path = Path("runs/crossmodal/study"), num_seeds: int = 2, max_steps: int = 0
) -> None:
    """Compare the modalities on synthetic streets, in half an hour on two processor cores.

    In the form of the paper's table V: two augmented clouds, with units as sampled (single, for
    ProposalContrast) or one for each object (single units, for its stronger version), points with
    images (cross), both (multi), and random weights; accuracy, time of a step of pre-training and
    peak memory of each. The same command continues what was stopped.

    Args:
        out: Folder for the world, the runs, study.json and report.html.
        num_seeds: How often pre-training, probing and fine-tuning are repeated.
        max_steps: Cut every run to so many steps, on a smaller world; 0 for the full study.
    """
    from pc_train.demos.study import run_study
    from pc_train.demos.study_report import study_text

    from crossmodal.study import STUDY

    print(study_text(run_study(STUDY, out, num_seeds=num_seeds, max_steps=max_steps), out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `crossmodal`.

    Args:
        argv: The arguments; those of the process by default.
    """
    return run(
        {"demo": demo, "pretrain": pretrain, "study": study},
        prog="crossmodal",
        description="Contrastive units that points and images share (Cai et al., 2024).",
        presets={"pretrain": PRESETS},
        argv=argv,
    )
