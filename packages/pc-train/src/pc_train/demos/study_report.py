"""A study's table, as text and as a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pc_train.demos.report import measure_title
from pc_train.reports.page import Report, percent

_COLORS = {"miou": "#1f6f8b", "seconds_per_step": "#e07a3f", "peak_bytes": "#6a994e"}
_GIGA = 1e9


def study_text(result: Mapping[str, Any], out: Path) -> str:
    """What a command prints when its study is done: the table, and where the rest is.

    Args:
        result: As `pc_train.demos.study.run_study` returns it.
        out: Folder of the study.
    """
    table = [study_header(result), *study_rows(result)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table
    ]
    lines += [f"{_conditions(result)}.", *_explanations(result)]
    lines.append(f"report: {out / 'report.html'}; numbers: {out / 'study.json'}")
    return "\n".join(["", *lines])


def study_header(result: Mapping[str, Any]) -> list[str]:
    """Titles of the table's columns."""
    return ["pre-training", *map(measure_title, _measures(result)), "s a step", "peak GB"]


def study_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the table: mIoU in percent with the gain over random weights, time and memory.

    Time and memory are followed by how many times those of the reference they are.
    """
    random, reference = (result["rows"][name] for name in ("random", result["reference"]))
    rows = []
    for name, row in result["rows"].items():
        cells = [_row_title(name)]
        for measure in _measures(result):
            gain = "" if row is random else f" ({100 * (row[measure] - random[measure]):+.1f})"
            cells.append(percent(row[measure]) + gain)
        for cost, unit, digits in (("seconds_per_step", 1, 3), ("peak_bytes", _GIGA, 2)):
            if cost in row:
                times = row[cost] / reference[cost]
                cells.append(f"{row[cost] / unit:.{digits}f} ({times:.1f}x)")
            else:
                cells.append("-")
        rows.append(cells)
    return rows


def plot_study(result: Mapping[str, Any]) -> Figure:
    """Draw a bar for each row, one panel a column; dots are the seeds if there are several.

    A line shows random weights.

    Args:
        result: As `pc_train.demos.study.run_study` returns it.
    """
    rows = result["rows"]
    panels = [(name, measure_title(name) + ", mIoU (%)", 0.01) for name in _measures(result)]
    panels += [("seconds_per_step", "seconds a step", 1.0), ("peak_bytes", "peak GB", _GIGA)]
    height = 0.7 + 0.36 * len(rows)
    figure = Figure(figsize=(8.4, 2 * height), layout="constrained")
    for axes, (name, title, unit) in zip(figure.subplots(2, 2).ravel(), panels, strict=True):
        values = [row.get(name, 0.0) / unit for row in rows.values()]
        color = _COLORS.get(name, _COLORS["miou"])
        axes.barh(range(len(rows)), values, 0.66, color=color, alpha=0.85)
        for place, row in enumerate(rows.values()):
            by_seed = np.array(row.get(f"{name}_by_seed", ())) / unit
            if len(by_seed) > 1:
                axes.plot(by_seed, np.full(len(by_seed), place), ".", color="#1d2330", markersize=5)
        if name in rows["random"]:
            axes.axvline(rows["random"][name] / unit, color="#56607a", linewidth=1, linestyle="--")
        axes.set_yticks(range(len(rows)), [_row_title(row) for row in rows])
        axes.invert_yaxis()
        axes.set_title(title, fontsize=10)
        axes.tick_params(labelsize=9)
        axes.grid(axis="x", alpha=0.25)
    return figure


def report_study(out: Path, result: Mapping[str, Any], *, title: str, lead: str) -> None:
    """Write `report.html` of a study.

    Args:
        out: Its folder.
        result: As `pc_train.demos.study.run_study` returns it.
        title: Of the page.
        lead: What is compared, a clause without its full stop.
    """
    report = Report(title, f"{lead}; {_conditions(result)}.")
    report.heading("What each is worth, and what it takes")
    report.table(study_header(result), study_rows(result))
    for text in _explanations(result):
        report.paragraph(text)
    report.figure(
        plot_study(result),
        "Mean over the seeds; dots are the single ones, the dashed line is random weights.",
    )
    if result["num_seeds"] > 1:
        report.heading("Seeds")
        report.table(["pre-training", "seed", *study_header(result)[1:]], _seed_rows(result))
    report.configuration(out)
    report.write(out / "report.html")


def _seed_rows(result: Mapping[str, Any]) -> list[list[str]]:
    table = []
    for name, row in result["rows"].items():
        for seed in range(result["num_seeds"]):
            cells = [percent(row[f"{measure}_by_seed"][seed]) for measure in _measures(result)]
            if "peak_bytes" in row:
                cells.append(f"{row['seconds_per_step_by_seed'][seed]:.3f}")
                cells.append(f"{row['peak_bytes_by_seed'][seed] / _GIGA:.2f}")
            else:
                cells += ["-", "-"]
            table.append([_row_title(name), str(seed), *cells])
    return table


def _measures(result: Mapping[str, Any]) -> Sequence[str]:
    """Keys of the accuracies."""
    return [key for key in result["rows"]["random"] if not key.endswith("_by_seed")]


def _row_title(name: str) -> str:
    return "random weights" if name == "random" else name.replace("_", " ")


def _conditions(result: Mapping[str, Any]) -> str:
    seeds = "1 seed" if result["num_seeds"] == 1 else f"mean over {result['num_seeds']} seeds"
    where = "; ".join(result["machines"])
    if len(result["machines"]) > 1:
        where = f"measured on different machines, so that times do not compare ({where})"
    return f"{result['pretraining_steps']:,} steps of pre-training, {seeds}, {where}"


def _explanations(result: Mapping[str, Any]) -> list[str]:
    memory = (
        "the highest resident memory of the training process, libraries included and loader "
        "processes not"
    )
    if result["device"] == "cuda":
        memory = "the most that tensors held on the GPU at once"
    return [
        "mIoU in %, in brackets the gain over random weights; time and memory in brackets as "
        f"multiples of those of {_row_title(result['reference'])}.",
        "Time: median from one optimiser step to the next, waiting for data included. "
        f"Memory: {memory}.",
    ]
