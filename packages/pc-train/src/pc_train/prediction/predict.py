"""Prediction for clouds without labels: features and classes of every point."""

import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int16
from pc_data.batch import PointBatch
from pc_data.commandline import to_yaml
from pc_data.errors import DataError, ResourceError
from pc_data.progress import progress_line
from torch import nn

from pc_train.fitting import limited_threads, pick_device
from pc_train.hardware import HardwareConfig
from pc_train.networks import HEAD_FILE, NamedBackbone, load_model, open_backbone, weights_file
from pc_train.notices import notice
from pc_train.prediction.config import PredictConfig
from pc_train.prediction.inputs import Clouds, open_clouds
from pc_train.prediction.results import (
    SUMMARY,
    Answer,
    clear_remains,
    finished_files,
    result_folder,
    write_results,
)
from pc_train.prediction.tiles import Limits, Shown, default_overlap
from pc_train.runs import lock_run, open_run, withdrawn_on_error, write_json
from pc_train.scores import evaluation_arguments


@dataclass(frozen=True, kw_only=True)
class Network:
    """What predicts.

    Attributes:
        backbone: Gives features.
        head: Turns them into class scores; None for features alone.
        class_names: Of the classes, index = id.
        device: Where both are.
    """

    backbone: NamedBackbone
    head: nn.Module | None
    class_names: tuple[str, ...]
    device: torch.device

    @torch.inference_mode()
    def answer(
        self, sample: PointBatch
    ) -> tuple[Float32[np.ndarray, "m d"], Int16[np.ndarray, " m"] | None]:
        """Features and classes of the points that the network saw."""
        seen = sample.to(self.device)
        feat = self.backbone.network(seen.xyz, seen.feat, seen.batch, neighbors=seen.neighbors)
        classes = None
        if self.head is not None:
            classes = self.head(feat).argmax(1).to(torch.int16).cpu().numpy()
        return feat.float().cpu().numpy(), classes


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a call of `predict` did.

    Attributes:
        folders: One for each cloud, with its results.
        files: Names of the results in each.
        num_points: Points of the clouds that were predicted now; the others were finished earlier.
        num_skipped: Damaged clouds that were left out.
    """

    folders: tuple[Path, ...]
    files: tuple[str, ...]
    num_points: int
    num_skipped: int


def predict(source: Path, config: PredictConfig) -> Predicted:
    """Write features and classes of every point of a cloud, of a folder of clouds, or of a dataset.

    Clouds that were finished earlier are left as they are.

    Args:
        source: The file or folder.
        config: What predicts, and how.

    Raises:
        FileNotFoundError: If there is no such file, folder or checkpoint.
        DataError: If a cloud is damaged, or lacks what the network needs.
        MachineError: If a GPU is asked for where there is none.
        ResourceError: If a GPU's memory does not hold `max_points`.
        ValueError: If a setting does not fit, or `out` holds anything but this prediction.
    """
    network = open_network(config.checkpoint, pick_device(config.accelerator))
    if config.out.resolve().is_relative_to(source.resolve()):
        raise ValueError(
            f"{config.out} lies in {source}, whose clouds are to be read; pass another --out"
        )
    clouds = open_clouds(source, config)
    settings = {"source": source, **vars(config)}
    del settings["on_error"]  # a run that met damage may go on without it
    threads = HardwareConfig(num_threads=config.num_threads)
    with withdrawn_on_error(config.out):
        open_run(config.out, to_yaml(settings), inputs=_input_files(source, config.checkpoint))
        with lock_run(config.out), limited_threads(threads):
            return _predict_all(clouds, network, config)


def _predict_all(clouds: Clouds, network: Network, config: PredictConfig) -> Predicted:
    folders, num_points, num_skipped = [], 0, 0
    report = progress_line("clouds")
    said: set[str] = set()
    for index in range(len(clouds)):
        try:
            folder, done = _predict_one(clouds, index, network, config, said)
        except DataError as error:
            is_last_hope = num_skipped + 1 == len(clouds)
            if config.on_error == "raise" or is_last_hope:
                raise
            notice(f"skipped: {error}")
            num_skipped += 1
            continue
        folders.append(folder)
        num_points += done
        if not clouds.is_single:
            report(index + 1, len(clouds))
    return Predicted(
        folders=tuple(folders),
        files=finished_files(folders[0]),
        num_points=num_points,
        num_skipped=num_skipped,
    )


def open_network(checkpoint: Path, device: torch.device) -> Network:
    """Load the model of a probe or finetune run, or a backbone from anywhere.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged.
    """
    if checkpoint.name == HEAD_FILE:
        checkpoint = checkpoint.parent
    head, class_names = None, ()
    if (checkpoint / HEAD_FILE).is_file():
        backbone, head, class_names = load_model(checkpoint)
        head.to(device)
    else:
        backbone = open_backbone(checkpoint)
    backbone.network.to(device).eval()
    return Network(backbone=backbone, head=head, class_names=tuple(class_names), device=device)


def _predict_one(
    clouds: Clouds,
    index: int,
    network: Network,
    config: PredictConfig,
    said: set[str],
) -> tuple[Path, int]:
    """Predict one cloud unless that is done; its folder and the points predicted now."""
    known = clouds.known_name(index)
    if known and finished_files(folder := _place(config.out, clouds, known)):
        return folder, 0
    cloud = clouds[index]
    folder = _place(config.out, clouds, cloud.scan.name)
    if finished_files(folder):
        return folder, 0
    backbone = network.backbone
    arguments = evaluation_arguments(
        cloud, backbone, voxel_size=backbone.card.get("voxel_size", 0.0)
    )
    shown = Shown(cloud.scan, arguments, _limits(config, arguments["voxel_size"]))
    notes = [*cloud.notes, *(f"{cloud.scan.name}: {note}" for note in shown.notes)]
    if cloud.has_own_intensity and "intensity" in arguments["features"]:
        notes.append(
            f"{cloud.scan.name}: its intensity is measured against its own mean "
            f"{cloud.intensity_mean:.4g} and deviation {cloud.intensity_std:.4g}; pass --intensity "
            "for those of the data that the network comes from"
        )
    for note in notes:
        plain = note.replace(cloud.scan.name, "")
        if plain not in said:  # not once for each of a thousand scans
            notice(note)
        said.add(plain)
    folder.mkdir(parents=True, exist_ok=True)
    clear_remains(folder)
    files, counts = write_results(
        folder,
        cloud,
        _answers(shown, network),
        width=backbone.network.out_dim,
        class_names=network.class_names,
        config=config,
    )
    summary = {
        "cloud": cloud.scan.name,
        "num_points": len(cloud.scan),  # row i of each file is point i
        "files": files,
        "checkpoint": str(config.checkpoint),
        "inputs": list(arguments["features"]),
        "voxel_size": arguments["voxel_size"],
        "intensity": [cloud.intensity_mean, cloud.intensity_std],
        "tiles": max(1, len(shown.tiles)),
        "frame": "metres, z up",
        "classes": counts,
        "notes": notes,
    }
    write_json(folder / SUMMARY, summary)
    return folder, len(cloud.scan)


def _answers(shown: Shown, network: Network) -> Iterator[Answer]:
    for points, sample in shown:
        try:
            feat, classes = network.answer(sample)
        except torch.OutOfMemoryError:
            feat = classes = None  # outside, where the error does not keep the tensors
        if feat is None:
            raise ResourceError(
                f"the GPU's memory does not hold {len(sample.xyz):,} points at once; pass "
                f"--max_points {len(sample.xyz) // 2}, or --accelerator cpu"
            )
        yield Answer(points, sample.need("nearest").numpy(), feat, classes)
        del sample, feat, classes
        _return_memory()


def _return_memory() -> None:
    """Give freed memory back: glibc keeps what lies between, some 8 MB more with every tile."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _place(out: Path, clouds: Clouds, name: str) -> Path:
    return out if clouds.is_single else result_folder(out, name)


def _limits(config: PredictConfig, voxel_size: float) -> Limits:
    overlap = default_overlap(voxel_size) if config.overlap is None else config.overlap
    return Limits(
        max_points=config.max_points, tile_size=config.tile_size or np.inf, overlap=overlap
    )


def _input_files(source: Path, checkpoint: Path) -> dict[str, Path]:
    """Files whose content is part of the prediction."""
    files = {"checkpoint": weights_file(checkpoint)}
    if checkpoint.name == HEAD_FILE:
        files = {"checkpoint": weights_file(checkpoint.parent), "head": checkpoint}
    elif (checkpoint / HEAD_FILE).is_file():
        files["head"] = checkpoint / HEAD_FILE
    if source.is_file():
        files["source"] = source
    return files
