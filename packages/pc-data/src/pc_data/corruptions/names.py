"""The eight corruptions and their severities, by name."""

from typing import Literal, get_args

Corruption = Literal[
    "fog",
    "wet_ground",
    "snow",
    "motion_blur",
    "beam_missing",
    "crosstalk",
    "incomplete_echo",
    "cross_sensor",
]
Severity = Literal["light", "moderate", "heavy"]

CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
