"""Checkpoint files of other projects as named tensors, read without executing pickles."""

import io
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FILE_NAMES = ("ckpt_last.pth", "model.pth")
"""What the weights are called in the folder of an unpacked checkpoint."""

_WRAPPERS = (
    *("net", "model_points", "model_point", "state_dict", "model_state"),
    *("model_state_dict", "model"),
)
_MAX_NESTING = 4
_LONGEST_NAME = 1000  # of a class; torch searches its message about one in quadratic time
# What torch.load raises over a damaged file, as found by flipping and cutting bytes.
UNREADABLE = (
    *(pickle.UnpicklingError, struct.error, EOFError, OSError, RuntimeError, ValueError),
    *(LookupError, AttributeError, TypeError, AssertionError, zipfile.BadZipFile),
)
# Objects beside the weights (best score, scheduler with its optimiser): never built, see _Ignored.
_IGNORED = re.compile(
    r"numpy\.(core|_core)\.multiarray\.(scalar|_reconstruct)|numpy\.(dtype|ndarray)"
    r"|numpy\.dtypes\.\w+|torch\.optim\.[\w.]+|(pointcept|pcr)\.[\w.]+|builtins\.getattr"
)


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """The content of a checkpoint that matters here.

    Attributes:
        path: The file.
        tensors: The network's tensors; `module.` of distributed training is stripped.
        config: The training configuration that the file carries; empty if none.
    """

    path: Path
    tensors: dict[str, Tensor]
    config: Mapping[Any, Any]


class _Content(io.BytesIO):
    """A file in memory; what it reads by lines are names of classes."""

    def readline(self, size: int | None = -1) -> bytes:  # noqa: ARG002
        line = super().readline(_LONGEST_NAME)
        if len(line) == _LONGEST_NAME:
            raise ValueError(f"it names a class by more than {_LONGEST_NAME} characters")
        return line


class _Ignored:
    """What stands in for an object of the file that is no tensor; takes anything, does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _new_dict(*_: object) -> dict[Any, Any]:
    return {}


def find_file(path: Path) -> Path:
    """The file itself, or the one of `FILE_NAMES` in the folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    candidates = [path / name for name in FILE_NAMES] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    wanted = f"a folder with {' or '.join(FILE_NAMES)}" if path.is_dir() else "a checkpoint file"
    raise FileNotFoundError(f"{path} is not {wanted}; pass the unpacked checkpoint")


def read_checkpoint(file: Path) -> CheckpointFile:
    """Read the tensors of a file by `torch.save`; no code of the file is run.

    Raises:
        ValueError: If the file is damaged, holds code, or holds no plain table of tensors.
    """
    try:
        content = _load_plainly(file)
    except UNREADABLE as error:
        raise ValueError(
            f"{file} cannot be read as plain tensors ({reason_of(error)}); pass a file saved by "
            "torch.save without code objects"
        ) from error
    config = content.get("config") if isinstance(content, Mapping) else None
    for _ in range(_MAX_NESTING):
        wrappers = [key for key in _WRAPPERS if isinstance(content, Mapping) and key in content]
        if not wrappers:
            break
        content = content[wrappers[0]]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content)
        raise ValueError(
            f"{file} holds no weights under {', '.join(_WRAPPERS)}; its top level is: {found}"
        )
    _check_dense(content, file)
    tensors = {str(name).removeprefix("module."): value for name, value in content.items()}
    if len(tensors) < len(content):
        raise ValueError(f"{file} holds tensors both with and without module.; keep one of each")
    return CheckpointFile(
        path=file, tensors=tensors, config=config if isinstance(config, Mapping) else {}
    )


def load_plain(file: Path, *, map_location: Any = "cpu", mmap: bool = False) -> Any:  # noqa: ANN401
    """Load tensors and plain values that `torch.save` wrote, executing nothing.

    Raises:
        UNREADABLE: One of these, of which `reason_of` says what is wrong. An archive that takes
            more memory than its file is refused: `torch.save` compresses nothing.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")  # damage, an error follows
        _foreign_names(file)
        # Of the older format, counts are claims: a file would take memory for what it lacks.
        source = file if mmap or zipfile.is_zipfile(file) else _Content(file.read_bytes())
        return torch.load(source, map_location=map_location, mmap=mmap, weights_only=True)


def _foreign_names(file: Path) -> list[str]:
    """Names of what an archive holds beside tensors; none for the format before archives.

    Raises:
        UNREADABLE: If it is damaged, compressed, or one of them is longer than a name is.
    """
    if not zipfile.is_zipfile(file):
        return []
    with zipfile.ZipFile(file) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("its archive is compressed, which torch.save does not do")
    names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    if any(len(name) > _LONGEST_NAME for name in names):
        raise ValueError(f"it names a class by more than {_LONGEST_NAME} characters")
    return names


def _load_plainly(file: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    names = _foreign_names(file)
    inert: list[Any] = [(_Ignored, name) for name in names if _IGNORED.fullmatch(name)]
    if inert:  # an optimiser's state is a defaultdict
        inert += [(_new_dict, "collections.defaultdict"), (dict, "builtins.dict")]
    with torch.serialization.safe_globals(inert):
        return load_plain(file)


def reason_of(error: BaseException) -> str:
    """What is wrong, without the advice of torch to trust the file."""
    text = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it holds {found[1][:100]}"
    if text.startswith("Weights only load failed"):
        return "it holds more than tensors, or is damaged"
    return text.splitlines()[0][:200] if text.strip() else type(error).__name__


def _check_dense(tensors: Mapping[Any, Tensor], file: Path) -> None:
    """A sparse or repeating tensor may claim any size, whatever the size of the file."""
    odd = [
        str(name)
        for name, value in tensors.items()
        if value.layout != torch.strided
        or value.is_quantized
        or value.is_meta
        or value.is_complex()
        or not 0 < value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    ]
    if odd:
        raise ValueError(
            f"{file}: {len(odd)} tensors are not dense arrays of numbers, "
            f"{', '.join(odd[:4])} first; the file is damaged"
        )
