"""The demo's table and its page."""

from pathlib import Path
from typing import Any

import torch
from pc_data.datasets import DataConfig, open_dataset
from pc_data.loading import sample_rng
from pc_data.show import show_scan
from pc_train.callbacks import read_curve
from pc_train.downstream import Score, input_arguments
from pc_train.figures import plot_curves, plot_iou
from pc_train.networks import load_model, open_backbone
from pc_train.pictures import picture_of_classes, picture_of_correlation
from pc_train.report import Report, iou_rows, percent
from pc_train.samples import evaluation_sample
from pc_train.segmentation import SegmentationModel

_TITLES = {
    "linear_probe_miou": "linear probe, all labels",
    "finetune_1pct_miou": "fine-tuning, 1% of the labels",
}


def summary_rows(summary: dict[str, Any]) -> list[list[str]]:
    """Rows of the demo's table: measurement, pre-trained, random, gain; in percent."""
    rows = []
    for measure, title in _TITLES.items():
        values = summary[f"{measure}_by_seed"]
        pretrained, random = (summary[measure][source] for source in ("pretrained", "random"))
        rows.append(
            [
                title,
                _with_range(values["pretrained"]),
                _with_range(values["random"]),
                f"{100 * (pretrained - random):+.1f}",
            ]
        )
    return rows


def _with_range(values: list[float]) -> str:
    low, high = min(values), max(values)
    if len(values) == 1:
        return percent(low)
    return f"{percent(sum(values) / len(values))} ({percent(low)} to {percent(high)})"


def report_demo(
    out: Path, summary: dict[str, Any], scores: list[dict[str, dict[str, Score]]], data: DataConfig
) -> None:
    """Write `report.html` of the demo."""
    seeds = range(len(scores))
    report = Report(
        "ScaLR on a synthetic world",
        "A small WaffleIron pre-trained from an ImageNet network that needs no download, against "
        f"the same network from random weights; mean and range over {len(scores)} "
        f"{'seed' if len(scores) == 1 else 'seeds'}.",
    )
    report.heading("Does pre-training help?")
    report.table(["mIoU (%)", "pre-trained", "random weights", "gain"], summary_rows(summary))
    report.paragraph(
        f"Between a floor of {percent(summary['floor_linear_probe_miou'])}% (a linear probe on the "
        f"raw inputs) and a ceiling of {percent(summary['ceiling_all_labels_miou'])}% (the "
        "pre-trained network fine-tuned with all labels, in twice the steps)."
    )
    report.heading("Pre-training")
    curves = {f"seed {s}": read_curve(out / f"seed{s}" / "pretrain" / "metrics.csv") for s in seeds}
    report.figure(plot_curves(curves), "Distance of point and pixel features, raw and smoothed.")
    _add_scan(report, out, data)
    report.heading("Classes")
    for measure, title in _TITLES.items():
        ious = {source: score.iou for source, score in scores[0][measure].items()}
        report.figure(plot_iou(ious), f"IoU by class: {title}, seed 0.")
    ious = {source: score.iou for source, score in scores[0]["linear_probe_miou"].items()}
    report.table(["class (linear probe)", *(f"{s} (%)" for s in ious)], iou_rows(ious))
    report.write(out / "report.html")


def _add_scan(report: Report, out: Path, data: DataConfig) -> None:
    """One evaluation scan: the data, the features, the answers."""
    dataset = open_dataset(data, split="val")
    scan = dataset[0]
    pretrained = open_backbone(out / "seed0" / "pretrain")
    random = open_backbone(out / "seed0" / "pretrain", random_seed=0)
    sample = evaluation_sample(scan, sample_rng(0, 0, 0), **input_arguments(dataset, pretrained))
    networks = {
        "pre-trained": pretrained.network.eval(),
        "random weights": random.network.eval(),
    }
    names = tuple(dataset.class_names)
    report.heading("One scan that training never saw")
    report.figure(show_scan(scan, names), "From above by class, and on the images by depth.")
    report.figure(
        picture_of_correlation(networks, sample, names),
        "Similarity of all points' features to those of the car point at the cross.",
    )
    models: dict[str, torch.nn.Module] = {}
    for source in ("pretrained", "random"):
        backbone, head, _ = load_model(out / "seed0" / f"probe-{source}")
        models[f"linear probe, {source}"] = SegmentationModel(backbone.network, head)
    report.figure(picture_of_classes(models, sample, scan, names), "Ground truth and answers.")
