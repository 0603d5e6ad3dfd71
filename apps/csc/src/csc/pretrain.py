"""Pre-training as a run: data, superpixels, network and images put together."""

from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from pc_2dteachers import Teacher, create_teacher
from pc_backbones import Backbone
from pc_data.datasets import Reader
from pc_data.loading import MakeSample, Samples, evaluation_loader
from pc_data.progress import progress_line
from pc_data.superpixel_files import SuperpixelFiles
from pc_train.networks import BACKBONE_FILE
from pc_train.notices import is_first_process, notice
from pc_train.pretraining import open_datasets, run_pretraining, start_backbone

from csc.config import Config
from csc.method import CSC, Keyframes
from csc.pictures import picture_of_batch, report_pretraining
from csc.prepared import list_manifests, open_prepared
from csc.samples import SuperpixelBatch, make_pairs


def pretrain(config: Config) -> Path:
    """Pre-train a backbone; resumes an interrupted run, and leaves a finished one alone.

    Returns:
        The file with the backbone's weights.

    Raises:
        ValueError: If data, superpixels, features, image network, weights or run folder do not fit.
    """
    datasets = open_datasets(config)
    files = open_prepared(config, datasets)
    # Before the run folder is made, so that what is wrong leaves none; a finished run needs none.
    is_finished = (config.out / BACKBONE_FILE).is_file()
    teacher: Any = None
    if not is_finished:
        teacher = create_teacher(
            config.teacher, checkpoint=config.teacher_weights, level=config.teacher_level
        )
        teacher.require_size(config.image_size)
    voxels = {"voxel_size": config.voxel_size} if config.voxel_size else {}
    backbone = start_backbone(config, config.backbone, config.features, **voxels)
    make = partial(make_sample, config, backbone.network)
    both = list(zip(datasets, files or [None] * len(datasets), strict=True))
    sources = [(dataset, make(dataset, of_it, augmented=False)) for dataset, of_it in both]
    keyframes = Samples(
        sources,
        seed=config.seed,
        on_error=config.on_error,
        max_bad_samples=config.max_bad_samples,
    )
    return run_pretraining(
        config,
        [(dataset, make(dataset, of_it)) for dataset, of_it in both],
        backbone=backbone,
        make_method=partial(
            _make_method,
            config,
            backbone.network,
            teacher,
            partial(_keyframes, keyframes, config),
            files[0].manifest.num_classes if files else 0,
        ),
        card={
            "method": "CSC" if config.prototypes != "none" else f"{config.contrast} contrast",
            "prototypes": config.prototypes,
            "superpixels": files[0].manifest.network if files else None,
            "version": metadata.version("pc-app-csc"),
            "teachers": [config.teacher],
        },
        first_batch=picture_of_batch,
        report=partial(report_pretraining, config, files),
        inputs=list_manifests(files),
    )


def make_sample(
    config: Config,
    network: Backbone,
    dataset: Reader,
    files: SuperpixelFiles | None,
    *,
    augmented: bool = True,
) -> MakeSample:
    """What makes a sample of one of the dataset's scans for this network."""
    fov = None if network.fov is None else network.fov.tolist()
    return partial(
        make_pairs,
        features=config.features,
        intensity_mean=dataset.intensity_mean,
        intensity_std=dataset.intensity_std,
        read_superpixels=None if files is None else files.read,
        has_classes=files is not None and bool(files.manifest.class_names),
        box=None if fov is None else (tuple(fov[0]), tuple(fov[1])),
        num_neighbors=network.num_neighbors,
        image_size=config.image_size,
        min_depth=config.min_depth,
        augmented=augmented,
    )


def _keyframes(
    samples: Samples, config: Config, rank: int, world_size: int
) -> Iterator[SuperpixelBatch]:
    """This process's share of all scans, with a line of progress."""
    loader = evaluation_loader(
        samples,
        batch_size=max(config.batch_size // world_size, 1),
        rank=rank,
        world_size=world_size,
        num_workers=config.hardware.num_workers,
        repeats=True,
    )
    progress = progress_line("prototypes")
    for done, batch in enumerate(loader, start=1):
        yield batch
        if is_first_process():
            progress(done, len(loader))


def _make_method(
    config: Config,
    network: Backbone,
    teacher: Teacher,
    keyframes: Keyframes,
    num_classes: int,
    num_steps: int,
    steps_per_epoch: int,
) -> CSC:
    prototype_steps = config.prototype_epochs * steps_per_epoch
    if config.prototypes != "none" and num_steps <= prototype_steps:
        notice(
            f"no prototypes will be made: the first pass comes after step {prototype_steps:,}, and "
            f"the run has {num_steps:,}; pass more epochs, or fewer prototype_epochs"
        )
    schedule = {"lr": config.lr, "weight_decay": config.weight_decay, "num_steps": num_steps}
    if config.optimizer == "sgd":
        schedule |= {"momentum": config.momentum, "dampening": config.dampening}
    return CSC(
        network,
        teacher,
        contrast=config.contrast,
        prototypes=config.prototypes,
        num_classes=num_classes,
        keyframes=keyframes,
        prototype_steps=prototype_steps,
        absent_classes=config.absent_classes,
        average_losses=config.average_losses,
        dim=config.dim,
        temperature=config.temperature,
        prototype_temperature=config.prototype_temperature,
        num_pairs=config.num_pairs,
        learn_heads=config.learn_heads,
        optimizer=config.optimizer,
        schedule=schedule,
    )
