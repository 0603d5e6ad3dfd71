"""The `pc-data` command: make a synthetic world, check a dataset, show a scan."""

from pathlib import Path
from typing import Literal

from pc_data.commandline import run
from pc_data.datasets import DataConfig, find_dataset
from pc_data.progress import progress_line

Layout = Literal[
    "nuscenes",
    "semantickitti",
    "semanticposs",
    "pandaset",
    "waymo",
    "once",
    "argoverse2",
    "scannet",
    "pointcept",
    "arkitscenes",
    "sunrgbd",
    "folder",
]


def main(argv: list[str] | None = None) -> int:
    """Run `pc-data` with the given arguments, or those of the process, and return its exit code."""
    return run(
        {"make": make, "check": check, "stats": stats, "show": show, "map": map_},
        prog="pc-data",
        description="LiDAR datasets: make a synthetic one, check one, look at one.",
        argv=argv,
    )


def make(
    world: Literal["street", "room"],
    *,
    out: Path,
    format: Layout | None = None,  # noqa: A002
    scenes: int = 8,
    frames: int = 4,
    seed: int = 0,
) -> None:
    """Write a synthetic world in a dataset's official layout.

    Args:
        world: What to build.
        out: Folder to write, new or empty.
        format: Layout of the files; by default nuscenes for streets and scannet for rooms.
        scenes: Number of scenes; a quarter of them form the validation split.
        frames: Scans of each street, images of each room.
        seed: Everything follows from it.
    """
    from pc_data.synthetic.formats import make_world

    if scenes < 1 or frames < 1:
        raise ValueError(f"--scenes and --frames must be at least 1, got {scenes} and {frames}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is in use; pass a new folder as --out, or empty this one")
    make_world(
        world,
        out,
        layout=format,
        num_scenes=scenes,
        num_frames=frames,
        seed=seed,
        progress=progress_line(f"making {world}"),
    )
    print(f"wrote {out}\nnext: pc-data check {out}")


def check(root: Path, *, json: bool = False) -> int:
    """Read everything in a dataset's folder and list what is missing or damaged.

    Every table is parsed, every scan is read and every image is decoded. The exit code is 0 if all
    is well and 3 if not.

    Args:
        root: The dataset's folder, in its official layout.
        json: Print the report as JSON.
    """
    import dataclasses
    from json import dumps

    from pc_data.check import check_dataset

    report = check_dataset(root, progress=progress_line("checking"))
    if json:
        print(dumps({"ok": report.ok, **dataclasses.asdict(report)}, indent=2))
    else:
        print(report.text())
        if report.ok:
            print(f"next: pc-data show {root}")
    return 0 if report.ok else 3


def show(root: Path, *, split: str = "all", index: int = 0, out: Path = Path("scan.png")) -> None:
    """Draw a scan from above and on its images, as a PNG.

    Args:
        root: The dataset's folder, in its official layout.
        split: Split that the index counts in.
        index: Number of the scan, from 0.
        out: The picture's file.
    """
    from pc_data.show import show_scan

    _require_picture(out)
    dataset = find_dataset(root, split=split)
    if not 0 <= index < len(dataset):
        raise ValueError(
            f"--index must be in [0, {len(dataset) - 1}] (split {split} of {root}), got {index}"
        )
    scan = dataset[index]
    figure = show_scan(scan, dataset.class_names, min_depth=dataset.min_depth, min_x=dataset.min_x)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    print(f"wrote {out}: scan {scan.name}, {index + 1} of {len(dataset)} in split {split}")


def stats(root: Path, *, split: str = "all", out: Path = Path("stats.png")) -> None:
    """Count points and classes of every scan, as a table and as a picture.

    Args:
        root: The dataset's folder, in its official layout.
        split: Split to count.
        out: The picture's file.
    """
    from pc_data.stats import draw_stats, take_stats

    _require_picture(out)
    counted = take_stats(find_dataset(root, split=split), progress=progress_line("counting"))
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_stats(counted).savefig(out)
    print(f"{counted.text()}\nwrote {out}")


def map_(
    function: str,
    data: DataConfig,
    *,
    out: Path,
    shard_size: int = 64,
    jobs: int = -1,
    backend: Literal["loky", "threading", "sequential", "ray"] = "loky",
) -> None:
    """Run a function over every scan of a dataset and keep what it returns; resumable.

    Args:
        function: As package.module:function; gets a Scan, returns arrays by name.
        data: The dataset.
        out: Folder of the results; the same command continues there.
        shard_size: Scans whose results share a file.
        jobs: Parallel jobs; -1 for one a processor.
        backend: loky (processes), threading, sequential, or ray for a cluster.
    """
    from pc_data.mapping import find_function, map_dataset

    mapped = map_dataset(
        find_function(function),
        data,
        out,
        shard_size=shard_size,
        num_jobs=jobs,
        backend=backend,
        progress=progress_line("scans"),
    )
    print(f"wrote {out}: results of {len(mapped):,} scans in {mapped.num_shards:,} files")


def _require_picture(out: Path) -> None:
    if out.is_dir() or out.suffix != ".png":
        raise ValueError(f"--out must be a file that ends in .png, got {out}")
