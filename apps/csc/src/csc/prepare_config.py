"""The settings of `csc prepare`; plain data, without torch."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pc_2dteachers.catalog import list_segmenters
from pc_data.datasets import DataConfig
from pc_data.errors import OnError
from pc_data.limits import require_not_negative, require_positive

SLIC = "slic"
CLUSTERS = "clusters.safetensors"  # these three in the run folder
SUPERPIXELS = "superpixels"
SUMMARY = "summary.json"
MOST_CLASSES = 65_535  # what a PNG of 16 bits holds beside "none"


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Superpixels of all images of a dataset, made once. A network ignores the others' settings.

    Attributes:
        data: Dataset with cameras; its labels are not read.
        out: Run folder; the same command resumes a run.
        network: What divides the images: slic, offline_clusters, or a semantic segmenter
            (dinov2_linear_ade20k_..., mask2former_ade20k_..., oneformer_ade20k_...).
        checkpoint: File of DINOv2's head, which is needed; folder with a copy of Mask2Former's or
            OneFormer's repository instead of the model hub; clusters.safetensors of another run of
            offline_clusters, whose classes are then used.
        backbone: DINOv2's own weight file, instead of the model hub.
        image_size: Height and width in pixels that a network sees; the images' own by default.
            slic always takes these.
        num_clusters: Classes of offline_clusters.
        fit_scans: Scans, spread evenly over the dataset, whose images offline_clusters finds its
            clusters on.
        seed: Of the clusters.
        num_segments: About how many superpixels slic divides an image into.
        compactness: Of slic; higher is squarer.
        sigma: Of slic: of the Gaussian that smooths an image first, in pixels.
        jobs: Parallel processes, each with a network of its own; 0 for one a processor core, or one
            a GPU, where a few more can hide the time that files take.
        accelerator: auto takes all GPUs if there are any; slic never does.
        on_error: What a damaged image does: raise ends the run, skip leaves it out, says so and
            tries it again when the same command is next run.
    """

    data: DataConfig
    out: Path = Path("runs/csc/superpixels")
    network: str = "dinov2_linear_ade20k_vitg14"  # the nearest to the paper's DINOv2
    checkpoint: Path | None = None
    backbone: Path | None = None
    image_size: tuple[int, int] | None = None
    num_clusters: int = 64  # of the order of the ADE20K classes that streets show
    fit_scans: int = 500  # 3,000 images of nuScenes, far more cells than are clustered
    seed: int = 0
    num_segments: int = 150  # SLidR's
    compactness: float = 6.0  # SLidR's
    sigma: float = 3.0  # SLidR's
    jobs: int = 0
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        known = sorted([*list_segmenters(), SLIC])
        if self.network not in known:
            near = difflib.get_close_matches(self.network, known, n=3)
            nearest = f"; nearest: {', '.join(near)}" if near else ""
            raise ValueError(
                f"unknown network {self.network!r}{nearest}; use one of {', '.join(known)}"
            )
        require_positive(self, "num_clusters", "fit_scans", "num_segments", "compactness")
        require_not_negative(self, "seed", "sigma", "jobs")
        if self.image_size is not None:
            require_positive(self, "image_size")
        for name, most in (("num_clusters", MOST_CLASSES), ("num_segments", MOST_CLASSES // 2)):
            if getattr(self, name) > most:
                raise ValueError(
                    f"{name} must be at most {most} (what the files can hold), got "
                    f"{getattr(self, name)}"
                )
