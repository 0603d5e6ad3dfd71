"""MSC's input: two views of a scan, the points they share, and their cross masks."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from pc_data.augment.presets import MSC_SHARED, msc_view
from pc_data.augment.views import View, match_views, msc_views
from pc_data.batch import Movable, PointBatch, pack, to_batch
from pc_data.features import ROOM_FEATURES, point_features
from pc_data.scan import Scan
from pc_geometry import voxel_subsample
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ViewPair(Movable):
    """Two views of each of several scans, packed.

    Attributes:
        query: The first view, which may be mixed with its neighbour's.
        key: The second view.
        pairs: Points of `query` and `key` that were near each other in the scan.
        query_masked: Points of `query` whose input is hidden.
        key_masked: Points of `key` whose input is hidden.
        mixed: Whether a scan's query is to be laid over that of the scan after it.
    """

    query: PointBatch
    key: PointBatch
    pairs: Int64[Tensor, "p 2"]
    query_masked: Bool[Tensor, " n"]
    key_masked: Bool[Tensor, " m"]
    mixed: Bool[Tensor, " b"]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each scan."""
        return self.query.names

    def __len__(self) -> int:
        return len(self.query)

    @classmethod
    def pack(cls, samples: Sequence["ViewPair"]) -> "ViewPair":
        """Join samples end to end; the pairs are shifted to the packed points."""
        sizes = [(len(sample.query.xyz), len(sample.key.xyz)) for sample in samples]
        starts = np.cumsum([(0, 0), *sizes], axis=0)
        return cls(
            query=pack([sample.query for sample in samples]),
            key=pack([sample.key for sample in samples]),
            pairs=torch.cat(
                [
                    sample.pairs + torch.from_numpy(start)
                    for sample, start in zip(samples, starts, strict=False)
                ]
            ),
            query_masked=torch.cat([sample.query_masked for sample in samples]),
            key_masked=torch.cat([sample.key_masked for sample in samples]),
            mixed=torch.cat([sample.mixed for sample in samples]),
        )


def make_views(
    scan: Scan,
    rng: np.random.Generator,
    *,
    features: Sequence[str] = ROOM_FEATURES,
    intensity_mean: float = 0.0,
    intensity_std: float = 1.0,
    voxel_size: float = 0.02,
    crop: float = 0.6,
    mask_size: float = 0.15,
    mask_rate: float = 0.3,
    mix_probability: float = 0.8,
    match_radius: float = 0.03,
    max_pairs: int = 2048,
) -> ViewPair:
    """Make a training sample of one scan; everything random in a step is drawn here.

    Args:
        scan: A room, or a LiDAR scan.
        rng: Draws the views, the masks, the pairs and whether to mix.
        features: Input of the network.
        intensity_mean: Of the dataset.
        intensity_std: Of the dataset.
        voxel_size: Metres; one random point of each voxel stays.
        crop: Share of the points that a view keeps.
        mask_size: Metres; edge of the cells that are hidden as a whole.
        mask_rate: Share of the cells hidden in each view.
        mix_probability: Of laying the query over the next scan's.
        match_radius: Metres that a pair stays below.
        max_pairs: As many random pairs stay.

    Raises:
        DataError: If the scan lacks what a feature needs.

    Source: MSC (Wu et al., CVPR 2023), Sec. 4.1 and 4.2; values of its released code where the
        paper gives none. There, masks, pairs and mixing are drawn for the batch of a GPU at once;
        drawn for each scan, they do not depend on how many GPUs there are.
    """
    steps = msc_view(voxel_size=voxel_size, crop=crop)
    query, key = msc_views(scan, rng, shared=MSC_SHARED, view=steps)
    query_masked, key_masked = cross_masks(
        query.origin, key.origin, rng, size=mask_size, rate=mask_rate
    )
    pairs = match_views(query, key, rng, radius=match_radius)
    pairs = pairs[rng.permutation(len(pairs))[:max_pairs]]

    def batch_of(view: View) -> PointBatch:
        feat = point_features(
            view.scan, features, intensity_mean=intensity_mean, intensity_std=intensity_std
        )
        return to_batch(dataclasses.replace(view.scan, labels=None), feat, num_neighbors=0)

    return ViewPair(
        query=batch_of(query),
        key=batch_of(key),
        pairs=torch.from_numpy(pairs),
        query_masked=torch.from_numpy(query_masked),
        key_masked=torch.from_numpy(key_masked),
        mixed=torch.tensor([rng.random() < mix_probability]),
    )


def cross_masks(
    query: Float32[np.ndarray, "n 3"],
    key: Float32[np.ndarray, "m 3"],
    rng: np.random.Generator,
    *,
    size: float = 0.15,
    rate: float = 0.3,
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " m"]]:
    """Hide a share of the cells of a scan from one view, and as many others from the other.

    Args:
        query: Where the points of the first view were in the scan, metres.
        key: Where those of the second were.
        rng: Draws the cells.
        size: Edge of a cell.
        rate: Share of the cells that either view occupies, rounded down; at most one half.

    Returns:
        Which points are hidden; no cell is hidden from both views.

    Source: MSC (Wu et al., CVPR 2023), Sec. 4.2, "contrastive cross masks". The cells are exact;
        those of the released code share keys and so hide more than one place at a time.
    """
    _, cell = voxel_subsample(np.concatenate([query, key]), size)
    num_cells = int(cell.max(initial=-1)) + 1
    num_hidden = int(num_cells * rate)
    turn = rng.permutation(num_cells)[cell]  # the first of a random order go to the query
    query_turn, key_turn = turn[: len(query)], turn[len(query) :]
    return query_turn < num_hidden, (key_turn >= num_hidden) & (key_turn < 2 * num_hidden)
