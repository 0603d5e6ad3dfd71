"""JSON files whose damage is an error that names them."""

import json
from pathlib import Path
from typing import Any

from pc_data.errors import DataError


def read_json(file: Path, *, missing: str) -> Any:  # noqa: ANN401
    """Parse a file.

    Args:
        file: The file.
        missing: What to say if there is none.

    Raises:
        DataError: If it is missing or no JSON.
    """
    if not file.is_file():
        raise DataError(f"{file}: {missing}")
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON ({error}); fetch the file again") from error
