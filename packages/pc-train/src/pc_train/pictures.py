"""What a network sees in one scan: its features and its answers, for reports."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pc_data.batch import PointBatch
from pc_data.scan import Scan
from torch import nn

from pc_train.callbacks import read_curve
from pc_train.figures import plot_classes, plot_correlation, plot_curves, plot_iou
from pc_train.report import Report, iou_rows, percent
from pc_train.runs import CONFIG
from pc_train.segmentation import SegmentationModel, predict_classes


def picture_of_classes(
    models: Mapping[str, nn.Module], sample: PointBatch, scan: Scan, class_names: tuple[str, ...]
) -> Figure:
    """Bird's-eye views of ground truth and of each model's answers.

    Args:
        models: From batch to class scores, by title; on the CPU and in eval mode.
        sample: The scan as an evaluation sample.
        scan: The labelled scan.
        class_names: Of the dataset.
    """
    views = {"ground truth": scan.labels} if scan.labels is not None else {}
    views |= {title: predict_classes(model, sample) for title, model in models.items()}
    return plot_classes(scan.xyz, views, class_names)


@torch.inference_mode()
def picture_of_correlation(
    backbones: Mapping[str, nn.Module], sample: PointBatch, class_names: tuple[str, ...]
) -> Figure:
    """Similarity of all points' features to those of one car point (ScaLR, figure 1).

    Without a labelled car, the point nearest to the sensor stands in.
    """
    features = {
        title: backbone(sample.xyz, sample.feat, sample.batch, neighbors=sample.neighbors).numpy()
        for title, backbone in backbones.items()
    }
    xyz = sample.xyz.numpy()
    distance = np.linalg.norm(xyz, axis=1)
    if sample.labels is not None and "car" in class_names:
        car = sample.labels.numpy() == class_names.index("car")
        if car.any():
            # A car in the middle distance is seen whole.
            distance = np.where(car, np.abs(distance - 12), np.inf)
    return plot_correlation(xyz, features, int(distance.argmin()))


def report_segmentation(
    out: Path,
    score: Any,  # noqa: ANN401 - pc_train.downstream.Score
    *,
    model: SegmentationModel,
    sample: PointBatch,
    scan: Scan,
    class_names: tuple[str, ...],
    title: str,
) -> None:
    """Write `report.html` of a probing, fine-tuning or evaluation run."""
    report = Report(title, f"mIoU {percent(score.miou)}% on {score.num_scans} scans")
    curve = read_curve(out / "metrics.csv")
    if curve:
        report.heading("Loss")
        report.figure(plot_curves({"loss": curve}), "Training loss, raw and smoothed.")
    report.heading("Classes")
    report.figure(plot_iou({"IoU": score.iou}), "Intersection over union; absent classes left out.")
    report.table(["class", "IoU (%)"], iou_rows({"IoU": score.iou}))
    report.heading("One scan from above")
    report.figure(
        picture_of_classes({"prediction": model}, sample, scan, class_names), f"Scan {scan.name}."
    )
    report.heading("What the features find alike")
    report.figure(
        picture_of_correlation({"backbone": model.backbone}, sample, class_names),
        "Similarity of the backbone's features to those of the point at the cross: a car's if one "
        "is labelled, else the nearest point's.",
    )
    if (out / CONFIG).is_file():
        report.heading("Configuration")
        report.text((out / CONFIG).read_text(encoding="utf-8"))
    report.write(out / "report.html")
