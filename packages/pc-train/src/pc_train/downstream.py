"""What a backbone is worth: linear probing, fine-tuning and evaluation as runs."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pc_data.batch import PointBatch
from pc_data.commandline import to_yaml
from pc_data.datasets import DataConfig, open_dataset
from pc_data.errors import DataError
from pc_data.loading import (
    SampleKey,
    Samples,
    count_joint_batches,
    evaluation_loader,
    label_fraction,
    sample_rng,
)
from pc_data.progress import progress_line
from pc_data.scan import Scan
from torch import nn

from pc_train.configs import FineTuneConfig, ProbeConfig, SegmentationConfig
from pc_train.fitting import fit, takes_gpu
from pc_train.networks import NamedBackbone, load_model, open_backbone, save_model, weights_file
from pc_train.notices import notice
from pc_train.pictures import report_segmentation
from pc_train.runs import open_run, write_json
from pc_train.samples import evaluation_sample, training_sample
from pc_train.segmentation import (
    FineTune,
    LinearProbe,
    SegmentationModel,
    confusion,
    iou_per_class,
    mean_iou,
)


@dataclass(frozen=True, kw_only=True)
class Score:
    """Result of an evaluation.

    Attributes:
        miou: Mean over the classes that occur.
        iou: Of each class by name; NaN where it does not occur.
        num_scans: Scans evaluated.
    """

    miou: float
    iou: dict[str, float]
    num_scans: int


class _Chosen:
    """Some scans of a dataset, in order."""

    def __init__(self, dataset: Any, indices: np.ndarray) -> None:  # noqa: ANN401
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Scan:
        return self.dataset[int(self.indices[index])]


def probe(config: ProbeConfig) -> Score:
    """Train a linear classifier on a frozen backbone, and evaluate it.

    A run that was interrupted is resumed, a finished one is only read.

    Raises:
        ValueError: If the data, the backbone file or the run folder does not fit.
    """
    backbone = open_backbone(config.backbone, random_seed=_random_seed(config))
    return _run(config, backbone, LinearProbe, title="linear probing")


def finetune(config: FineTuneConfig) -> Score:
    """Train backbone and classifier together, and evaluate them.

    A run that was interrupted is resumed, a finished one is only read.

    Raises:
        ValueError: If the data, the backbone file or the run folder does not fit.
    """
    backbone = open_backbone(
        config.backbone, random_seed=_random_seed(config), drop_path=config.drop_path
    )
    task = partial(FineTune, layer_decay=config.layer_decay)
    return _run(config, backbone, task, title="fine-tuning")


def _random_seed(config: SegmentationConfig) -> int | None:
    return config.seed if config.random_weights else None


def evaluate(run: Path, data: DataConfig, *, out: Path, num_workers: int = 2) -> Score:
    """Evaluate the model of a finished probing or fine-tuning run on a dataset's split.

    The scans are thinned by the voxel size that the model was trained with.

    Args:
        run: The run's folder.
        data: Names the dataset and its split.
        out: Folder of its own for the evaluation.
        num_workers: Loader processes.

    Raises:
        FileNotFoundError: If the run is not finished.
        ValueError: If the dataset has other classes than the model or no labels, or `out` holds
            anything but this evaluation.
    """
    backbone, head, class_names = load_model(run)
    dataset = open_dataset(data)
    if tuple(class_names) != tuple(dataset.class_names):
        raise ValueError(
            f"{run} predicts {len(class_names)} classes ({', '.join(class_names[:3])}, ...) but "
            f"{data.root} has {dataset.num_classes} ({', '.join(dataset.class_names[:3])}, ...); "
            "evaluate on the dataset that the model was trained for"
        )
    voxel_size = backbone.card.get("voxel_size", 0.1)
    _check_first(dataset, backbone, voxel_size=voxel_size)
    open_run(out, to_yaml({"run": run, "data": data}))
    model = SegmentationModel(backbone.network, head)
    score = score_model(
        model,
        backbone,
        dataset,
        title="evaluation",
        num_workers=num_workers,
        voxel_size=voxel_size,
    )
    write_json(out / "scores.json", dataclasses.asdict(score))
    _report(out, score, model, backbone, dataset, title="evaluation", voxel_size=voxel_size)
    return score


def score_model(
    model: nn.Module,
    backbone: NamedBackbone,
    dataset: Any,  # noqa: ANN401 - a sequence of scans with class_names
    *,
    title: str,
    num_workers: int,
    voxel_size: float = 0.1,
    accelerator: str = "auto",
) -> Score:
    """Evaluate class scores on every labelled point of a dataset.

    Several processes evaluate the model of the first, which is the one that is saved: on CPUs
    their batch norms differ.
    """
    device = torch.device("cuda" if takes_gpu(accelerator) else "cpu")
    make_sample = partial(
        evaluation_sample, **input_arguments(dataset, backbone), voxel_size=voxel_size
    )
    samples = Samples([(dataset, make_sample)], seed=0)
    rank, world_size = _process()
    if world_size > 1:
        for value in model.to(device).buffers():
            torch.distributed.broadcast(value, 0)
    loader = evaluation_loader(samples, rank=rank, world_size=world_size, num_workers=num_workers)
    report = progress_line(title)

    def watched() -> Iterator[PointBatch]:
        for done, batch in enumerate(loader, start=1):
            yield batch
            if rank == 0:
                report(done, len(loader))

    counts = confusion(model, watched(), dataset.num_classes, device=device)
    if not counts.any():
        raise DataError(f"{dataset.root}: no scan of split {dataset.split!r} has labels")
    iou = dict(zip(dataset.class_names, iou_per_class(counts).tolist(), strict=True))
    return Score(miou=mean_iou(counts), iou=iou, num_scans=len(dataset))


def _process() -> tuple[int, int]:
    """Rank of this process and number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _run(
    config: SegmentationConfig, backbone: NamedBackbone, task: Callable[..., Any], *, title: str
) -> Score:
    train, val = open_dataset(config.data), open_dataset(config.data, split=config.val_split)
    samples = _training_samples(config, train, backbone)
    steps_per_epoch = _count_steps(config, len(samples), len(train))
    # Before anything is written: damaged data shows at once.
    samples[SampleKey(0, 0)]
    _check_first(val, backbone, voxel_size=config.voxel_size)
    weights = {"backbone": weights_file(config.backbone)}
    open_run(config.out, to_yaml(config), inputs=weights)
    finished = config.out / "scores.json"
    if finished.is_file():
        return _read_score(finished)
    num_steps = config.max_steps or config.epochs * steps_per_epoch
    torch.manual_seed(config.seed)
    model = task(
        backbone.network,
        train.num_classes,
        num_steps=num_steps,
        warmup_steps=config.warmup_epochs * steps_per_epoch,
        lr=config.lr,
        min_lr=config.min_lr,
        weight_decay=config.weight_decay,
    )
    hardware = config.hardware
    trainer = fit(
        model,
        samples,
        batch_size=config.batch_size,
        out=config.out,
        num_steps=num_steps,
        seed=config.seed,
        title=title,
        hardware=hardware,
        save_every=config.save_every,
    )
    score = score_model(
        model,
        backbone,
        val,
        title=f"{title}, evaluation",
        num_workers=hardware.num_workers,
        voxel_size=config.voxel_size,
        accelerator=hardware.accelerator,
    )
    if trainer.is_global_zero:
        card = {
            "class_names": list(train.class_names),
            "labels": str(config.data.root),
            "voxel_size": config.voxel_size,
        }
        save_model(config.out, backbone, card=card, head=model.head)
        _report(config.out, score, model, backbone, val, title=title, voxel_size=config.voxel_size)
        write_json(finished, dataclasses.asdict(score))
    return score


