"""Whole-or-nothing folders, and keyframes made on all cores but handed over in order."""

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

SceneT = TypeVar("SceneT")
FrameT = TypeVar("FrameT")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a temporary sibling folder that becomes `out` on success and vanishes on failure.

    Raises:
        ValueError: If `out` exists and is not an empty folder.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out must be a new or empty folder, but {out} is in use; choose another")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield work
        work.chmod(0o755)
        if out.exists():
            out.rmdir()
        work.rename(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def num_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_frames(
    scenes: Iterable[Callable[[], SceneT]],
    make_frame: Callable[[int, int, SceneT], FrameT],
    *,
    num_frames: int,
) -> Iterator[tuple[int, int, SceneT, FrameT]]:
    """Make every frame of every scene on all cores and yield them in order.

    Kernels release the interpreter lock, so plain threads suffice; they start no threads of their
    own, and nothing here depends on how many there are.

    Args:
        scenes: Each makes one scene.
        make_frame: Gets scene number, frame number and scene.
        num_frames: Frames of each scene.

    Yields:
        Scene number, frame number, the scene and what `make_frame` returned.
    """
    pool = ThreadPoolExecutor(max_workers=num_cores())
    waiting: deque[tuple[int, int, Future, Future]] = deque()

    def later(index: int, frame: int, scene: Future) -> FrameT:
        return make_frame(index, frame, scene.result())

    def done() -> tuple[int, int, SceneT, FrameT]:
        index, frame, scene, result = waiting.popleft()
        return index, frame, scene.result(), result.result()

    try:
        for index, make_scene in enumerate(scenes):
            scene = pool.submit(make_scene)
            for frame in range(num_frames):
                job = pool.submit(later, index, frame, scene)
                waiting.append((index, frame, scene, job))
            while len(waiting) > 2 * num_frames + 2 * num_cores():
                yield done()
        while waiting:
            yield done()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def check_request(*, num_scenes: int, frames_per_scene: int, val_fraction: float) -> int:
    """Number of validation scenes of a request.

    Raises:
        ValueError: If a number is out of range.
    """
    if num_scenes < 1:
        raise ValueError(f"num_scenes must be at least 1, got {num_scenes}")
    if frames_per_scene < 1:
        raise ValueError(f"frames_per_scene must be at least 1, got {frames_per_scene}")
    if not 0.0 <= val_fraction < 1.0:
        raise ValueError(f"val_fraction must be in [0, 1), got {val_fraction}")
    return max(1, round(num_scenes * val_fraction)) if num_scenes >= 2 else 0


def check_image_size(image_size: tuple[int, int]) -> None:
    """Refuse pictures too small to show anything.

    Raises:
        ValueError: If a side is below 16 pixels.
    """
    if min(image_size) < 16:
        raise ValueError(f"image_size must be at least 16 x 16 pixels, got {image_size}")
