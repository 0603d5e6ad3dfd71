"""Which worlds are written in which layouts."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple


class Writer(NamedTuple):
    """A function that writes a world.

    Attributes:
        place: Its module and name.
        frames: What it calls the number of scans, or of images, of a scene; empty without one.
    """

    place: str
    frames: str


def _street(name: str) -> Writer:
    return Writer(f"pc_data.synthetic.{name}:make_street_{name}", "frames_per_scene")


WRITERS: dict[str, dict[str, Writer]] = {
    "street": {
        "nuscenes": _street("nuscenes"),
        "semantickitti": _street("semantic_kitti"),
        "semanticposs": _street("semantic_poss"),
        "pandaset": _street("pandaset"),
        "waymo": _street("waymo"),
        "once": _street("once"),
        "argoverse2": _street("argoverse2"),
        "folder": _street("folder"),
    },
    "room": {
        "scannet": Writer("pc_data.synthetic.scannet:make_room_scannet", "num_frames"),
        "pointcept": Writer("pc_data.synthetic.scannet:make_room_pointcept", ""),
        "arkitscenes": Writer("pc_data.synthetic.arkitscenes:make_room_arkitscenes", "num_frames"),
        "sunrgbd": Writer("pc_data.synthetic.sun_rgbd:make_room_sun_rgbd", "num_frames"),
    },
}
"""By world and by the name of the layout; the first layout of a world is the usual one."""


def make_world(
    world: str,
    out: Path,
    *,
    layout: str | None = None,
    num_scenes: int,
    num_frames: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a synthetic world.

    Args:
        world: street or room.
        out: Folder to make.
        layout: One of the world's; its first one by default.
        num_scenes: Streets or rooms.
        num_frames: Scans of a street, images of a room.
        seed: Of everything.
        progress: Called with (done, total).

    Raises:
        ValueError: If the world is not written in that layout, or a number is out of range.
    """
    writers = WRITERS[world]
    layout = layout or next(iter(writers))
    if layout not in writers:
        raise ValueError(
            f"format must be one of {', '.join(writers)} for a {world}, got {layout!r}"
        )
    writer = writers[layout]
    module, _, name = writer.place.partition(":")
    frames = {writer.frames: num_frames} if writer.frames else {}
    make = getattr(import_module(module), name)
    make(out, num_scenes=num_scenes, seed=seed, progress=progress, **frames)
