"""Pictures of a run, as matplotlib figures."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float32, Int64
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from pc_data.colors import IGNORED, class_colors

from pc_train.reports.feature_colors import color_scale
from pc_train.reports.oblique import REACH, is_room, oblique_view, view_middle

_PALETTE = (
    *("#1f6f8b", "#e07a3f", "#6a994e", "#9d4edd"),
    *("#c1121f", "#4d96ff", "#8d6e63", "#d16ba5"),
)
_ENDS = 25  # classes at either end of a list that is too long to draw


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
    """Draw one bar per class and model, in percent, those that the first model knows best first.

    Of more than 50 classes the best 25 and the worst 25 are drawn.

    Args:
        ious: IoU by class name, by name of the model; classes that occur nowhere are left out.
    """
    first, *_ = ious.values()
    names = [n for n in first if not all(np.isnan(m.get(n, np.nan)) for m in ious.values())]
    names.sort(key=lambda name: -np.nan_to_num(first[name]))
    all_names = len(names)
    if all_names > 2 * _ENDS:
        names = names[:_ENDS] + names[-_ENDS:]
    figure = Figure(
        figsize=(7, 0.9 + 0.3 * len(names) * max(1, len(ious) / 2)), layout="constrained"
    )
    axes = figure.subplots()
    height = 0.8 / len(ious)
    for index, (model, iou) in enumerate(ious.items()):
        place = np.arange(len(names)) + (index - (len(ious) - 1) / 2) * height
        values = 100 * np.nan_to_num([iou.get(name, np.nan) for name in names])
        color = _PALETTE[index % len(_PALETTE)]
        bars = axes.barh(place, values, height, label=model, color=color)
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=7 if len(ious) < 4 else 5)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("IoU (%)")
    axes.grid(axis="x", alpha=0.25)
    if all_names > len(names):
        axes.set_title(f"the best and the worst {_ENDS} of {all_names} classes", fontsize=9)
        axes.axhline(_ENDS - 0.5, color="#56607a", linewidth=0.8, linestyle="--")
    if len(ious) > 1:
        figure.legend(loc="outside upper center", ncols=min(len(ious), 3), frameon=False)
    return figure


def plot_confusion(counts: Int64[np.ndarray, "k k"], class_names: Sequence[str]) -> Figure:
    """Draw which class each true class was taken for, in percent of the true class's points.

    Classes that occur and are predicted nowhere are left out. Of more than 25 classes those 25 are
    drawn of which most points went wrong; the others make one column.

    Args:
        counts: Points by true class (row) and predicted class.
        class_names: Of the classes.
    """
    names = [name.replace("_", " ") for name in class_names]
    seen = np.flatnonzero(counts.sum(0) + counts.sum(1))
    others = np.zeros(len(counts), np.int64)
    if len(seen) > _ENDS:
        wrong = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
        seen = np.sort(np.argsort(-wrong, kind="stable")[:_ENDS])
        others = np.delete(counts, seen, axis=1).sum(1)
    table = np.column_stack([counts[np.ix_(seen, seen)], others[seen]])
    columns = [*(names[k] for k in seen), "all others"]
    if not others.any():
        table, columns = table[:, :-1], columns[:-1]
    total = counts[seen].sum(1)
    share = 100 * table / np.maximum(total, 1)[:, None]
    side = 1.6 + 0.34 * len(seen)
    figure = Figure(figsize=(side + 1.4, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    rows = [f"{names[k]} ({short_count(n)})" for k, n in zip(seen, total, strict=True)]
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true (points)")
    for row, column in np.argwhere(share >= 0.5):
        color = "white" if share[row, column] > 55 else "#1d2330"
        text = f"{share[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(image, ax=axes, shrink=0.6, label="% of the true class")
    return figure


def short_count(number: float) -> str:
    """Three digits of a count, with k, M or G."""
    for unit, power in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= power:
            return f"{number / power:.3g}{unit}"
    return f"{number:.0f}"


def plot_watched(columns: Mapping[str, Float[np.ndarray, " n"]]) -> Figure:
    """Draw what a method watched over the steps, one panel for each value.

    Args:
        columns: Of the run's curve, `step` among them; NaN where a value was not looked at. Loss
            and learning rate are left out.

    Raises:
        ValueError: If the method watched nothing.
    """
    return plot_watched_runs({"": columns})


def plot_watched_runs(runs: Mapping[str, Mapping[str, Float[np.ndarray, " n"]]]) -> Figure:
    """Draw what several runs watched, laid over each other, one panel for each value.

    Args:
        runs: Columns as `plot_watched` takes them, by name of the run.

    Raises:
        ValueError: If no run watched anything.
    """
    names = list(dict.fromkeys(name for columns in runs.values() for name in columns))
    curve = ("step", "loss", "lr")
    names, had = [name for name in names if name not in curve], names
    if not names:
        raise ValueError(f"the curve has no watched values, only {', '.join(had)}; draw those")
    rows = -(-len(names) // 3)
    figure = Figure(figsize=(7, 0.4 + 1.7 * rows), layout="constrained")
    panels = figure.subplots(rows, min(len(names), 3), squeeze=False, sharex=True).ravel()
    for index, (axes, name) in enumerate(zip(panels, names, strict=False)):
        for number, (title, columns) in enumerate(runs.items()):
            values = columns.get(name, np.zeros(0))
            seen = np.isfinite(values)
            color = _PALETTE[(index if len(runs) == 1 else number) % len(_PALETTE)]
            steps = columns.get("step", values)[seen]
            axes.plot(steps, values[seen], color=color, linewidth=1.2, label=title)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
    for axes in panels[len(names) :]:
        axes.remove()
    if len(runs) > 1:
        marks, titles = panels[0].get_legend_handles_labels()
        figure.legend(marks, titles, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.supxlabel("step", fontsize=9)
    return figure


def plot_classes(
    xyz: Float[np.ndarray, "n 3"],
    classes: Mapping[str, Int64[np.ndarray, " n"]],
    class_names: Sequence[str],
) -> Figure:
    """Draw views side by side, points coloured by class; -1 is grey.

    A street is seen from above; a room obliquely, without its ceiling and the walls before it.

    Args:
        xyz: Points in metres, z up.
        classes: Class of each point, by title of the view.
        class_names: Of the classes.
    """
    colors = np.concatenate([class_colors(class_names), [IGNORED]])
    painted = {title: colors[labels] for title, labels in classes.items()}
    present = np.unique(np.concatenate([labels[labels >= 0] for labels in classes.values()]))
    lines = -(-len(present) // 4)
    if is_room(xyz):
        figure = _paint(xyz, painted, below=0.22 * lines)
    else:
        figure = Figure(figsize=(4.2 * len(classes), 5), layout="constrained")
        views = np.atleast_1d(figure.subplots(1, len(classes), sharex=True, sharey=True))
        order = np.argsort(xyz[:, 2], kind="stable")
        for axes, (title, color) in zip(views, painted.items(), strict=True):
            _draw_above(axes, xyz, color, order)
            axes.set_title(title)
    marks = [
        figure.axes[0].plot([], [], "o", color=colors[k], label=class_names[k].replace("_", " "))[0]
        for k in present
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=4, frameon=False)
    return figure


def plot_correlation(
    xyz: Float[np.ndarray, "n 3"], features: Mapping[str, Float[np.ndarray, "n c"]], point: int
) -> Figure:
    """Draw how similar all points' features are to one point's (ScaLR, figure 1).

    A street is seen from above; a room obliquely, without its ceiling and the walls before it.

    Args:
        xyz: Points in metres, z up.
        features: Features of the points, by title of the view.
        point: Index of the point that all are compared with; marked by a cross.
    """
    room = oblique_view(xyz) if is_room(xyz) else None
    height = 4.4 if room is None else 0.4 + 3.6 * len(room.index) / room.index.shape[1]
    figure = Figure(figsize=(4.6 * len(features), height), layout="constrained")
    views = np.atleast_1d(figure.subplots(1, len(features), sharex=True, sharey=True))
    place = xyz[point, :2] if room is None else room.pixel[point]
    for axes, (title, feature) in zip(views, features.items(), strict=True):
        unit = feature / np.linalg.norm(feature, axis=1, keepdims=True).clip(1e-12)
        cosine = unit @ unit[point]
        scale = ScalarMappable(cmap=colormaps["magma"])
        scale.set_clim(np.quantile(cosine, 0.02), 1)
        color = scale.to_rgba(cosine)[:, :3]
        if room is None:
            _draw_above(axes, xyz, color, np.argsort(cosine))
        else:
            axes.imshow(room.paint(color))
            axes.axis("off")
        axes.plot(*place, "+", color="#00b4d8", markersize=14, markeredgewidth=2)
        axes.set_title(title)
        figure.colorbar(scale, ax=axes, shrink=0.7, label="cosine similarity")
    return figure


def plot_colors(
    xyz: Float[np.ndarray, "n 3"], colors: Mapping[str, Float[np.ndarray, "n 3"]]
) -> Figure:
    """Draw the same points in several colourings side by side, seen obliquely from above.

    Of a room, the ceiling and the walls before it are left out.

    Args:
        xyz: Points in metres, z up.
        colors: RGB in 0..1 of each point, by title of the view; for what a network does not get
            to see, `pc_data.colors.IGNORED` is apt.
    """
    return _paint(xyz, colors)


def features_as_colors(feat: Float[np.ndarray, "n c"]) -> Float32[np.ndarray, "n 3"]:
    """Colour points by the three directions in which their features differ most (`color_scale`).

    Returns:
        RGB in 0..1.
    """
    return color_scale(feat).paint(feat)


def _paint(xyz: np.ndarray, colors: Mapping[str, np.ndarray], *, below: float = 0.0) -> Figure:
    """Oblique views side by side, with that many inches below them."""
    view = oblique_view(xyz)
    height, width = view.index.shape
    size = (4.2 * len(colors), 4.2 * height / width + 0.35 + below)
    figure = Figure(figsize=size, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(colors)))
    for axes, (title, color) in zip(panels, colors.items(), strict=True):
        axes.imshow(view.paint(color))
        axes.set_title(title)
        axes.axis("off")
    return figure


def _draw_above(axes: Axes, xyz: np.ndarray, color: np.ndarray, order: np.ndarray) -> None:
    """A bird's-eye view of a street; later points cover earlier ones."""
    x, y = xyz[order, :2].T
    axes.scatter(x, y, s=1.2, c=color[order], linewidths=0, rasterized=True)
    axes.set_facecolor("#14171f")  # the class colours are made for a dark ground
    x, y = view_middle(xyz)
    axes.set(aspect="equal", xlim=(x - REACH, x + REACH), ylim=(y - REACH, y + REACH))
    axes.tick_params(labelsize=7)
    axes.set_xlabel("x (m)", fontsize=8)
