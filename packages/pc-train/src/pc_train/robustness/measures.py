"""How much a model loses on corrupted scans: corruption errors and resilience rates.

Source: Robo3D (Kong et al., ICCV 2023, arXiv:2303.17597), section on metrics.
"""

from collections.abc import Mapping, Sequence

import numpy as np

MINKUNET18_CLEAN = 0.7576
"""mIoU of the published baseline on nuScenes."""

MINKUNET18 = {
    "fog": 0.5364,
    "wet_ground": 0.7391,
    "snow": 0.4035,
    "motion_blur": 0.7339,
    "beam_missing": 0.6854,
    "crosstalk": 0.2658,
    "incomplete_echo": 0.6383,
    "cross_sensor": 0.5095,
}
"""Its mIoU on nuScenes-C, means over light, moderate and heavy.

Source: Robo3D (Kong et al., ICCV 2023), the table of nuScenes-C.
"""


def corruption_errors(
    miou: Mapping[str, Sequence[float]], baseline: Mapping[str, float]
) -> dict[str, float]:
    """Error under each corruption over that of a baseline; 1 is as good as it, less is better.

    Args:
        miou: Of the model at each severity, in 0..1, by corruption.
        baseline: Mean of the baseline's mIoU over the same severities, by corruption.

    Raises:
        ValueError: If the baseline lacks one of the corruptions or makes no error.

    >>> corruption_errors({"fog": [0.6, 0.5, 0.4]}, {"fog": 0.75})
    {'fog': 2.0}
    """
    errors = {}
    for name, values in miou.items():
        if not baseline.get(name, 1.0) < 1:
            raise ValueError(
                f"the baseline must have a mIoU below 1 under {name}, got "
                f"{baseline.get(name, 'none')}; it has {', '.join(baseline)}"
            )
        errors[name] = float((1 - np.mean(values)) / (1 - baseline[name]))
    return errors


def resilience_rates(miou: Mapping[str, Sequence[float]], clean: float) -> dict[str, float]:
    """Share of the clean mIoU that is left under each corruption.

    Args:
        miou: Of the model at each severity, by corruption.
        clean: Of the same model on clean scans.

    Raises:
        ValueError: If nothing is right on clean scans.

    >>> resilience_rates({"fog": [0.6, 0.5, 0.4]}, 0.8)
    {'fog': 0.625}
    """
    if not clean > 0:
        raise ValueError(f"the mIoU on clean scans must be above 0 to compare with, got {clean}")
    return {name: float(np.mean(values) / clean) for name, values in miou.items()}


def mean_over_corruptions(values: Mapping[str, float]) -> float:
    """Average over the corruptions: mCE of corruption errors, mRR of resilience rates."""
    return float(np.mean(list(values.values())))
