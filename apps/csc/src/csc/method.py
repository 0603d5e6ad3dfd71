"""Superpoints meet superpixels, and the prototypes of their classes (Chen et al., CVPR 2024)."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import lightning
import torch
from jaxtyping import Float
from pc_2dteachers import Teacher
from pc_2dteachers.pooling import pool_superpixels
from pc_2dteachers.sampling import sample_pixels
from pc_backbones import Backbone
from pc_losses import alignment_score, contrastive_accuracy, feature_spread
from pc_losses.contrast import unit_rows
from pc_losses.pooling import pool_groups
from pc_losses.prototypes import ConcatBlend, PrototypeBank, PrototypeBlend, prototype_contrast
from pc_losses.superpixels import (
    ignore_most_similar,
    ppkt_info_nce,
    superpixel_info_nce,
    tolerant_info_nce,
)
from pc_train.collapse import FEATURE_SPREAD, lowest_spread
from pc_train.schedules import adamw_warmup_cosine, sgd_cosine
from torch import Tensor, distributed, nn

from csc.samples import SuperpixelBatch

Keyframes = Callable[[int, int], Iterable[SuperpixelBatch]]
"""From rank and number of processes to this process's share of all scans, as they are."""


class CSC(lightning.LightningModule):
    """Contrast across superpixels, and with prototypes of classes across scenes.

    Args:
        backbone: What is pre-trained.
        teacher: The image network; stays as it is and is in no checkpoint.
        contrast: What is contrasted, and how.
        prototypes: What superpoints are compared with across scenes.
        num_classes: Classes of the superpixels; 0 without prototypes.
        keyframes: What prototypes are made of.
        prototype_steps: Steps between two passes over them.
        absent_classes: Count classes that the dataset does not hold as prototypes of zeros.
        average_losses: Take the mean of the two losses in place of their sum.
        dim: Width of what is contrasted.
        temperature: Of the contrast.
        prototype_temperature: Of the contrast with prototypes.
        num_pairs: Pairs that contrast pixel draws.
        learn_heads: Let the image head and the blending learn.
        optimizer: sgd or adam.
        schedule: Arguments of `sgd_cosine`, or lr, weight_decay and num_steps for adam.
    """

    def __init__(
        self,
        backbone: Backbone,
        teacher: Teacher,
        *,
        contrast: Literal["superpixel", "tolerant", "pixel"] = "superpixel",
        prototypes: Literal["blend", "concat", "point", "none"] = "blend",
        num_classes: int = 0,
        keyframes: Keyframes | None = None,
        prototype_steps: int = 0,
        absent_classes: bool = False,
        average_losses: bool = False,
        dim: int = 64,
        temperature: float = 0.07,
        prototype_temperature: float = 1.0,
        num_pairs: int = 4096,
        learn_heads: bool = True,
        optimizer: Literal["sgd", "adam"] = "sgd",
        schedule: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.backbone, self.teacher = backbone, teacher
        # The published networks end at the contrast's width by themselves, but for MinkUNet.
        fits = backbone.out_dim == dim
        self.point_head = nn.Identity() if fits else nn.Linear(backbone.out_dim, dim)
        self.image_head = nn.Conv2d(teacher.out_dim, dim, 1).requires_grad_(learn_heads)
        self.contrast, self.prototypes = contrast, prototypes
        self.keyframes, self.prototype_steps = keyframes, prototype_steps
        self.absent_classes, self.average_losses = absent_classes, average_losses
        self.temperature, self.prototype_temperature = temperature, prototype_temperature
        self.num_pairs, self.optimizer, self.schedule = num_pairs, optimizer, dict(schedule)
        if prototypes != "none":
            self.bank = PrototypeBank(num_classes, dim)
        if prototypes in ("blend", "concat"):
            blend = PrototypeBlend(dim) if prototypes == "blend" else ConcatBlend(dim)
            self.blend = blend.requires_grad_(learn_heads)
        self.alike = ("blend",)  # sees the same prototypes in all processes
        self.collapse_limits = {FEATURE_SPREAD: lowest_spread(dim)}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401, ARG002
        """Make prototypes anew where a pass is due; a resumed run does so at the same steps."""
        if self.prototypes == "none" or not self.global_step:
            return
        if self.global_step % self.prototype_steps == 0:
            self.make_prototypes()

    def training_step(self, batch: SuperpixelBatch) -> dict[str, Any]:
        """Contrast of one batch: section 3.3 of the paper."""
        if self.contrast == "pixel":
            return self._contrast_pairs(batch)
        seen = self.teacher(batch.images)
        point, pixel = self._pool(batch, seen)  # [s d] [s d]
        loss = self._contrast(batch, seen, point, pixel)
        watch = {
            "superpixels": loss.detach(),
            "accuracy": contrastive_accuracy(point.detach(), pixel.detach()),
            "alignment": alignment_score(point.detach(), pixel.detach()),
            FEATURE_SPREAD: feature_spread(point.detach()),
        }
        if self.prototypes != "none":
            across = self._across(batch, point)
            watch["prototypes"] = across.detach()
            loss = self._join(loss, across)
        return {"loss": loss, "watch": watch}

    def superpixels(
        self, batch: SuperpixelBatch
    ) -> tuple[Float[Tensor, "s d"], Float[Tensor, "s d"]]:
        """Mean unit feature of each superpixel's pairs, and of its pixels; not unit themselves."""
        return self._pool(batch, self.teacher(batch.images))

    @torch.no_grad()
    def make_prototypes(self) -> None:
        """Pass over all keyframes in eval mode; every process takes its share."""
        if self.keyframes is None:
            raise ValueError("prototypes are made of keyframes, got none; pass them")
        training = self.training
        self.eval()
        self._agree()
        self.bank.start()
        for batch in self.keyframes(self.global_rank, self.trainer.world_size):
            moved = batch.to(self.device)
            with self.trainer.precision_plugin.forward_context():
                self.bank.add(*self.superpixels(moved), moved.superpixel_class)
        self.bank.finish()
        self.train(training)

    def _agree(self) -> None:
        """Give all processes the running statistics of the first: prototypes are of one network."""
        if distributed.is_available() and distributed.is_initialized():
            for value in self.backbone.buffers():
                distributed.broadcast(value, 0)

    def _points(self, batch: SuperpixelBatch) -> Float[Tensor, "n d"]:
        points = batch.points
        feature = self.backbone(points.xyz, points.feat, points.batch, neighbors=points.neighbors)
        return unit_rows(self.point_head(feature))

    def _pool(
        self, batch: SuperpixelBatch, seen: Float[Tensor, "i c y x"]
    ) -> tuple[Float[Tensor, "s d"], Float[Tensor, "s d"]]:
        num = len(batch.superpixel_class)
        point = pool_groups(self._points(batch), batch.pair_superpixel, num, rows=batch.pair_point)
        return point, pool_superpixels(self.image_head(seen), batch.superpixel, num)

    def _contrast(
        self, batch: SuperpixelBatch, seen: Tensor, point: Tensor, pixel: Tensor
    ) -> Float[Tensor, ""]:
        if self.contrast == "superpixel":
            return superpixel_info_nce(point, pixel, temperature=self.temperature)
        guide = pool_superpixels(seen, batch.superpixel, len(point), normalize=False)
        return tolerant_info_nce(
            point,
            pixel,
            guide,
            temperature=self.temperature,
            weigh_negatives=ignore_most_similar,
        )

    def _across(self, batch: SuperpixelBatch, point: Tensor) -> Float[Tensor, ""]:
        """Equations 2 to 4; zero before the first pass."""
        bank = self.bank
        present = bank.present
        if self.absent_classes:  # all, from the first pass on
            present = present.any().expand_as(present)
        mixed = bank.point
        if self.prototypes != "point":
            mixed = self.blend(bank.point, bank.pixel, present)
        return prototype_contrast(
            point, mixed, batch.superpixel_class, present, temperature=self.prototype_temperature
        )

    def _join(self, within: Tensor, across: Tensor) -> Float[Tensor, ""]:
        """Sum of the losses, or mean of those that there are."""
        if not self.average_losses:
            return within + across
        return (within + across) / (1 + self.bank.present.any())

    def _contrast_pairs(self, batch: SuperpixelBatch) -> dict[str, Any]:
        point = self._points(batch)
        height, width = batch.images.shape[2:]
        maps = self.image_head(self.teacher(batch.images))
        read = partial(sample_pixels, image_size=(width, height))
        loss = ppkt_info_nce(
            point[batch.pair_point],
            read(maps, batch.pixel, batch.image_index),
            generator=torch.default_generator,  # seeded at each step
            num_pairs=self.num_pairs,
            temperature=self.temperature,
        )
        return {"loss": loss, "watch": {FEATURE_SPREAD: feature_spread(point.detach())}}

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """SGD with momentum, or Adam, and a cosine, on what learns."""
        groups = [{"params": [value for value in self.parameters() if value.requires_grad]}]
        if self.optimizer == "adam":
            return adamw_warmup_cosine(groups, min_lr=0.0, warmup_steps=0, **self.schedule)
        return sgd_cosine(groups, min_lr=0.0, **self.schedule)
