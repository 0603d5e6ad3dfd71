"""Images opened so that damage shows as two kinds of errors, and memory is what their size says."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pc_data.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


@contextmanager
def opened_image(
    source: Path | io.BytesIO, *, formats: list[str] | None = None
) -> "Iterator[Image]":
    """Open an image for the block, in which it may be decoded.

    Args:
        source: The file or its content.
        formats: Pillow's names of those that it may have; None for all.

    Raises:
        OSError: If it does not open or decode.
        ValueError: If it does not either, or claims more pixels than Pillow trusts (89 million).
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(source, formats=formats)
        with image:
            yield image
    except (SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(str(error)) from error


def read_image_size(file: Path) -> tuple[int, int]:
    """Read (width, height) in pixels from an image's header.

    Raises:
        DataError: If the file is missing or no image.
    """
    if not file.is_file():
        raise DataError(f"{file}: image file is missing; restore it or drop the scan")
    try:
        with opened_image(file) as image:
            return image.size
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not an image ({error}); fetch the file again") from error
