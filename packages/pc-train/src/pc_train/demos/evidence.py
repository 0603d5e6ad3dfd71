"""The evidence of all demos in one table: what pre-training is worth, by each method."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pc_train.demos.report import measure_title
from pc_train.networks import BACKBONE_FILE
from pc_train.reports.page import percent
from pc_train.run_folders import RunFolder, read_run
from pc_train.runs import write_text

BEGIN, END = "<!-- evidence: begin -->", "<!-- evidence: end -->"
"""Between these lines of a README the table stands."""

_MEASURES = ("linear_probe_miou", "finetune_1pct_miou")
_NOTE = (
    "mIoU in %: mean ± standard deviation over the seeds. Floor: a linear probe on the raw inputs;",
    "ceiling: fine-tuning with all labels, in so few steps that a good pre-training can pass it.",
    "Networks, worlds and steps differ between the rows, so a row compares pre-trained with random",
    "weights, and not one method with another.",
)
_DATA = {"nuscenes": "streets", "scannet": "rooms"}  # what a demo's world shows


def evidence_table(paths: Sequence[Path]) -> str:
    """Put the numbers of finished demos into one table, as markdown.

    Args:
        paths: The demos' folders, in the order of the rows.

    Raises:
        FileNotFoundError: If a folder holds no run, or a demo that is not finished.
        ValueError: If it holds another run, one that was cut short, or lacks a measurement.
    """
    demos = [_read_demo(path) for path in paths]
    head = ["method", "world", "network", "seeds"]
    for measure in _MEASURES:
        title = measure_title(measure)
        head += [f"{title}: pre-trained", "random", "gain"]
    head.append("floor, ceiling")
    lines = [_line(head), _line(["---"] * 3 + ["--:"] * (len(head) - 3))]
    lines += [_line(_row(demo)) for demo in demos]
    return "\n".join([*lines, "", *_NOTE, ""])


def write_evidence(readme: Path, table: str) -> None:
    """Put a table between the two marks of a README, in place of what stands there.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has not each mark once, in order.
    """
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(
            f"{readme} must hold the lines {BEGIN} and {END} once each, in this order; add them "
            "where the table is to stand"
        )
    before, _, rest = text.partition(BEGIN)
    write_text(readme, f"{before}{BEGIN}\n{table}{END}{rest.partition(END)[2]}")


def _read_demo(path: Path) -> RunFolder:
    demo = read_run(path)
    if demo.command != "demo":
        raise ValueError(f"{path} is a run of {demo.command}; pass folders of an app's demo")
    if not demo.is_finished:
        raise FileNotFoundError(f"the demo in {path} is not finished; let its command end first")
    if demo.settings["max_steps"]:
        raise ValueError(
            f"the demo in {path} was cut to {demo.settings['max_steps']} steps a run; run it in "
            "full, with max_steps 0"
        )
    missing = [name for name in _MEASURES if f"{name}_by_seed" not in demo.result]
    if missing:
        raise ValueError(f"the demo in {path} has no {' and no '.join(missing)}; run it anew")
    return demo


def _row(demo: RunFolder) -> list[str]:
    weights = read_weights(demo)
    card = weights["card"]
    known = {_DATA.get(data.get("name", ""), data.get("name", "")) for data in card.get("data", ())}
    cells = [
        str(card.get("method", "unknown")),
        " and ".join(sorted(known)) or "unknown",
        weights["name"].replace("_", " "),
        str(demo.settings["num_seeds"]),
    ]
    for measure in _MEASURES:
        by_seed = demo.result[f"{measure}_by_seed"]
        gain = mean(by_seed["pretrained"]) - mean(by_seed["random"])
        cells += [_spread(by_seed["pretrained"]), _spread(by_seed["random"]), f"{100 * gain:+.1f}"]
    bounds = (demo.result["floor_linear_probe_miou"], demo.result["ceiling_all_labels_miou"])
    return [*cells, ", ".join(map(percent, bounds))]


def read_weights(demo: RunFolder) -> dict[str, Any]:
    """Name and card of what a demo pre-trained.

    Raises:
        FileNotFoundError: If its weights are gone.
    """
    pretraining = read_run(demo.path / "seed0" / "pretrain")
    if not pretraining.weights:
        raise FileNotFoundError(
            f"{pretraining.path / BACKBONE_FILE} is gone, which names the method; bring it back, "
            "or run the demo anew"
        )
    return pretraining.weights


def _spread(values: Sequence[float]) -> str:
    """Mean in percent, and the standard deviation of several."""
    if len(values) < 2:
        return percent(mean(values))
    return f"{percent(mean(values))} ± {percent(stdev(values))}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
