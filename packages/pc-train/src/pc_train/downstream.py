"""What a backbone is worth: linear probing, fine-tuning and evaluation as runs."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from pc_data.commandline import to_yaml
from pc_data.datasets import DataConfig, Reader, open_dataset
from pc_data.errors import DataError
from pc_data.loading import SampleKey, Samples, Scans, count_joint_batches, label_fraction
from pc_data.scan import Scan

from pc_train.configs import FineTuneConfig, ProbeConfig, SegmentationConfig
from pc_train.fitting import fit, limited_threads
from pc_train.last_scores import LastScores, steps_to_score
from pc_train.limited import (
    DrawnLabels,
    ListedLabels,
    labelled_scans,
    read_points,
    require_listed,
    scans_of_every_scene,
    scans_of_scenes,
)
from pc_train.mixing import MixedPairs
from pc_train.networks import (
    HEADS,
    NamedBackbone,
    load_model,
    open_backbone,
    save_model,
    weights_file,
)
from pc_train.notices import notice
from pc_train.precise import require_inside_passes
from pc_train.reports.scores import report_segmentation
from pc_train.runs import open_run
from pc_train.samples import AUGMENTATIONS, to_input, training_sample
from pc_train.schedules import OPTIMIZERS
from pc_train.scores import (
    Score,
    input_arguments,
    require_classes,
    resolve_voxel_size,
    sample_to_score,
    score_model,
    write_score,
)
from pc_train.segmentation import FineTune, LinearProbe, SegmentationModel


class _Chosen:
    """Some scans of a dataset, in order."""

    def __init__(self, dataset: Scans, indices: np.ndarray) -> None:
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
    backbone = open_backbone(config.backbone, random_seed=_random_seed(config), reach=config.reach)
    return _run(config, backbone, LinearProbe, title="linear probing")


def finetune(config: FineTuneConfig) -> Score:
    """Train backbone and classifier together, and evaluate them.

    A run that was interrupted is resumed, a finished one is only read.

    Raises:
        ValueError: If the data, the backbone file or the run folder does not fit.
    """
    backbone = open_backbone(
        config.backbone,
        random_seed=_random_seed(config),
        drop_path=config.drop_path,
        reach=config.reach,
    )
    task = partial(FineTune, head_lr=config.head_lr, layer_decay=config.layer_decay)
    return _run(config, backbone, task, title="fine-tuning")


def _random_seed(config: SegmentationConfig) -> int | None:
    return config.seed if config.random_weights else None


def evaluate(
    run: Path, data: DataConfig, *, out: Path, num_workers: int = 2, precise: bool = False
) -> Score:
    """Evaluate the model of a finished probing or fine-tuning run on a dataset's split.

    The scans are thinned by the voxel size that the model was trained with, and absent classes
    count as they did there.

    Args:
        run: The run's folder.
        data: Names the dataset and its split.
        out: Folder of its own for the evaluation.
        num_workers: Loader processes.
        precise: Predict every original point itself, in several turned and scaled passes.

    Raises:
        FileNotFoundError: If the run is not finished.
        ValueError: If the dataset has other classes than the model or no labels, or `out` holds
            anything but this evaluation.
    """
    backbone, head, class_names = load_model(run)
    dataset = labelled_scans(open_dataset(data))
    require_classes(run, class_names, dataset)
    voxel_size = backbone.card.get("voxel_size", 0.0)
    _check_first(dataset, backbone, voxel_size=voxel_size, precise=precise)
    open_run(out, to_yaml({"run": run, "data": data, "precise": precise}))
    model = SegmentationModel(backbone.network, head)
    score = score_model(
        model,
        backbone,
        dataset,
        title="evaluation",
        num_workers=num_workers,
        voxel_size=voxel_size,
        precise=precise,
        absent_classes=backbone.card.get("absent_classes", "left_out"),
    )
    write_score(out, score)
    _report(out, score, model, backbone, dataset, title="evaluation", voxel_size=voxel_size)
    return score


def _run(
    config: SegmentationConfig, backbone: NamedBackbone, task: Callable[..., Any], *, title: str
) -> Score:
    train = labelled_scans(open_dataset(config.data))
    val = labelled_scans(open_dataset(config.data, split=config.val_split))
    voxel_size = resolve_voxel_size(config.voxel_size, backbone)
    samples, steps_per_epoch = _training_samples(config, train, backbone, voxel_size=voxel_size)
    # Before anything is written: damaged data shows at once.
    samples[SampleKey(0, 0)]
    _check_first(val, backbone, voxel_size=voxel_size, precise=config.precise)
    open_run(config.out, to_yaml(config), inputs=_input_files(config))
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
        make_head=HEADS[config.head],
        make_optimizer=OPTIMIZERS[config.optimizer],
        lovasz_weight=config.lovasz_weight,
    )
    trainer, score = _fit_and_score(
        config, model, backbone, samples, val, num_steps=num_steps, title=title
    )
    if trainer.is_global_zero:
        card = {
            "class_names": list(train.class_names),
            "labels": str(config.data.root),
            "voxel_size": voxel_size,
            "head": config.head,
            "absent_classes": config.absent_classes,
        }
        save_model(config.out, backbone, card=card, head=model.head)
        _report(config.out, score, model, backbone, val, title=title, voxel_size=voxel_size)
        write_score(config.out, score)
    return score


def _fit_and_score(
    config: SegmentationConfig,
    model: SegmentationModel,
    backbone: NamedBackbone,
    samples: Samples,
    val: Any,  # noqa: ANN401 - labelled scans
    *,
    num_steps: int,
    title: str,
) -> tuple[Trainer, Score]:
    """Train, and evaluate at the end or several times towards it."""
    hardware = config.hardware
    evaluate_model = partial(
        score_model,
        model,
        backbone,
        val,
        title=f"{title}, evaluation",
        num_workers=hardware.num_workers,
        voxel_size=resolve_voxel_size(config.voxel_size, backbone),
        accelerator=hardware.accelerator,
        precise=config.precise,
        absent_classes=config.absent_classes,
    )
    last = None
    if config.mean_of_last:
        steps = steps_to_score(num_steps, last=config.mean_of_last, num_scores=config.num_scores)
        last = LastScores(steps, evaluate_model)
    trainer = fit(
        model,
        samples,
        batch_size=config.batch_size // _scans_of_a_sample(config),
        out=config.out,
        num_steps=num_steps,
        seed=config.seed,
        title=title,
        hardware=hardware,
        save_every=config.save_every,
        on_nonfinite=config.on_nonfinite,
        callbacks=[last] if last else [],
    )
    with limited_threads(hardware):
        return trainer, last.mean() if last else evaluate_model()


def _input_files(config: SegmentationConfig) -> dict[str, Path]:
    """Files whose content is part of the run."""
    files = {
        "backbone": weights_file(config.backbone),
        "scenes": config.scenes,
        "points_file": config.points_file,
    }
    return {name: file for name, file in files.items() if file is not None}


def _scans_of_a_sample(config: SegmentationConfig) -> int:
    return 2 if config.mix_probability else 1


def _training_samples(
    config: SegmentationConfig, dataset: Reader, backbone: NamedBackbone, *, voxel_size: float
) -> tuple[Samples, int]:
    """The scans and labels that are used, as training samples, and the steps of an epoch."""
    scans = _limit_points(config, dataset, _choose_scans(config, dataset))
    augment = partial(
        AUGMENTATIONS[config.augmentation],
        voxel_size=voxel_size,
        max_points=config.max_points or sys.maxsize,
        keep_labelled=bool(config.points_per_scene or config.points_file),
    )
    arguments = input_arguments(dataset, backbone)
    make_sample = augment
    if not config.mix_probability:
        make_sample = partial(training_sample, augment=augment, **arguments)
    samples = Samples(
        [(scans, make_sample)],
        seed=config.seed,
        on_error=config.on_error,
        max_bad_samples=config.max_bad_samples,
    )
    steps_per_epoch = _count_steps(config, len(samples), len(dataset))
    if not config.mix_probability:
        return samples, steps_per_epoch
    mixed = MixedPairs(
        samples, to_input=partial(to_input, **arguments), probability=config.mix_probability
    )
    return mixed, steps_per_epoch


def _choose_scans(config: SegmentationConfig, dataset: Reader) -> np.ndarray:
    """Indices of the scans whose labels may be used."""
    indices = np.arange(len(dataset))
    if config.scenes is not None:
        indices = scans_of_scenes(dataset, config.scenes)
    if config.every_scene > 1:
        indices = np.intersect1d(indices, scans_of_every_scene(dataset, config.every_scene))
    indices = indices[:: config.every]
    return indices[label_fraction(len(indices), config.fraction, seed=config.seed)]


def _limit_points(config: SegmentationConfig, dataset: Reader, indices: np.ndarray) -> Scans:
    """The chosen scans with the labels that may be used."""
    scans = _Chosen(dataset, indices)
    if config.points_per_scene:
        return DrawnLabels(scans, num_points=config.points_per_scene, seed=config.seed)
    if config.points_file is not None:
        points = read_points(config.points_file)
        require_listed(dataset, indices, points, config.points_file)
        return ListedLabels(scans, points)
    return scans


def _count_steps(config: SegmentationConfig, num_chosen: int, num_scans: int) -> int:
    """Steps of one epoch."""
    if num_chosen < config.batch_size:
        chosen = f"fraction {config.fraction:g}"
        if config.scenes is not None:
            chosen = f"{chosen} of {config.scenes}"
        raise ValueError(
            f"{chosen} of {num_scans} scans leaves {num_chosen}, fewer than "
            f"batch_size {config.batch_size}; pass a smaller batch_size or a larger fraction"
        )
    return count_joint_batches(num_chosen, config.batch_size)


def _check_first(
    dataset: Reader, backbone: NamedBackbone, *, voxel_size: float, precise: bool
) -> None:
    """Read the first scan to evaluate on before work is spent on a score.

    Raises:
        DataError: If it is damaged, has no labels, or leaves the network's field of view in the
            precise test.
    """
    scan = dataset[0]
    if scan.labels is None:
        raise DataError(
            f"scan {scan.name} of split {dataset.split!r} in {dataset.root} has no labels; a "
            "score needs a split with labels"
        )
    sample_to_score(scan, dataset, backbone, voxel_size=voxel_size)
    if precise:
        require_inside_passes(scan, backbone.network.fov)


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


def _report(
    out: Path,
    score: Score,
    model: SegmentationModel,
    backbone: NamedBackbone,
    dataset: Reader,
    *,
    title: str,
    voxel_size: float,
) -> None:
    scan = dataset[len(dataset) // 2]
    sample = sample_to_score(scan, dataset, backbone, voxel_size=voxel_size)
    report_segmentation(
        out,
        score,
        model=model.cpu().eval(),
        sample=sample,
        scan=scan,
        class_names=tuple(dataset.class_names),
        title=f"pc-train: {title}",
    )
