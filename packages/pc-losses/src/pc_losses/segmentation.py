"""Supervised objectives of semantic segmentation."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional


def lovasz_softmax(
    probabilities: Float[Tensor, "n k"], labels: Int64[Tensor, " n"], *, ignore: int = -1
) -> Float[Tensor, ""]:
    """Average the Lovász extension of the Jaccard loss 1 - IoU over the classes present.

    Exact and piecewise linear in the errors: at one-hot predictions it is the mean of 1 - IoU over
    the classes that occur in `labels`. All points count as one image, whatever scan they are of.

    Args:
        probabilities: Class probabilities of each point, e.g. a softmax.
        labels: Class of each point.
        ignore: Label of the points left out. If all are, the loss is a zero that can be
            back-propagated.

    Raises:
        ValueError: If shapes differ or a label is neither a class nor `ignore`.

    Source: The Lovász-Softmax loss (Berman, Triki and Blaschko, CVPR 2018, arXiv:1705.08790),
        the form for several classes, averaged over those present. Computed in float32 at least,
        and with a stable sort, so that ties give the same gradient in every run.
    """
    valid = _valid_points(probabilities, labels, ignore)
    dtype = torch.promote_types(probabilities.dtype, torch.float32)
    probabilities, labels = probabilities[valid].to(dtype), labels[valid]
    if not len(labels):
        return probabilities.sum()
    foreground = functional.one_hot(labels, probabilities.shape[1])
    present = foreground.any(dim=0)
    probabilities, foreground = probabilities[:, present], foreground[:, present]
    errors = (foreground - probabilities).abs()
    errors, order = errors.sort(dim=0, descending=True, stable=True)
    return (errors * _jaccard_steps(foreground.gather(0, order)).to(dtype)).sum(dim=0).mean()


def _jaccard_steps(foreground: Int64[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Growth of the Jaccard loss as the points, worst first, are counted as wrong."""
    size = foreground.sum(dim=0)
    intersection = size - foreground.cumsum(dim=0)
    union = size + (1 - foreground).cumsum(dim=0)
    loss = 1 - intersection.double() / union
    return torch.diff(loss, dim=0, prepend=torch.zeros_like(loss[:1]))


def cross_entropy_lovasz(
    logits: Float[Tensor, "n k"],
    labels: Int64[Tensor, " n"],
    *,
    lovasz_weight: float = 1.0,
    ignore: int = -1,
) -> Float[Tensor, ""]:
    """Add the cross entropy, averaged over points, and the weighted Lovász-Softmax loss.

    Args:
        logits: Class scores of each point, before the softmax.
        labels: Class of each point.
        lovasz_weight: Factor of the Lovász-Softmax loss; with 0 it is not computed.
        ignore: Label of the points left out. If all are, the loss is a zero that can be
            back-propagated.

    Raises:
        ValueError: If shapes differ or a label is neither a class nor `ignore`.

    Source: WaffleIron (Puy et al., ICCV 2023, arXiv:2301.10100) and ScaLR (Puy et al., CVPR 2024,
        arXiv:2310.17504), the loss of linear probing and fine-tuning.
    """
    valid = _valid_points(logits, labels, ignore)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    logits, labels = logits[valid].to(dtype), labels[valid]
    if not len(labels):
        return logits.sum()
    with torch.autocast(logits.device.type, enabled=False):
        entropy = functional.cross_entropy(logits, labels)
        if lovasz_weight == 0:
            return entropy
        return entropy + lovasz_weight * lovasz_softmax(
            logits.softmax(dim=1), labels, ignore=ignore
        )


def _valid_points(scores: Tensor, labels: Tensor, ignore: int) -> Tensor:
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            "scores must be [n, k] and labels [n], got "
            f"{list(scores.shape)} and {list(labels.shape)}"
        )
    valid = labels != ignore
    wrong = valid & ((labels < 0) | (labels >= scores.shape[1]))
    if wrong.any():
        raise ValueError(
            f"labels must be in [0, {scores.shape[1]}) (the number of classes) or {ignore} "
            f"(ignored), got {int(labels[wrong][0])}; map the dataset's labels to training classes"
        )
    return valid
