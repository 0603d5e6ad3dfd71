"""The report of what features are like."""

import math
from typing import Any

import torch

from pc_train.configs import FeaturesConfig
from pc_train.networks import NamedBackbone
from pc_train.quality.describe import Drawn, Quality
from pc_train.reports.figures import features_as_colors, plot_colors
from pc_train.reports.page import Report, percent
from pc_train.reports.pictures import cloud_of_features, picture_of_correlation, picture_of_tsne
from pc_train.scores import sample_to_score


def report_quality(
    config: FeaturesConfig,
    quality: Quality,
    drawn: Drawn,
    dataset: Any,  # noqa: ANN401 - a sequence of scans with class_names
    backbone: NamedBackbone,
) -> None:
    """Write `report.html`.

    Args:
        config: Says where.
        quality: What was measured.
        drawn: On which features.
        dataset: Where they are from; its middle scan is drawn.
        backbone: On the CPU and in eval mode.

    Raises:
        DataError: If the middle scan is damaged.
    """
    weights = "random weights" if config.random_weights else str(config.backbone)
    lead = (
        f"{weights}: {quality.num_points:,} points of {quality.num_scans} scans of split "
        f"{dataset.split!r} of {dataset.root}"
    )
    report = Report("pc-train: features", lead)
    report.heading("Measures")
    report.table(["measure", "value", "how to read it"], _rows(quality))
    _add_pictures(report, dataset, backbone, voxel_size=config.voxel_size)
    report.heading("Features by class")
    if (drawn.labels >= 0).sum() >= 4:
        report.figure(
            picture_of_tsne(
                {"features": drawn.feat.numpy()}, drawn.labels.numpy(), dataset.class_names
            ),
            "Drawn points laid out by t-SNE; points of a class that lie together are alike.",
        )
        report.table(
            ["class", "kNN accuracy (%)"],
            [[name.replace("_", " "), percent(v)] for name, v in quality.knn_by_class.items()],
        )
    else:
        report.paragraph("The scans have no labels.")
    report.configuration(config.out)
    report.write(config.out / "report.html")


def _rows(quality: Quality) -> list[list[str]]:
    accuracy = "share of the points whose class the nearest features of the other split tell"
    found = (quality.knn_accuracy, quality.knn_class_accuracy)
    overall, of_classes = (percent(math.nan if share is None else share) for share in found)
    return [
        ["alignment", _text(quality.alignment), "a point in two views; 0 is the same, 2 unrelated"],
        ["uniformity", _text(quality.uniformity), "room between features; -4 is even, 0 collapse"],
        [
            *("effective rank", _text(quality.effective_rank)),
            f"directions in use, of {quality.out_dim}",
        ],
        ["spread", _text(quality.spread), "1 is even, 0 collapse"],
        ["kNN accuracy (%)", overall, accuracy],
        ["kNN accuracy, mean over classes (%)", of_classes, "the same; rare classes count"],
    ]


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _add_pictures(
    report: Report,
    dataset: Any,  # noqa: ANN401
    backbone: NamedBackbone,
    *,
    voxel_size: float,
) -> None:
    scan = dataset[len(dataset) // 2]
    sample = sample_to_score(scan, dataset, backbone, voxel_size=voxel_size)
    network = backbone.network
    with torch.inference_mode():
        feat = network(sample.xyz, sample.feat, sample.batch, neighbors=sample.neighbors).numpy()
    report.heading("One scan")
    colors = {"features": features_as_colors(feat)}
    report.figure(
        plot_colors(sample.xyz.numpy(), colors),
        f"Scan {scan.name} in the three directions in which its features differ most.",
    )
    report.cloud(cloud_of_features(network, sample), "The same, to turn.")
    report.heading("What the features find alike")
    report.figure(
        picture_of_correlation({"features": network}, sample, tuple(dataset.class_names)),
        "Similarity to the features of the point at the cross: an object's (a car, a chair) if one "
        "is labelled.",
    )
