"""What can be reconstructed; plain data, without torch."""

from collections.abc import Sequence

TARGETS = {
    "color": ("red", "green", "blue"),
    "normal": ("normal_x", "normal_y", "normal_z"),
    "intensity": ("intensity",),
}
"""What can be reconstructed, and the input features that it consists of."""


def columns_of(target: str, features: Sequence[str]) -> list[int]:
    """Columns of the input that a target consists of.

    Raises:
        ValueError: If the target is unknown, or not among the features.
    """
    if target not in TARGETS:
        raise ValueError(f"reconstruct must be of {', '.join(TARGETS)}, got {target!r}")
    missing = [name for name in TARGETS[target] if name not in features]
    if missing:
        raise ValueError(
            f"reconstruct {target} needs {', '.join(missing)} among the features, got "
            f"{', '.join(features)}; add them, or leave {target} out"
        )
    return [list(features).index(name) for name in TARGETS[target]]
