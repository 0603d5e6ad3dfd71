"""Pre-training as a run: data, student and teacher put together."""

from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from pc_2dteachers import create_teacher
from pc_2dteachers.teacher import Teacher, TeacherConcat
from pc_backbones import mlp_head
from pc_data.datasets import Reader
from pc_data.features import LIDAR_FEATURES
from pc_train.pretraining import open_datasets, run_pretraining, start_backbone
from torch import nn

from scalr.config import Config
from scalr.method import ScaLR
from scalr.pictures import picture_of_batch, report_pretraining
from scalr.samples import make_pair


def pretrain(config: Config) -> Path:
    """Pre-train a backbone; resumes an interrupted run, and leaves a finished one alone.

    Returns:
        The file with the backbone's weights.

    Raises:
        ValueError: If data, teacher, weights or run folder do not fit.
    """
    datasets = open_datasets(config)
    teacher = _create_teacher(config)
    teacher.require_size(config.image_size)
    backbone = start_backbone(
        config,
        config.backbone,
        LIDAR_FEATURES,
        grids=config.grids,
        fov=config.fov,
        num_neighbors=config.num_neighbors,
    )

    def make_method(num_steps: int, steps_per_epoch: int) -> ScaLR:  # noqa: ARG001
        schedule = {
            "lr": config.lr,
            "min_lr": config.min_lr,
            "weight_decay": config.weight_decay,
            "warmup_steps": config.warmup_steps,
            "num_steps": num_steps,
        }
        head = _create_head(config, backbone.network.out_dim, teacher.out_dim)
        return ScaLR(backbone.network, teacher, head, schedule=schedule)

    return run_pretraining(
        config,
        [(data, partial(make_pair, **_input_arguments(data, config))) for data in datasets],
        backbone=backbone,
        make_method=make_method,
        card={
            "method": "ScaLR",
            "version": metadata.version("pc-app-scalr"),
            "teachers": list(config.teachers),
        },
        first_batch=picture_of_batch,
        report=partial(report_pretraining, config),
    )


def _create_teacher(config: Config) -> Teacher | TeacherConcat:
    """Create the teachers.

    Raises:
        ValueError: If one file is to serve several teachers, or a random one.
    """
    if config.teacher_weights is not None and (len(config.teachers) > 1 or config.random_teacher):
        raise ValueError(
            f"teacher_weights {config.teacher_weights} is for one teacher that is not random, got "
            f"teachers {', '.join(config.teachers)} with random_teacher={config.random_teacher}; "
            "leave one of them out"
        )
    teachers = [
        create_teacher(
            name, pretrained=not config.random_teacher, checkpoint=config.teacher_weights
        )
        for name in config.teachers
    ]
    return teachers[0] if len(teachers) == 1 else TeacherConcat(teachers)


def _create_head(config: Config, in_dim: int, out_dim: int) -> nn.Module:
    if len(config.teachers) == 1:
        return nn.Linear(in_dim, out_dim)
    return mlp_head(in_dim, config.hidden_dim, out_dim)


def _input_arguments(dataset: Reader, config: Config) -> dict[str, Any]:
    return {
        "intensity_mean": dataset.intensity_mean,
        "intensity_std": dataset.intensity_std,
        "min_depth": dataset.min_depth,
        "min_x": dataset.min_x,
        "box": config.fov,
        "image_size": config.image_size,
        "antialias": config.antialias,
        "voxel_size": config.voxel_size,
        "max_points": config.max_points,
        "num_neighbors": config.num_neighbors,
    }
