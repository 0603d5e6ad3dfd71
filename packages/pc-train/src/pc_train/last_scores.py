"""The mean score over the last part of a training, in place of that of its end."""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from pc_train.scores import Score


def steps_to_score(num_steps: int, *, last: float, num_scores: int) -> tuple[int, ...]:
    """Steps after which to evaluate: evenly apart in the last part of a run, its end among them.

    Args:
        num_steps: Length of the run.
        last: The part, as a share of the run.
        num_scores: How many; fewer where the part has fewer steps.

    >>> steps_to_score(1000, last=0.15, num_scores=5)
    (880, 910, 940, 970, 1000)
    """
    part = last * num_steps
    return tuple(sorted({num_steps - int(i * part / num_scores) for i in range(num_scores)}))


class LastScores(Callback):
    """Evaluates after some steps, and knows the mean.

    The scores are in each checkpoint written after them, so a run that was killed and is started
    again knows those of before, whichever checkpoint it goes on from.

    Args:
        steps: When to evaluate; the last one is the run's end.
        evaluate: Scores the model as it is.

    Source: SSPL (Zhang et al., NeurIPS 2022), Sec. 4.3: "the average performance over the
        checkpoints of the last 15% of the training process".
    """

    def __init__(self, steps: tuple[int, ...], evaluate: Callable[[], Score]) -> None:
        self.steps, self.evaluate = steps, evaluate
        self.scores: dict[int, Score] = {}

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Evaluate if it is time."""
        if trainer.global_step in self.steps:
            self.scores[trainer.global_step] = self.evaluate()
            pl_module.train()

    def state_dict(self) -> dict[str, Any]:
        """The scores so far, as plain values."""
        return {
            str(step): {
                "miou": score.miou,
                "iou": score.iou,
                "num_scans": score.num_scans,
                "confusion": None if score.confusion is None else score.confusion.tolist(),
            }
            for step, score in self.scores.items()
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Know the scores of before."""
        for step, values in state_dict.items():
            counts = values["confusion"]
            self.scores[int(step)] = Score(
                miou=values["miou"],
                iou=values["iou"],
                num_scans=values["num_scans"],
                confusion=None if counts is None else np.array(counts, np.int64),
            )

    def mean(self) -> Score:
        """The mean of the scores; their confusions are added up."""
        scores = [self.scores[step] for step in self.steps]
        counts = [score.confusion for score in scores if score.confusion is not None]
        return Score(
            miou=statistics.fmean(score.miou for score in scores),
            iou={name: _mean([score.iou[name] for score in scores]) for name in scores[0].iou},
            num_scans=scores[0].num_scans,
            miou_by_step={str(step): self.scores[step].miou for step in self.steps},
            confusion=np.sum(counts, axis=0) if counts else None,
        )


def _mean(values: list[float]) -> float:
    """Of those that are numbers; NaN if none is."""
    known = [value for value in values if not np.isnan(value)]
    return statistics.fmean(known) if known else float("nan")
