"""The superpixels of a dataset's images as a run: found once, read in every epoch."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

from pc_data.commandline import to_yaml
from pc_data.datasets import Reader, open_dataset
from pc_data.errors import DataError
from pc_data.progress import progress_line
from pc_data.superpixel_files import create_superpixels
from pc_train.notices import notice
from pc_train.runs import lock_run, open_run, write_json

from csc.prepare_config import CLUSTERS, SUMMARY, SUPERPIXELS, PrepareConfig
from csc.prepare_report import write_prepare_report
from csc.segmenting import (
    check_network,
    create_network,
    describe_network,
    keep_clusters,
    list_devices,
    needs_clusters,
)
from csc.superpixel_jobs import Tally, make_superpixels

Progress = Callable[[str], Callable[..., None]]


def prepare(config: PrepareConfig, *, progress: Progress = progress_line) -> Path:
    """Make the superpixels of all images of a dataset's split, once.

    Resumes an interrupted run, whose files are then those of one that was not interrupted, and
    leaves a finished one alone, unless images were left out of it.

    Args:
        config: The settings.
        progress: Given what goes on, makes what is told (done, total) scans of it.

    Returns:
        The run folder: `superpixels/`, with the clusters of offline_clusters in
        `clusters.safetensors`; `summary.json`, written last; `report.html`.

    Raises:
        FileNotFoundError: If a file or folder is missing, or weights cannot be downloaded.
        MissingExtraError: If a package that only an extra installs is missing.
        DataError: If the dataset has no cameras, weights have changed since the run began, or an
            image is damaged and `config.on_error` is raise.
        ValueError: If the settings do not fit the machine or the data, or the run folder belongs to
            another run.
    """
    # A part of a run may skip what another one stopped at.
    record = to_yaml(dataclasses.replace(config, on_error="raise"))
    if _is_finished(config.out):
        open_run(config.out, record)
        return config.out
    # Before the run folder is made, so that what is wrong leaves none.
    dataset = open_dataset(config.data, labels=False)
    _require_cameras(dataset, config)
    devices = list_devices(config)
    clusters = config.out / CLUSTERS
    segmenter = check_network(config, clusters)
    open_run(config.out, record)
    with lock_run(config.out):
        start = time.monotonic()
        if needs_clusters(config, clusters):
            told = progress("clusters from scans")
            keep_clusters(config, dataset, clusters, device=devices[0], progress=told)
            segmenter = create_network(config, clusters)
        manifest = describe_network(config, segmenter)
        del segmenter  # each process has its own
        files = create_superpixels(config.out / SUPERPIXELS, manifest)
        tally = make_superpixels(
            config,
            files,
            clusters,
            num_scans=len(dataset),
            devices=devices,
            progress=progress("superpixels of scans"),
        )
        for left in tally.left_out:
            notice(f"left out: {left}")
        if not tally.images:
            raise DataError(f"{config.data.root}: none of its images can be used; check the folder")
        _remove_leftovers(files.root)
        summary = _summarize(tally, seconds=time.monotonic() - start)
        write_prepare_report(config, dataset, files, tally, summary)
        write_json(config.out / SUMMARY, summary)
    return config.out


def _is_finished(out: Path) -> bool:
    """Whether all superpixels are there; images that were left out may have been restored."""
    try:
        summary = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
        return not summary["left_out"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _require_cameras(dataset: Reader, config: PrepareConfig) -> None:
    for index in range(len(dataset)):
        try:
            if dataset.cameras(index):
                return
        except DataError:
            if config.on_error == "raise":
                raise
    raise DataError(
        f"{config.data.root} ({config.data.name}, split {config.data.split}) has no camera images, "
        "which superpixels are made of; use a dataset with cameras"
    )


def _remove_leftovers(folder: Path) -> None:
    """Remove what kills have left half-written; the lock keeps other processes out."""
    for file in folder.rglob(".*.png.*"):
        file.unlink(missing_ok=True)


def _summarize(tally: Tally, *, seconds: float) -> dict[str, object]:
    """What `summary.json` says; the seconds are those of the run's last part."""
    return {
        "images": tally.images,
        "superpixels_per_image": tally.superpixels / tally.images,
        "share_without": tally.pixels[-1] / tally.pixels.total(),
        "seconds": round(seconds, 1),
        "left_out": tally.left_out,
    }
