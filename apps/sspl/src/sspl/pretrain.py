"""Pre-training as a run: data and network put together."""

from functools import partial
from importlib import metadata
from pathlib import Path

from pc_backbones import Backbone
from pc_data.datasets import Reader
from pc_data.loading import MakeSample
from pc_train.pretraining import open_datasets, run_pretraining, start_backbone

from sspl.config import Config
from sspl.method import SSPL
from sspl.pictures import picture_of_batch, report_pretraining
from sspl.samples import NetworkInput, make_scans, make_volumes


def pretrain(config: Config) -> Path:
    """Pre-train a backbone; resumes an interrupted run, and leaves a finished one alone.

    Returns:
        The file with the backbone's weights.

    Raises:
        ValueError: If data, features, weights or run folder do not fit.
    """
    datasets = open_datasets(config)
    voxels = {"voxel_size": config.voxel_size} if config.voxel_size else {}
    backbone = start_backbone(config, config.backbone, config.features, **voxels)
    return run_pretraining(
        config,
        [(dataset, make_sample(dataset, config, backbone.network)) for dataset in datasets],
        backbone=backbone,
        make_method=partial(make_method, config, backbone.network),
        card={
            "method": "SSPL",
            "level": config.level,
            "local": config.local,
            "across": config.across,
            "version": metadata.version("pc-app-sspl"),
        },
        first_batch=picture_of_batch,
        report=partial(report_pretraining, config),
    )


def make_sample(dataset: Reader, config: Config, network: Backbone) -> MakeSample:
    """What makes a sample of one of the dataset's scans for this network."""
    fov = None if network.fov is None else network.fov.tolist()
    takes = NetworkInput(
        features=config.features,
        intensity_mean=dataset.intensity_mean,
        intensity_std=dataset.intensity_std,
        box=None if fov is None else (tuple(fov[0]), tuple(fov[1])),
        num_neighbors=network.num_neighbors,
    )
    if config.level == "scan":
        return partial(
            make_scans,
            takes=takes,
            indoor=config.indoor,
            max_points=config.max_points,
            view_points=config.view_points,
        )
    return partial(
        make_volumes,
        takes=takes,
        indoor=config.indoor,
        max_points=config.max_points,
        volume_size=config.volume_size,
        max_volumes=config.max_volumes,
        min_points=config.min_points,
        local_share=config.local_share,
        global_share=config.global_share,
    )


def make_method(
    config: Config,
    network: Backbone,
    num_steps: int,
    steps_per_epoch: int,  # noqa: ARG001 - nothing is counted in epochs
) -> SSPL:
    """The module that trains `network` for so many steps."""
    return SSPL(
        network,
        local=config.local,
        across=config.across,
        negatives=config.negatives,
        temperature=config.temperature,
        ema=config.ema,
        ema_steps=num_steps if config.ema_to_one else 0,
        hidden_dim=config.hidden_dim,
        projection_dim=config.projection_dim,
        queue_size=config.queue_size,
        num_clusters=config.num_clusters,
        num_negatives=config.num_negatives,
        refresh_every=config.refresh_every,
        sharpness=config.sharpness,
        train_clusters=config.train_clusters,
        schedule={
            "lr": config.lr,
            "min_lr": config.min_lr,
            "momentum": config.momentum,
            "weight_decay": config.weight_decay,
            "num_steps": num_steps,
        },
    )
