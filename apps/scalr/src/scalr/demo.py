"""The whole story on a synthetic world: pre-train, probe, fine-tune, against random weights."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from pc_data.batch import FEATURES
from pc_data.datasets import DataConfig
from pc_data.progress import progress_line
from pc_data.synthetic import make_street_nuscenes
from pc_train.configs import FineTuneConfig, ProbeConfig
from pc_train.downstream import Score, finetune, probe
from pc_train.hardware import HardwareConfig
from pc_train.networks import new_backbone, save_model
from pc_train.notices import notice
from pc_train.runs import open_run, write_json

from scalr.config import Config
from scalr.demo_report import report_demo
from scalr.pretrain import pretrain

MEASURES = ("linear_probe_miou", "finetune_1pct_miou")
SOURCES = ("pretrained", "random")
_CPU = HardwareConfig(accelerator="cpu", num_workers=0)


@dataclass(frozen=True, kw_only=True)
class DemoSize:
    """What the demo spends; chosen to end within minutes on two processor cores.

    Attributes:
        num_scenes: Scenes of the world; 25 to train on and 4 to evaluate on.
        frames_per_scene: Keyframes of a scene; 100 to train on, so 1% of the labels is one scan.
        pretraining_steps: Of two camera views each.
        probing_steps: Of two scans each.
        finetuning_steps: Of the one labelled scan.
        max_points: Of a labelled training sample.
    """

    num_scenes: int = 29
    frames_per_scene: int = 4
    pretraining_steps: int = 600
    probing_steps: int = 100
    finetuning_steps: int = 100
    max_points: int = 8_000

    def cut(self, max_steps: int) -> "DemoSize":
        """Shorten all runs to `max_steps`, on a smaller world; 0 changes nothing."""
        if not max_steps:
            return self
        return dataclasses.replace(
            self,
            num_scenes=6,
            frames_per_scene=2,
            pretraining_steps=max_steps,
            probing_steps=max_steps,
            finetuning_steps=max_steps,
        )


def demo(out: Path, *, num_seeds: int = 2, max_steps: int = 0) -> dict[str, Any]:
    """Run the demo; what is finished under `out` is not done again.

    Args:
        out: Folder for the world, the runs, `summary.json` and `report.html`.
        num_seeds: How often everything but the world is repeated.
        max_steps: Cut every run to so many steps, on a smaller world; 0 for the full demo.

    Returns:
        The content of `summary.json`: for each of `linear_probe_miou` and `finetune_1pct_miou`
        the mean over the seeds for `pretrained` and `random` weights and the values of each seed;
        besides a floor and a ceiling.
    """
    if num_seeds < 1:
        raise ValueError(f"num_seeds must be at least 1, got {num_seeds}")
    if max_steps < 0:
        raise ValueError(f"max_steps must be 0 or more, got {max_steps}")
    open_run(out, f"num_seeds: {num_seeds}\nmax_steps: {max_steps}\n")
    size = DemoSize().cut(max_steps)
    data = DataConfig(root=_make_world(out / "world", size))
    scores = [_run_seed(out / f"seed{seed}", data, size, seed) for seed in range(num_seeds)]
    summary = _summarise(scores) | _bounds(out, data, size)
    report_demo(out, summary, scores, data)
    write_json(out / "summary.json", summary)
    return summary


def _make_world(root: Path, size: DemoSize) -> Path:
    if not root.is_dir():
        make_street_nuscenes(
            root,
            num_scenes=size.num_scenes,
            frames_per_scene=size.frames_per_scene,
            val_fraction=4 / 29,
            seed=0,
            image_size=(336, 190),
            progress=progress_line("making a world of streets"),
        )
    return root


def _run_seed(
    out: Path, data: DataConfig, size: DemoSize, seed: int
) -> dict[str, dict[str, Score]]:
    """Pre-train, then measure both sources of weights in both ways."""
    notice(f"seed {seed}")
    weights = pretrain(
        Config(
            data=data,
            out=out / "pretrain",
            teachers=("efficientnet_lite0_offline",),
            backbone="waffleiron_6_64",
            num_neighbors=8,
            max_steps=size.pretraining_steps,
            batch_size=2,
            lr=5e-3,
            image_size=(160, 320),
            seed=seed,
            hardware=_CPU,
        )
    )
    scores: dict[str, dict[str, Score]] = {measure: {} for measure in MEASURES}
    for source in SOURCES:
        control = source == "random"
        notice(f"seed {seed}, {source} weights")
        probing = _probing(weights, data, out / f"probe-{source}", size, seed=seed)
        tuning = _tuning(weights, data, out / f"finetune-{source}", size, seed=seed)
        scores[MEASURES[0]][source] = probe(dataclasses.replace(probing, random_weights=control))
        scores[MEASURES[1]][source] = finetune(dataclasses.replace(tuning, random_weights=control))
    return scores


def _probing(
    weights: Path, data: DataConfig, out: Path, size: DemoSize, *, seed: int
) -> ProbeConfig:
    return ProbeConfig(
        backbone=weights,
        data=data,
        out=out,
        max_steps=size.probing_steps,
        batch_size=2,
        lr=5e-3,
        max_points=size.max_points,
        seed=seed,
        hardware=_CPU,
    )


def _tuning(
    weights: Path, data: DataConfig, out: Path, size: DemoSize, *, seed: int
) -> FineTuneConfig:
    return FineTuneConfig(
        backbone=weights,
        data=data,
        out=out,
        fraction=0.01,
        max_steps=size.finetuning_steps,
        batch_size=1,
        warmup_epochs=9,  # of one step each
        lr=2e-3,
        layer_decay=0.5,  # over 6 layers; 0.95 over 48 spares the first ones as well
        drop_path=0.0,
        max_points=size.max_points,
        seed=seed,
        hardware=_CPU,
    )


def _bounds(out: Path, data: DataConfig, size: DemoSize) -> dict[str, Any]:
    """A linear probe on the raw inputs, and the pre-trained network tuned with all labels."""
    notice("floor and ceiling")
    inputs = new_backbone("inputs", len(FEATURES))
    save_model(out / "inputs", inputs, card={})
    floor = probe(_probing(out / "inputs", data, out / "floor", size, seed=0))
    ceiling = finetune(
        dataclasses.replace(
            _tuning(out / "seed0" / "pretrain", data, out / "ceiling", size, seed=0),
            fraction=1.0,
            batch_size=2,
            lr=5e-3,
            layer_decay=0.99,
            max_steps=2 * size.finetuning_steps,
        )
    )
    return {"floor_linear_probe_miou": floor.miou, "ceiling_all_labels_miou": ceiling.miou}


def _summarise(scores: list[dict[str, dict[str, Score]]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for measure in MEASURES:
        by_source = {source: [run[measure][source].miou for run in scores] for source in SOURCES}
        summary[measure] = {source: mean(values) for source, values in by_source.items()}
        summary[f"{measure}_by_seed"] = by_source
    return summary
