"""The one error that damaged or misplaced data raises, and what to do about it."""

from typing import Literal

OnError = Literal["raise", "skip"]
"""What damage in one scan does: end the run, or warn and take the next scan."""


class DataError(ValueError):
    """A file or folder is not what its dataset promises; the message says which and what to do."""
