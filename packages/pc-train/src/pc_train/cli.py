"""The `pc-train` command."""

from collections.abc import Sequence
from pathlib import Path

from pc_data.commandline import run
from pc_data.datasets import DataConfig

from pc_train.configs import FineTuneConfig, ProbeConfig, few_labels, probe_rooms, rooms
from pc_train.notices import is_first_process


def probe(config: ProbeConfig) -> None:
    """Train a linear classifier on a frozen backbone, and evaluate it.

    Args:
        config: What to train on what.
    """
    from pc_train import downstream

    _say(downstream.probe(config).miou, config.out)


def finetune(config: FineTuneConfig) -> None:
    """Train backbone and classifier together, and evaluate them.

    Args:
        config: What to train on what.
    """
    from pc_train import downstream

    _say(downstream.finetune(config).miou, config.out)


def evaluate(
    run: Path, *, data: DataConfig, out: Path, num_workers: int = 2, precise: bool = False
) -> None:
    """Evaluate the model of a finished probe or finetune run on a dataset.

    Args:
        run: The run's folder.
        data: Labelled dataset; name its split.
        out: Folder of its own for scores.json and report.html.
        num_workers: Loader processes.
        precise: Predict each original point in 13 turned and scaled passes; takes much longer.
    """
    from pc_train import downstream

    score = downstream.evaluate(run, data, out=out, num_workers=num_workers, precise=precise)
    _say(score.miou, out)


def _say(miou: float, out: Path) -> None:
    if is_first_process():
        print(f"mIoU {100 * miou:.2f}%; report: {out / 'report.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `pc-train`.

    Args:
        argv: The arguments; those of the process by default.
    """
    return run(
        {"probe": probe, "finetune": finetune, "evaluate": evaluate},
        prog="pc-train",
        description="Measure what a point-cloud backbone is worth with labels.",
        presets={
            "probe": {"rooms": probe_rooms},
            "finetune": {"few_labels": few_labels, "rooms": rooms},
        },
        argv=argv,
    )
