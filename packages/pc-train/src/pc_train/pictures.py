"""What a network sees in one scan: its features and its answers, for reports."""

from collections.abc import Mapping, Sequence
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
from pc_train.oblique import is_room, oblique_view
from pc_train.report import Report, iou_rows, percent
from pc_train.runs import CONFIG
from pc_train.segmentation import SegmentationModel, predict_classes

_OBJECTS = ("car", "chair", "table", "desk", "sofa", "bed", "cabinet", "truck")


def picture_of_classes(
    models: Mapping[str, nn.Module], sample: PointBatch, scan: Scan, class_names: tuple[str, ...]
) -> Figure:
    """Views of ground truth and of each model's answers, from above.

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
    backbones: Mapping[str, nn.Module],
    sample: PointBatch,
    class_names: tuple[str, ...],
    *,
    prefer: Sequence[str] = _OBJECTS,
) -> Figure:
    """Similarity of all points' features to those of one object's point (ScaLR, figure 1).

    Args:
        backbones: By title; on the CPU and in eval mode.
        sample: One scan.
        class_names: Of the dataset.
        prefer: Classes of the object; the first that is labelled. If none is, the point nearest to
            the middle of the picture stands in, in a street that is the one nearest to the sensor.
    """
    features = {
        title: backbone(sample.xyz, sample.feat, sample.batch, neighbors=sample.neighbors).numpy()
        for title, backbone in backbones.items()
    }
    xyz = sample.xyz.numpy()
    labels = None if sample.labels is None else sample.labels.numpy()
    point = _street_point if not is_room(xyz) else _room_point
    return plot_correlation(xyz, features, point(xyz, _first_class(labels, class_names, prefer)))


def _first_class(
    labels: np.ndarray | None, class_names: Sequence[str], prefer: Sequence[str]
) -> np.ndarray | None:
    """Which points are of the first of the preferred classes that any point is of."""
    if labels is None:
        return None
    found = (np.equal(labels, class_names.index(name)) for name in prefer if name in class_names)
    return next((points for points in found if points.any()), None)


def _street_point(xyz: np.ndarray, found: np.ndarray | None) -> int:
    distance = np.linalg.norm(xyz, axis=1)
    if found is not None:
        # A car in the middle distance is seen whole.
        distance = np.where(found, np.abs(distance - 12), np.inf)
    return int(distance.argmin())


def _room_point(xyz: np.ndarray, found: np.ndarray | None) -> int:
    """The visible one nearest to the room's middle; of an object, in its upper half."""
    visible = oblique_view(xyz).is_visible()
    distance = np.linalg.norm(xyz[:, :2] - np.median(xyz[:, :2], axis=0), axis=1)
    distance = np.where(visible, distance, distance + 1e3)
    if found is not None:
        upper = found & (xyz[:, 2] >= np.median(xyz[found, 2]))
        distance = np.where(upper, distance, np.inf)
    return int(distance.argmin())


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
        "Similarity of the backbone's features to those of the point at the cross: an object's "
        "(a car, a chair) if one is labelled.",
    )
    if (out / CONFIG).is_file():
        report.heading("Configuration")
        report.text((out / CONFIG).read_text(encoding="utf-8"))
    report.write(out / "report.html")
