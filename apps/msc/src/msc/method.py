"""MSC: contrast and reconstruct two masked views of a scene (Wu et al., CVPR 2023)."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import torch
from jaxtyping import Bool, Float, Int64
from pc_backbones import Backbone
from pc_data.batch import PointBatch
from pc_losses import (
    alignment_score,
    color_reconstruction,
    info_nce,
    normal_reconstruction,
)
from pc_losses.health import feature_spread, negative_similarity
from pc_train.collapse import FEATURE_SPREAD, NEGATIVE_SIMILARITY, lowest_spread
from pc_train.schedules import sgd_onecycle
from torch import Tensor, nn

from msc.samples import ViewPair
from msc.targets import TARGETS, columns_of

_LOSSES = {
    "color": color_reconstruction,
    "normal": normal_reconstruction,
    "intensity": color_reconstruction,
}


class MSC(lightning.LightningModule):
    """Masked Scene Contrast.

    Args:
        backbone: What is pre-trained; takes `features`.
        features: Names of the input features.
        reconstruct: Which of `TARGETS` to reconstruct where they are hidden.
        temperature: Of the contrast.
        contrast_weight: Factor of the contrast.
        reconstruct_weight: Factor of the sum of reconstructions.
        gather: Contrast with the keys of all processes, not of this one alone.
        schedule: Arguments of `sgd_onecycle`.

    Raises:
        ValueError: If a target is none of the input features.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        features: Sequence[str],
        reconstruct: Sequence[str],
        temperature: float = 0.4,
        contrast_weight: float = 1.0,
        reconstruct_weight: float = 1.0,
        gather: bool = False,
        schedule: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.columns = {name: columns_of(name, features) for name in reconstruct}
        self.mask_token = nn.Parameter(torch.empty(1, backbone.in_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(backbone.out_dim, len(TARGETS[name])) for name in reconstruct}
        )
        self.temperature, self.gather = temperature, gather
        self.contrast_weight, self.reconstruct_weight = contrast_weight, reconstruct_weight
        self.schedule = dict(schedule)
        self.collapse_limits = {FEATURE_SPREAD: lowest_spread(backbone.out_dim)}

    def training_step(self, batch: ViewPair) -> dict[str, Any]:
        """Contrast and reconstruction of one batch; equations 2 to 6 of the paper."""
        query = self.encode(batch.query, batch.query_masked, scan=mix_scans(batch))  # [n c]
        key = self.encode(batch.key, batch.key_masked)  # [m c]
        query_point, key_point = batch.pairs.unbind(1)
        query_pair, key_pair = query[query_point], key[key_point]
        contrast = info_nce(query_pair, key_pair, temperature=self.temperature, gather=self.gather)
        hidden = torch.cat([query[batch.query_masked], key[batch.key_masked]])
        truth = torch.cat([batch.query.feat[batch.query_masked], batch.key.feat[batch.key_masked]])
        parts = {
            name: _LOSSES[name](head(hidden), truth[:, self.columns[name]])
            for name, head in self.heads.items()
        }
        reconstruction = sum(parts.values(), start=contrast.new_zeros(()))
        return {
            "loss": self.contrast_weight * contrast + self.reconstruct_weight * reconstruction,
            "watch": {
                "contrast": contrast.detach(),
                **{name: part.detach() for name, part in parts.items()},
                "alignment": alignment_score(query_pair.detach(), key_pair.detach()),
                NEGATIVE_SIMILARITY: negative_similarity(query_pair.detach(), key_pair.detach()),
                FEATURE_SPREAD: feature_spread(query.detach()),
            },
        }

    def encode(
        self,
        view: PointBatch,
        masked: Bool[Tensor, " n"],
        *,
        scan: Int64[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n c"]:
        """Features of a view whose masked points show the mask token; coordinates stay.

        Args:
            view: The points.
            masked: Those to hide.
            scan: Scan that a point is seen in, if not its own.
        """
        feat = torch.where(masked[:, None], self.mask_token.to(view.feat.dtype), view.feat)
        return self.backbone(view.xyz, feat, view.batch if scan is None else scan)

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """SGD with Nesterov momentum, one cycle of the learning rate."""
        return sgd_onecycle([{"params": list(self.parameters())}], **self.schedule)


def mix_scans(batch: ViewPair) -> Int64[Tensor, " n"]:
    """Scan that each query point is seen in: of two neighbours the first, if they are mixed.

    Rooms lie over each other by the middles of their boxes, as their views are centred, floors
    together; points that share a voxel then share its feature.

    Source: MSC (Wu et al., CVPR 2023), Sec. 4.1, "view mixing". The released code lays the lower
        corners of the two grids together, and has two rows for a voxel that both occupy.
    """
    first = torch.arange(len(batch), device=batch.mixed.device) // 2 * 2
    own = torch.arange(len(batch), device=batch.mixed.device)
    return torch.where(batch.mixed[first], first, own)[batch.query.batch]
