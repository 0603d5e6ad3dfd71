"""What a model is worth on corrupted scans, as a run that resumes between two corruptions."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pc_data.commandline import to_yaml
from pc_data.corruptions.levels import CorruptedScans
from pc_data.corruptions.names import CORRUPTIONS, SEVERITIES
from pc_data.corruptions.sensors import sensor_of
from pc_data.datasets import open_dataset
from pc_data.errors import DataError
from pc_data.readers.nuscenes_c import NuScenesC

from pc_train.limited import labelled_scans
from pc_train.networks import HEAD_FILE, load_model, weights_file
from pc_train.notices import notice
from pc_train.robustness.config import RobustnessConfig
from pc_train.robustness.measures import (
    MINKUNET18,
    corruption_errors,
    mean_over_corruptions,
    resilience_rates,
)
from pc_train.runs import lock_run, open_run, write_json
from pc_train.scores import Score, require_classes, score_model
from pc_train.segmentation import SegmentationModel

Conditions = dict[tuple[str, str], CorruptedScans | NuScenesC]

_FILE = "robustness.json"


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Result of a run.

    Attributes:
        clean: mIoU on clean scans.
        miou: At each severity, in order, by corruption.
        resilience: Share of the clean mIoU that is left, by corruption.
        mean_resilience: mRR.
        errors: Relative to the baseline's, by corruption; None without a baseline.
        mean_error: mCE; None without a baseline.
        baseline: What the errors are relative to, or why there is nothing.
    """

    clean: float
    miou: dict[str, tuple[float, ...]]
    resilience: dict[str, float]
    mean_resilience: float
    errors: dict[str, float] | None
    mean_error: float | None
    baseline: str


def score_robustness(config: RobustnessConfig) -> Robustness:
    """Score a model on clean and on corrupted scans, and write robustness.json and report.html.

    Each corruption and severity is scored once: what the folder holds already is read.

    Raises:
        FileNotFoundError: If the run is not finished, or nuScenes-C is not there.
        DataError: If a scan is damaged or lacks what a corruption needs.
        ValueError: If model, data, sensor or baseline do not fit, or `out` is of something else.
    """
    from pc_train.robustness.report import report_robustness

    backbone, head, class_names = load_model(config.run)
    clean = labelled_scans(open_dataset(config.data))
    require_classes(config.run, class_names, clean)
    conditions = _open_conditions(config, clean)
    compare = _read_baseline(config)
    kept = {"run", "data", "corrupted", "sensor", "seed"}
    settings = {key: getattr(config, key) for key in sorted(kept)}
    open_run(config.out, to_yaml(settings), inputs=_weights(config.run))
    evaluate = partial(
        score_model,
        SegmentationModel(backbone.network, head),
        backbone,
        num_workers=config.num_workers,
        voxel_size=backbone.card.get("voxel_size", 0.0),
        absent_classes=backbone.card.get("absent_classes", "left_out"),
    )
    with lock_run(config.out):
        scores = _score_all(config, clean, conditions, evaluate)
        result = _measure(config, scores, compare)
        measures = dataclasses.asdict(result)
        write_json(config.out / _FILE, scores | {"measures": measures})
        report_robustness(config, result, clean, conditions)
    return result


def _score_all(
    config: RobustnessConfig,
    clean: Any,  # noqa: ANN401 - labelled scans
    conditions: Conditions,
    evaluate: Callable[..., Score],
) -> dict[str, Any]:
    """Score what the folder does not hold yet; after each the file is whole again."""
    file = config.out / _FILE
    scores = _read_scores(file) if file.is_file() else {"clean": None, "corrupted": {}}
    num_before = _count(scores)
    if scores["clean"] is None:
        scores["clean"] = _plain(evaluate(clean, title="clean"))
        write_json(file, scores)
    for number, ((corruption, severity), scans) in enumerate(conditions.items(), start=1):
        done = scores["corrupted"].setdefault(corruption, {})
        if severity not in done:
            title = f"{corruption} {severity} ({number} of {len(conditions)})"
            done[severity] = _plain(evaluate(scans, title=title))
            write_json(file, scores)
    if num_before:
        notice(f"{num_before} scores of earlier were read from {file}")
    return scores


