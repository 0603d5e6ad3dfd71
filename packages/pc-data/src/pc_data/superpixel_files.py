"""Superpixels of a dataset's images as a folder of PNGs that says what made them.

A PNG holds one number for each pixel of its image: 0 = none, else superpixel + 1, in 8 bits where
that is enough and in 16 otherwise. Beside them, `manifest.json` binds the folder to one network,
its weights and its settings; a text in each PNG binds it to its image, so that superpixels of
pictures that have since been replaced are noticed.
"""

import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Integer
from pc_geometry.atomic import atomic_file

from pc_data.errors import DataError
from pc_data.files.image_files import opened_image
from pc_data.readers.nuscenes_rows import is_inside, iter_rows
from pc_data.scan import Camera, Scan
from pc_data.superpixel_manifest import SuperpixelManifest, read_manifest, write_manifest

CSC_NETWORK = "csc_dinov2_ade20k"
_CSC_CLASSES = 150
_START = b"\x89PNG\r\n\x1a\n"
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_TEXT = "image"  # keyword of the text
_TAIL = 4096

NameImage = Callable[[Scan, Camera], str]
"""File of an image's superpixels within their folder, without its suffix."""


def name_by_scan(scan: Scan, camera: Camera) -> str:
    """Name an image by its scan and its camera, which is unique in every dataset."""
    return f"{scan.name}/{camera.name}"


@dataclass(frozen=True, kw_only=True)
class SuperpixelFiles:
    """A folder of superpixels; `create_superpixels` and `open_superpixels` make one.

    Attributes:
        root: The folder.
        manifest: What made them.
        name_image: How the images' files are named.
    """

    root: Path
    manifest: SuperpixelManifest
    name_image: NameImage = name_by_scan

    def file(self, scan: Scan, camera: Camera) -> Path:
        """Where the superpixels of an image are.

        Raises:
            DataError: If the image's name leads out of the folder.
        """
        name = self.name_image(scan, camera)
        if not is_inside(name):
            raise DataError(f"image name {name!r} leads out of {self.root}; rename the scan")
        return self.root / f"{name}.png"

    def is_made(self, scan: Scan, camera: Camera) -> bool:
        """Whether an image's superpixels are there, whole, of the image's size and of that image.

        Looks at the ends of both files only, so that going on after a stop is quick.
        """
        try:
            image = image_mark(camera)
            with self.file(scan, camera).open("rb") as file:
                head = file.read(256)
                file.seek(-len(_END), 2)
                tail = file.read()
        except OSError:
            return False
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        whole = head[:8] == _START and tail == _END
        text = f"tEXt{_TEXT}\0".encode()
        mine = text not in head or text + image.encode() in head
        return whole and mine and (width, height) == tuple(camera.image_size)

    def write(self, scan: Scan, camera: Camera, superpixels: Integer[np.ndarray, "h w"]) -> Path:
        """Write the superpixels of an image: the file is whole or not there.

        Args:
            scan: That the image belongs to.
            camera: That took it.
            superpixels: Of each pixel, -1 = none.

        Returns:
            The file.

        Raises:
            ValueError: If they are of another size than the image, or outside the manifest's range.
            DataError: If the image is missing.
        """
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        width, height = camera.image_size
        if superpixels.shape != (height, width):
            raise ValueError(
                f"superpixels of {camera.image_file} must be [{height}, {width}] (the image's "
                f"size), got {list(superpixels.shape)}"
            )
        superpixels = superpixels.astype(np.int64)  # a byte's 255 + 1 would be 0
        low, high = int(superpixels.min(initial=0)), int(superpixels.max(initial=-1))
        if low < -1 or high >= self.manifest.num_classes:
            raise ValueError(
                f"superpixels of {camera.image_file} must be in [-1, {self.manifest.num_classes}) "
                f"(num_classes), got {low} to {high}"
            )
        stored = np.uint8 if self.manifest.num_classes <= 255 else np.uint16
        file = self.file(scan, camera)
        text = PngInfo()
        text.add_text(_TEXT, _need_mark(camera))
        picture = Image.fromarray((superpixels + 1).astype(stored))
        with atomic_file(file) as stream:
            picture.save(stream, format="PNG", pnginfo=text)
        return file

    def read(self, scan: Scan, camera: Camera) -> Int32[np.ndarray, "h w"]:
        """Read the superpixels of an image, -1 = none.

        Raises:
            DataError: If the file is missing, damaged, of another size than the image, of another
                image, or holds a number outside the manifest's range.
        """
        file = self.file(scan, camera)
        if not file.is_file():
            raise DataError(
                f"{file}: superpixels of {camera.image_file} are missing; prepare the dataset again"
            )
        content = file.read_bytes()
        try:
            if not content.endswith(_END):
                raise ValueError("it was cut off")
            with opened_image(io.BytesIO(content), formats=["PNG"]) as image:
                mode, stored = image.mode, np.asarray(image)
                text = image.info.get(_TEXT)
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: superpixels do not decode ({error}); remove it") from error
        if stored.ndim != 2 or mode == "P" or not np.issubdtype(stored.dtype, np.integer):
            raise DataError(f"{file}: is a picture of mode {mode}, not one number for each pixel")
        width, height = camera.image_size
        if stored.shape != (height, width):
            raise DataError(
                f"{file}: superpixels are {stored.shape[1]}x{stored.shape[0]} pixels but the image "
                f"is {width}x{height}; prepare them from this dataset"
            )
        if text is not None and text != _need_mark(camera):  # CSC's own have none
            raise DataError(
                f"{file}: superpixels are of another {camera.image_file} than is there now; remove "
                "it and prepare the dataset again, or bring the image back"
            )
        superpixels = stored.astype(np.int32) - 1
        if superpixels.max(initial=-1) >= self.manifest.num_classes:
            raise DataError(
                f"{file}: holds superpixel {superpixels.max()}, but {self.manifest.network} has "
                f"only {self.manifest.num_classes}; prepare the dataset again"
            )
        return superpixels


