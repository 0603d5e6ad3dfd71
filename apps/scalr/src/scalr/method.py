"""ScaLR: a point's feature meets that of the pixel it falls on (Puy et al., CVPR 2024)."""

from typing import Any

import lightning
from pc_2dteachers import sample_pixels
from pc_backbones import Backbone
from pc_data.batch import PointBatch
from pc_losses import alignment_score, feature_spread, normalized_l2
from pc_train.collapse import FEATURE_SPREAD, lowest_spread
from pc_train.schedules import adamw_warmup_cosine
from torch import nn


class ScaLR(lightning.LightningModule):
    """Distils a frozen image network into a point network.

    Args:
        backbone: The student.
        teacher: The image network; stays as it is and is in no checkpoint. Its width is `out_dim`.
        head: From the student's features to the teacher's; thrown away afterwards.
        schedule: Arguments of `adamw_warmup_cosine`.
    """

    def __init__(
        self, backbone: Backbone, teacher: nn.Module, head: nn.Module, *, schedule: dict[str, Any]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.teacher = teacher
        self.head = head
        self.schedule = schedule
        width: Any = teacher.out_dim
        self.collapse_limits = {FEATURE_SPREAD: lowest_spread(width)}

    def training_step(self, batch: PointBatch) -> dict[str, Any]:
        """The distance of all (point, pixel) pairs of the batch; equation 1 of the paper."""
        images = batch.need("images")
        height, width = images.shape[2:]
        maps = self.teacher(images)  # [b c h' w']
        target = sample_pixels(maps, batch.need("pixel"), batch.batch, image_size=(width, height))
        feature = self.backbone(batch.xyz, batch.feat, batch.batch, neighbors=batch.neighbors)
        student = self.head(feature)
        return {
            "loss": normalized_l2(student, target),
            "watch": {
                "alignment": alignment_score(student.detach(), target),
                FEATURE_SPREAD: feature_spread(student.detach()),
            },
        }

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """AdamW with warm-up and cosine decay, on backbone and head."""
        parameters = [*self.backbone.parameters(), *self.head.parameters()]
        return adamw_warmup_cosine([{"params": parameters}], **self.schedule)
