"""What an image file says of itself before it is decoded."""

from pathlib import Path

from pc_data.errors import DataError


def read_image_size(file: Path) -> tuple[int, int]:
    """Read (width, height) in pixels from an image's header.

    Raises:
        DataError: If the file is missing or no image.
    """
    from PIL import Image

    if not file.is_file():
        raise DataError(f"{file}: image file is missing; restore it or drop the scan")
    try:
        with Image.open(file) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: not an image ({error}); fetch the file again") from error
