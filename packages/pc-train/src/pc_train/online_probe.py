"""Is it learning? A linear classifier on the frozen features, fitted anew now and then."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from lightning.pytorch import Callback, LightningModule, Trainer
from pc_backbones import Backbone
from pc_data.datasets import DataConfig, Reader, open_dataset
from pc_data.loading import sample_rng
from torch import Tensor

from pc_train.networks import NamedBackbone
from pc_train.notices import notice
from pc_train.scores import sample_to_score
from pc_train.segmentation import iou_per_class, mean_iou
from pc_train.tables import StepTable

_POINTS = 2_000  # labelled points of a scan that are looked at
_RIDGE = 1e-3  # of the features' variance, which is 1


class ProbeScore(NamedTuple):
    """What a classifier is worth on scans that it was not fitted to."""

    accuracy: float
    miou: float


class OnlineProbe(Callback):
    """Scores the backbone as it is at every `every`-th step, into `probe.csv` and the logger.

    No gradient reaches the backbone, no random number is drawn and no running statistic changes, so
    the weights of a run do not depend on being looked at. The first process does it; others wait.

    Args:
        data: A labelled dataset; the classifier is fitted to scans of `train` and scored on `val`.
        backbone: What the method trains, and the features that it takes.
        file: The table.
        every: Steps between two looks.
        num_scans: Of each split, evenly spaced.
    """

    def __init__(
        self,
        data: DataConfig,
        backbone: NamedBackbone,
        file: Path,
        *,
        every: int,
        num_scans: int,
    ) -> None:
        self.sources = [open_dataset(data, split=split) for split in ("train", "val")]
        self.backbone, self.table = backbone, StepTable(file, ProbeScore._fields)
        self.every, self.num_scans = every, num_scans

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Drop the rows of steps that will be done again; look once at a run's first weights."""
        if not trainer.is_global_zero:
            return
        self.table.begin(trainer.global_step)
        if not trainer.global_step:
            self._look(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Look, if it is time."""
        step = trainer.global_step
        if trainer.is_global_zero and (step % self.every == 0 or step == trainer.max_steps):
            self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        step, network = trainer.global_step, self.backbone.network
        training = {module: module.training for module in network.modules()}
        network.eval()
        try:
            score = probe_features(self.backbone, *self.sources, num_scans=self.num_scans)
        finally:
            for module, mode in training.items():
                module.training = mode
        self.table.append(step, score)
        if trainer.logger is not None:
            named = {f"probe {name}": value for name, value in score._asdict().items()}
            trainer.logger.log_metrics(named, step=step)
        notice(
            f"step {step:,}: a linear probe is right on {score.accuracy:.1%} of points, "
            f"mIoU {100 * score.miou:.1f}"
        )


def probe_features(
    backbone: NamedBackbone, train: Reader, val: Reader, *, num_scans: int
) -> ProbeScore:
    """Fit a linear classifier to frozen features in closed form, and score it on other scans.

    Ridge regression of the classes from standardised features, on up to 2,000 labelled points of
    each scan, drawn from its number alone: the same weights give the same score. It is quick and
    coarse; `pc-train probe` measures what a backbone is worth.

    Args:
        backbone: In eval mode.
        train: Labelled scans to fit to.
        val: Labelled scans to score on.
        num_scans: Of each, evenly spaced; all if there are fewer.

    Returns:
        Share of points that are right, and mean IoU over the classes that occur.

    Raises:
        ValueError: If no point of one of the two is labelled.
    """
    feature, label = _gather(backbone, train, num_scans)
    weight = _fit(feature, label, num_classes=train.num_classes)
    feature, label = _gather(backbone, val, num_scans)
    ones = feature.new_ones(len(feature), 1)
    answer = (torch.cat([feature, ones], dim=1) @ weight).argmax(dim=1)
    pairs = label * train.num_classes + answer
    counts = torch.bincount(pairs, minlength=train.num_classes**2).cpu().numpy()
    counts = counts.reshape(train.num_classes, -1)
    return ProbeScore(
        accuracy=float(np.trace(counts) / counts.sum()),
        miou=mean_iou(counts) if np.isfinite(iou_per_class(counts)).any() else math.nan,
    )


@torch.no_grad()
def _gather(
    backbone: NamedBackbone, dataset: Reader, num_scans: int
) -> tuple[Float[Tensor, "p c"], Int64[Tensor, " p"]]:
    """Features and classes of labelled points."""
    found = list(_read(backbone.network, backbone, dataset, num_scans))
    if not sum(len(label) for _, label in found):
        raise ValueError(
            f"no point of {num_scans} scans of {dataset.root}, split {dataset.split}, is labelled; "
            "pass a labelled dataset as probe_data"
        )
    feature, label = zip(*found, strict=True)
    return torch.cat(feature), torch.cat(label)


def _read(
    network: Backbone, backbone: NamedBackbone, dataset: Reader, num_scans: int
) -> Iterator[tuple[Tensor, Tensor]]:
    device = next(network.parameters()).device
    chosen = np.unique(np.linspace(0, len(dataset) - 1, num_scans).round().astype(int))
    for index in chosen.tolist():
        scan = dataset[index]
        if scan.labels is None:
            continue
        sample = sample_to_score(scan, dataset, backbone)
        labels = sample.need("labels")
        labelled = np.flatnonzero(labels.numpy() >= 0)
        rng = sample_rng(0, 0, index)
        drawn = np.sort(rng.choice(labelled, min(_POINTS, len(labelled)), replace=False))
        moved = sample.to(device)
        feature = network(moved.xyz, moved.feat, moved.batch, neighbors=moved.neighbors)
        rows = torch.from_numpy(drawn)
        yield feature[rows.to(device)].double(), labels[rows].to(device)


def _fit(
    feature: Float[Tensor, "p c"], label: Int64[Tensor, " p"], *, num_classes: int
) -> Float[Tensor, "c1 k"]:
    """Weights and, in the last row, biases, for features as they are."""
    mean, std = feature.mean(dim=0), feature.std(dim=0, correction=0).clamp(min=1e-6)
    centred = (feature - mean) / std
    target = torch.nn.functional.one_hot(label, num_classes).double()
    share = target.mean(dim=0)
    gram = centred.T @ centred / len(centred)
    gram.diagonal().add_(_RIDGE)
    weight = torch.linalg.solve(gram, centred.T @ (target - share) / len(centred))
    weight = weight / std[:, None]
    return torch.cat([weight, (share - mean @ weight)[None]])
