"""What made a folder of superpixels: the record that binds it to one network and its settings.

It says nothing of the images: each PNG names its own (see `superpixel_files`), so that further
splits of a dataset may join a folder.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pc_geometry.atomic import atomic_file

from pc_data.errors import DataError
from pc_data.files.json_files import read_json

MANIFEST = "manifest.json"
_FORMAT = 2
_MOST = 65535

Setting = str | int | float | bool | None | Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class SuperpixelManifest:
    """What made a folder of superpixels.

    Attributes:
        network: Its name, e.g. that of a segmenter, or "slic".
        num_classes: Superpixels are 0 to one less.
        class_names: What each means in every image; empty where a number means nothing outside
            its image.
        settings: What else decides the result, e.g. the image size that the network saw; kept as
            JSON gives it back, a tuple as a list.
        digest: Of the network's weights and configuration; empty where it has none.

    Raises:
        ValueError: If a number is out of range, the names are not as many as the classes, or JSON
            does not hold the settings.
    """

    network: str
    num_classes: int
    class_names: tuple[str, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)
    digest: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= _MOST:
            raise ValueError(
                f"num_classes must be in [1, {_MOST}] (what a PNG holds), got {self.num_classes}"
            )
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"class_names must be {self.num_classes} (num_classes) or none, got "
                f"{len(self.class_names)}"
            )
        try:
            settings = json.loads(json.dumps(dict(self.settings), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"settings must be plain values that JSON holds, got {self.settings} ({error}); "
                "give numbers, names and lists of them"
            ) from error
        object.__setattr__(self, "settings", settings)
        object.__setattr__(self, "class_names", tuple(self.class_names))

    def fields(self) -> dict[str, Any]:
        """As plain values, the same after a round through JSON."""
        return {
            "network": self.network,
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "settings": dict(self.settings),
            "digest": self.digest,
        }

    def hash(self) -> str:
        """SHA-256 over all fields: folders of one hash are by one network and its settings."""
        return hashlib.sha256(json.dumps(self.fields(), sort_keys=True).encode()).hexdigest()


def write_manifest(root: Path, manifest: SuperpixelManifest) -> None:
    """Write a folder's manifest, or check that the one there says the same.

    Raises:
        DataError: If the folder is another's: names the differences.
    """
    file = root / MANIFEST
    if file.is_file():
        _require_same(file, read_manifest(root), manifest)
        return
    if root.exists() and (not root.is_dir() or not all(map(_is_leftover, root.iterdir()))):
        raise DataError(f"{root} exists and holds no {MANIFEST}; choose an empty folder")
    content = {"format": _FORMAT, **manifest.fields(), "hash": manifest.hash()}
    with atomic_file(file) as stream:
        stream.write(f"{json.dumps(content, indent=2)}\n".encode())


def read_manifest(root: Path) -> SuperpixelManifest:
    """Read a folder's manifest.

    Raises:
        DataError: If there is none, or a damaged one.
    """
    file = root / MANIFEST
    content = read_json(
        file, missing="no manifest of superpixels; prepare the dataset, or check the folder"
    )
    try:
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']}, not {_FORMAT}")
        manifest = SuperpixelManifest(
            network=str(content["network"]),
            num_classes=int(content["num_classes"]),
            class_names=tuple(map(str, content["class_names"])),
            settings=dict(content["settings"]),
            digest=str(content["digest"]),
        )
        if manifest.hash() != content["hash"]:
            raise ValueError("its hash is not that of its fields")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: manifest is damaged ({error}); bring it back, or remove the folder"
        ) from error
    return manifest


def _is_leftover(path: Path) -> bool:
    """Whether a manifest was being written there when something killed the process."""
    return path.name.startswith(f".{MANIFEST}.")


def _require_same(file: Path, old: SuperpixelManifest, new: SuperpixelManifest) -> None:
    before, after = old.fields(), new.fields()
    before |= {f"settings.{key}": value for key, value in before.pop("settings").items()}
    after |= {f"settings.{key}": value for key, value in after.pop("settings").items()}
    different = [
        f"{key} {_short(before.get(key))} -> {_short(after.get(key))}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]
    if different:
        raise DataError(
            f"{file.parent} holds superpixels made otherwise ({', '.join(different)}); choose "
            "another folder, or those settings, or remove the folder"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
