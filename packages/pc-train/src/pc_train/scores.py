"""What a model is worth on a labelled dataset."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from pc_data.batch import PointBatch
from pc_data.errors import DataError
from pc_data.features import LIDAR_FEATURES
from pc_data.loading import Samples, evaluation_loader, sample_rng
from pc_data.progress import progress_line
from pc_data.scan import Scan
from torch import Tensor

from pc_train.configs import AbsentClasses
from pc_train.fitting import pick_device
from pc_train.networks import NamedBackbone
from pc_train.runs import write_json, write_text
from pc_train.samples import evaluation_sample
from pc_train.segmentation import (
    SegmentationModel,
    confusion,
    count_answers,
    iou_per_class,
    mean_iou,
)


@dataclass(frozen=True, kw_only=True)
class Score:
    """Result of an evaluation.

    Attributes:
        miou: Mean over the classes; whether those that do not occur count, a setting decides.
        iou: Of each class by name; NaN where it does not occur.
        num_scans: Scans evaluated.
        miou_by_step: What `miou` is the mean of, by the number of the step, where a run is
            evaluated several times.
        confusion: Points of each true class (row) by the class predicted; None in a score that was
            read from a file.
    """

    miou: float
    iou: dict[str, float]
    num_scans: int
    miou_by_step: dict[str, float] = field(default_factory=dict)
    confusion: Int64[np.ndarray, "k k"] | None = field(default=None, compare=False, repr=False)


def write_score(out: Path, score: Score) -> None:
    """Write `confusion.csv` and, last, `scores.json`."""
    if score.confusion is not None:
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["true class", *score.iou])
        for name, counts in zip(score.iou, score.confusion.tolist(), strict=True):
            rows.writerow([name, *counts])
        write_text(out / "confusion.csv", table.getvalue())
    values = asdict(replace(score, confusion=None))
    values = {name: value for name, value in values.items() if name != "confusion"}
    write_json(out / "scores.json", values)


def read_confusion(run: Path) -> tuple[tuple[str, ...], Int64[np.ndarray, "k k"]] | None:
    """Read class names and counts as `write_score` wrote them; None of a run without them."""
    file = run / "confusion.csv"
    if not file.is_file():
        return None
    header, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
    return tuple(header[1:]), np.array([row[1:] for row in rows], np.int64)


def require_classes(run: Path, class_names: Sequence[str], dataset: Any) -> None:  # noqa: ANN401
    """Refuse to score a run's model on other classes than it predicts.

    Args:
        run: For the message.
        class_names: What the model predicts.
        dataset: Has `class_names` and `root`.

    Raises:
        ValueError: If the dataset's classes are others, or in another order.
    """
    found = tuple(dataset.class_names)
    if tuple(class_names) != found:
        raise ValueError(
            f"{run} predicts {len(class_names)} classes ({', '.join(class_names[:3])}, ...) but "
            f"{dataset.root} has {len(found)} ({', '.join(found[:3])}, ...); score it on the "
            "classes that it was trained for; those that datasets share are asked for by "
            "--data.classes 10 or 6, in training too"
        )


def input_arguments(dataset: Any, backbone: NamedBackbone) -> dict[str, Any]:  # noqa: ANN401
    """What turns a scan of this dataset into input of this network, whatever the voxels.

    Raises:
        ValueError: If the network takes another number of features than its card names.
    """
    network = backbone.network
    features = tuple(backbone.card.get("features", LIDAR_FEATURES))
    if len(features) != network.in_dim:
        raise ValueError(
            f"the backbone takes {network.in_dim} input features, but its card names "
            f"{len(features)} ({', '.join(features)}); save it with a card that lists its features"
        )
    box = None
    if network.fov is not None:
        low, high = network.fov.tolist()
        box = (tuple(low), tuple(high))
    return {
        "features": features,
        "intensity_mean": dataset.intensity_mean,
        "intensity_std": dataset.intensity_std,
        "box": box,
        "num_neighbors": network.num_neighbors,
    }


def resolve_voxel_size(voxel_size: float, backbone: NamedBackbone) -> float:
    """The voxel size to thin scans with: as given, else the network's own, else 0.1 m."""
    return voxel_size or backbone.network.voxel_size or 0.1


