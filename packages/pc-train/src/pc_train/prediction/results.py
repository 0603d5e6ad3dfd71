"""What a prediction leaves on disk: features, class ids, coloured clouds, a summary."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int16, Int64, UInt8
from pc_data.colors import class_colors
from pc_data.files.ply import write_ply
from pc_data.progress import progress_line
from pc_data.scan import Scan
from pc_geometry.atomic import atomic_file, remove_unfinished

from pc_train.prediction.config import PredictConfig
from pc_train.prediction.inputs import Cloud
from pc_train.prediction.row_files import RowFile, feature_file
from pc_train.reports.feature_colors import color_scale

SUMMARY = "prediction.json"
_CLASSES, _CLASSES_PLY, _FEATURES_PLY = "classes.npy", "classes.ply", "features.ply"
_BLOCK = 1 << 17  # rows that are handled at a time
_SCALE_ROWS = 50_000  # rows that the colours are fitted to
_NAME_BYTES = 200  # of a folder


class Answer(NamedTuple):
    """What a network says of some points.

    Attributes:
        points: The points, ascending.
        nearest: The row of `feat` that answers for each.
        feat: Features of the points that the network saw.
        classes: Their classes; None without a head.
    """

    points: Int64[np.ndarray, " n"]
    nearest: Int64[np.ndarray, " n"]
    feat: Float32[np.ndarray, "m d"]
    classes: Int16[np.ndarray, " m"] | None


def write_results(
    folder: Path,
    cloud: Cloud,
    answers: Iterable[Answer],
    *,
    width: int,
    class_names: Sequence[str],
    config: PredictConfig,
) -> tuple[list[str], dict[str, int]]:
    """Write what a network says of a cloud.

    Args:
        folder: Where to.
        cloud: The cloud.
        answers: Of all its points, each once; shown as progress if there are several.
        width: Of the features.
        class_names: Of the classes; empty without a head.
        config: Which files.

    Returns:
        Names of the files, and the number of points of each class.

    Raises:
        ValueError: If the features do not fit on the disk or into float16.
    """
    scan, files = cloud.scan, []
    saves = config.features != "none"
    rows_of = nullcontext()
    if saves or config.ply:
        # Colours need no more digits than float16 has.
        dtype = config.precision if saves else "float16"
        rows_of = feature_file(folder, config.features, (len(scan), width), dtype)
    with rows_of as rows:
        classes = _collect(answers, rows, scan)
        colors = feature_colors(rows) if config.ply and rows is not None else None
    if saves:
        files.append(f"features.{config.features}")
    if colors is not None:
        _write_colored(folder / _FEATURES_PLY, scan, cloud.offset, colors)
        files.append(_FEATURES_PLY)
    if not class_names:
        return files, {}
    with atomic_file(folder / _CLASSES) as file:
        np.save(file, classes)
    files.append(_CLASSES)
    if config.ply:
        colors = _to_bytes(class_colors(class_names))[classes]
        _write_colored(folder / _CLASSES_PLY, scan, cloud.offset, colors, labels=classes)
        files.append(_CLASSES_PLY)
    counts = np.bincount(classes, minlength=len(class_names)).tolist()
    return files, dict(zip(class_names, counts, strict=True))


def _collect(
    answers: Iterable[Answer], rows: RowFile | None, scan: Scan
) -> Int16[np.ndarray, " n"]:
    """Write the features of all points, and return their classes; -1 without a head."""
    classes = np.full(len(scan), -1, np.int16)
    report, done = progress_line(f"points of {scan.name}"), 0
    report(done, len(scan))
    for points, nearest, feat, found in answers:
        if found is not None:
            classes[points] = found[nearest]
        if rows is not None:
            for start in range(0, len(points), _BLOCK):
                part = slice(start, start + _BLOCK)
                rows.write(points[part], feat[nearest[part]])
        is_first, done = done == 0, done + len(points)
        if not (is_first and done == len(scan)):
            report(done, len(scan))
    return classes


def feature_colors(rows: RowFile) -> UInt8[np.ndarray, "n 3"]:
    """Colour features by their three main directions, block by block."""
    num_rows = rows.shape[0]
    step = max(1, num_rows // _SCALE_ROWS)
    blocks = [(start, min(start + _BLOCK, num_rows)) for start in range(0, num_rows, _BLOCK)]
    # Copies: a view would keep its whole block.
    some = [rows.read(start, stop)[-start % step :: step].copy() for start, stop in blocks]
    scale = color_scale(np.concatenate(some).astype(np.float32))
    del some
    colors = np.empty((num_rows, 3), np.uint8)
    for start, stop in blocks:
        colors[start:stop] = _to_bytes(scale.paint(rows.read(start, stop)))
    return colors


def _to_bytes(colors: Float[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
    """RGB in 0..1 as bytes."""
    return np.round(255 * colors).astype(np.uint8)


def _write_colored(
    file: Path,
    scan: Scan,
    offset: Float64[np.ndarray, " 3"],
    colors: UInt8[np.ndarray, "n 3"],
    *,
    labels: Int16[np.ndarray, " n"] | None = None,
) -> None:
    """Write a coloured PLY file; positions are float64 where there is an offset to add."""
    columns = {
        name: scan.xyz[:, axis] + offset[axis] if offset.any() else scan.xyz[:, axis]
        for axis, name in enumerate("xyz")
    }
    columns |= {name: colors[:, k] for k, name in enumerate(("red", "green", "blue"))}
    if labels is not None:
        columns["label"] = labels
    write_ply(file, {"vertex": columns})


def result_folder(out: Path, name: str) -> Path:
    """The folder for a cloud among several: its name below `out`, whatever the name is.

    Parts that are not plain names (`..`, hidden ones, other than letters, digits and `._-+=@ `, too
    long) are changed, and the folder then ends in a digest of the name, so that no two meet.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    plain = []
    for part in parts:
        part = re.sub(r"[^\w.\-+=@ ]", "_", part)
        part = "_" + part if part.startswith(".") else part
        plain.append(part.encode()[:_NAME_BYTES].decode(errors="ignore"))
    if plain != parts or "/".join(parts) != name or not parts:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
        plain = [*plain[:-1], f"{plain[-1] if plain else 'cloud'}-{digest}"]
    return out.joinpath(*plain)


def finished_files(folder: Path) -> tuple[str, ...]:
    """Names of a cloud's results, the summary last, as it was written; nothing if one lacks."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        files = (*(str(name) for name in summary["files"]), SUMMARY)
    except (OSError, ValueError, LookupError, TypeError):
        return ()
    return files if all((folder / name).is_file() for name in files) else ()


def clear_remains(folder: Path) -> None:
    """Remove what a killed process left of files that it had not finished."""
    for name in ("features", "classes", SUMMARY):
        remove_unfinished(folder, name)
