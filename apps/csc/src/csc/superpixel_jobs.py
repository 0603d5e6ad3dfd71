"""The superpixels of all scans of a dataset, by processes that each keep a network."""

import fcntl
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from pc_data.datasets import Reader, open_dataset
from pc_data.errors import DataError
from pc_data.scan import Camera, Scan
from pc_data.superpixel_files import SuperpixelFiles

from csc.prepare_config import PrepareConfig
from csc.segmenting import Divide, find_divide


@dataclass(kw_only=True)
class Tally:
    """What is known of superpixels that lie in a folder.

    Attributes:
        images: How many images have them.
        superpixels: How many there are in all of these.
        pixels: Of each superpixel number, over all images; -1 = none.
        left_out: What was wrong with the images that have none.
    """

    images: int = 0
    superpixels: int = 0
    pixels: Counter[int] = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Take in that of other images."""
        self.images += other.images
        self.superpixels += other.superpixels
        self.pixels.update(other.pixels)
        self.left_out += other.left_out

    def count(self, superpixels: np.ndarray) -> None:
        """Take in an image."""
        numbers, pixels = np.unique(superpixels, return_counts=True)
        self.images += 1
        self.superpixels += int((numbers >= 0).sum())
        self.pixels.update(dict(zip(numbers.tolist(), pixels.tolist(), strict=True)))


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process needs to know; it goes to others.

    Attributes:
        config: The settings.
        clusters: Of offline_clusters.
        files: Where superpixels go.
        devices: That the processes share.
        slots: Folder in which the processes agree on devices.
        num_jobs: How many processes there are.
        parent: Process that started them.
    """

    config: PrepareConfig
    clusters: Path
    files: SuperpixelFiles
    devices: tuple[str, ...]
    slots: Path
    num_jobs: int
    parent: int


def make_superpixels(
    config: PrepareConfig,
    files: SuperpixelFiles,
    clusters: Path,
    *,
    num_scans: int,
    devices: list[str],
    progress: Callable[..., None],
) -> Tally:
    """Make the superpixels that are not there yet, of every image.

    Args:
        config: The settings.
        files: Where they go.
        clusters: Of offline_clusters.
        num_scans: Length of the dataset.
        devices: To be shared by the processes.
        progress: Is told (done, total) scans.

    Returns:
        What all images have, those included that were there.

    Raises:
        DataError: If an image is damaged and `config.on_error` is raise.
    """
    import joblib

    num_jobs = config.jobs or (joblib.cpu_count() if devices == ["cpu"] else len(devices))
    num_jobs = max(min(num_jobs, num_scans), 1)
    total = Tally()
    with tempfile.TemporaryDirectory(prefix="csc-") as slots:
        job = Job(
            config=config,
            clusters=clusters,
            files=files,
            devices=tuple(devices),
            slots=Path(slots),
            num_jobs=num_jobs,
            parent=os.getpid(),
        )
        run = _run_here if num_jobs == 1 else _run_apart
        tallies = run(job, num_scans)
        for done, tally in enumerate(tallies):
            total.add(tally)
            progress(done + 1, num_scans)
    total.left_out.sort()
    return total


def make_scan(job: Job, index: int) -> Tally:
    """Make the superpixels of one scan's images; those that are there and whole stay."""
    dataset, divide = _open_once(job)
    tally = Tally()
    skip = job.config.on_error == "skip"
    try:
        scan = dataset[index]
    except DataError as error:
        if not skip:
            raise
        tally.left_out.append(str(error))
        return tally
    for camera in scan.cameras:
        try:
            tally.count(_make_image(job.files, divide, scan, camera))
        except DataError as error:
            if not skip:
                raise
            tally.left_out.append(str(error))
    return tally


def _make_image(files: SuperpixelFiles, divide: Divide, scan: Scan, camera: Camera) -> np.ndarray:
    if files.is_made(scan, camera):
        try:
            return files.read(scan, camera)
        except DataError:  # damaged within, or of another image
            pass
    superpixels = divide(camera.load_image())
    files.write(scan, camera, superpixels)
    return superpixels


def _run_apart(job: Job, count: int) -> Iterator[Tally]:
    """Make the scans in other processes, in any order."""
    import joblib

    try:
        with joblib.parallel_config(backend="loky", n_jobs=job.num_jobs, inner_max_num_threads=1):
            yield from joblib.Parallel(return_as="generator_unordered")(
                joblib.delayed(make_scan)(job, index) for index in range(count)
            )
    finally:
        # Else they would keep their networks for minutes.
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True)


def _run_here(job: Job, count: int) -> Iterator[Tally]:
    """Make the scans one after another in this process, with one thread as in others."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for index in range(count):
            yield make_scan(job, index)
    finally:
        torch.set_num_threads(threads)
        _KEPT.pop(job.slots, None)


_KEPT: dict[Path, tuple[Reader, Divide]] = {}
_CLAIMED: list[IO] = []  # open files, whose locks last as long as the process


def _open_once(job: Job) -> tuple[Reader, Divide]:
    """Dataset and network, which a process opens once for all of its scans."""
    if job.slots not in _KEPT:
        if os.getpid() != job.parent:
            threading.Thread(target=_end_with, args=(job.parent,), daemon=True).start()
        dataset = open_dataset(job.config.data, labels=False)
        _KEPT[job.slots] = dataset, find_divide(job.config, job.clusters, device=_claim(job))
    return _KEPT[job.slots]


def _claim(job: Job) -> str:
    """A device for this process, such that the processes are dealt evenly to all."""
    if min(len(job.devices), job.num_jobs) == 1:
        return job.devices[0]
    for slot in range(job.num_jobs):
        file = (job.slots / str(slot)).open("a")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another process has it
            file.close()
            continue
        _CLAIMED.append(file)
        return job.devices[slot % len(job.devices)]
    return job.devices[0]


def _end_with(parent: int) -> None:
    """End this process soon after its parent was killed, or it would keep its device for long."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)
