"""The report of a run on corrupted scans."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from pc_data.corruptions.levels import CorruptedScans
from pc_data.scan import Scan

from pc_train.reports.figures import plot_iou
from pc_train.reports.page import Report, percent
from pc_train.robustness.config import RobustnessConfig
from pc_train.robustness.measures import (
    MINKUNET18,
    MINKUNET18_CLEAN,
    mean_over_corruptions,
    resilience_rates,
)
from pc_train.robustness.score import Robustness

_MADE_UP = "#ff6b35"
_DARK, _INK = "#10141b", "#d7dce5"
_REACH = 40.0  # metres shown to each side


def report_robustness(
    config: RobustnessConfig,
    result: Robustness,
    clean: Any,  # noqa: ANN401 - scans
    conditions: Mapping[tuple[str, str], Any],
) -> None:
    """Write `report.html`.

    Args:
        config: Of the run.
        result: What was found.
        clean: The clean scans.
        conditions: The corrupted scans by corruption and severity.
    """
    error = "" if result.mean_error is None else f", mCE {percent(result.mean_error)}%"
    report = Report(
        "pc-train: robustness",
        f"mRR {percent(result.mean_resilience)}%{error}; mIoU {percent(result.clean)}% on clean "
        f"scans, {config.data.name} {config.data.split}",
    )
    report.heading("mIoU (%) under corruption")
    header = ["corruption", *config.severities, "mean", "RR (%)"]
    rows = [_row(result, name) for name in config.corruptions]
    if result.errors is not None:
        header.append("CE (%)")
    report.table(header, rows)
    if result.errors is None:
        report.paragraph(result.baseline)
    else:
        report.paragraph(f"Corruption errors are relative to those of {result.baseline}.")
    if result.errors is not None and config.baseline is None:
        report.heading("Beside the published baseline")
        names = [name.replace("_", " ") for name in MINKUNET18]
        report.table(["mIoU (%)", "mCE", "mRR", "clean", *names], _beside_published(result))
    bars: dict[str, dict[str, float]] = {
        severity: {name: values[k] for name, values in result.miou.items()}
        for k, severity in enumerate(config.severities)
    }
    report.figure(plot_iou(bars), "mIoU by corruption and severity.")
    report.heading("What happens to a scan")
    severity = config.severities[-1]
    scans = picture_scans(clean, {c: conditions[c, severity] for c in config.corruptions})
    caption = f"The same scan from above, {severity}, coloured by intensity"
    if config.corrupted is None:
        caption += "; orange are points that no surface returned"
    report.figure(plot_corruptions(scans), f"{caption}.")
    report.configuration(config.out)
    report.write(config.out / "report.html")


def picture_scans(clean: Any, corrupted: Mapping[str, Any]) -> dict[str, Scan]:  # noqa: ANN401
    """The middle scan of a dataset, clean and corrupted, by title.

    Where corruptions are generated, points that no surface returned are those of label -1; other
    scans come without labels.
    """
    index = len(clean) // 2
    scan = clean[index]
    scans = {"clean": dataclasses.replace(scan, labels=None)}
    known = dataclasses.replace(
        scan, labels=np.where(scan.labels < 0, np.iinfo(int).max, scan.labels)
    )
    for name, dataset in corrupted.items():
        if isinstance(dataset, CorruptedScans):
            shown = dataset.apply(known, index)
        else:
            shown = dataclasses.replace(dataset[index], labels=None)
        scans[name.replace("_", " ")] = shown
    return scans


def plot_corruptions(scans: Mapping[str, Scan]) -> Figure:
    """Draw scans from above, coloured by intensity, or by height without.

    Args:
        scans: By title; points of label -1 are orange.
    """
    columns = min(3, len(scans))
    rows = -(-len(scans) // columns)
    figure = Figure(
        figsize=(4.0 * columns, 4.2 * rows), facecolor=_DARK, layout="constrained", dpi=110
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    first = next(iter(scans.values()))
    ranks = np.sort(_values(first))
    for axes, (title, scan) in zip(panels, scans.items(), strict=False):
        near = (np.abs(scan.xyz[:, :2]) < _REACH).all(1)
        made_up = np.zeros(len(scan), bool) if scan.labels is None else scan.labels < 0
        share = np.searchsorted(ranks, _values(scan), "right") / max(len(ranks), 1)
        color = colormaps["viridis"](0.15 + 0.85 * share)
        seen = near & ~made_up
        axes.scatter(*scan.xyz[seen, :2].T, s=0.5, c=color[seen], linewidths=0)
        axes.scatter(*scan.xyz[near & made_up, :2].T, s=1.2, c=_MADE_UP, linewidths=0)
        axes.set(xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH), aspect="equal")
        axes.set_title(f"{title}, {len(scan):,} points", color=_INK, fontsize=9)
        axes.set_facecolor(_DARK)
        axes.set(xticks=[], yticks=[])
    for axes in panels[len(scans) :]:
        axes.remove()
    return figure


def _values(scan: Scan) -> np.ndarray:
    return scan.xyz[:, 2] if scan.intensity is None else scan.intensity


def _row(result: Robustness, name: str) -> list[str]:
    values = result.miou[name]
    row = [name.replace("_", " "), *map(percent, values), percent(float(np.mean(values)))]
    row.append(percent(result.resilience[name]))
    return row if result.errors is None else [*row, percent(result.errors[name])]


def _beside_published(result: Robustness) -> list[list[str]]:
    """The row of this model and that of MinkUNet18, as Robo3D's table has them."""
    means = [float(np.mean(result.miou[name])) for name in MINKUNET18]
    rates = resilience_rates({name: [miou] for name, miou in MINKUNET18.items()}, MINKUNET18_CLEAN)
    mine = [result.mean_error or 0.0, result.mean_resilience, result.clean, *means]
    theirs = [1.0, mean_over_corruptions(rates), MINKUNET18_CLEAN, *MINKUNET18.values()]
    return [["this run", *map(percent, mine)], ["MinkUNet18", *map(percent, theirs)]]
