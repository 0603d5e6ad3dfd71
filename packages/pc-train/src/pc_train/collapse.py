"""An alarm for features that become all alike, which a falling loss does not show."""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from pc_train.callbacks import read_watched
from pc_train.notices import notice

FEATURE_SPREAD = "feature spread"
"""Watched value: standard deviation of L2-normalised features, mean over their channels."""

NEGATIVE_SIMILARITY = "negative similarity"
"""Watched value: mean cosine similarity of features that are no partners."""

_LOWEST_SHARE = 0.1  # of the spread of directions that are drawn evenly
_LIMITS = {FEATURE_SPREAD: -math.inf, NEGATIVE_SIMILARITY: 0.95}
_WORDS = {FEATURE_SPREAD: "below", NEGATIVE_SIMILARITY: "above"}


def lowest_spread(num_channels: int) -> float:
    """Limit of `feature spread`: a tenth of 1/sqrt(c), what evenly drawn directions have.

    Source: SimSiam (Chen and He, CVPR 2021, arXiv:2011.10566), section 4.1, which watches this
        spread; the tenth is ours.
    """
    return _LOWEST_SHARE / math.sqrt(num_channels)


class CollapseAlarm(Callback):
    """Warns once when the watched values say that all features have become alike.

    It warns again only after all of them were back within their limits for as long as they were
    out of them. What the method does not watch is not judged. Values are looked at every tenth
    step, by the first process.

    Args:
        limits: Least `feature spread` (without one it is not judged; see `lowest_spread`) and
            greatest `negative similarity` (0.95 without one).
        window: Steps for which a value must be out of its limit.

    Raises:
        ValueError: If a limit is for another value.
    """

    def __init__(self, limits: Mapping[str, float], *, window: int = 50) -> None:
        for name in set(limits) - set(_LIMITS):
            near = get_close_matches(name, _LIMITS, n=1, cutoff=0)[0]
            raise ValueError(
                f"collapse_limits are of {' and '.join(_LIMITS)}, got {name!r}; the nearest is "
                f"{near!r}"
            )
        self.limits = {**_LIMITS, **limits}
        self.window = window
        self._last_good: dict[str, int] = {}
        self._last_bad = 0
        self._warned = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Count from here: values are judged by the steps of this part of the run."""
        self._last_good = dict.fromkeys(self.limits, trainer.global_step)
        self._warned = False

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Compare what is watched with its limits."""
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        watched = read_watched(outputs, step)
        values = {n: watched[n] for n in self.limits if not math.isnan(watched.get(n, math.nan))}
        if not values:
            return
        bad = {name for name, value in values.items() if self._is_bad(name, value)}
        self._last_good |= dict.fromkeys(values.keys() - bad, step)
        if bad:
            self._last_bad = step
        long = [name for name in values if step - self._last_good[name] >= self.window]
        if long and not self._warned:
            self._warned = True
            notice(self._sentence({name: values[name] for name in long}, step))
        elif self._warned and step - self._last_bad >= self.window:
            self._warned = False

    def _is_bad(self, name: str, value: float) -> bool:
        limit = self.limits[name]
        return value < limit if _WORDS[name] == "below" else value > limit

    def _sentence(self, values: Mapping[str, float], step: int) -> str:
        said = " and ".join(
            f"{name} has been {_WORDS[name]} {self.limits[name]:.2g} for "
            f"{step - self._last_good[name]} steps (now {value:.2g})"
            for name, value in values.items()
        )
        return (
            f"the features are collapsing: at step {step:,}, {said}; if it does not recover, start "
            "anew with a lower lr, a higher temperature or mask rate, or more pairs"
        )