def evaluation_arguments(
    dataset: Any,  # noqa: ANN401
    backbone: NamedBackbone,
    *,
    voxel_size: float = 0.0,
) -> dict[str, Any]:
    """The keyword arguments of `evaluation_sample` for this dataset and network.

    Args:
        dataset: Knows the statistics of its intensity.
        backbone: Knows its features, field of view, neighbours and voxels.
        voxel_size: Metres; 0 for the network's own.
    """
    return input_arguments(dataset, backbone) | {
        "voxel_size": resolve_voxel_size(voxel_size, backbone),
        "from_origin": backbone.network.voxel_size is not None,
    }


def sample_to_score(
    scan: Scan,
    dataset: Any,  # noqa: ANN401
    backbone: NamedBackbone,
    *,
    voxel_size: float = 0.0,
) -> PointBatch:
    """Make one scan's evaluation sample."""
    arguments = evaluation_arguments(dataset, backbone, voxel_size=voxel_size)
    return evaluation_sample(scan, sample_rng(0, 0, 0), **arguments)


def score_model(
    model: SegmentationModel,
    backbone: NamedBackbone,
    dataset: Any,  # noqa: ANN401 - a sequence of scans with class_names
    *,
    title: str,
    num_workers: int,
    voxel_size: float = 0.0,
    accelerator: str = "auto",
    precise: bool = False,
    absent_classes: AbsentClasses = "left_out",
) -> Score:
    """Evaluate class scores on every labelled point of a dataset.

    Several processes evaluate the model of the first, which is the one that is saved: on CPUs
    their batch norms differ.

    Args:
        model: What to score.
        backbone: How its input is made.
        dataset: Labelled scans.
        title: For the progress line.
        num_workers: Loader processes.
        voxel_size: Metres; 0 for the network's own.
        accelerator: auto, cpu or gpu.
        precise: Predict every original point itself, in several passes (`pc_train.precise`).
        absent_classes: What classes that neither occur nor are predicted count in the mean.

    Raises:
        DataError: If no scan has labels, or one is damaged.
    """
    device = pick_device(accelerator)
    rank, world_size = _process()
    if world_size > 1:
        for value in model.to(device).buffers():
            torch.distributed.broadcast(value, 0)
    arguments = evaluation_arguments(dataset, backbone, voxel_size=voxel_size)
    if precise:
        mine = range(rank, len(dataset), world_size)
        answers = _precise_answers(model, dataset, mine, arguments, device=device, title=title)
        counts = count_answers(answers, dataset.num_classes, device=device)
    else:
        samples = Samples([(dataset, partial(evaluation_sample, **arguments))], seed=0)
        loader = evaluation_loader(
            samples, rank=rank, world_size=world_size, num_workers=num_workers
        )
        watched = _watch(loader, title=title if rank == 0 else "")
        counts = confusion(model, watched, dataset.num_classes, device=device)
    if not counts.any():
        raise DataError(f"{dataset.root}: no scan of split {dataset.split!r} has labels")
    iou = dict(zip(dataset.class_names, iou_per_class(counts).tolist(), strict=True))
    return Score(
        miou=mean_iou(counts, absent_classes=absent_classes),
        iou=iou,
        num_scans=len(dataset),
        confusion=counts,
    )


def _watch(batches: Any, *, title: str) -> Iterator[Any]:  # noqa: ANN401
    """Pass batches on and show how many are done; nothing without a title."""
    report = progress_line(title)
    for done, batch in enumerate(batches, start=1):
        yield batch
        if title:
            report(done, len(batches))


def _precise_answers(
    model: SegmentationModel,
    dataset: Any,  # noqa: ANN401
    indices: range,
    arguments: dict[str, Any],
    *,
    device: torch.device,
    title: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Predicted and true class of every point of some scans."""
    from pc_train.precise import precise_scores

    names = ("features", "intensity_mean", "intensity_std", "voxel_size")
    arguments = {name: arguments[name] for name in names}
    for index in _watch(indices, title=title if indices.start == 0 else ""):
        scan = dataset[index]
        if scan.labels is None:
            nothing = torch.empty(0, dtype=torch.long, device=device)
            yield nothing, nothing
            continue
        scores = precise_scores(model, scan, **arguments, device=device)
        predicted = torch.from_numpy(scores.argmax(1))
        yield predicted.to(device), torch.from_numpy(scan.labels).to(device)


def _process() -> tuple[int, int]:
    """Rank of this process and number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
