"""Pre-training as a run: data, student and teacher put together."""

from functools import partial
from importlib import metadata
from pathlib import Path

import torch
from pc_2dteachers import create_teacher
from pc_2dteachers.teacher import Teacher, TeacherConcat
from pc_backbones import mlp_head
from pc_data.batch import FEATURES
from pc_data.commandline import to_yaml
from pc_data.datasets import open_dataset
from pc_data.loading import SampleKey, Samples, count_joint_batches
from pc_train.fitting import fit
from pc_train.networks import (
    BACKBONE_FILE,
    NamedBackbone,
    new_backbone,
    open_backbone,
    save_model,
)
from pc_train.runs import open_run
from torch import nn

from scalr.config import Config
from scalr.method import ScaLR
from scalr.pictures import report_pretraining
from scalr.samples import make_pair


def pretrain(config: Config) -> Path:
    """Pre-train a backbone; resumes an interrupted run, and leaves a finished one alone.

    Returns:
        The file with the backbone's weights.

    Raises:
        ValueError: If data, teacher, weights or run folder do not fit.
    """
    datasets = [open_dataset(data, labels=False) for data in (config.data, *config.more_data)]
    teacher = _create_teacher(config)
    backbone = _create_backbone(config)
    samples = Samples(
        [
            (dataset, partial(make_pair, **_input_arguments(dataset, config)))
            for dataset in datasets
        ],
        seed=config.seed,
        on_error=config.on_error,
    )
    steps_per_epoch = count_joint_batches(len(samples), config.batch_size)
    num_steps = config.max_steps or config.epochs * steps_per_epoch
    first = samples[SampleKey(0, 0)]  # before anything is written: damaged data shows at once
    open_run(config.out, to_yaml(config))
    exported = config.out / BACKBONE_FILE
    if exported.is_file():
        return exported
    method = ScaLR(
        backbone.network,
        teacher,
        _create_head(config, backbone.network.out_dim, teacher.out_dim),
        schedule={
            "lr": config.lr,
            "min_lr": config.min_lr,
            "weight_decay": config.weight_decay,
            "warmup_steps": config.warmup_steps,
            "num_steps": num_steps,
        },
    )
    trainer = fit(
        method,
        samples,
        batch_size=config.batch_size,
        out=config.out,
        num_steps=num_steps,
        seed=config.seed,
        title="pre-training",
        hardware=config.hardware,
        save_every=config.save_every,
    )
    if trainer.is_global_zero:
        card = {
            "features": list(FEATURES),
            "data": [
                {
                    "name": data.name,
                    "split": data.split,
                    "scans": len(dataset),
                    "intensity": [dataset.intensity_mean, dataset.intensity_std],
                }
                for data, dataset in zip((config.data, *config.more_data), datasets, strict=True)
            ],
            "method": "ScaLR",
            "version": metadata.version("pc-app-scalr"),
            "teachers": list(config.teachers),
            "steps": num_steps,
        }
        report_pretraining(config, method, first)
        save_model(config.out, backbone, card=card)
    return exported


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


def _create_backbone(config: Config) -> NamedBackbone:
    torch.manual_seed(config.seed)
    shape = {"grids": config.grids, "fov": config.fov, "num_neighbors": config.num_neighbors}
    backbone = new_backbone(config.backbone, len(FEATURES), **shape)
    if config.start_from is not None:
        weights = open_backbone(config.start_from, **shape)
        try:
            backbone.network.load_state_dict(weights.network.state_dict())
        except RuntimeError as error:
            difference = " ".join(str(error).split())[:400]
            raise ValueError(
                f"{config.start_from} holds {weights.name}, which does not fit {config.backbone}; "
                f"pass that one as backbone, or other weights ({difference} ...)"
            ) from error
    return backbone


def _create_head(config: Config, in_dim: int, out_dim: int) -> nn.Module:
    if len(config.teachers) == 1:
        return nn.Linear(in_dim, out_dim)
    return mlp_head(in_dim, config.hidden_dim, out_dim)


def _input_arguments(dataset, config: Config) -> dict:  # noqa: ANN001
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
