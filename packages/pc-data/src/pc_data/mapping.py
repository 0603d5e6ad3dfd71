"""A function over every scan of a dataset, in parallel, resumable, its results in checked files.

For what is computed once and read often: normals, clusters, superpixels, cached features. Scans are
cut into shards; a shard is one `.npz` file that is either whole or not there, with its SHA-256 in
`shards.jsonl`. The same call on the same folder computes only what is missing or damaged.
"""

import hashlib
import importlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from pc_geometry.atomic import atomic_file

from pc_data.datasets import DataConfig, Reader, open_dataset
from pc_data.errors import DataError
from pc_data.scan import Scan

MapFunction = Callable[[Scan], Mapping[str, np.ndarray]]
BACKENDS = ("loky", "threading", "sequential", "ray")


def map_dataset(
    function: MapFunction,
    data: DataConfig,
    out: Path,
    *,
    shard_size: int = 64,
    num_jobs: int = -1,
    backend: str = "loky",
    progress: Callable[[int, int], None] | None = None,
) -> "Mapped":
    """Call a function on every scan of a dataset and keep what it returns.

    Args:
        function: Gets a scan and returns arrays by name. Importable by its name, so that other
            processes find it.
        data: The dataset.
        out: Folder of the results; the same call continues there.
        shard_size: Scans whose results share a file.
        num_jobs: Parallel jobs, -1 for one a processor.
        backend: loky (processes), threading, sequential, or ray for a cluster that runs ray.
        progress: Is told (done, total) scans.

    Returns:
        The results.

    Raises:
        ValueError: If an argument is out of range, the function has no name, or `out` holds
            results of another call.
        DataError: If a scan is damaged, or the function returns no arrays; finished shards stay.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, got {shard_size}")
    if not hasattr(function, "__qualname__"):
        raise ValueError(
            f"function must be one of a module, by whose name results are told apart, got "
            f"{function!r}; wrap it in a def"
        )
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    dataset = open_dataset(data)
    out = Path(out)
    _claim(out, _describe(function, data, len(dataset), shard_size))
    mapped = Mapped(out)
    shards = [shard for shard in range(mapped.num_shards) if not mapped.is_whole(shard)]
    done = len(dataset) - sum(len(mapped.scans_of(shard)) for shard in shards)
    work = partial(_make_shard, function, data, out, shard_size)
    for shard, digest in _run(work, shards, num_jobs=num_jobs, backend=backend):
        mapped.register(shard, digest)
        done += len(mapped.scans_of(shard))
        if progress is not None:
            progress(done, len(dataset))
    return mapped


def find_function(name: str) -> MapFunction:
    """Import a function given as `package.module:function`.

    Raises:
        ValueError: If the name has another form, there is no such module or function, or it cannot
            be called.
    """
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"function must be importable and given as package.module:function, got {name!r} "
            f"({error})"
        ) from error
    if not callable(function):
        raise ValueError(f"function must be a function, but {name} is a {type(function).__name__}")
    return function


class Mapped:
    """Results of `map_dataset`, a map-style sequence of arrays by name.

    Attributes:
        out: The folder.
        num_scans: Scans of the dataset.
        shard_size: Scans in a shard.
    """

    def __init__(self, out: Path) -> None:
        """Read the folder's description.

        Raises:
            DataError: If it holds no results.
        """
        self.out = Path(out)
        try:
            settings = json.loads((self.out / "map.json").read_text(encoding="utf-8"))
            self.num_scans, self.shard_size = settings["num_scans"], settings["shard_size"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.out}: holds no results of pc-data map ({error})") from error
        self._digests = dict(_read_digests(self.out / "shards.jsonl"))

    @property
    def num_shards(self) -> int:
        """Shards that all scans take."""
        return -(-self.num_scans // self.shard_size)

    def __len__(self) -> int:
        return self.num_scans

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of one scan.

        Raises:
            IndexError: If there is no such scan.
            DataError: If its shard is missing or damaged.
        """
        shard, row = divmod(range(self.num_scans)[index], self.shard_size)
        file = shard_file(self.out, shard)
        if shard not in self._digests:
            raise DataError(f"{file}: not computed yet; run the same pc-data map again")
        prefix = f"{row}/"
        try:
            # Opened here: of a damaged archive NumPy would leave the file open.
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return {
                    name.removeprefix(prefix): arrays[name]
                    for name in arrays.files
                    if name.startswith(prefix)
                }
        except (
            OSError,
            ValueError,
            EOFError,
            NotImplementedError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise DataError(f"{file}: damaged ({error}); run the same pc-data map again") from error

    def scans_of(self, shard: int) -> range:
        """Indices of the scans in a shard."""
        first = shard * self.shard_size
        return range(first, min(first + self.shard_size, self.num_scans))

    def is_whole(self, shard: int) -> bool:
        """Whether a shard is there and has the content that was written."""
        file = shard_file(self.out, shard)
        if shard not in self._digests or not file.is_file():
            return False
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == self._digests[shard]

    def register(self, shard: int, digest: str) -> None:
        """Note that a shard is written."""
        self._digests[shard] = digest
        with (self.out / "shards.jsonl").open("a", encoding="utf-8") as lines:
            # A line of its own even if a kill cut the last one off.
            lines.write("\n" + json.dumps({"shard": shard, "sha256": digest}))


def shard_file(out: Path, shard: int) -> Path:
    """Where a shard is."""
    return out / f"shard-{shard:06d}.npz"


def _describe(
    function: MapFunction, data: DataConfig, num_scans: int, shard_size: int
) -> dict[str, object]:
    return {
        "function": f"{function.__module__}:{function.__qualname__}",
        "dataset": data.name,
        "root": str(data.root.resolve()),
        "version": data.version,
        "classes": data.classes,
        "align": data.align,
        "split": data.split,
        "num_scans": num_scans,
        "shard_size": shard_size,
    }


def _claim(out: Path, settings: dict[str, object]) -> None:
    """Make the folder, or refuse one with other settings."""
    file = out / "map.json"
    if file.is_file():
        try:
            found = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DataError(f"{file}: damaged ({error}); choose another folder") from error
        for name, value in settings.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{out} holds results with {name} {found.get(name)!r}, not {value!r}; choose "
                    "another folder, or remove it"
                )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out must be a new or empty folder, but {out} is in use; choose another")
    with atomic_file(file) as stream:
        stream.write(json.dumps(settings, indent=2).encode())


