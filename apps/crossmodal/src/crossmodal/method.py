"""Points meet images, unit by unit (Cai et al., 2024)."""

from collections.abc import Mapping
from typing import Any

import lightning
import torch
from jaxtyping import Float
from pc_2dteachers.levels import sample_levels
from pc_backbones import Backbone, mlp_head
from pc_data.batch import PointBatch
from pc_losses import alignment_score, balanced_info_nce, contrastive_accuracy
from pc_losses.health import feature_spread
from pc_train.collapse import FEATURE_SPREAD, lowest_spread
from pc_train.schedules import adamw_warmup_cosine
from torch import Tensor, nn

from crossmodal.samples import UnitBatch

_ALL = 2**31
"""A rank that every unit is below: all others are negatives."""


class CrossModal(lightning.LightningModule):
    """Contrast of units across images and points, and within points.

    Args:
        backbone: What is pre-trained.
        teacher: The image network, from images to maps of several levels; stays as it is and is in
            no checkpoint. None for contrast within points alone.
        across: Contrast points with images.
        within: Contrast two augmented clouds.
        num_negatives: The least similar units of a scan that are its negatives in the contrast
            with images; 0 for all others, as always between two clouds.
        temperature: Of the contrast.
        hidden_dim: Width of the heads' hidden layer.
        projection_dim: Width of what is contrasted.
        schedule: Arguments of `adamw_warmup_cosine`.
    """

    def __init__(
        self,
        backbone: Backbone,
        teacher: nn.Module | None,
        *,
        across: bool = True,
        within: bool = False,
        num_negatives: int = 512,
        temperature: float = 0.1,
        hidden_dim: int = 256,
        projection_dim: int = 128,
        schedule: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.backbone, self.teacher = backbone, teacher
        self.across, self.within = across, within
        self.point_head = mlp_head(backbone.out_dim, hidden_dim, projection_dim)
        if across:
            width: Any = teacher.out_dim if teacher is not None else 0
            self.image_head = mlp_head(width, hidden_dim, projection_dim)
        self.rank = num_negatives + 1 if num_negatives else _ALL
        self.temperature = temperature
        self.schedule = dict(schedule)
        self.collapse_limits = {FEATURE_SPREAD: lowest_spread(projection_dim)}

    def training_step(self, batch: UnitBatch) -> dict[str, Any]:
        """Contrast of one batch: sections II-B and II-C of the paper."""
        point = self.point_head(self.point_units(batch.points, batch))  # [b d]
        losses, watch = [], {FEATURE_SPREAD: feature_spread(point.detach())}
        if self.across:
            image = self.image_head(self.image_units(batch))
            losses.append(self._contrast(point, image, batch, rank=self.rank))
            watch["accuracy"] = contrastive_accuracy(
                point.detach(), image.detach(), batch.unit_scan
            )
            watch["alignment"] = alignment_score(point.detach(), image.detach())
        if self.within:
            other = self.point_head(self.point_units(batch.need("other"), batch))
            losses.append(self._contrast(point, other, batch, rank=_ALL))
            accuracy = contrastive_accuracy(point.detach(), other.detach(), batch.unit_scan)
            watch["accuracy of clouds"] = accuracy
        return {"loss": torch.stack(losses).sum(), "watch": watch}

    def point_units(self, points: PointBatch, batch: UnitBatch) -> Float[Tensor, "b c"]:
        """Mean feature of the points of each unit."""
        feature = self.backbone(points.xyz, points.feat, points.batch)
        return batch.point_bags.mean(feature)

    @torch.no_grad()
    def image_units(self, batch: UnitBatch) -> Float[Tensor, "b c"]:
        """Mean image feature of each unit: over the cameras of a point, then over its points."""
        images = batch.need("images")
        height, width = images.shape[2:]
        maps = self.teacher(images)  # pyrefly: ignore[not-callable]
        read = sample_levels(maps, batch.pixel, batch.image_index, image_size=(width, height))
        return batch.pixel_bags.mean(read)

    def _contrast(self, query: Tensor, key: Tensor, batch: UnitBatch, *, rank: int) -> Tensor:
        return balanced_info_nce(
            query, key, batch.unit_scan, rank=rank, temperature=self.temperature
        )

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """AdamW with warm-up and cosine decay, on backbone and heads."""
        parameters = [value for value in self.parameters() if value.requires_grad]
        return adamw_warmup_cosine([{"params": parameters}], **self.schedule)
