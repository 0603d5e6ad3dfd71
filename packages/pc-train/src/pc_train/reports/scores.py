"""The report of probing, fine-tuning and evaluation."""

from pathlib import Path

import numpy as np
from pc_data.batch import PointBatch
from pc_data.scan import Scan

from pc_train.callbacks import read_curve
from pc_train.reports.figures import plot_confusion, plot_curves, plot_iou
from pc_train.reports.page import Report, iou_rows, percent
from pc_train.reports.pictures import cloud_of_answers, picture_of_classes, picture_of_correlation
from pc_train.scores import Score
from pc_train.segmentation import SegmentationModel

_MISTAKES = 12  # rows of the table


def report_segmentation(
    out: Path,
    score: Score,
    *,
    model: SegmentationModel,
    sample: PointBatch,
    scan: Scan,
    class_names: tuple[str, ...],
    title: str,
) -> None:
    """Write `report.html` of a probing, fine-tuning or evaluation run.

    Args:
        out: The run's folder.
        score: What it is worth.
        model: On the CPU and in eval mode.
        sample: The scan as an evaluation sample.
        scan: A labelled scan.
        class_names: Of the dataset.
        title: Of the page.
    """
    report = Report(title, f"mIoU {percent(score.miou)}% on {score.num_scans} scans")
    if score.miou_by_step:
        report.paragraph("That mIoU is the mean of those after several steps:")
        rows = [[f"{int(step):,}", percent(miou)] for step, miou in score.miou_by_step.items()]
        report.table(["step", "mIoU (%)"], rows)
    report.heading("One scan to look at")
    report.cloud(
        cloud_of_answers({"": model}, sample, scan, class_names),
        f"Scan {scan.name}: truth, answers, errors and features.",
    )
    add_classes(report, score)
    curve = read_curve(out / "metrics.csv")
    if curve:
        report.heading("Loss")
        report.figure(plot_curves({"loss": curve}), "Training loss, raw and smoothed.")
    report.heading("The scan in a picture")
    report.figure(
        picture_of_classes({"prediction": model}, sample, scan, class_names), f"Scan {scan.name}."
    )
    report.heading("What the features find alike")
    report.figure(
        picture_of_correlation({"backbone": model.backbone}, sample, class_names),
        "Similarity of the backbone's features to those of the point at the cross: an object's "
        "(a car, a chair) if one is labelled.",
    )
    report.configuration(out)
    report.write(out / "report.html")


def add_classes(report: Report, score: Score) -> None:
    """Add a section on classes: bars, the table, and what was taken for what."""
    report.heading("Classes")
    report.figure(plot_iou({"IoU": score.iou}), "Intersection over union; absent classes left out.")
    with report.folded("All classes as a table"):
        report.table(["class", "IoU (%)"], iou_rows({"IoU": score.iou}))
    if score.confusion is not None:
        add_confusion(report, score.confusion, tuple(score.iou))


def add_confusion(
    report: Report, counts: np.ndarray, class_names: tuple[str, ...], *, of: str = ""
) -> None:
    """Add a section on what was taken for what; all counts are in the run's `confusion.csv`."""
    report.heading("What is taken for what")
    report.figure(
        plot_confusion(counts, class_names),
        f"{of}Rows sum to 100% of a class's points; the number of points is beside its name.",
    )
    report.table(
        ["true class", "taken for", "points", "% of the true class"],
        mistake_rows(counts, class_names),
    )


def mistake_rows(counts: np.ndarray, class_names: tuple[str, ...]) -> list[list[str]]:
    """The most frequent mistakes: true class, predicted class, points, share of the true class."""
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    names = [name.replace("_", " ") for name in class_names]
    return [
        [names[k], names[j], f"{wrong[k, j]:,}", percent(wrong[k, j] / counts[k].sum())]
        for k, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[k, j]
    ]
