"""Worlds that the demos of several apps share."""

from pathlib import Path

from pc_data.progress import progress_line
from pc_data.synthetic import make_street_nuscenes
from pc_data.synthetic.scannet import make_room_scannet


def make_streets(root: Path, small: bool) -> None:
    """25 scenes to train on and 4 to evaluate on; of 100 keyframes, 1% of the labels is one scan.

    The small one has 5 and 1, of two keyframes each.
    """
    make_street_nuscenes(
        root,
        num_scenes=6 if small else 29,
        frames_per_scene=2 if small else 4,
        val_fraction=4 / 29,
        seed=0,
        image_size=(336, 190),
        progress=progress_line("making a world of streets"),
    )


def make_rooms(root: Path, small: bool) -> None:
    """100 rooms to train on, so 1% of the labels is one room, and 10 to evaluate on.

    The small one has 5 and 1.
    """
    make_room_scannet(
        root,
        num_scenes=6 if small else 110,
        val_fraction=1 / 11,
        seed=0,
        num_frames=0,
        voxel_size=0.06,
        progress=progress_line("making a world of rooms"),
    )
