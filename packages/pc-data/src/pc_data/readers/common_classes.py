"""Classes that several driving datasets share, for training on one and testing on another.

Source: the label maps of SALUDA (github.com/valeoai/SALUDA) for the 10 classes of nuScenes and
    SemanticKITTI and the 6 classes of nuScenes and SemanticPOSS, the same numbers of classes as in
    ScaLR's domain generalisation (Puy et al., CVPR 2024), whose own maps are not published.
"""

import numpy as np
from jaxtyping import Int8

COMMON_10 = (
    *("car", "bicycle", "motorcycle", "truck", "other_vehicle", "pedestrian", "driveable_surface"),
    *("sidewalk", "terrain", "vegetation"),
)
COMMON_6 = ("person", "bike", "car", "ground", "vegetation", "manmade")

# (dataset, number of classes) -> the raw ids of each class, in the order of the names.
_RAW = {
    ("nuscenes", "10"): (
        *((17,), (14,), (21,), (23,), (15, 16, 18, 19, 20, 22), (2, 3, 4, 5, 6)),
        *((24,), (26,), (27,), (30,)),
    ),
    ("semantickitti", "10"): (
        *((10, 252), (11,), (15,), (18, 258), (13, 20, 257, 259), (30, 254)),
        *((40, 44, 60), (48,), (72,), (70, 71)),
    ),
    ("nuscenes", "6"): (
        *((2, 3, 4, 6), (14, 21), (15, 16, 17, 18, 22, 23), (24, 25, 26, 27), (30,), (9, 12, 28)),
    ),
    ("semanticposs", "6"): (*((4, 5), (6, 21), (7,), (22,), (9,), tuple(range(10, 18))),),
}


def choose_classes(
    classes: str, dataset: str, official: tuple[str, ...], class_of_raw: Int8[np.ndarray, " r"]
) -> tuple[tuple[str, ...], Int8[np.ndarray, " r"]]:
    """Class names and the class of each raw id, official or shared with other datasets.

    Args:
        classes: Empty for the official ones, 10 or 6 for shared ones.
        dataset: Whose raw ids.
        official: Names of the official classes.
        class_of_raw: Their table: -1 = ignored, -2 = no such id.

    Raises:
        ValueError: If the dataset has no such classes.
    """
    if not classes:
        return official, class_of_raw
    if (dataset, classes) not in _RAW:
        known = [count for name, count in _RAW if name == dataset]
        raise ValueError(
            f"classes of {dataset} must be {' or '.join(known)}, or empty for the official "
            f"{len(official)}, got {classes!r}"
        )
    table = np.where(class_of_raw == -2, -2, -1).astype(np.int8)
    for label, raw in enumerate(_RAW[dataset, classes]):
        table[list(raw)] = label
    return COMMON_10 if classes == "10" else COMMON_6, table
