"""The whole story on a synthetic world: pre-train, probe, fine-tune, against random weights."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from pc_data.datasets import DataConfig

from pc_train.demos.plan import Demo
from pc_train.demos.report import report_demo
from pc_train.downstream import finetune, probe
from pc_train.networks import new_backbone, open_backbone, save_model
from pc_train.notices import notice
from pc_train.runs import open_run, write_json
from pc_train.scores import Score, resolve_voxel_size

SOURCES = ("pretrained", "random")


def run_demo(demo: Demo, out: Path, *, num_seeds: int = 2, max_steps: int = 0) -> dict[str, Any]:
    """Run a demo; what is finished under `out` is not done again.

    Args:
        demo: The app's.
        out: Folder for the world, the runs, `summary.json` and `report.html`.
        num_seeds: How often everything but the world is repeated.
        max_steps: Cut every run to so many steps, on a smaller world; 0 for the full demo.

    Returns:
        The content of `summary.json`: for `linear_probe_miou` and for fine-tuning with few labels
        (`finetune_1pct_miou` where `demo.tuning.fraction` is 0.01) the mean over the seeds for
        `pretrained` and `random` weights, and under `..._by_seed` the values of each seed;
        besides `floor_linear_probe_miou` and `ceiling_all_labels_miou`.

    Raises:
        ValueError: If a number is out of range, or `out` belongs to another run.
    """
    demo, data = open_demo(demo, out, num_seeds=num_seeds, max_steps=max_steps)
    scores = [_run_seed(demo, out / f"seed{seed}", data, seed) for seed in range(num_seeds)]
    summary = _summarise(scores) | _bounds(demo, out, data)
    report_demo(demo, out, summary, scores, data)
    write_json(out / "summary.json", summary)
    return summary


def open_demo(
    demo: Demo,
    out: Path,
    *,
    num_seeds: int,
    max_steps: int,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Demo, DataConfig]:
    """Open a demo's folder and make its world there, or find both.

    Args:
        demo: The app's.
        out: The folder.
        num_seeds: How often everything but the world is repeated.
        max_steps: Cut every run to so many steps, on a smaller world; 0 for the full demo.
        settings: What else the folder belongs to.

    Returns:
        The demo, cut, and how to open its world.

    Raises:
        ValueError: If a number is out of range, or `out` belongs to another run.
    """
    if num_seeds < 1:
        raise ValueError(f"num_seeds must be at least 1, got {num_seeds}")
    if max_steps < 0:
        raise ValueError(f"max_steps must be 0 or more, got {max_steps}")
    known = {"num_seeds": num_seeds, "max_steps": max_steps, **(settings or {})}
    open_run(out, yaml.safe_dump(known, sort_keys=False))
    data = dataclasses.replace(demo.data, root=out / "world")
    if not data.root.is_dir():
        demo.make_world(data.root, bool(max_steps))
    return demo.cut(max_steps), data


def measure(
    demo: Demo, weights: Path, out: Path, data: DataConfig, *, seed: int, source: str
) -> dict[str, Score]:
    """Measure weights in both ways of a demo; finished runs are only read.

    Args:
        demo: Says how to probe and to fine-tune.
        weights: Of a pre-trained backbone.
        out: Folder for the runs `probe-SOURCE` and `finetune-SOURCE`.
        data: The world.
        seed: Of both runs.
        source: pretrained, or random for the same network from random weights.

    Returns:
        A score for `linear_probe_miou` and for fine-tuning (`finetune_1pct_miou` where
        `demo.tuning.fraction` is 0.01).

    Raises:
        ValueError: If a folder belongs to another run.
    """
    given = {"backbone": weights, "data": data, "seed": seed, "random_weights": source == "random"}
    probing = dataclasses.replace(demo.probing, out=out / f"probe-{source}", **given)
    tuning = dataclasses.replace(demo.tuning, out=out / f"finetune-{source}", **given)
    few_labels = f"finetune_{100 * demo.tuning.fraction:g}pct_miou"
    return {"linear_probe_miou": probe(probing), few_labels: finetune(tuning)}


def _run_seed(demo: Demo, out: Path, data: DataConfig, seed: int) -> dict[str, dict[str, Score]]:
    """Pre-train, then measure both sources of weights in both ways."""
    notice(f"seed {seed}")
    weights = demo.pretrain(out / "pretrain", data, seed, demo.pretraining_steps)
    scores: dict[str, dict[str, Score]] = {}
    for source in SOURCES:
        notice(f"seed {seed}, {source} weights")
        for name, score in measure(demo, weights, out, data, seed=seed, source=source).items():
            scores.setdefault(name, {})[source] = score
    return scores


def _bounds(demo: Demo, out: Path, data: DataConfig) -> dict[str, Any]:
    """A linear probe on the raw inputs, and the pre-trained network tuned with all labels."""
    notice("floor and ceiling")
    pretrained = open_backbone(out / "seed0" / "pretrain")
    fov = pretrained.network.fov
    inputs = new_backbone("inputs", len(demo.features), fov=None if fov is None else fov.tolist())
    save_model(out / "inputs", inputs, card={"features": list(demo.features)})
    floor = dataclasses.replace(
        demo.probing,
        backbone=out / "inputs",
        data=data,
        out=out / "floor",
        seed=0,
        voxel_size=resolve_voxel_size(demo.probing.voxel_size, pretrained),
    )
    ceiling = dataclasses.replace(
        demo.ceiling,
        backbone=out / "seed0" / "pretrain",
        data=data,
        out=out / "ceiling",
        seed=0,
        fraction=1.0,
        max_steps=2 * demo.tuning.max_steps,
    )
    return {
        "floor_linear_probe_miou": probe(floor).miou,
        "ceiling_all_labels_miou": finetune(ceiling).miou,
    }


def _summarise(scores: list[dict[str, dict[str, Score]]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for measure in scores[0]:
        by_source = {source: [run[measure][source].miou for run in scores] for source in SOURCES}
        summary[measure] = {source: mean(values) for source, values in by_source.items()}
        summary[f"{measure}_by_seed"] = by_source
    return summary
