"""A demo's table, as text and as a page."""

from pathlib import Path
from typing import Any

from pc_data.datasets import DataConfig, open_dataset
from pc_data.show import show_scan

from pc_train.callbacks import read_curve
from pc_train.demos.plan import Demo
from pc_train.networks import load_model, open_backbone
from pc_train.reports.figures import plot_curves, plot_iou
from pc_train.reports.page import Report, iou_rows, percent
from pc_train.reports.pictures import cloud_of_answers, picture_of_classes, picture_of_correlation
from pc_train.reports.scores import add_confusion
from pc_train.scores import Score, read_confusion, sample_to_score
from pc_train.segmentation import SegmentationModel


def summary_text(summary: dict[str, Any], out: Path) -> str:
    """What a command prints when its demo is done: the table, and where the rest is."""
    rows = [["mIoU (%), mean (range)", "pre-trained", "random weights", "gain"]]
    rows += summary_rows(summary)
    lines = [
        f"{name:30} {pretrained:>20} {random:>20} {gain:>6}"
        for name, pretrained, random, gain in rows
    ]
    floor, ceiling = summary["floor_linear_probe_miou"], summary["ceiling_all_labels_miou"]
    lines.append(f"floor (raw inputs) {100 * floor:.1f}, ceiling (all labels) {100 * ceiling:.1f}")
    lines.append(f"report: {out / 'report.html'}; numbers: {out / 'summary.json'}")
    return "\n".join(["", *lines])


def summary_rows(summary: dict[str, Any]) -> list[list[str]]:
    """Rows of the demo's table: measurement, pre-trained, random, gain; in percent."""
    rows = []
    for measure in (key.removesuffix("_by_seed") for key in summary if key.endswith("_by_seed")):
        values = summary[f"{measure}_by_seed"]
        pretrained, random = (summary[measure][source] for source in ("pretrained", "random"))
        rows.append(
            [
                measure_title(measure),
                _with_range(values["pretrained"]),
                _with_range(values["random"]),
                f"{100 * (pretrained - random):+.1f}",
            ]
        )
    return rows


def report_demo(
    demo: Demo,
    out: Path,
    summary: dict[str, Any],
    scores: list[dict[str, dict[str, Score]]],
    data: DataConfig,
) -> None:
    """Write `report.html` of a demo.

    Args:
        demo: Its texts and the app's own figures.
        out: Folder of the demo, its runs finished.
        summary: As `pc_train.demos.demo.run_demo` returns it.
        scores: By seed, measure and source of weights.
        data: The world.
    """
    seeds = range(len(scores))
    report = Report(
        demo.title,
        f"{demo.lead}; mean and range over {len(scores)} "
        f"{'seed' if len(scores) == 1 else 'seeds'}.",
    )
    report.heading("Does pre-training help?")
    report.table(["mIoU (%)", "pre-trained", "random weights", "gain"], summary_rows(summary))
    report.paragraph(
        f"To compare with: a floor of {percent(summary['floor_linear_probe_miou'])}% (a linear "
        f"probe on the raw inputs), a ceiling of {percent(summary['ceiling_all_labels_miou'])}% "
        "(the pre-trained network fine-tuned with all labels, in twice the steps)."
    )
    report.heading("Pre-training")
    curves = {f"seed {s}": read_curve(out / f"seed{s}" / "pretrain" / "metrics.csv") for s in seeds}
    report.figure(plot_curves(curves), f"{demo.loss}, raw and smoothed.")
    if demo.add_figures is not None:
        demo.add_figures(report, out / "seed0" / "pretrain", data)
    _add_scan(report, demo, out / "seed0", data)
    report.heading("Classes")
    for measure, score in scores[0].items():
        ious = {source: score[source].iou for source in score}
        report.figure(plot_iou(ious), f"IoU by class: {measure_title(measure)}, seed 0.")
    ious = {source: score.iou for source, score in scores[0]["linear_probe_miou"].items()}
    with report.folded("Linear probe: all classes as a table"):
        report.table(["class (linear probe)", *(f"{s} (%)" for s in ious)], iou_rows(ious))
    if confusion := read_confusion(out / "seed0" / "probe-pretrained"):
        names, counts = confusion
        add_confusion(report, counts, names, of="Linear probe of the pre-trained weights, seed 0. ")
    report.configuration(out)
    report.write(out / "report.html")


def _add_scan(report: Report, demo: Demo, runs: Path, data: DataConfig) -> None:
    """One evaluation scan: the data, the features, the answers."""
    dataset = open_dataset(data, split=demo.probing.val_split)
    scan = dataset[0]
    pretrained = open_backbone(runs / "pretrain")
    random = open_backbone(runs / "pretrain", random_seed=0)
    sample = sample_to_score(scan, dataset, pretrained, voxel_size=demo.probing.voxel_size)
    networks = {
        "pre-trained": pretrained.network.eval(),
        "random weights": random.network.eval(),
    }
    names = tuple(dataset.class_names)
    report.heading("One scan that training never saw")
    on_images = ", and on the images by depth" if scan.cameras else ""
    report.figure(show_scan(scan, names), f"From above by class{on_images}.")
    report.figure(
        picture_of_correlation(networks, sample, names),
        "Similarity of all points' features to those of the point at the cross: an object's (a "
        "car, a chair) if one is labelled.",
    )
    models: dict[str, SegmentationModel] = {}
    for source in ("pretrained", "random"):
        backbone, head, _ = load_model(runs / f"probe-{source}")
        models[f"linear probe, {source}"] = SegmentationModel(backbone.network, head)
    report.figure(picture_of_classes(models, sample, scan, names), "Ground truth and answers.")
    cloud = cloud_of_answers(models, sample, scan, names)
    report.cloud(cloud, f"Scan {scan.name}: truth, answers, errors and features of the probes.")


def measure_title(measure: str) -> str:
    """What a key of the summary measures."""
    if measure == "linear_probe_miou":
        return "linear probe, all labels"
    share = measure.removeprefix("finetune_").removesuffix("pct_miou")
    return f"fine-tuning, {share}% of the labels"


def _with_range(values: list[float]) -> str:
    low, high = min(values), max(values)
    if len(values) == 1:
        return percent(low)
    return f"{percent(sum(values) / len(values))} ({percent(low)} to {percent(high)})"
