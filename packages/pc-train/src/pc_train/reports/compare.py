"""Runs side by side: what was set otherwise, how they learned, what they are worth."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pc_train.demos.report import measure_title, summary_rows
from pc_train.demos.study_report import study_header, study_rows
from pc_train.reports.figures import plot_curves, plot_iou, plot_watched_runs
from pc_train.reports.page import Report, percent, read_pictures
from pc_train.run_folders import RunFolder, read_run, short_names
from pc_train.runs import flatten

_GROUPS = {
    "Pre-training": ("pretrain",),
    "Probing, fine-tuning, evaluation": ("probe", "finetune", "evaluate"),
    "Demos": ("demo",),
    "Studies": ("study",),
}
_MOST_CLASSES = 40  # rows of a table
_MOST_ROWS = 25  # of a table that is open
_MOST_PICTURES = 4  # side by side
_OVERLAID = ("Loss", "Classes")  # sections that figures of all runs stand for

Named = Mapping[str, RunFolder]


def compare_runs(paths: Sequence[Path], out: Path) -> list[list[str]]:
    """Write a page that shows runs side by side, those of a kind in a section of their own.

    Args:
        paths: The runs' folders, finished or not. The first of each kind is what the others of
            that kind are compared with.
        out: The page.

    Returns:
        Rows of run, command, state, and what came out.

    Raises:
        FileNotFoundError: If a folder holds no run.
        ValueError: If fewer than two folders come, one comes twice, or one is of another command.
    """
    if len(paths) < 2:
        raise ValueError(f"a comparison needs at least 2 runs, got {len(paths)}; add folders")
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError("a run is named twice; name each folder once")
    if out.is_dir():
        raise ValueError(f"{out} is a folder; pass the page's name, such as {out / 'compare.html'}")
    runs = dict(zip(short_names(paths), map(read_run, paths), strict=True))
    overview = [[name, run.command, run.state, _headline(run)] for name, run in runs.items()]
    report = Report("Runs side by side", f"{len(runs)} runs")
    report.table(["run", "command", "state", "result"], overview)
    for title, commands in _GROUPS.items():
        group = {name: run for name, run in runs.items() if run.command in commands}
        if group:
            report.heading(title)
            _add_group(report, group)
    report.write(out)
    return overview


def setting_rows(runs: Named) -> list[list[str]]:
    """Settings that are not the same in all runs, one row each; `out` is left out."""
    settings = [_written(run.settings) for run in runs.values()]
    keys = dict.fromkeys(key for written in settings for key in written if key != "out")
    rows = [[key, *(written.get(key, "") for written in settings)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def class_rows(ious: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """IoU in percent of the classes that all runs have, those that differ most first."""
    first, *others = ious.values()
    shared = [name for name in first if all(name in other for other in others)]

    def spread(name: str) -> float:
        values = np.nan_to_num([iou[name] for iou in ious.values()])
        return float(np.ptp(values))

    shared.sort(key=spread, reverse=True)
    return [
        [name.replace("_", " "), *(percent(iou[name]) for iou in ious.values())] for name in shared
    ]


def _add_group(report: Report, runs: Named) -> None:
    command = next(iter(runs.values())).command
    if command == "pretrain":
        _add_curves(report, runs)
        _add_pictures(report, runs)
    elif command == "demo":
        _add_demos(report, runs)
    elif command == "study":
        _add_studies(report, runs)
    else:
        _add_scores(report, runs)
        _add_curves(report, runs)
        _add_pictures(report, runs)
    if len(runs) > 1:
        rows = setting_rows(runs)
        if rows:
            with report.folded(
                f"What was set otherwise: {len(rows)}", unfold=len(rows) <= _MOST_ROWS
            ):
                report.table(["setting", *runs], rows)
        else:
            report.paragraph("All settings are the same.")


def _add_scores(report: Report, runs: Named) -> None:
    scored = {name: run.result for name, run in runs.items() if run.result}
    if not scored:
        return
    first = next(iter(scored.values()))["miou"]
    rows = [
        [name, runs[name].command, percent(score["miou"]), f"{100 * (score['miou'] - first):+.1f}"]
        for name, score in scored.items()
    ]
    report.table(["run", "command", "mIoU (%)", "against the first"], rows)
    if len(scored) < 2:
        return
    # JSON's null is a class that does not occur, where a file was written without NaN.
    ious = {
        name: {k: float("nan") if v is None else v for k, v in score["iou"].items()}
        for name, score in scored.items()
    }
    table = class_rows(ious)
    if not table:
        report.paragraph("The runs have no class in common, so their scores do not compare.")
        return
    if len(ious) <= 8:
        report.figure(plot_iou(ious), "IoU by class, in the order of the first run.")
    cut = f", the {_MOST_CLASSES} that differ most" if len(table) > _MOST_CLASSES else ""
    with report.folded(f"IoU (%) of the classes that all have{cut}"):
        report.table(["class", *ious], table[:_MOST_CLASSES])


def _add_curves(report: Report, runs: Named) -> None:
    """Losses laid over each other, where they measure the same."""
    kinds: dict[tuple[str, ...], dict[str, RunFolder]] = {}
    for name, run in runs.items():
        if len(run.curve.get("step", ())):
            # An unfinished pre-training does not say its method, but has its method's settings.
            settings = sorted(run.settings) if run.command == "pretrain" else ()
            kinds.setdefault((run.command, *settings), {})[name] = run
    for (command, *_), group in kinds.items():
        curves = {name: _loss_rows(run) for name, run in group.items()}
        method = next((m for run in group.values() if (m := _method(run))), "")
        what = f"{command} {method}".rstrip()
        report.figure(plot_curves(curves), f"Loss of {what}, raw and smoothed: {', '.join(group)}.")
        watched = {name: run.curve for name, run in group.items() if len(run.curve) > 3}
        if watched:
            report.figure(plot_watched_runs(watched), "What was watched besides the loss.")
    if len(kinds) > 1:
        report.paragraph(
            "Runs with other kinds of settings have a figure of their own: the losses "
            "of different methods and commands do not compare."
        )


def _add_pictures(report: Report, runs: Named) -> None:
    """Pictures of the runs' own reports, of the sections that several have."""
    found = {name: read_pictures(run.path / "report.html") for name, run in runs.items()}
    headings = dict.fromkeys(heading for pictures in found.values() for heading in pictures)
    for heading in headings:
        beside = {n: pictures[heading] for n, pictures in found.items() if heading in pictures}
        if heading in _OVERLAID or not 2 <= len(beside) <= _MOST_PICTURES:
            continue
        with report.folded(heading, unfold=True):
            report.pictures(beside)


