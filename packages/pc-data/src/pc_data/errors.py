"""The errors that users meet, the exit code of each, and what damaged data shall do."""

import errno
import re
import sys
from typing import Literal

OnError = Literal["raise", "skip"]
"""What damage in one scan does: end the run, or warn and take the next scan."""

_OUT_OF_RESOURCES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
)


_LONGEST = 900  # characters of a message; what damaged files hold may be quoted in it


class DataError(ValueError):
    """A file or folder is not what its dataset promises; the message says which and what to do.

    The message is one line that a terminal can show: the middle of a long one is left out, and
    what is no printable character is written as Python writes it.
    """

    exit_code = 3

    def __init__(self, message: str = "") -> None:
        """Make the message readable."""
        told_anew = "Original Traceback" in message  # by torch, of a loader's process
        super().__init__(message if told_anew else printable(message))


class MissingExtraError(ImportError):
    """A file needs a package that only an extra of this one installs; the message names it."""

    exit_code = 4


class MachineError(ValueError):
    """This machine lacks what was asked for, as a GPU; the message says what to pass instead."""

    exit_code = 4


class DivergedError(ValueError):
    """A loss, a gradient or a weight is no number any more; the message names the scans."""

    exit_code = 5


class ResourceError(OSError):
    """Memory, disk or processes ran out; the message says what to lower."""

    exit_code = 6


def exit_code(error: BaseException) -> int | None:
    """The exit code of an error that one sentence explains; None if it is a fault of the program.

    2: usage or settings, a file that is not there. 3: data. 4: the machine, or a package that is
    not installed. 5: training diverged. 6: memory, disk or processes ran out.
    """
    if _is_out_of_memory(error):
        return 6
    if isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES:
        return 6
    if isinstance(error, ImportError):
        return 4
    if isinstance(error, (ValueError, OSError)):
        return getattr(error, "exit_code", 2)
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    """Of the machine or of a GPU; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return isinstance(error, (MemoryError, *([torch.OutOfMemoryError] if torch else [])))


def printable(message: str) -> str:
    """A text that quotes a damaged file, as one line of bounded length without control codes."""
    message = re.sub(r"\s*[\n\r\t\v\f]\s*", " ", message)
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST - 300]} ... {message[-290:]}"
    if message.isprintable():
        return message
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)


def one_line(error: object) -> str:
    """What an error says, in one line."""
    if isinstance(error, BaseException) and _is_out_of_memory(error):
        where = "this machine" if isinstance(error, MemoryError) else "the GPU"
        return f"{where} is out of memory; lower the scans or the points that it takes at a time"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    text = str(error).strip()
    if "Original Traceback" in text:  # raised in a loader's process; the last line is the message
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split()) or type(error).__name__
