"""What an app's demo is made of."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pc_data.datasets import DataConfig

from pc_train.configs import FineTuneConfig, ProbeConfig
from pc_train.reports.page import Report

Pretrain = Callable[[Path, DataConfig, int, int], Path]
"""Runs pre-training: (run folder, data, seed, steps); returns the weights' file."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A world, a pre-training, and how its weights are measured; `pc_train.demos.demo` runs it.

    In `probing`, `tuning` and `ceiling` the demo fills in backbone, data, out, seed and
    random_weights; give these `Path()` or `DataConfig(root=Path())` where they are required.

    Attributes:
        title: Of the report.
        lead: What is compared, a clause without its full stop: the number of seeds follows.
        loss: What the loss of pre-training measures, for a caption, without its full stop.
        data: How to open the world; its root is filled in.
        make_world: Writes the world: (folder, whether a small one will do). The folder is absent.
        pretrain: Runs pre-training; leaves a finished run alone.
        pretraining_steps: Of each seed.
        features: Input features, for the floor: a linear probe on them as they are.
        probing: Linear probing of both sources of weights, and the floor.
        tuning: Fine-tuning of both sources of weights, with the share of the labels of `fraction`.
        ceiling: Fine-tuning of seed 0's weights with all labels; takes twice the steps of `tuning`.
        add_figures: Adds the app's own sections to the report: (report, run folder of seed 0's
            pre-training, data).
    """

    title: str
    lead: str
    loss: str
    data: DataConfig
    make_world: Callable[[Path, bool], object]
    pretrain: Pretrain
    pretraining_steps: int
    features: Sequence[str]
    probing: ProbeConfig
    tuning: FineTuneConfig
    ceiling: FineTuneConfig
    add_figures: Callable[[Report, Path, DataConfig], None] | None = None

    def cut(self, max_steps: int) -> "Demo":
        """Shorten all runs to `max_steps`; 0 changes nothing."""
        if not max_steps:
            return self
        return dataclasses.replace(
            self,
            pretraining_steps=max_steps,
            probing=dataclasses.replace(self.probing, max_steps=max_steps),
            tuning=dataclasses.replace(self.tuning, max_steps=max_steps),
        )
