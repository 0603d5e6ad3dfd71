"""Pre-training as a run: data, network and images put together."""

from functools import partial
from importlib import metadata
from pathlib import Path

from pc_2dteachers import create_teacher
from pc_2dteachers.levels import TeacherLevels
from pc_backbones import Backbone
from pc_data.datasets import Reader
from pc_data.loading import MakeSample
from pc_train.networks import BACKBONE_FILE
from pc_train.pretraining import open_datasets, run_pretraining, start_backbone

from crossmodal.config import Config
from crossmodal.method import CrossModal
from crossmodal.pictures import picture_of_batch, report_pretraining
from crossmodal.samples import make_units
from crossmodal.units import unit_finder


def pretrain(config: Config) -> Path:
    """Pre-train a backbone; resumes an interrupted run, and leaves a finished one alone.

    Returns:
        The file with the backbone's weights.

    Raises:
        ValueError: If data, features, image network, weights or run folder do not fit.
    """
    datasets = open_datasets(config)
    # Before the run folder is made, so that what is wrong leaves none; a finished run needs none.
    is_finished = (config.out / BACKBONE_FILE).is_file()
    needs_teacher = config.modality != "single"
    teacher = _create_teacher(config) if needs_teacher and not is_finished else None
    backbone = start_backbone(config, config.backbone, config.features)
    return run_pretraining(
        config,
        [(dataset, make_sample(dataset, config, backbone.network)) for dataset in datasets],
        backbone=backbone,
        make_method=partial(_make_method, config, backbone.network, teacher),
        card={
            "method": "cross-modal contrastive units",
            "modality": config.modality,
            "version": metadata.version("pc-app-crossmodal"),
            "teachers": [config.teacher] if needs_teacher else [],
        },
        first_batch=picture_of_batch,
        report=partial(report_pretraining, config),
    )


def make_sample(dataset: Reader, config: Config, network: Backbone) -> MakeSample:
    """What makes a sample of one of the dataset's scans for this network."""
    fov = None if network.fov is None else network.fov.tolist()
    return partial(
        make_units,
        features=config.features,
        intensity_mean=dataset.intensity_mean,
        intensity_std=dataset.intensity_std,
        box=None if fov is None else (tuple(fov[0]), tuple(fov[1])),
        find_units=unit_finder(config),
        sensor_height=config.sensor_height,
        min_depth=config.min_depth,
        scale=config.scale,
        image_size=config.image_size,
        with_images=config.modality != "single",
        with_other=config.modality != "cross",
    )


def _create_teacher(config: Config) -> TeacherLevels:
    teacher = create_teacher(
        config.teacher, pretrained=not config.random_teacher, checkpoint=config.teacher_weights
    )
    levels = TeacherLevels(teacher, config.levels)
    levels.require_size(config.image_size)
    return levels


def _make_method(
    config: Config,
    network: Backbone,
    teacher: TeacherLevels | None,
    num_steps: int,
    steps_per_epoch: int,
) -> CrossModal:
    return CrossModal(
        network,
        teacher,
        across=config.modality != "single",
        within=config.modality != "cross",
        num_negatives=config.num_negatives,
        temperature=config.temperature,
        hidden_dim=config.hidden_dim,
        projection_dim=config.projection_dim,
        schedule={
            "lr": config.lr,
            "min_lr": config.min_lr,
            "weight_decay": config.weight_decay,
            "warmup_steps": config.warmup_epochs * steps_per_epoch,
            "num_steps": num_steps,
        },
    )
