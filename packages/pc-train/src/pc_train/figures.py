"""Pictures of a run, as matplotlib figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from pc_data.colors import IGNORED, class_colors

_REACH = 40.0  # metres around the sensor that a bird's-eye view shows
_PALETTE = ("#1f6f8b", "#e07a3f", "#6a994e", "#9d4edd")


def plot_curves(curves: Mapping[str, Sequence[tuple[int, float, float]]]) -> Figure:
    """Draw the loss over the steps, smoothed, over its raw values.

    Args:
        curves: Rows of (step, loss, lr) by name.
    """
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for color, (name, rows) in zip(_PALETTE * len(curves), curves.items(), strict=False):
        steps, losses = (np.array([row[i] for row in rows], float) for i in (0, 1))
        window = max(len(losses) // 40, 1)
        kernel = np.ones(window) / window
        axes.plot(steps, losses, color=color, alpha=0.2, linewidth=0.7)
        axes.plot(
            steps[window - 1 :], np.convolve(losses, kernel, "valid"), color=color, label=name
        )
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.25)
    if len(curves) > 1:
        axes.legend(frameon=False)
    return figure


def plot_iou(ious: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw one bar per class and model, in percent.

    Args:
        ious: IoU by class name, by name of the model; classes that occur nowhere are left out.
    """
    names = [n for n in next(iter(ious.values())) if not all(np.isnan(m[n]) for m in ious.values())]
    figure = Figure(
        figsize=(7, 0.9 + 0.3 * len(names) * max(1, len(ious) / 2)), layout="constrained"
    )
    axes = figure.subplots()
    height = 0.8 / len(ious)
    for index, (model, iou) in enumerate(ious.items()):
        place = np.arange(len(names)) + (index - (len(ious) - 1) / 2) * height
        values = 100 * np.nan_to_num([iou[name] for name in names])
        axes.barh(place, values, height, label=model, color=_PALETTE[index % len(_PALETTE)])
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("IoU (%)")
    axes.grid(axis="x", alpha=0.25)
    if len(ious) > 1:
        axes.legend(frameon=False)
    return figure


def plot_classes(
    xyz: Float[np.ndarray, "n 3"],
    classes: Mapping[str, Int64[np.ndarray, " n"]],
    class_names: Sequence[str],
) -> Figure:
    """Draw bird's-eye views side by side, points coloured by class; -1 is grey.

    Args:
        xyz: Points in metres, sensor frame.
        classes: Class of each point, by title of the view.
        class_names: Of the classes.
    """
    figure = Figure(figsize=(4.2 * len(classes), 5), layout="constrained")
    views = np.atleast_1d(figure.subplots(1, len(classes), sharex=True, sharey=True))
    colors = np.concatenate([class_colors(class_names), [IGNORED]])
    order = np.argsort(xyz[:, 2], kind="stable")
    for axes, (title, labels) in zip(views, classes.items(), strict=True):
        _scatter(axes, xyz[order], colors[labels[order]])
        axes.set_title(title)
    present = np.unique(np.concatenate([labels[labels >= 0] for labels in classes.values()]))
    marks = [
        views[0].plot([], [], "o", color=colors[k], label=class_names[k].replace("_", " "))[0]
        for k in present
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=4, frameon=False)
    return figure


def plot_correlation(
    xyz: Float[np.ndarray, "n 3"], features: Mapping[str, Float[np.ndarray, "n c"]], point: int
) -> Figure:
    """Draw how similar all points' features are to one point's (ScaLR, figure 1).

    Args:
        xyz: Points in metres, sensor frame.
        features: Features of the points, by title of the view.
        point: Index of the point that all are compared with; marked by a cross.
    """
    figure = Figure(figsize=(4.6 * len(features), 4.4), layout="constrained")
    views = np.atleast_1d(figure.subplots(1, len(features), sharex=True, sharey=True))
    for axes, (title, feature) in zip(views, features.items(), strict=True):
        unit = feature / np.linalg.norm(feature, axis=1, keepdims=True).clip(1e-12)
        cosine = unit @ unit[point]
        order = np.argsort(cosine)
        low = np.quantile(cosine, 0.02)
        dots = _scatter(axes, xyz[order], cosine[order], cmap="magma", vmin=low, vmax=1)
        axes.plot(*xyz[point, :2], "+", color="#00b4d8", markersize=14, markeredgewidth=2)
        axes.set_title(title)
        figure.colorbar(dots, ax=axes, shrink=0.7, label="cosine similarity")
    return figure


def _scatter(axes: Axes, xyz: np.ndarray, color: np.ndarray, **style: Any) -> PathCollection:  # noqa: ANN401
    dots = axes.scatter(
        xyz[:, 0], xyz[:, 1], s=1.2, c=color, linewidths=0, rasterized=True, **style
    )
    axes.set_facecolor("#14171f")  # the class colours are made for a dark ground
    axes.set(aspect="equal", xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH))
    axes.tick_params(labelsize=7)
    axes.set_xlabel("x (m)", fontsize=8)
    return dots
