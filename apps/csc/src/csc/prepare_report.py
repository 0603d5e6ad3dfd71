"""What `csc prepare` made, to look at: a page with pictures and a table of classes."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pc_data.datasets import Reader
from pc_data.errors import DataError
from pc_data.scan import Scan
from pc_data.show_superpixels import show_superpixels
from pc_data.superpixel_files import SuperpixelFiles
from pc_train.reports.page import Report, percent
from pc_train.runs import CONFIG

from csc.prepare_config import PrepareConfig
from csc.superpixel_jobs import Tally

CAPTION = "Scan {}: its superpixels, the points that fall on them, and from above the superpoints."
_SHOWN = 2
_IN_TABLE = 20


def write_prepare_report(
    config: PrepareConfig,
    dataset: Reader,
    files: SuperpixelFiles,
    tally: Tally,
    summary: Mapping[str, Any],
) -> None:
    """Write `report.html`: counts, images with their superpixels, classes, the configuration.

    Args:
        config: The settings.
        dataset: That the images are of.
        files: The superpixels.
        tally: What all of them are.
        summary: What `summary.json` says.
    """
    manifest = files.manifest
    report = Report("CSC, superpixels", f"{manifest.network} on {config.data.root}")
    report.table(
        ("", ""),
        [
            ("images", f"{summary['images']:,}"),
            ("superpixels an image", f"{summary['superpixels_per_image']:.1f}"),
            ("pixels without one, %", percent(summary["share_without"])),
            ("images left out", len(summary["left_out"])),
            ("seconds of the last part", f"{summary['seconds']:.0f}"),
        ],
    )
    report.heading("Superpixels and superpoints")
    for caption, figure in _pictures(dataset, files):
        report.figure(figure, caption)
    if manifest.class_names:
        total = tally.pixels.total()
        report.heading("Most frequent classes")
        report.table(
            ("class", "share of pixels, %"),
            [
                (manifest.class_names[number], percent(tally.pixels[number] / total))
                for number in _frequent(tally, _IN_TABLE)
            ],
        )
    if summary["left_out"]:
        report.heading("Left out")
        report.text("\n".join(summary["left_out"]))
    report.heading("Configuration")
    report.text((config.out / CONFIG).read_text(encoding="utf-8"))
    report.write(config.out / "report.html")


def picture_of_superpixels(scan: Scan, files: SuperpixelFiles, *, min_depth: float = 1.0) -> Figure:
    """Draw the superpixels of a scan's images, and the superpoints that they make.

    Raises:
        DataError: If superpixels of one of its images are missing or damaged.
    """
    maps = [files.read(scan, camera) for camera in scan.cameras]
    return show_superpixels(scan, maps, files.manifest.class_names, min_depth=min_depth)


def _pictures(dataset: Reader, files: SuperpixelFiles) -> Iterator[tuple[str, Figure]]:
    """Caption and picture of scans spread over the dataset, but for those left out."""
    for index in np.unique(np.linspace(0, len(dataset) - 1, _SHOWN).round().astype(int)):
        try:
            scan = dataset[int(index)]
            yield CAPTION.format(scan.name), picture_of_superpixels(scan, files)
        except DataError:
            continue


def _frequent(tally: Tally, most: int) -> list[int]:
    """The numbers with the most pixels, -1 apart."""
    order = sorted(tally.pixels.items(), key=lambda item: (-item[1], item[0]))
    return [number for number, _ in order if number >= 0][:most]
