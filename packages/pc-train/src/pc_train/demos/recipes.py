"""How demos measure weights, unless their app says otherwise: minutes on two processor cores."""

from dataclasses import replace
from pathlib import Path

from pc_data.datasets import DataConfig

from pc_train.configs import FineTuneConfig, ProbeConfig
from pc_train.hardware import HardwareConfig

LATER = DataConfig(root=Path())
"""The demo's world, which `pc_train.demos.demo` fills in."""

ONE_CORE = HardwareConfig(accelerator="cpu", num_workers=1, num_threads=1)
"""Small networks gain nothing from a second thread; the other core prepares the samples."""

PROBING = ProbeConfig(
    backbone=Path(),
    data=LATER,
    out=Path(),
    max_steps=100,
    batch_size=2,
    lr=5e-3,
    max_points=8_000,
    augmentation="cloud",
    hardware=ONE_CORE,
)
"""Linear probing with all labels."""

TUNING = FineTuneConfig(
    backbone=Path(),
    data=LATER,
    out=Path(),
    fraction=0.01,
    max_steps=100,
    batch_size=1,
    warmup_epochs=9,  # of one step each
    lr=2e-3,
    layer_decay=0.5,  # spares what was pre-trained; few labels tell it little
    drop_path=0.0,
    max_points=8_000,
    augmentation="cloud",
    hardware=ONE_CORE,
)
"""Fine-tuning with 1% of the labels, which is one scan."""


def with_all_labels(tuning: FineTuneConfig) -> FineTuneConfig:
    """Let labels teach more: every layer, faster. The demo gives them twice the steps."""
    return replace(tuning, lr=5e-3, layer_decay=0.99)
