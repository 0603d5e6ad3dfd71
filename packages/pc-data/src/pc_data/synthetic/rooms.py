"""Many rooms, made on all cores and written one after the other."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from pc_data.synthetic.output import check_image_size, check_request, make_frames
from pc_data.synthetic.room import Room, make_room

ResultT = TypeVar("ResultT")


def make_rooms(
    write: Callable[[int, Room, bool], ResultT],
    *,
    num_scenes: int,
    seed: int,
    val_fraction: float,
    voxel_size: float,
    num_frames: int = 0,
    image_size: tuple[int, int] = (320, 240),
    progress: Callable[[int, int], None] | None = None,
) -> list[ResultT]:
    """Make rooms and hand each over as soon as it is there.

    Args:
        write: Gets the room's number, the room, and whether it is for validation. Several may run
            at once, in any order.
        num_scenes: Number of rooms, the first ones for training.
        seed: Of everything.
        val_fraction: Share of validation rooms, at least one of two or more.
        voxel_size: Distance between the meshes' vertices, metres.
        num_frames: RGB-D images of each room.
        image_size: Their (width, height).
        progress: Called with (done, total) after each room.

    Returns:
        What `write` returned for each room, in order.

    Raises:
        ValueError: If an argument is out of range.
    """
    num_val = check_request(num_scenes=num_scenes, frames_per_scene=1, val_fraction=val_fraction)
    if num_frames < 0:
        raise ValueError(f"num_frames must be 0 or more, got {num_frames}")
    check_image_size(image_size)
    if not voxel_size >= 0.01:
        raise ValueError(f"voxel_size must be at least 0.01 metres, got {voxel_size}")

    def make(index: int) -> Room:
        return make_room(
            (seed, index),
            index >= num_scenes - num_val,
            num_frames=num_frames,
            image_size=image_size,
            voxel_size=voxel_size,
        )

    def store(index: int, frame: int, room: Room) -> ResultT:  # noqa: ARG001
        return write(index, room, index >= num_scenes - num_val)

    scenes = [partial(make, index) for index in range(num_scenes)]
    results = []
    for done, (*_, result) in enumerate(make_frames(scenes, store, num_frames=1), start=1):
        results.append(result)
        if progress is not None:
            progress(done, num_scenes)
    return results
