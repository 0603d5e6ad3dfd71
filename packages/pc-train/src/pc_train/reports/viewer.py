"""Point clouds that a page shows from any side: what is drawn, and in which colours."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from matplotlib import colormaps
from pc_data.colors import IGNORED, class_colors

from pc_train.reports.oblique import (
    AZIMUTH,
    ELEVATION,
    REACH,
    WALLS,
    is_room,
    point_spacing,
    view_middle,
)

_MOST_POINTS = 60_000
_NO_CLASS = "no label"
_RIGHT, _WRONG = (0.24, 0.51, 0.64), (1.0, 0.62, 0.11)  # told apart without red and green


@dataclass(frozen=True, kw_only=True)
class ClassColors:
    """Points coloured by class; a click in the legend hides one.

    Attributes:
        labels: Class of each point, -1 = none.
        names: Of the classes.
        colors: Of the classes, RGB in 0..1; None for those that pictures give them.
    """

    labels: Int64[np.ndarray, " n"]
    names: Sequence[str]
    colors: Float[np.ndarray, "k 3"] | None = None

    def encode(self, chosen: Int64[np.ndarray, " m"]) -> dict[str, Any]:
        """The classes that occur, the commonest first, and that of each point."""
        colors = class_colors(self.names) if self.colors is None else self.colors
        colors = np.concatenate([colors, [IGNORED]])
        names = [*(name.replace("_", " ") for name in self.names), _NO_CLASS]
        labels = np.where(self.labels < 0, len(self.names), self.labels)[chosen]
        count = np.bincount(labels, minlength=len(names))
        order = np.argsort(-count, kind="stable")[: np.count_nonzero(count)]
        place = np.zeros(len(names), np.int64)
        place[order] = np.arange(len(order))
        wide = len(order) > 256
        return {
            "kind": "classes",
            "names": [names[k] for k in order],
            "colors": np.rint(255 * colors[order]).astype(int).tolist(),
            "wide": wide,
            "data": _pack(place[labels], np.uint16 if wide else np.uint8),
        }


@dataclass(frozen=True, kw_only=True)
class PointColors:
    """Points in colours of their own.

    Attributes:
        colors: RGB in 0..1 of each point.
        note: What the colours mean.
    """

    colors: Float[np.ndarray, "n 3"]
    note: str

    def encode(self, chosen: Int64[np.ndarray, " m"]) -> dict[str, Any]:
        """The colours and what they mean."""
        colors = np.rint(255 * np.clip(self.colors[chosen], 0, 1))
        return {"kind": "colors", "note": self.note, "data": _pack(colors, np.uint8)}


@dataclass(frozen=True, kw_only=True)
class NumberColors:
    """Points coloured by a number, from its lowest 2% to its highest.

    Attributes:
        numbers: Of each point.
        unit: Written behind the numbers of the legend.
    """

    numbers: Float[np.ndarray, " n"]
    unit: str

    def encode(self, chosen: Int64[np.ndarray, " m"]) -> dict[str, Any]:
        """The numbers as steps of a ramp of 256 colours, and its ends."""
        numbers = self.numbers[chosen]
        low, high = np.percentile(numbers, (2, 98)) if len(numbers) else (0.0, 0.0)
        share = np.clip((numbers - low) / max(high - low, 1e-9), 0, 1)
        ramp = colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
        return {
            "kind": "numbers",
            "low": f"{low:.3g}{self.unit}",
            "high": f"{high:.3g}{self.unit}",
            "ramp": _pack(ramp, np.uint8),
            "data": _pack(np.rint(255 * share), np.uint8),
        }


Coloring = ClassColors | PointColors | NumberColors


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """A point cloud and the colourings that a reader can choose from.

    Attributes:
        xyz: Points in metres, z up.
        colorings: By title; the first is shown first. "height" is added behind them.
    """

    xyz: Float[np.ndarray, "n 3"]
    colorings: Mapping[str, Coloring]


def error_colors(
    labels: Int64[np.ndarray, " n"], predicted: Int64[np.ndarray, " n"]
) -> ClassColors:
    """Right and wrong answers; points without a label are grey."""
    wrong = np.where(labels < 0, -1, labels != predicted)
    colors = np.array([_RIGHT, _WRONG], np.float32)
    return ClassColors(labels=wrong, names=("right", "wrong"), colors=colors)


def cloud_figure(cloud: Cloud, caption: str) -> str:
    """HTML of an interactive view; the page needs `viewer_script` once, at its end.

    Places are kept to a 65,535th of the cloud's extent, and at most 60,000 points, drawn evenly.
    """
    xyz = np.asarray(cloud.xyz, np.float64)
    chosen = np.flatnonzero(np.isfinite(xyz).all(axis=1))
    if len(chosen) > _MOST_POINTS:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, _MOST_POINTS, replace=False))
    places = xyz[chosen]
    low, high = places.min(axis=0, initial=1e9), places.max(axis=0, initial=-1e9)
    step = max(float((high - low).max()) / 65535, 1e-6)
    colorings = {**cloud.colorings, "height": NumberColors(numbers=xyz[:, 2], unit=" m")}
    content = {
        "xyz": _pack(np.rint((places - low) / step), np.uint16),
        "low": low.tolist(),
        "step": step,
        "view": _first_view(places),
        "layers": [{"title": title, **c.encode(chosen)} for title, c in colorings.items()],
    }
    shown = f" {len(chosen):,} of {len(xyz):,} points." if len(chosen) < len(xyz) else ""
    # An end of the element inside a class's name must not end it.
    text = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<figure class="cloud"><script type="application/json">{text}</script>'
        "<noscript>The view that turns needs JavaScript.</noscript>"
        f"<figcaption>{html.escape(caption + shown)} Drag to turn, with shift to move; click, then "
        "wheel to zoom; arrow keys, + and - do the same.</figcaption></figure>"
    )


def viewer_script() -> tuple[str, str]:
    """The script of all views of a page, and the digest by which a policy admits it."""
    script = resources.files("pc_train.reports").joinpath("viewer.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return script, f"sha256-{digest}"


def _first_view(xyz: np.ndarray) -> dict[str, Any]:
    """Where the eye is at first, and what it sees: as in the pictures."""
    if not len(xyz):
        xyz = np.zeros((1, 3))
    room = is_room(xyz)
    near = np.abs(xyz[:, :2] - view_middle(xyz)).max(axis=1) < REACH
    low, high = np.percentile(xyz[near] if near.any() else xyz, (2, 98), axis=0)
    reach = max(float(np.linalg.norm(high - low)) / 2, 0.1)
    bottom, top = xyz[:, 2].min(), xyz[:, 2].max()
    return {
        "middle": ((low + high) / 2).tolist(),
        "distance": (1.55 if room else 1.0) * reach,
        "azimuth": float(AZIMUTH),
        "elevation": float(ELEVATION),
        "dot": float(np.clip(1.6 * point_spacing(xyz.astype(np.float32)), reach / 200, reach / 50)),
        "bottom": float(bottom),
        "top": float(top),
        "shown": WALLS if room and top - bottom > 1.5 else 1.0,
    }


def _pack(values: np.ndarray, dtype: type[np.generic]) -> str:
    little = np.dtype(dtype).newbyteorder("<")
    return base64.b64encode(np.ascontiguousarray(values, dtype=little).tobytes()).decode()
