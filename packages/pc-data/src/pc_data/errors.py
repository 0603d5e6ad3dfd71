"""The errors of this package, and what damaged data shall do."""

from typing import Literal

OnError = Literal["raise", "skip"]
"""What damage in one scan does: end the run, or warn and take the next scan."""


class DataError(ValueError):
    """A file or folder is not what its dataset promises; the message says which and what to do."""


class MissingExtraError(ImportError):
    """A file needs a package that only an extra of this one installs; the message names it."""
