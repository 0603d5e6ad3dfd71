"""Many rooms, made on all cores and written one after the other."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from pc_data.synthetic.output import check_image_size, check_request, num_cores
from pc_data.synthetic.room import Room, make_room

ResultT = TypeVar("ResultT")

_FEW = 8
"""As many rooms are made by threads: processes take seconds to start.

More of them need processes, for half of the work holds the interpreter's lock.
"""


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
            at once, in any order and in other processes: it must be picklable, and only what it
            returns comes back.
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
    import joblib

    num_val = check_request(num_scenes=num_scenes, frames_per_scene=1, val_fraction=val_fraction)
    if num_frames < 0:
        raise ValueError(f"num_frames must be 0 or more, got {num_frames}")
    check_image_size(image_size)
    if not voxel_size >= 0.01:
        raise ValueError(f"voxel_size must be at least 0.01 metres, got {voxel_size}")

    make = partial(make_room, num_frames=num_frames, image_size=image_size, voxel_size=voxel_size)
    first_val = num_scenes - num_val
    results = []
    backend = "threading" if num_scenes <= _FEW else "loky"
    with joblib.parallel_config(backend=backend, n_jobs=num_cores()):
        made: Any = joblib.Parallel(return_as="generator")(
            joblib.delayed(_make_one)(make, write, (seed, index), index >= first_val)
            for index in range(num_scenes)
        )
        for done, result in enumerate(made, start=1):
            results.append(result)
            if progress is not None:
                progress(done, num_scenes)
    return results


def _make_one(
    make: Callable[..., Room],
    write: Callable[[int, Room, bool], ResultT],
    seeds: tuple[int, int],
    is_val: bool,
) -> ResultT:
    return write(seeds[1], make(seeds, is_val), is_val)