def image_mark(camera: Camera) -> str:
    """What tells an image file from another of its name: its length and a sum over its last bytes.

    Of an image in a table it is the table's. The last bytes of a PNG include checksums of its
    pixels; those of a JPEG are its lowest rows, whose place depends on all others. Copies of a
    file have its mark.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    with camera.image_file.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - _TAIL, 0))
        return f"{size} bytes, crc32 {zlib.crc32(file.read()):08x}"


def _need_mark(camera: Camera) -> str:
    try:
        return image_mark(camera)
    except OSError as error:
        raise DataError(
            f"{camera.image_file}: image does not open ({error.strerror}); restore it or drop the "
            "scan"
        ) from error


def create_superpixels(
    root: str | Path, manifest: SuperpixelManifest, *, name_image: NameImage = name_by_scan
) -> SuperpixelFiles:
    """Make a folder for superpixels, or go on with one that the same network and settings began.

    Raises:
        DataError: If the folder is another's: names the differences.
    """
    root = Path(root)
    write_manifest(root, manifest)
    return SuperpixelFiles(root=root, manifest=manifest, name_image=name_image)


def open_superpixels(root: str | Path, *, name_image: NameImage = name_by_scan) -> SuperpixelFiles:
    """Open a folder of superpixels to read them.

    Raises:
        DataError: If it has no manifest, or a damaged one.
    """
    root = Path(root)
    return SuperpixelFiles(root=root, manifest=read_manifest(root), name_image=name_image)


def open_csc_superpixels(root: str | Path, tokens: Mapping[str, str]) -> SuperpixelFiles:
    """Open the folder that CSC's authors share: `<camera token>.png` for each nuScenes image.

    Args:
        root: E.g. `superpixels/nuscenes/superpixels_dinov2_ade20k`.
        tokens: Token of each image's row in `sample_data.json`, by the image's file name without
            its folder; `read_camera_tokens` reads them.

    Raises:
        DataError: If there is no PNG in the folder.

    Source: CSC (Chen et al., CVPR 2024), its released code: 8 bits, 0 = none, else ADE20K's class
        + 1.
    """
    root = Path(root)
    if not (root.is_dir() and any(path.suffix == ".png" for path in root.iterdir())):
        raise DataError(f"{root} holds no <camera token>.png; unpack CSC's superpixels there")

    manifest = SuperpixelManifest(
        network=CSC_NETWORK,
        num_classes=_CSC_CLASSES,
        class_names=tuple(f"ADE20K class {index}" for index in range(_CSC_CLASSES)),
    )
    return SuperpixelFiles(root=root, manifest=manifest, name_image=partial(_name_by_token, tokens))


def _name_by_token(tokens: Mapping[str, str], scan: Scan, camera: Camera) -> str:
    token = tokens.get(camera.image_file.name)
    if token is None:
        raise DataError(
            f"{camera.image_file} of scan {scan.name} has no row in sample_data.json; use the "
            "tables of this dataset"
        )
    return token


def read_camera_tokens(folder: str | Path) -> dict[str, str]:
    """Read the token of each keyframe's camera image from nuScenes' tables.

    Args:
        folder: Of the tables, e.g. `nuscenes/v1.0-trainval`.

    Returns:
        Token by the image's file name without its folder.

    Raises:
        DataError: If the table is missing or damaged.
    """
    rows = iter_rows(Path(folder) / "sample_data.json", ("token", "filename", "is_key_frame"))
    return {
        Path(row["filename"]).name: row["token"]
        for row in rows
        if row["is_key_frame"] and row["filename"].endswith((".jpg", ".png"))
    }
