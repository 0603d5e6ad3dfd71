"""What runs left in their folders, finished or not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from pc_backbones import read_card

from pc_train.callbacks import read_columns
from pc_train.networks import BACKBONE_FILE
from pc_train.runs import CONFIG, read_settings

_RESULTS = {
    **dict.fromkeys(("probe", "finetune", "evaluate"), "scores.json"),
    "demo": "summary.json",
    "study": "study.json",
}


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run as its folder shows it.

    Attributes:
        path: The folder.
        command: pretrain, probe, finetune, evaluate, demo or study.
        settings: Its configuration.
    """

    path: Path
    command: str
    settings: Mapping[str, Any]

    @cached_property
    def result(self) -> dict[str, Any]:
        """Its scores, a demo's or study's numbers; empty while there are none.

        Raises:
            ValueError: If their file is damaged.
        """
        file = self.path / _RESULTS.get(self.command, "")
        if not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is damaged ({error}); let its command run again") from error
        if not isinstance(content, dict):
            raise ValueError(f"{file} is damaged: no table in it; let its command run again")
        return content

    @cached_property
    def curve(self) -> dict[str, Float64[np.ndarray, " n"]]:
        """Columns of `metrics.csv`."""
        return read_columns(self.path / "metrics.csv")

    @cached_property
    def weights(self) -> dict[str, Any]:
        """Name, arguments and card of its backbone; empty while there is none."""
        file = self.path / BACKBONE_FILE
        return read_card(file) if file.is_file() else {}

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end."""
        return bool(self.weights if self.command == "pretrain" else self.result)

    @property
    def state(self) -> str:
        """Finished, or how far it is."""
        if self.is_finished:
            return "finished"
        steps = self.curve.get("step", np.zeros(0)).tolist()
        return f"unfinished, step {steps[-1]:,.0f}" if steps else "unfinished"


def read_run(path: Path) -> RunFolder:
    """Look into a run's folder.

    Raises:
        FileNotFoundError: If there is no such folder, or it holds no run.
        ValueError: If its settings are damaged or of no command known here.
    """
    if not (path / CONFIG).is_file():
        raise FileNotFoundError(
            f"{path} holds no {CONFIG}, so it is no run's folder; pass what a command wrote to "
            "its --out"
        )
    settings = read_settings(path / CONFIG)
    return RunFolder(path=path, command=_command(path, settings), settings=settings)


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as tell it from all others."""
    parts = [path.resolve().parts for path in paths]
    names = []
    for own in parts:
        ends = (own[-length:] for length in range(1, len(own) + 1))
        alone = (end for end in ends if sum(part[-len(end) :] == end for part in parts) == 1)
        names.append("/".join(next(alone, own)))
    return names


def _command(path: Path, settings: Mapping[str, Any]) -> str:
    """Which command has such settings."""
    known = {
        "study": {"study", "num_seeds"},
        "demo": {"num_seeds", "max_steps"},
        "evaluate": {"run", "data", "precise"},
        "finetune": {"backbone", "val_split", "layer_decay"},
        "probe": {"backbone", "val_split", "head"},
        "pretrain": {"data", "epochs", "batch_size", "start_from"},
    }
    for command, keys in known.items():
        if keys <= set(settings):
            return command
    shown = ", ".join(f"{key!s:.40}" for key in list(settings)[:5])
    raise ValueError(
        f"{path} is of a command that is not compared, by its settings ({shown}, ...); pass "
        f"folders of {', '.join(known)}"
    )
