"""The `pc-train` command."""

from collections.abc import Sequence
from pathlib import Path

from pc_data.commandline import run
from pc_data.corruptions.names import CORRUPTIONS, SEVERITIES, Corruption, Severity
from pc_data.corruptions.sensors import Sensor
from pc_data.datasets import DataConfig

from pc_train.configs import FeaturesConfig, FineTuneConfig, ProbeConfig
from pc_train.notices import is_first_process
from pc_train.prediction.config import PredictConfig
from pc_train.protocols import FINETUNES, PROBES
from pc_train.robustness.config import RobustnessConfig


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


def features(config: FeaturesConfig) -> None:
    """Say what a backbone's features are like, without training on labels.

    Args:
        config: Which features of what.
    """
    from pc_train.quality.describe import describe_features, in_words

    print(f"{in_words(describe_features(config))}; report: {config.out / 'report.html'}")


def predict(source: Path, config: PredictConfig) -> None:
    """Give every point of clouds without labels a feature and, if the model has them, a class.

    Args:
        source: A cloud (.ply, .las, .laz, .pcd, .npy, .npz, .bin), a folder of such files, or a
            dataset's folder.
        config: What predicts, and how.
    """
    from pc_train.prediction.predict import predict as predict_clouds

    done = predict_clouds(source, config)
    points = f"{done.num_points:,} points" if done.num_points else "finished earlier"
    folders = "" if done.folders == (config.out,) else f" in each of {len(done.folders):,} folders"
    skipped = f"; {done.num_skipped:,} damaged clouds left out" if done.num_skipped else ""
    print(f"{config.out}: {', '.join(done.files)}{folders} ({points}{skipped})")


def robustness(
    run: Path,
    *,
    data: DataConfig,
    out: Path,
    corrupted: Path | None = None,
    corruptions: tuple[Corruption, ...] = CORRUPTIONS,
    severities: tuple[Severity, ...] = SEVERITIES,
    baseline: Path | None = None,
    sensor: Sensor | None = None,
    seed: int = 0,
    num_workers: int = 2,
) -> None:
    """Evaluate the model of a finished probe or finetune run on corrupted scans.

    Args:
        run: The run's folder.
        data: Labelled dataset; name its split.
        out: Folder of its own for robustness.json and report.html; the same command goes on.
        corrupted: Folder of nuScenes-C; without it corruptions are generated from the scans.
        corruptions: Which, as fog,snow.
        severities: Which, as light,heavy.
        baseline: robustness.json of another run to compare with.
        sensor: The LiDAR of a dataset whose own is not known.
        seed: Of generated corruptions.
        num_workers: Loader processes.
    """
    chosen = RobustnessConfig(
        run=run,
        data=data,
        out=out,
        corrupted=corrupted,
        corruptions=corruptions,
        severities=severities,
        baseline=baseline,
        sensor=sensor,
        seed=seed,
        num_workers=num_workers,
    )
    from pc_train.robustness.score import score_robustness

    found = score_robustness(chosen)
    error = "" if found.mean_error is None else f", mCE {100 * found.mean_error:.2f}%"
    print(f"mRR {100 * found.mean_resilience:.2f}%{error}; report: {out / 'report.html'}")
    if found.mean_error is None:
        print(found.baseline)


def compare(runs: list[Path], *, out: Path = Path("compare.html")) -> None:
    """Show runs side by side: settings that differ, curves, scores.

    Args:
        runs: Folders of pretrain, probe, finetune, evaluate, a demo or a study, finished or not;
            kinds of runs that do not compare get tables of their own.
        out: The page to write.
    """
    from pc_train.reports.compare import compare_runs

    for row in compare_runs(runs, out):
        print("  ".join(row))
    print(f"page: {out}")


def evidence(demos: list[Path], *, readme: Path | None = None) -> None:
    """Put the results of several apps' demos into one table.

    Args:
        demos: Their folders, each finished and in full.
        readme: Text file to put the table into, between its two marks.
    """
    from pc_train.demos.evidence import evidence_table, write_evidence

    table = evidence_table(demos)
    print(table, end="")
    if readme is not None:
        write_evidence(readme, table)


def doctor(*, out: Path = Path("runs"), data: DataConfig | None = None) -> int:
    """Say what this machine has, what is missing for what, and what to do.

    Args:
        out: Where runs would go.
        data: Dataset of which to read a scan, as --data.root DATA.
    """
    from pc_train.doctor import examine

    levels = []
    for finding in examine(out=out, data=data):
        print(finding, flush=True)
        levels.append(finding.level)
    print(f"{levels.count('ok')} ok, {levels.count('warn')} warn, {levels.count('fail')} fail")
    return 4 if "fail" in levels else 0


def _say(miou: float, out: Path) -> None:
    if is_first_process():
        print(f"mIoU {100 * miou:.2f}%; report: {out / 'report.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `pc-train`.

    Args:
        argv: The arguments; those of the process by default.
    """
    return run(
        {
            "probe": probe,
            "finetune": finetune,
            "evaluate": evaluate,
            "features": features,
            "robustness": robustness,
            "predict": predict,
            "compare": compare,
            "evidence": evidence,
            "doctor": doctor,
        },
        prog="pc-train",
        description="Measure what a point-cloud backbone is worth with labels.",
        presets={"probe": PROBES, "finetune": FINETUNES},
        argv=argv,
    )
