"""Semantic segmentation on top of a backbone: linear probing, fine-tuning, evaluation."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

import lightning
import numpy as np
import torch
from jaxtyping import Float, Int64
from pc_backbones import Backbone, linear_probe_head
from pc_data.batch import PointBatch
from pc_losses import cross_entropy_lovasz
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from pc_train.configs import AbsentClasses
from pc_train.schedules import adamw_warmup_cosine, layer_decay_groups

MakeHead = Callable[[int, int], nn.Module]
MakeOptimizer = Callable[..., dict[str, Any]]


class SegmentationModel(lightning.LightningModule):
    """A backbone and the head that turns its features into class scores.

    Args:
        backbone: From packed points to features.
        head: From features to class scores.
        lovasz_weight: Of the Lovasz-softmax loss beside the cross entropy.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, *, lovasz_weight: float = 1.0) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.lovasz_weight = lovasz_weight

    def forward(self, batch: PointBatch) -> Float[Tensor, "n k"]:
        """Class scores of every packed point."""
        return self.head(
            self.backbone(batch.xyz, batch.feat, batch.batch, neighbors=batch.neighbors)
        )

    def training_step(self, batch: PointBatch) -> Tensor:
        """Cross-entropy and Lovasz-softmax."""
        return cross_entropy_lovasz(
            self(batch), batch.need("labels"), lovasz_weight=self.lovasz_weight
        )


class LinearProbe(SegmentationModel):
    """A head learns on a frozen backbone.

    Args:
        backbone: Stays in eval mode and without gradients.
        num_classes: Of the labels.
        num_steps: Length of the run.
        warmup_steps: Of the learning rate.
        lr: Peak learning rate.
        min_lr: Learning rate at the end.
        weight_decay: Of the optimiser.
        make_head: From input width and number of classes to a head; its default is a batch norm
            and a linear layer.
        make_optimizer: One of `pc_train.schedules.OPTIMIZERS`.
        lovasz_weight: Of the Lovasz-softmax loss beside the cross entropy.

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
        make_head: MakeHead = linear_probe_head,
        make_optimizer: MakeOptimizer = adamw_warmup_cosine,
        lovasz_weight: float = 1.0,
    ) -> None:
        head = make_head(backbone.out_dim, num_classes)
        super().__init__(backbone, head, lovasz_weight=lovasz_weight)
        backbone.requires_grad_(False).eval()
        self.make_optimizer = make_optimizer
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
        """The optimiser on the head."""
        return self.make_optimizer([{"params": list(self.head.parameters())}], **self.schedule)


class FineTune(SegmentationModel):
    """Backbone and head learn together, layers near the input more slowly.

    Args:
        backbone: Where to start.
        num_classes: Of the labels.
        num_steps: Length of the run.
        warmup_steps: Of the learning rate.
        lr: Peak learning rate.
        min_lr: Learning rate at the end.
        weight_decay: Of the optimiser.
        head_lr: Peak learning rate of the head; 0 for `lr`.
        layer_decay: Factor of the learning rate per layer away from the head.
        make_head: From input width and number of classes to a head; its default is a batch norm
            and a linear layer.
        make_optimizer: One of `pc_train.schedules.OPTIMIZERS`.
        lovasz_weight: Of the Lovasz-softmax loss beside the cross entropy.

    Source: ScaLR (Puy et al., CVPR 2024), its released configurations: 0.99 with all labels,
        0.95 with few. MSC (Wu et al., CVPR 2023), Table 6: no layer decay, SGD, cross entropy.
        SLidR (Sautier et al., CVPR 2022), its released configurations: a head 100 times as fast.
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
        head_lr: float = 0.0,
        layer_decay: float = 0.99,
        make_head: MakeHead = linear_probe_head,
        make_optimizer: MakeOptimizer = adamw_warmup_cosine,
        lovasz_weight: float = 1.0,
    ) -> None:
        head = make_head(backbone.out_dim, num_classes)
        super().__init__(backbone, head, lovasz_weight=lovasz_weight)
        backbone.requires_grad_(True).train()  # files load in eval mode, and Lightning keeps it
        self.layer_decay, self.head_scale = layer_decay, (head_lr or lr) / lr
        self.make_optimizer = make_optimizer
        self.schedule = {
            "lr": lr,
            "min_lr": min_lr,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "num_steps": num_steps,
        }

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """The optimiser, with rates that fall from layer to layer and one of the head's own."""
        groups = layer_decay_groups(
            self.backbone.layer_groups(),
            self.head,
            decay=self.layer_decay,
            head_scale=self.head_scale,
        )
        return self.make_optimizer(groups, **self.schedule)


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

    def answers() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            on_device = batch.to(device)
            predicted = model(on_device).argmax(1)
            yield predicted[on_device.need("nearest")], on_device.need("all_labels")

    return count_answers(answers(), num_classes, device=device)


def count_answers(
    answers: Iterable[tuple[Int64[Tensor, " m"], Int64[Tensor, " m"]]],
    num_classes: int,
    *,
    device: torch.device,
) -> Int64[np.ndarray, "k k"]:
    """Count (true class, predicted class) over pairs of predicted and true classes.

    Under distributed training every process passes its own, and all get the sum.

    Args:
        answers: On the device; points whose true class is -1 do not count.
        num_classes: Of the labels.
        device: Where to count.
    """
    metric = MulticlassConfusionMatrix(num_classes, ignore_index=-1, validate_args=False)
    metric.to(device)
    for predicted, truth in answers:
        metric.update(predicted, truth)
    return metric.compute().long().cpu().numpy()


def iou_per_class(confusion: Int64[np.ndarray, "k k"]) -> Float[np.ndarray, " k"]:
    """Intersection over union of each class; NaN for a class neither present nor predicted."""
    hit = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - hit
    with np.errstate(invalid="ignore"):
        return hit / union


def mean_iou(
    confusion: Int64[np.ndarray, "k k"], *, absent_classes: AbsentClasses = "left_out"
) -> float:
    """Mean over the classes.

    Args:
        confusion: As `confusion` counts it.
        absent_classes: What classes that neither occur nor are predicted count: nothing (left_out,
            as in ScaLR's evaluation), zero as in MSC's, where 11 of ScanNet's 200 classes cannot be
            scored, or one as in SLidR's and CSC's.

    Raises:
        ValueError: If `absent_classes` is none of these.

    Source: the released code of ScaLR (Puy et al., CVPR 2024), MSC (Wu et al., CVPR 2023) and SLidR
        (Sautier et al., CVPR 2022), which CSC's is (Chen et al., CVPR 2024).
    """
    if absent_classes not in get_args(AbsentClasses):
        known = ", ".join(get_args(AbsentClasses))
        raise ValueError(f"absent_classes must be one of {known}, got {absent_classes!r}")
    iou = iou_per_class(confusion)
    if absent_classes == "left_out":
        return float(np.nanmean(iou))
    return float(np.nan_to_num(iou, nan=1.0 if absent_classes == "one" else 0.0).mean())
