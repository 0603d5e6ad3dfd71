"""Pre-training as a run: what every method shares around its `training_step`.

An app reads as one page:

    datasets = open_datasets(config)
    backbone = start_backbone(config, config.backbone, LIDAR_FEATURES, num_neighbors=16)
    return run_pretraining(
        config,
        [(dataset, make_sample) for dataset in datasets],
        backbone=backbone,
        make_method=lambda num_steps, steps_per_epoch: Method(backbone.network, num_steps),
        card={"method": "Name", "version": metadata.version("pc-app-name")},
        report=partial(report, config),
    )
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule
from matplotlib.figure import Figure
from pc_data.commandline import to_yaml
from pc_data.datasets import Reader, open_dataset
from pc_data.errors import DataError
from pc_data.loading import MakeSample, SampleKey, Samples, count_joint_batches
from pc_data.scan import Scan

from pc_train.callbacks import read_curve
from pc_train.fitting import fit
from pc_train.networks import (
    BACKBONE_FILE,
    NamedBackbone,
    new_backbone,
    open_backbone,
    save_model,
    weights_file,
)
from pc_train.notices import is_first_process
from pc_train.online_probe import OnlineProbe
from pc_train.pretrain_config import PretrainConfig
from pc_train.reports.first_batch import FIRST_BATCH, write_picture
from pc_train.reports.live import add_curves
from pc_train.reports.page import Report
from pc_train.reports.viewer import Cloud
from pc_train.runs import open_run
from pc_train.tables import PROBE_TABLE

Method = TypeVar("Method", bound=LightningModule)


def open_datasets(config: PretrainConfig) -> list[Reader]:
    """Open `config.data` and `config.more_data` without their labels, in this order.

    Comes first in an app: a folder mistyped shows before a large network is built or fetched.

    Raises:
        FileNotFoundError: If a folder or one of its tables is not there.
        DataError: If a table is damaged.
    """
    return [open_dataset(data, labels=False) for data in (config.data, *config.more_data)]


def first_scan(config: PretrainConfig) -> Scan:
    """The first scan of `config.data` that can be read, for a picture.

    Raises:
        DataError: If a damaged scan comes before it and `config.on_error` is raise, or none can
            be read.
    """
    dataset = open_dataset(config.data, labels=False)
    for index in range(len(dataset)):
        try:
            return dataset[index]
        except DataError:
            if config.on_error == "raise" or index + 1 == len(dataset):
                raise
    raise DataError(f"{config.data.root} holds no scan; check its split")


def start_backbone(
    config: PretrainConfig,
    name: str,
    features: Sequence[str],
    **arguments: Any,  # noqa: ANN401 - those of the network
) -> NamedBackbone:
    """Build the network to pre-train, with random weights or those of `config.start_from`.

    Seeds torch: what a method draws next (a head's weights) follows from `config.seed` as well.

    Args:
        config: Its `seed` and `start_from` are used.
        name: For `create_backbone`.
        features: Names of the input features, as `pc_data.features` knows them; in the card.
        arguments: Of the network.

    Raises:
        FileNotFoundError: If `start_from` holds no weights.
        ValueError: If the name is unknown, or the weights are of another network or were trained
            on other features.
    """
    torch.manual_seed(config.seed)
    backbone = new_backbone(name, len(features), **arguments)
    if config.start_from is not None:
        weights = open_backbone(config.start_from)
        known = weights.card.get("features", list(features))
        if list(known) != list(features):
            raise ValueError(
                f"{config.start_from} was trained on the features {', '.join(known)}, this run "
                f"has {', '.join(features)}; pass other weights"
            )
        try:
            backbone.network.load_state_dict(weights.network.state_dict())
        except RuntimeError as error:
            difference = " ".join(str(error).split())[:400]
            raise ValueError(
                f"{config.start_from} holds {weights.name}, which does not fit {name}; "
                f"pass that one as backbone, or other weights ({difference} ...)"
            ) from error
    return dataclasses.replace(backbone, card={"features": list(features)})


def run_pretraining(
    config: PretrainConfig,
    sources: Sequence[tuple[Reader, MakeSample]],
    *,
    backbone: NamedBackbone,
    make_method: Callable[[int, int], Method],
    card: Mapping[str, Any],
    first_batch: Callable[[Any], Figure],
    report: Callable[[Method, Any], None],
    inputs: Mapping[str, Path] | None = None,
) -> Path:
    """Pre-train a backbone; resumes an interrupted run, and leaves a finished one alone.

    Args:
        config: The app's settings, all of which are written to the run folder.
        sources: Each of `open_datasets(config)`, with what makes a sample of one of its scans.
        backbone: Of `start_backbone`; it is saved when training ends.
        make_method: Takes the number of steps and that of an epoch, returns the module that
            trains `backbone.network`. Not called for a finished run.
        card: What is known of the weights besides features, data and steps: `method`, `version`
            and what else decides (teachers).
        first_batch: Draws the first sample as the networks get it; `first_batch.png` is there
            before the first step.
        report: Takes the trained method and the first sample, and writes `report.html`, through
            `write_report` or on its own; called by one process.
        inputs: Files besides `start_from` whose content is part of the run, by what they are.

    Returns:
        The file with the backbone's weights.

    Raises:
        DataError: If the first scan of a dataset is damaged or lacks what a sample needs; nothing
            is written then.
        ValueError: If the settings do not fit the data, the run folder belongs to another run, or
            a file that the run began from has changed since.
    """
    samples = Samples(
        sources,
        seed=config.seed,
        on_error=config.on_error,
        max_bad_samples=config.max_bad_samples,
    )
    steps_per_epoch = count_joint_batches(len(samples), config.batch_size)
    num_steps = config.max_steps or config.epochs * steps_per_epoch
    # Before anything is written: data that is damaged or lacks an input shows at once.
    first, *_ = [samples[SampleKey(0, int(start))] for start in samples.starts[:-1]]
    given = dict(inputs or {})
    if config.start_from is not None:
        given["start_from"] = weights_file(config.start_from)
    open_run(config.out, to_yaml(config), inputs=given)
    exported = config.out / BACKBONE_FILE
    if exported.is_file():
        return exported
    sheet = config.out / FIRST_BATCH
    if is_first_process() and not sheet.is_file():
        write_picture(sheet, first_batch(first))
    method = make_method(num_steps, steps_per_epoch)
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
        on_nonfinite=config.on_nonfinite,
        callbacks=_probes(config, backbone),
    )
    if trainer.is_global_zero:
        report(method, first)
        data = _describe(config, [dataset for dataset, _ in sources], backbone)
        save_model(config.out, backbone, card={"data": data, **card, "steps": num_steps})
    return exported


def _probes(config: PretrainConfig, backbone: NamedBackbone) -> list[Callback]:
    """What looks at the features while they are learned, if it is asked for."""
    if config.probe_data is None:
        return []
    file = config.out / PROBE_TABLE
    every, num_scans = config.probe_every, config.probe_scans
    return [OnlineProbe(config.probe_data, backbone, file, every=every, num_scans=num_scans)]


def write_report(
    out: Path,
    *,
    title: str,
    lead: str,
    loss: str,
    sections: Sequence[tuple[str, Figure, str]] = (),
    cloud: Cloud | None = None,
) -> None:
    """Write `report.html` of a pre-training run: the loss, the app's pictures, the configuration.

    Args:
        out: The run folder.
        title: Heading of the page.
        lead: Which network learned from what; the number of steps follows.
        loss: What the loss measures.
        sections: Heading, figure and caption of each picture.
        cloud: What the network sees and makes of it, as `cloud_of_features` shows it.
    """
    report = Report(title, f"{lead}, {len(read_curve(out / 'metrics.csv')):,} steps")
    add_curves(report, out, loss=loss)
    for heading, figure, caption in sections:
        report.heading(heading)
        report.figure(figure, caption)
    if cloud is not None:
        report.heading("The features, to turn")
        report.cloud(cloud, "The points of one sample as the network sees them.")
    report.configuration(out)
    report.write(out / "report.html")


def _describe(
    config: PretrainConfig, datasets: Sequence[Reader], backbone: NamedBackbone
) -> list[dict[str, Any]]:
    """What the card says of each dataset."""
    described = []
    for data, dataset in zip((config.data, *config.more_data), datasets, strict=True):
        facts: dict[str, Any] = {"name": data.name, "split": data.split, "scans": len(dataset)}
        if "intensity" in backbone.card["features"]:
            facts["intensity"] = [dataset.intensity_mean, dataset.intensity_std]
        described.append(facts)
    return described
