"""What a run tells its user besides progress, said once by a job of several processes."""

import os
import sys

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # in the order in which Lightning asks


def is_first_process() -> bool:
    """Whether this process speaks for the job, however the job was started."""
    ranks = (os.environ.get(name) for name in _RANKS)
    return int(next(filter(None, ranks), "0")) == 0


def notice(text: str) -> None:
    """Write one line to standard error, in place of an unfinished progress line."""
    if is_first_process():
        sys.stderr.write(f"\r\x1b[K{text}\n" if sys.stderr.isatty() else f"{text}\n")
        sys.stderr.flush()
