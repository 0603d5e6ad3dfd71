"""The superpixels that a pre-training reads."""

from collections.abc import Sequence
from pathlib import Path

from pc_data.datasets import Reader
from pc_data.readers.nuscenes import NuScenes
from pc_data.superpixel_files import (
    SuperpixelFiles,
    open_csc_superpixels,
    open_superpixels,
    read_camera_tokens,
)
from pc_data.superpixel_manifest import MANIFEST

from csc.config import Config
from csc.prepare_config import SUMMARY, SUPERPIXELS


def open_prepared(config: Config, datasets: Sequence[Reader]) -> list[SuperpixelFiles]:
    """Open the superpixels of each dataset's images; none where the contrast has none.

    Raises:
        ValueError: If a folder holds none, or not all yet, they are not by one network, or they
            have no classes to make prototypes of.
    """
    if config.contrast == "pixel":
        return []
    roots = [config.superpixels, *config.more_superpixels]
    files = [_open_folder(root, of) for root, of in zip(roots, datasets, strict=True)]
    first = files[0].manifest
    for root, other in zip(roots, files, strict=True):
        if (other.manifest.network, other.manifest.digest) != (first.network, first.digest):
            raise ValueError(
                f"superpixels must be by one network, but those of {roots[0]} are by "
                f"{first.network} and those of {root} by {other.manifest.network} or other "
                "weights of it; prepare them alike, clusters through checkpoint"
            )
    if config.prototypes != "none" and not first.class_names:
        raise ValueError(
            f"prototypes {config.prototypes} are of classes, which superpixels of "
            f"{first.network} have not; pass prototypes none, or semantic superpixels"
        )
    return files


def _open_folder(root: Path, dataset: Reader) -> SuperpixelFiles:
    """A run of `csc prepare`, the folder in it, or that of CSC's authors."""
    run = root / SUPERPIXELS
    if (run / MANIFEST).is_file():
        if not (root / SUMMARY).is_file():
            raise ValueError(
                f"{root} holds superpixels of a part of the images only; the csc prepare that "
                "began there goes on with the rest"
            )
        return open_superpixels(run)
    if (root / MANIFEST).is_file():
        return open_superpixels(root)
    if isinstance(dataset, NuScenes) and any(root.glob("*.png")):
        return open_csc_superpixels(root, read_camera_tokens(dataset.root / dataset.version))
    raise ValueError(
        f"{root} holds no superpixels; run csc prepare for this dataset and pass its folder as "
        "superpixels"
    )


def list_manifests(files: Sequence[SuperpixelFiles]) -> dict[str, Path]:
    """What binds a run to its superpixels; those of CSC's authors have nothing of the kind."""
    manifests = {f"superpixels {k}": one.root / MANIFEST for k, one in enumerate(files)}
    return {name: file for name, file in manifests.items() if file.is_file()}