def _count(scores: dict[str, Any]) -> int:
    return (scores["clean"] is not None) + sum(map(len, scores["corrupted"].values()))


def _plain(score: Score) -> dict[str, Any]:
    return {"miou": score.miou, "iou": score.iou, "num_scans": score.num_scans}


def _open_conditions(
    config: RobustnessConfig,
    clean: Any,  # noqa: ANN401 - labelled scans
) -> Conditions:
    """The corrupted scans of every condition; all folders and settings are checked here."""
    wanted = [(c, s) for c in config.corruptions for s in config.severities]
    if config.corrupted is not None:
        open_condition = partial(
            NuScenesC,
            config.corrupted,
            nuscenes_root=config.data.root,
            version=config.data.version or "v1.0-trainval",
            split=config.data.split,
        )
        return {(c, s): open_condition(corruption=c, severity=s) for c, s in wanted}
    scan = clean[0]
    if scan.labels is None:
        raise DataError(
            f"scan {scan.name} of split {clean.split!r} in {clean.root} has no labels; a score "
            "needs a split with labels"
        )
    sensor = config.sensor or sensor_of(config.data)
    return {(c, s): CorruptedScans(clean, c, s, sensor=sensor, seed=config.seed) for c, s in wanted}


def _weights(run: Path) -> dict[str, Path]:
    return {"backbone": weights_file(run), "head": run / HEAD_FILE}


def _measure(
    config: RobustnessConfig, scores: dict[str, Any], compare: dict[str, float] | str
) -> Robustness:
    clean = scores["clean"]["miou"]
    miou: dict[str, tuple[float, ...]] = {
        corruption: tuple(scores["corrupted"][corruption][s]["miou"] for s in config.severities)
        for corruption in config.corruptions
    }
    resilience = resilience_rates(miou, clean)
    errors = None if isinstance(compare, str) else corruption_errors(miou, compare)
    source = str(config.baseline) if config.baseline else "MinkUNet18 (Robo3D)"
    return Robustness(
        clean=clean,
        miou=miou,
        resilience=resilience,
        mean_resilience=mean_over_corruptions(resilience),
        errors=errors,
        mean_error=mean_over_corruptions(errors) if errors else None,
        baseline=compare if isinstance(compare, str) else source,
    )


def _read_baseline(config: RobustnessConfig) -> dict[str, float] | str:
    """The baseline's mIoU by corruption, or why there is none."""
    if config.baseline is not None:
        scores = _read_scores(config.baseline)["corrupted"]
        missing = [
            f"{corruption} {severity}"
            for corruption in config.corruptions
            for severity in config.severities
            if severity not in scores.get(corruption, {})
        ]
        if missing:
            raise ValueError(
                f"{config.baseline} lacks {len(missing)} of the scores to compare with "
                f"({', '.join(missing[:3])}); score them there, or ask for fewer corruptions here"
            )
        return {
            corruption: sum(scores[corruption][s]["miou"] for s in config.severities)
            / len(config.severities)
            for corruption in config.corruptions
        }
    whole = {*config.corruptions} == {*CORRUPTIONS} and {*config.severities} == {*SEVERITIES}
    if config.corrupted is not None and whole:
        return dict(MINKUNET18)
    return (
        "There is no mCE: the published baseline is of nuScenes-C with all eight corruptions at "
        "three severities. To compare with a run of your own, pass its robustness.json as baseline."
    )


def _read_scores(file: Path) -> dict[str, Any]:
    """Read what an earlier part of a run, or another run, has scored.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; pass a robustness.json")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        scores = {"clean": content["clean"], "corrupted": content["corrupted"]}
        tables = [scores["clean"] or {"miou": 0.0}]
        for by_severity in scores["corrupted"].values():
            tables += by_severity.values()
        _ = [float(table["miou"]) for table in tables]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{file} is damaged or no robustness.json ({error!r}); remove it to score anew"
        ) from error
    return scores
