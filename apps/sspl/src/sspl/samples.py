"""SSPL's input: two views of a scan that show the same volumes."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Int64
from pc_data.augment import Box
from pc_data.augment.presets import Steps, depthcontrast_view, run, sspl_view
from pc_data.augment.sampling import clip_range, subsample
from pc_data.augment.views import sspl_views
from pc_data.batch import Movable, PointBatch, pack, to_batch
from pc_data.errors import DataError
from pc_data.features import point_features
from pc_data.scan import Scan
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class VolumePair(Movable):
    """Two views of each of several scans, packed.

    Attributes:
        local_view: What the network that learns sees: the small crops.
        global_view: What its momentum copy sees: the large crops.
        local_volume: Volume of each point of `local_view`, numbered over all scans.
        global_volume: Volume of each point of `global_view`; the same number is the same place.
        volume_scan: Scan of each volume, sorted.
    """

    local_view: PointBatch
    global_view: PointBatch
    local_volume: Int64[Tensor, " n"]
    global_volume: Int64[Tensor, " m"]
    volume_scan: Int64[Tensor, " v"]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each scan."""
        return self.local_view.names

    def __len__(self) -> int:
        return len(self.local_view)

    @classmethod
    def pack(cls, samples: Sequence["VolumePair"]) -> "VolumePair":
        """Join samples end to end; volumes and scans are numbered on."""
        volumes = np.cumsum([0, *(len(sample.volume_scan) for sample in samples)]).tolist()
        scans = np.cumsum([0, *(len(sample) for sample in samples)]).tolist()
        return cls(
            local_view=pack([sample.local_view for sample in samples]),
            global_view=pack([sample.global_view for sample in samples]),
            local_volume=torch.cat(
                [sample.local_volume + at for sample, at in zip(samples, volumes, strict=False)]
            ),
            global_volume=torch.cat(
                [sample.global_volume + at for sample, at in zip(samples, volumes, strict=False)]
            ),
            volume_scan=torch.cat(
                [sample.volume_scan + at for sample, at in zip(samples, scans, strict=False)]
            ),
        )


@dataclass(frozen=True, kw_only=True)
class NetworkInput:
    """What a network takes of each point.

    Attributes:
        features: Names, as `pc_data.features` knows them.
        intensity_mean: Of the dataset.
        intensity_std: Of the dataset.
        box: Field of view of the network, which augmented points must lie in; None for any.
        num_neighbors: For the network.
    """

    features: Sequence[str]
    intensity_mean: float = 0.0
    intensity_std: float = 1.0
    box: Box | None = None
    num_neighbors: int = 0

    def within(self, steps: Steps) -> Steps:
        """The steps, and then nothing but what the network sees."""
        return steps if self.box is None else (*steps, partial(clip_range, box=self.box))

    def batch_of(self, view: Scan) -> PointBatch:
        """Turn a view into a batch of one, without its labels."""
        feat = point_features(
            view,
            self.features,
            intensity_mean=self.intensity_mean,
            intensity_std=self.intensity_std,
        )
        unlabelled = dataclasses.replace(view, labels=None)
        return to_batch(unlabelled, feat, num_neighbors=self.num_neighbors)


def make_volumes(
    scan: Scan,
    rng: np.random.Generator,
    *,
    takes: NetworkInput,
    indoor: bool = True,
    max_points: int = 0,
    volume_size: float = 0.5,
    max_volumes: int = 400,
    min_points: int = 8,
    local_share: float = 0.1,
    global_share: float = 0.5,
) -> VolumePair:
    """Make a training sample of one scan: a local and a global crop of each volume.

    The networks see the crops, and nothing of the volumes besides.

    Args:
        scan: A room, or a LiDAR scan.
        rng: Draws points, volumes, crops and augmentations.
        takes: What the network takes of each point.
        indoor: Whether to augment as rooms.
        max_points: As many random points of the scan are used; 0 for all.
        volume_size: Metres; edge of a volume.
        max_volumes: As many random volumes are used.
        min_points: Volumes with fewer points do not count.
        local_share: Of a volume's points in its local crop.
        global_share: Of a volume's points in its global crop.

    Raises:
        DataError: If no volume holds enough points, the network sees none, or the scan lacks what
            a feature needs.

    Source: SSPL (Zhang et al., NeurIPS 2022), Sec. 3.1. Volumes are split on the scan as recorded,
        so that they are the same places in both views.
    """
    views = sspl_views(
        subsample(scan, rng, max_points=max_points) if max_points else scan,
        rng,
        volume_size=volume_size,
        max_volumes=max_volumes,
        min_points=min_points,
        local_share=local_share,
        global_share=global_share,
        transform=partial(run, takes.within(sspl_view(indoor=indoor))),
    )
    return VolumePair(
        local_view=takes.batch_of(views.local_view.scan),
        global_view=takes.batch_of(views.global_view.scan),
        local_volume=torch.from_numpy(views.local_volume),
        global_volume=torch.from_numpy(views.global_volume),
        volume_scan=torch.zeros(views.num_volumes, dtype=torch.long),
    )


def make_scans(
    scan: Scan,
    rng: np.random.Generator,
    *,
    takes: NetworkInput,
    indoor: bool = True,
    max_points: int = 0,
    view_points: int = 0,
) -> VolumePair:
    """Make a sample for the baselines: two views of a scan, each of which is one volume.

    Args:
        scan: A room, or a LiDAR scan.
        rng: Draws points and augmentations.
        takes: What the network takes of each point.
        indoor: Whether to augment as rooms.
        max_points: As many random points of the scan are used; 0 for all.
        view_points: Points of a view; 0 for DepthContrast's 20,000 of a room and all of a LiDAR
            scan.

    Raises:
        DataError: If the network sees no point of a view, or the scan lacks what a feature needs.

    Source: SSPL (Zhang et al., NeurIPS 2022), Sec. 4.1: BYOL and DepthContrast, both with the
        augmentation of DepthContrast (Zhang et al., ICCV 2021). Its clip to what lies before a car
        is left out, as points are labelled all around.
    """
    scan = subsample(scan, rng, max_points=max_points) if max_points else scan
    steps = takes.within(depthcontrast_view(indoor=indoor, num_points=view_points or None))
    first, second = run(steps, scan, rng), run(steps, scan, rng)
    if not len(first) or not len(second):
        raise DataError(
            f"scan {scan.name}: a view holds no point that the network sees; use a network with "
            "another field of view"
        )
    return VolumePair(
        local_view=takes.batch_of(first),
        global_view=takes.batch_of(second),
        local_volume=torch.zeros(len(first), dtype=torch.long),
        global_volume=torch.zeros(len(second), dtype=torch.long),
        volume_scan=torch.zeros(1, dtype=torch.long),
    )
