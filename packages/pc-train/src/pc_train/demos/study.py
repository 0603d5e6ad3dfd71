"""Several ways to pre-train compared in a table: what each is worth, what it takes."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

from pc_train.demos.demo import measure, open_demo
from pc_train.demos.plan import Demo, Pretrain
from pc_train.demos.study_cost import Cost, measure_cost
from pc_train.demos.study_report import report_study
from pc_train.notices import notice
from pc_train.runs import write_json
from pc_train.scores import Score

RANDOM = "random"
_COSTS = ("seconds_per_step", "peak_bytes")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Ways to pre-train one network, on the world of a demo and by its measurements.

    Attributes:
        title: Of the report.
        lead: What is compared, a clause without its full stop: steps and seeds follow.
        demo: World, length of pre-training, probing and fine-tuning; its own pre-training and
            ceiling are not run.
        rows: Ways to pre-train by name, which is a folder's too; functions of modules, or
            `functools.partial` of such: each runs in a process of its own.
        reference: The row whose time and memory are 1, and whose network random weights fill.

    Raises:
        ValueError: If there are no rows, a name is no plain one, or `reference` is none of them.
    """

    title: str
    lead: str
    demo: Demo
    rows: Mapping[str, Pretrain]
    reference: str

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("rows must hold at least one way to pre-train, got none")
        for name in self.rows:
            if not name.replace("-", "_").isidentifier() or name in (RANDOM, "world"):
                raise ValueError(
                    "a row must be called by letters, digits, - and _, and not random or world, "
                    f"got {name!r}; rename it"
                )
        if self.reference not in self.rows:
            near = difflib.get_close_matches(self.reference, self.rows, n=1)
            raise ValueError(
                f"reference must be one of the rows {', '.join(self.rows)}, got "
                f"{self.reference!r}" + "".join(f"; did you mean {name}?" for name in near)
            )


def run_study(study: Study, out: Path, *, num_seeds: int = 1, max_steps: int = 0) -> dict[str, Any]:
    """Run a study; what is finished under `out` is not done again.

    Args:
        study: The app's.
        out: Folder for the world, the runs, `study.json` and `report.html`.
        num_seeds: How often everything but the world is repeated.
        max_steps: Cut every run to so many steps, on a smaller world; 0 for the full study.

    Returns:
        The content of `study.json`: under `rows`, by name and for `random` weights,
        `linear_probe_miou`, that of fine-tuning with few labels (`finetune_1pct_miou` where
        `study.demo.tuning.fraction` is 0.01) and, but for random weights, `seconds_per_step` and
        `peak_bytes` of pre-training (see `Cost`): each the mean over the seeds, with the values
        of each seed under `..._by_seed`. Besides `reference`, `pretraining_steps`, `num_seeds`,
        `device` and `machines`, on which pre-training was measured: more than one where the study
        was moved, so that its times do not compare.

    Raises:
        ValueError: If a number is out of range, or `out` belongs to another run.
        ChildProcessError: If the process of a pre-training is killed.
    """
    if max_steps == 1:
        raise ValueError(
            "max_steps must be 0 or at least 2, got 1: a step is timed from the one before it"
        )
    demo, data = open_demo(
        study.demo,
        out,
        num_seeds=num_seeds,
        max_steps=max_steps,
        settings={"study": study.title},
    )
    scores: dict[str, list[dict[str, Score]]] = {name: [] for name in (RANDOM, *study.rows)}
    costs: dict[str, list[Cost]] = {name: [] for name in study.rows}
    for seed in range(num_seeds):
        weights = {}
        for name, pretrain in study.rows.items():
            notice(f"seed {seed}, {name}")
            folder = out / name / f"seed{seed}"
            work = partial(pretrain, folder / "pretrain", data, seed, demo.pretraining_steps)
            weights[name], cost = measure_cost(work, folder)
            costs[name].append(cost)
            scores[name].append(
                measure(demo, weights[name], folder, data, seed=seed, source="pretrained")
            )
        notice(f"seed {seed}, random weights")
        folder = out / RANDOM / f"seed{seed}"
        network = weights[study.reference]
        scores[RANDOM].append(measure(demo, network, folder, data, seed=seed, source="random"))
    result = {
        "reference": study.reference,
        "pretraining_steps": demo.pretraining_steps,
        "num_seeds": num_seeds,
        "device": costs[study.reference][0].device,
        "machines": _machines(costs),
        "rows": {name: _summarise(runs, costs.get(name, ())) for name, runs in scores.items()},
    }
    report_study(out, result, title=study.title, lead=study.lead)
    write_json(out / "study.json", result)
    return result


def _machines(costs: Mapping[str, list[Cost]]) -> list[str]:
    """Each once, in order."""
    parts = [cost.machines for row in costs.values() for cost in row]
    return list(dict.fromkeys(chain.from_iterable(parts)))


def _summarise(scores: list[dict[str, Score]], costs: Any) -> dict[str, Any]:  # noqa: ANN401
    """Mean over the seeds, and the values of each."""
    values = {name: [run[name].miou for run in scores] for name in scores[0]}
    if costs:
        values |= {name: [dataclasses.asdict(cost)[name] for cost in costs] for name in _COSTS}
    row: dict[str, Any] = {}
    for name, by_seed in values.items():
        row |= {name: mean(by_seed), f"{name}_by_seed": by_seed}
    return row
