"""The `csc` command."""

from collections.abc import Sequence
from pathlib import Path

from pc_data.commandline import run
from pc_train.notices import is_first_process

from csc.config import Config
from csc.prepare_config import PrepareConfig
from csc.prepare_presets import PREPARE_PRESETS
from csc.presets import PRESETS


def prepare(config: PrepareConfig) -> None:
    """Compute the superpixels of a dataset's images once, in parallel; resumable.

    Args:
        config: Data, and what divides the images.
    """
    from csc.prepare import prepare as prepare_superpixels

    prepare_superpixels(config)
    print(f"superpixels: {config.out}; report: {config.out / 'report.html'}")
    print(f"next: csc pretrain --superpixels {config.out} --data.root {config.data.root}")


def pretrain(config: Config) -> None:
    """Pre-train a point-cloud backbone on the superpixels of images.

    Args:
        config: Data, superpixels, network and optimisation.
    """
    from csc.pretrain import pretrain as pretrain_backbone

    weights = pretrain_backbone(config)
    if is_first_process():
        print(f"weights: {weights}; report: {config.out / 'report.html'}")
        print(f"next: pc-train probe --backbone {config.out} --data.root LABELLED_DATA --out OUT")


def demo(*, out: Path = Path("runs/csc/demo"), num_seeds: int = 2, max_steps: int = 0) -> None:
    """Show on synthetic streets that pre-training helps, in minutes on a laptop.

    Args:
        out: Folder for the world, its superpixels, the runs, summary.json and report.html.
        num_seeds: How often pre-training, probing and fine-tuning are repeated.
        max_steps: Cut every run to so many steps, on a smaller world; 0 for the full demo.
    """
    from pc_train.demos.demo import run_demo
    from pc_train.demos.report import summary_text

    from csc.demo import DEMO

    print(summary_text(run_demo(DEMO, out, num_seeds=num_seeds, max_steps=max_steps), out))
    print("next: csc prepare --preset offline --data.root YOUR_NUSCENES --out runs/superpixels")


def study(*, out: Path = Path("runs/csc/study"), num_seeds: int = 2, max_steps: int = 0) -> None:
    """Compare the parts of CSC on synthetic streets, in forty minutes on two processor cores.

    The rows of the paper's table 5: SLidR's superpixels (slidr), semantic ones (semantic), with the
    points' prototypes as they are (point prototypes), with prototypes blended from both modalities
    (csc), and random weights; accuracy, time of a step of pre-training and peak memory of each. The
    same command continues what was stopped.

    Args:
        out: Folder for the world, the runs, study.json and report.html.
        num_seeds: How often pre-training, probing and fine-tuning are repeated.
        max_steps: Cut every run to so many steps, on a smaller world; 0 for the full study.
    """
    from pc_train.demos.study import run_study
    from pc_train.demos.study_report import study_text

    from csc.study import STUDY

    print(study_text(run_study(STUDY, out, num_seeds=num_seeds, max_steps=max_steps), out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `csc`.

    Args:
        argv: The arguments; those of the process by default.
    """
    return run(
        {"demo": demo, "prepare": prepare, "pretrain": pretrain, "study": study},
        prog="csc",
        description="Scene-level consistency through class prototypes (Chen et al., CVPR 2024).",
        presets={"pretrain": PRESETS, "prepare": PREPARE_PRESETS},
        argv=argv,
    )
