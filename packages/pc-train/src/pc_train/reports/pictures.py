"""What a network sees in one scan: its features and its answers, for reports."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from pc_data.batch import PointBatch
from pc_data.colors import class_colors
from pc_data.scan import Scan
from torch import nn

from pc_train.reports.figures import features_as_colors, plot_classes, plot_correlation
from pc_train.reports.oblique import is_room, oblique_view
from pc_train.reports.viewer import (
    ClassColors,
    Cloud,
    Coloring,
    NumberColors,
    PointColors,
    error_colors,
)
from pc_train.segmentation import SegmentationModel, predict_classes

_FEATURES = "three main directions of the features as red, green and blue"
_COMPONENTS = 50  # of the features that t-SNE looks at

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
def cloud_of_answers(
    models: Mapping[str, SegmentationModel],
    sample: PointBatch,
    scan: Scan,
    class_names: tuple[str, ...],
) -> Cloud:
    """A scan to turn: ground truth, answers, errors and features of each model, what was measured.

    Args:
        models: By name, which may be empty; on the CPU and in eval mode.
        sample: The scan as an evaluation sample.
        scan: The labelled scan.
        class_names: Of the dataset.
    """
    nearest = sample.need("nearest").numpy()
    labels = np.full(len(scan), -1, np.int64) if scan.labels is None else scan.labels
    colorings: dict[str, Coloring] = {}
    if scan.labels is not None:
        colorings["ground truth"] = ClassColors(labels=labels, names=class_names)
    for name, model in models.items():
        of = f", {name}" if name else ""
        feature = _features(model.backbone, sample)
        answer = model.head(torch.from_numpy(feature)).argmax(1).numpy()[nearest]
        colorings["prediction" + of] = ClassColors(labels=answer, names=class_names)
        if scan.labels is not None:
            colorings["error" + of] = error_colors(labels, answer)
        colors = features_as_colors(feature)[nearest]
        colorings["features" + of] = PointColors(colors=colors, note=_FEATURES)
    if scan.color is not None:
        colorings["colour"] = PointColors(colors=scan.color, note="as the camera saw it")
    if scan.intensity is not None:
        colorings["intensity"] = NumberColors(numbers=scan.intensity, unit="")
    return Cloud(xyz=scan.xyz, colorings=colorings)


@torch.inference_mode()
def cloud_of_features(backbone: nn.Module, sample: PointBatch) -> Cloud:
    """The points of a sample to turn, coloured by the features that a backbone gives them.

    Args:
        backbone: On the CPU and in eval mode.
        sample: Its first scan is shown.
    """
    first = (sample.batch == 0).numpy()
    colors = features_as_colors(_features(backbone, sample)[first])
    coloring = PointColors(colors=colors, note=_FEATURES)
    return Cloud(xyz=sample.xyz.numpy()[first], colorings={"features": coloring})


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
    features = {title: _features(backbone, sample) for title, backbone in backbones.items()}
    xyz = sample.xyz.numpy()
    labels = None if sample.labels is None else sample.labels.numpy()
    point = _street_point if not is_room(xyz) else _room_point
    return plot_correlation(xyz, features, point(xyz, _first_class(labels, class_names, prefer)))


def picture_of_tsne(
    features: Mapping[str, Float[np.ndarray, "n c"]],
    labels: Int64[np.ndarray, " n"],
    class_names: Sequence[str],
    *,
    max_points: int = 2000,
    perplexity: float = 30.0,
    seed: int = 0,
) -> Figure:
    """Features laid out in the plane by t-SNE, coloured by class (SSPL, figure 3).

    The same points in every panel, as evenly from all classes as their numbers allow. Features
    count by their direction, as for the losses; of these the first 50 principal components. The
    same call gives the same picture.

    Args:
        features: Features of the points, by title of the panel.
        labels: Class of each point; those of -1 are left out.
        class_names: Of the classes.
        max_points: As many are drawn.
        perplexity: About how many neighbours a point has; cut to a third of the points.
        seed: Draws the points.

    Raises:
        ValueError: If fewer than 4 points have a class, features are not finite, or there is not
            one feature a label.

    Source: t-SNE (van der Maaten and Hinton, JMLR 2008), started from the principal components
        (Kobak and Berens, Nature Communications 2019); SSPL (Zhang et al., NeurIPS 2022), figure 3.
    """
    for title, feature in features.items():
        if len(feature) != len(labels) or not np.isfinite(feature).all():
            raise ValueError(
                f"features of {title!r} must be {len(labels)} finite rows, one a label, got "
                f"{len(feature)} rows, {int((~np.isfinite(feature)).any(1).sum())} not finite"
            )
    chosen = _draw_evenly(labels, max_points, np.random.default_rng(seed))
    if len(chosen) < 4:
        raise ValueError(f"t-SNE needs at least 4 points with a class, got {len(chosen)}")
    colors = class_colors(class_names)
    present = np.unique(labels[chosen])
    lines = -(-len(present) // 4)
    size = (max(4.2 * len(features), 7.2), 4.7 + 0.22 * lines)  # four names in a row
    figure = Figure(figsize=size, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(features)))
    for axes, (title, feature) in zip(panels, features.items(), strict=True):
        x, y = _lay_out(feature[chosen], perplexity, seed).T
        axes.scatter(x, y, s=7, c=colors[labels[chosen]], linewidths=0, rasterized=True)
        axes.set_facecolor("#14171f")  # the class colours are made for a dark ground
        axes.set(title=title, xticks=[], yticks=[], box_aspect=1)
    marks = [
        panels[0].plot([], [], "o", color=colors[k], label=class_names[k].replace("_", " "))[0]
        for k in present
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _features(backbone: nn.Module, sample: PointBatch) -> np.ndarray:
    return backbone(sample.xyz, sample.feat, sample.batch, neighbors=sample.neighbors).numpy()


def _draw_evenly(labels: np.ndarray, max_points: int, rng: np.random.Generator) -> np.ndarray:
    """Points that have a class, in turn one of each class."""
    order = rng.permutation(np.flatnonzero(labels >= 0))
    by_class = np.argsort(labels[order], kind="stable")
    size = np.bincount(labels[order])
    rank = np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size)
    return order[by_class[np.argsort(rank, kind="stable")[:max_points]]]


def _lay_out(feature: np.ndarray, perplexity: float, seed: int) -> Float[np.ndarray, "n 2"]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    unit = feature / np.linalg.norm(feature, axis=1, keepdims=True).clip(1e-12)
    unit = unit.astype(np.float64) - unit.mean(axis=0, dtype=np.float64)
    directions, strength, _ = np.linalg.svd(unit, full_matrices=False)
    component = (directions * strength)[:, :_COMPONENTS]
    start: str | np.ndarray = "random"
    if len(strength) > 1 and strength[1] > 1e-6:
        start = (component[:, :2] / component[:, 0].std() * 1e-4).astype(np.float32)
    layout = TSNE(perplexity=min(perplexity, (len(unit) - 1) / 3), init=start, random_state=seed)
    with threadpool_limits(1):  # sums of several threads come out differently each time
        return layout.fit_transform(component.astype(np.float32))


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