def _add_demos(report: Report, runs: Named) -> None:
    rows = [
        [name, *row] for name, run in runs.items() if run.result for row in summary_rows(run.result)
    ]
    report.table(["run", "mIoU (%)", "pre-trained", "random weights", "gain"], rows)
    bounds = [
        [
            name,
            percent(run.result["floor_linear_probe_miou"]),
            percent(run.result["ceiling_all_labels_miou"]),
        ]
        for name, run in runs.items()
        if run.result
    ]
    report.table(["run", "floor (%)", "ceiling (%)"], bounds)


def _add_studies(report: Report, runs: Named) -> None:
    tables: dict[tuple[str, ...], list[list[str]]] = {}
    for name, run in runs.items():
        if run.result:
            rows = [[name, *row] for row in study_rows(run.result)]
            tables.setdefault(tuple(study_header(run.result)), []).extend(rows)
    for header, rows in tables.items():
        report.table(["run", *header], rows)


def _headline(run: RunFolder) -> str:
    """What came out, in a few words."""
    if run.command == "pretrain":
        losses = run.curve.get("loss", np.zeros(0))
        if not len(losses):
            return "-"
        last = losses[-max(len(losses) // 20, 1) :]
        return f"{_method(run)} loss {np.nanmean(last):.4g} over the last {len(last)} steps".strip()
    if not run.result:
        return "-"
    if run.command == "demo":
        gains = [
            f"{measure_title(name)}: {percent(values['pretrained'])} "
            f"({100 * (values['pretrained'] - values['random']):+.1f})"
            for name, values in run.result.items()
            if isinstance(values, dict) and not name.endswith("_by_seed")
        ]
        return "; ".join(gains)
    if run.command == "study":
        return f"{len(run.result['rows'])} rows"
    return f"mIoU {percent(run.result['miou'])}%"


def _method(run: RunFolder) -> str:
    return str(run.weights.get("card", {}).get("method", "")) if run.command == "pretrain" else ""


def _loss_rows(run: RunFolder) -> list[tuple[int, float, float]]:
    steps, losses, rates = (run.curve[name].tolist() for name in ("step", "loss", "lr"))
    return list(zip(map(int, steps), losses, rates, strict=True))


def _written(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings by their full names; the items of a list are one setting."""
    items: dict[str, list[str]] = {}
    for key, value in flatten(dict(settings)).items():
        items.setdefault(re.sub(r"(\.\d+)+$", "", key), []).append(
            "-" if value is None else str(value)
        )
    return {key: ", ".join(values) for key, values in items.items()}