def _training_samples(
    config: SegmentationConfig,
    dataset: Any,  # noqa: ANN401
    backbone: NamedBackbone,
) -> Samples:
    """The share of the scans whose labels are used, as training samples."""
    indices = np.arange(0, len(dataset), config.every)
    indices = indices[label_fraction(len(indices), config.fraction, seed=config.seed)]
    make_sample = partial(
        training_sample,
        **input_arguments(dataset, backbone),
        voxel_size=config.voxel_size,
        max_points=config.max_points,
    )
    return Samples(
        [(_Chosen(dataset, indices), make_sample)], seed=config.seed, on_error=config.on_error
    )


def _count_steps(config: SegmentationConfig, num_chosen: int, num_scans: int) -> int:
    """Steps of one epoch."""
    if num_chosen < config.batch_size:
        raise ValueError(
            f"fraction {config.fraction:g} of {num_scans} scans leaves {num_chosen}, fewer than "
            f"batch_size {config.batch_size}; pass a smaller batch_size or a larger fraction"
        )
    return count_joint_batches(num_chosen, config.batch_size)


def _check_first(dataset: Any, backbone: NamedBackbone, *, voxel_size: float) -> None:  # noqa: ANN401
    """Read the first scan to evaluate on before work is spent on a score.

    Raises:
        DataError: If it is damaged or has no labels.
    """
    scan = dataset[0]
    if scan.labels is None:
        raise DataError(
            f"scan {scan.name} of split {dataset.split!r} in {dataset.root} has no labels; a "
            "score needs a split with labels"
        )
    _sample(scan, dataset, backbone, voxel_size=voxel_size)


def _read_score(file: Path) -> Score:
    """Read the score of a finished run, and say so."""
    try:
        score = Score(**json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({error}); remove it, and the same command evaluates again"
        ) from error
    notice(f"finished earlier; read from {file}")
    return score


def _sample(
    scan: Scan,
    dataset: Any,  # noqa: ANN401
    backbone: NamedBackbone,
    *,
    voxel_size: float,
) -> PointBatch:
    arguments = input_arguments(dataset, backbone)
    return evaluation_sample(scan, sample_rng(0, 0, 0), **arguments, voxel_size=voxel_size)


def _report(
    out: Path,
    score: Score,
    model: SegmentationModel,
    backbone: NamedBackbone,
    dataset: Any,  # noqa: ANN401
    *,
    title: str,
    voxel_size: float,
) -> None:
    scan = dataset[len(dataset) // 2]
    sample = _sample(scan, dataset, backbone, voxel_size=voxel_size)
    report_segmentation(
        out,
        score,
        model=model.cpu().eval(),
        sample=sample,
        scan=scan,
        class_names=tuple(dataset.class_names),
        title=f"pc-train: {title}",
    )


def input_arguments(dataset: Any, backbone: NamedBackbone) -> dict[str, Any]:  # noqa: ANN401
    """What turns a scan of this dataset into input of this network."""
    fov = backbone.network.fov.tolist()
    return {
        "intensity_mean": dataset.intensity_mean,
        "intensity_std": dataset.intensity_std,
        "box": (tuple(fov[0]), tuple(fov[1])),
        "num_neighbors": backbone.network.num_neighbors,
    }
