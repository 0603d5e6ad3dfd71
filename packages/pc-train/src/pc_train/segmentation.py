"""Semantic segmentation on top of a backbone: linear probing, fine-tuning, evaluation."""

from collections.abc import Iterable
from typing import Any

import lightning
import numpy as np
import torch
from jaxtyping import Float, Int64
from pc_backbones import Backbone, linear_probe_head
from pc_data.batch import PointBatch
from pc_losses import cross_entropy_lovasz
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from pc_train.schedules import adamw_warmup_cosine, layer_decay_groups


class SegmentationModel(lightning.LightningModule):
    """A backbone and the head that turns its features into class scores."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, batch: PointBatch) -> Float[Tensor, "n k"]:
        """Class scores of every packed point."""
        return self.head(
            self.backbone(batch.xyz, batch.feat, batch.batch, neighbors=batch.neighbors)
        )

    def training_step(self, batch: PointBatch) -> Tensor:
        """Cross-entropy and Lovasz-softmax."""
        return cross_entropy_lovasz(self(batch), batch.need("labels"))


class LinearProbe(SegmentationModel):
    """A batch norm and a linear layer learn on a frozen backbone.

    Args:
        backbone: Stays in eval mode and without gradients.
        num_classes: Of the labels.
        num_steps: Length of the run.
        warmup_steps: Of the learning rate.
        lr: Peak learning rate.
        min_lr: Learning rate at the end.
        weight_decay: Of AdamW.

    Source: ScaLR (Puy et al., CVPR 2024), Sec. 4.1 and its released configurations.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        num_steps: int,
        warmup_steps: int,
        lr: float = 1e-3,
        min_lr: float = 1e-5,
        weight_decay: float = 3e-3,
    ) -> None:
        super().__init__(backbone, linear_probe_head(backbone.out_dim, num_classes))
        backbone.requires_grad_(False).eval()
        self.schedule = {
            "lr": lr,
            "min_lr": min_lr,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "num_steps": num_steps,
        }

    def train(self, mode: bool = True) -> "LinearProbe":
        """Switch the head alone."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, batch: PointBatch) -> Float[Tensor, "n k"]:
        """Class scores of every packed point."""
        with torch.no_grad():
            feat = self.backbone(batch.xyz, batch.feat, batch.batch, neighbors=batch.neighbors)
        return self.head(feat)

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """AdamW on the head."""
        return adamw_warmup_cosine([{"params": list(self.head.parameters())}], **self.schedule)


class FineTune(SegmentationModel):
    """Backbone and head learn together, layers near the input more slowly.

    Args:
        backbone: Where to start.
        num_classes: Of the labels.
        num_steps: Length of the run.
        warmup_steps: Of the learning rate.
        lr: Peak learning rate of the head.
        min_lr: Learning rate at the end.
        weight_decay: Of AdamW.
        layer_decay: Factor of the learning rate per layer away from the head.

    Source: ScaLR (Puy et al., CVPR 2024), its released configurations: 0.99 with all labels,
        0.95 with few.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        num_steps: int,
        warmup_steps: int,
        lr: float = 2e-3,
        min_lr: float = 0.0,
        weight_decay: float = 0.0,
        layer_decay: float = 0.99,
    ) -> None:
        super().__init__(backbone, linear_probe_head(backbone.out_dim, num_classes))
        backbone.requires_grad_(True).train()  # files load in eval mode, and Lightning keeps it
        self.layer_decay = layer_decay
        self.schedule = {
            "lr": lr,
            "min_lr": min_lr,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "num_steps": num_steps,
        }

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """AdamW with layer-wise decay of the learning rate."""
        groups = layer_decay_groups(self.backbone.layer_groups(), self.head, decay=self.layer_decay)
        return adamw_warmup_cosine(groups, **self.schedule)


@torch.inference_mode()
def predict_classes(model: nn.Module, batch: PointBatch) -> Int64[np.ndarray, " m"]:
    """Predicted class of every original point of a batch of evaluation samples."""
    return model(batch).argmax(1)[batch.need("nearest")].cpu().numpy()


@torch.inference_mode()
def confusion(
    model: nn.Module, batches: Iterable[PointBatch], num_classes: int, *, device: torch.device
) -> Int64[np.ndarray, "k k"]:
    """Count (true class, predicted class) over all original labelled points.

    Under distributed training every process passes its own batches, and all get the sum.
    """
    model.eval().to(device)
    metric = MulticlassConfusionMatrix(num_classes, ignore_index=-1, validate_args=False)
    metric.to(device)
    for batch in batches:
        on_device = batch.to(device)
        metric.update(
            model(on_device).argmax(1)[on_device.need("nearest")], on_device.need("all_labels")
        )
    return metric.compute().long().cpu().numpy()


def iou_per_class(confusion: Int64[np.ndarray, "k k"]) -> Float[np.ndarray, " k"]:
    """Intersection over union of each class; NaN for a class neither present nor predicted."""
    hit = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - hit
    with np.errstate(invalid="ignore"):
        return hit / union


def mean_iou(confusion: Int64[np.ndarray, "k k"]) -> float:
    """Mean over the classes that occur, as the published protocols count it."""
    return float(np.nanmean(iou_per_class(confusion)))
