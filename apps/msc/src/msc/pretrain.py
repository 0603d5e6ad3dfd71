"""Pre-training as a run: data and network put together."""

from functools import partial
from importlib import metadata
from pathlib import Path

from pc_backbones import Backbone
from pc_data.datasets import Reader
from pc_data.loading import MakeSample, Samples
from pc_train.checkpoints import newest_checkpoint, read_checkpoint
from pc_train.networks import NamedBackbone
from pc_train.pretraining import open_datasets, run_pretraining, start_backbone, write_report
from pc_train.reports.pictures import cloud_of_features

from msc.config import Config
from msc.method import MSC
from msc.pictures import picture_of_batch, picture_of_features, picture_of_reconstruction
from msc.samples import ViewPair, make_views


def pretrain(config: Config) -> Path:
    """Pre-train a backbone; resumes an interrupted run, and leaves a finished one alone.

    Returns:
        The file with the backbone's weights.

    Raises:
        ValueError: If data, features, weights or run folder do not fit.
    """
    sources = _open_sources(config)
    backbone = _start(config)
    return run_pretraining(
        config,
        sources,
        backbone=backbone,
        make_method=partial(make_method, config, backbone.network),
        card={"method": "MSC", "version": metadata.version("pc-app-msc")},
        first_batch=partial(picture_of_batch, config),
        report=partial(report, config),
    )


def make_method(config: Config, network: Backbone, num_steps: int, steps_per_epoch: int) -> MSC:
    """The module that trains `network` for so many steps."""
    return MSC(
        network,
        features=config.features,
        reconstruct=config.reconstruct,
        temperature=config.temperature,
        contrast_weight=config.contrast_weight,
        reconstruct_weight=config.reconstruct_weight,
        gather=config.gather,
        schedule={
            "lr": config.lr,
            "momentum": None if config.cycle_momentum else config.momentum,
            "weight_decay": config.weight_decay,
            "warmup_steps": config.warmup_epochs * steps_per_epoch,
            "num_steps": num_steps,
        },
    )


def report(config: Config, method: MSC, sample: ViewPair) -> None:
    """Write `report.html`: the loss, what was hidden and reconstructed, the features."""
    method.cpu().eval()
    sections = [
        (
            f"Reconstruction: {target}",
            picture_of_reconstruction(method, sample, target),
            f"A view of scan {sample.names[0]}; grey is hidden from the network.",
        )
        for target in config.reconstruct
    ]
    features = picture_of_features({"pre-trained": method.backbone}, sample.query)
    sections.append(("Features", features, "Three main directions of the features, as colours."))
    write_report(
        config.out,
        title="Masked Scene Contrast, pre-training",
        lead=config.backbone,
        loss="Contrast and reconstructions, weighted.",
        sections=sections,
        cloud=cloud_of_features(method.backbone, sample.query),
    )


def open_samples(config: Config) -> Samples:
    """The views that a run is trained on."""
    return Samples(_open_sources(config), seed=config.seed, on_error=config.on_error)


def load_method(config: Config) -> MSC:
    """The method as a run left it, heads included, in eval mode.

    Raises:
        FileNotFoundError: If the run has no checkpoint.
        ValueError: If its checkpoints are damaged.
    """
    checkpoint = newest_checkpoint(config.out / "checkpoints")
    if checkpoint is None:
        raise FileNotFoundError(f"{config.out} holds no checkpoint; let its run begin first")
    method = make_method(config, _start(config).network, 1, 1)
    method.load_state_dict(read_checkpoint(checkpoint)["state_dict"])
    return method.eval()


def _start(config: Config) -> NamedBackbone:
    return start_backbone(config, config.backbone, config.features, voxel_size=config.voxel_size)


def _open_sources(config: Config) -> list[tuple[Reader, MakeSample]]:
    return [
        (
            dataset,
            partial(
                make_views,
                features=config.features,
                intensity_mean=dataset.intensity_mean,
                intensity_std=dataset.intensity_std,
                voxel_size=config.voxel_size,
                crop=config.crop,
                mask_size=config.mask_size,
                mask_rate=config.mask_rate,
                mix_probability=config.mix_probability,
                match_radius=config.match_radius,
                max_pairs=config.max_pairs,
            ),
        )
        for dataset in open_datasets(config)
    ]
