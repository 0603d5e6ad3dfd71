"""Boxes and panoptic labels for the tiny nuScenes of `tests.pc_data.tiny_worlds`."""

from pathlib import Path

import numpy as np

from tests.pc_data.tiny_worlds import NUM_POINTS, SCENES, write_json

PANOPTIC = np.array([17001, 17002, 24000, 0, 30000] * (NUM_POINTS // 5), dtype=np.uint16)


def annotate(world: Path, *boxes: tuple[str, str, dict]) -> None:
    """Each box: sample, category, and what differs from one 10 m ahead, turned by 30 degrees."""
    folder = world / "v1.0-trainval"
    names = sorted({category for _, category, _ in boxes})
    write_json(folder / "category.json", [{"token": f"c-{name}", "name": name} for name in names])
    write_json(
        folder / "instance.json",
        [
            {"token": f"object-{k}", "category_token": f"c-{category}"}
            for k, (_, category, _) in enumerate(boxes)
        ],
    )
    half = np.radians(15)
    rows = [
        {
            "token": f"box-{k}",
            "sample_token": sample,
            "instance_token": f"object-{k}",
            "translation": [111.0, 200, 1.8],
            "size": [2.0, 4.0, 1.5],
            "rotation": [np.cos(half), 0, 0, np.sin(half)],
            **changes,
        }
        for k, (sample, _, changes) in enumerate(boxes)
    ]
    write_json(folder / "sample_annotation.json", rows)


def add_panoptic(world: Path) -> Path:
    """Give every keyframe the labels `PANOPTIC`."""
    rows = []
    for scene in SCENES:
        for frame in range(2):
            token = f"data-{scene}-{frame}-LIDAR_TOP-True"
            file = panoptic_file(world, f"{scene}-{frame}")
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(file, data=PANOPTIC)
            name = file.relative_to(world).as_posix()
            rows.append({"token": token, "sample_data_token": token, "filename": name})
    write_json(world / "v1.0-trainval/panoptic.json", rows)
    return world


def panoptic_file(world: Path, sample: str = "scene-0061-0") -> Path:
    return world / f"panoptic/v1.0-trainval/data-{sample}-LIDAR_TOP-True_panoptic.npz"