def _read_digests(file: Path) -> Iterator[tuple[int, str]]:
    """Shards and digests; a last line that a kill cut off is left out, so its shard is redone."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            row = json.loads(line)
            yield row["shard"], row["sha256"]
        except (ValueError, KeyError, TypeError):
            continue


def _run(
    work: Callable[[int], tuple[int, str]], shards: list[int], *, num_jobs: int, backend: str
) -> Iterator[tuple[int, str]]:
    import joblib

    if backend == "ray":
        try:
            from ray.util.joblib import register_ray  # pyrefly: ignore[missing-import]
        except ImportError as error:
            raise ValueError(
                "backend ray needs the package ray; install it, or choose loky"
            ) from error
        register_ray()
    with joblib.parallel_config(backend=backend, n_jobs=num_jobs):
        yield from joblib.Parallel(return_as="generator_unordered")(
            joblib.delayed(work)(shard) for shard in shards
        )


def _make_shard(
    function: MapFunction, data: DataConfig, out: Path, shard_size: int, shard: int
) -> tuple[int, str]:
    """Compute and write one shard; return its number and its SHA-256."""
    dataset = _open_once(data)
    arrays: dict[str, np.ndarray] = {}
    first = shard * shard_size
    for row, index in enumerate(range(first, min(first + shard_size, len(dataset)))):
        scan = dataset[index]
        result = function(scan)
        if not isinstance(result, Mapping) or not result:
            raise DataError(
                f"scan {scan.name}: the function must return arrays by name, got "
                f"{type(result).__name__}"
            )
        for name, value in result.items():
            value = np.asarray(value)
            if value.dtype.hasobject:
                raise DataError(f"scan {scan.name}: {name} must be numbers, got objects")
            arrays[f"{row}/{name}"] = value
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    content = stream.getvalue()
    with atomic_file(shard_file(out, shard)) as file:
        file.write(content)
    return shard, hashlib.sha256(content).hexdigest()


_OPENED: dict[str, Reader] = {}


def _open_once(data: DataConfig) -> Reader:
    """The dataset, whose tables a process reads once for all of its shards."""
    key = repr(data)
    if key not in _OPENED:
        _OPENED.clear()
        _OPENED[key] = open_dataset(data)
    return _OPENED[key]
