"""What divides an image into superpixels: a frozen segmenter or SLIC, as the settings say."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pc_2dteachers.catalog import OFFLINE_CLUSTERS, OFFLINE_TEACHER
from pc_data.datasets import Reader
from pc_data.errors import DataError, MissingExtraError
from pc_data.superpixel_manifest import SuperpixelManifest

from csc.prepare_config import SLIC, PrepareConfig

if TYPE_CHECKING:
    from pc_2dteachers import Segmenter
    from torch import Tensor

Divide = Callable[[np.ndarray], np.ndarray]
"""RGB image [h w 3] -> superpixel of each pixel [h w], -1 = none."""


def list_devices(config: PrepareConfig) -> list[str]:
    """The devices that the processes share, as torch calls them.

    Raises:
        MachineError: If a GPU is asked for where there is none.
    """
    if config.network == SLIC or config.accelerator == "cpu":
        return ["cpu"]
    import torch
    from pc_train.fitting import pick_device

    if pick_device(config.accelerator).type == "cpu":
        return ["cpu"]
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def check_network(config: PrepareConfig, clusters: Path) -> "Segmenter | None":
    """Build what there is of the network, so that what is missing shows before a run begins.

    Args:
        config: Names the network.
        clusters: Where offline_clusters keeps its clusters.

    Returns:
        The segmenter, on the CPU; None for slic, and where clusters must first be found.

    Raises:
        ValueError: If a file holds something else.
        FileNotFoundError: If a file is missing, or weights cannot be downloaded.
        MissingExtraError: If a package that only an extra installs is missing.
    """
    try:
        if config.network == SLIC:
            find_divide(config, clusters, device="cpu")(np.zeros((8, 8, 3), np.uint8))
        elif config.checkpoint is None and needs_clusters(config, clusters):
            from pc_2dteachers import create_teacher

            create_teacher(OFFLINE_TEACHER)
        else:
            return create_network(config, clusters)
    except ImportError as error:
        raise MissingExtraError(str(error)) from error
    return None


def needs_clusters(config: PrepareConfig, clusters: Path) -> bool:
    """Whether there are clusters to be kept that are not there yet."""
    return config.network == OFFLINE_CLUSTERS and not clusters.is_file()


def create_network(config: PrepareConfig, clusters: Path) -> "Segmenter":
    """Create the segmenter, on the CPU."""
    from pc_2dteachers import create_segmenter

    checkpoint = config.checkpoint
    if config.network == OFFLINE_CLUSTERS and checkpoint is None:
        checkpoint = clusters
    backbone = config.backbone if config.network.startswith("dinov2") else None
    return create_segmenter(config.network, checkpoint=checkpoint, backbone=backbone)


def keep_clusters(
    config: PrepareConfig,
    dataset: Reader,
    clusters: Path,
    *,
    device: str,
    progress: Callable[..., None],
) -> None:
    """Find the clusters of the dataset's images, or take the checkpoint's, and keep them.

    Args:
        config: Says how many, and on how many scans.
        dataset: With cameras.
        clusters: File to be written, whole or not at all.
        device: The images are looked at there.
        progress: Is told (done, total) scans.

    Raises:
        DataError: If an image is damaged and `config.on_error` is raise.
        ValueError: If the images have fewer cells than there shall be clusters.
    """
    from pc_2dteachers import fit_clusters
    from pc_2dteachers.segment_clusters import save_clusters

    if config.checkpoint is not None:
        save_clusters(create_network(config, clusters), clusters)
        return
    images = _fit_images(config, dataset, device=device, progress=progress)
    save_clusters(
        fit_clusters(images, num_clusters=config.num_clusters, seed=config.seed), clusters
    )


def _fit_images(
    config: PrepareConfig, dataset: Reader, *, device: str, progress: Callable[..., None]
) -> Iterator["Tensor"]:
    """Images of scans spread evenly over the dataset, one at a time [1 3 h w]."""
    from pc_data.images import resize_image

    count = min(config.fit_scans, len(dataset))
    for done, index in enumerate(np.linspace(0, len(dataset) - 1, count).round().astype(int)):
        try:
            for camera in dataset.cameras(int(index)):
                image = camera.load_image()
                size = config.image_size or image.shape[:2]
                yield resize_image(image, size, antialias=True)[None].to(device)
        except DataError:  # told of when its superpixels are due
            if config.on_error == "raise":
                raise
        progress(done + 1, count)


def describe_network(config: PrepareConfig, segmenter: "Segmenter | None") -> SuperpixelManifest:
    """What the folder of superpixels says of the network: no more than decides the result.

    Args:
        config: The settings.
        segmenter: That they name; None for slic.
    """
    if segmenter is None:
        return SuperpixelManifest(
            network=SLIC,
            num_classes=2 * config.num_segments,  # none is smaller than half of its share
            settings=_slic_settings(config),
        )
    return SuperpixelManifest(
        network=config.network,
        num_classes=segmenter.num_classes,
        class_names=segmenter.class_names,
        settings={"image_size": config.image_size},
        digest=segmenter.digest(),
    )


def find_divide(config: PrepareConfig, clusters: Path, *, device: str) -> Divide:
    """Build the network for good.

    Args:
        config: Names it.
        clusters: Of offline_clusters.
        device: It computes there.
    """
    if config.network == SLIC:
        from pc_2dteachers import slic_superpixels

        return partial(slic_superpixels, **_slic_settings(config))
    from pc_2dteachers import segment_image

    segmenter = create_network(config, clusters).to(device)
    return partial(segment_image, segmenter, size=config.image_size)


def _slic_settings(config: PrepareConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("num_segments", "compactness", "sigma")}
