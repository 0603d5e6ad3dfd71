"""Progress of long work as one line on standard error."""

import sys
import time
from collections.abc import Callable


def progress_line(what: str, *, every: float = 5.0) -> Callable[..., None]:
    """Make a function `(done, total, note="")` that shows progress and the time left.

    Args:
        what: Is going on.
        every: Seconds between lines where standard error is no terminal; there the line is
            rewritten five times a second at most.
    """
    start = last = time.monotonic()
    first: int | None = None

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal last, first
        now, terminal = time.monotonic(), sys.stderr.isatty()
        first = done - 1 if first is None else first  # a resumed run does not begin at 1
        if done < total and now - last < (0.2 if terminal else every):
            return
        last = now
        left = (now - start) / max(done - first, 1) * (total - done)
        when = f"in {now - start:.0f} s" if done >= total else f"{left:.0f} s left"
        line = ", ".join(filter(None, (f"{what}: {done:,} of {total:,}", when, note)))
        end = "\n" if done >= total or not terminal else ""
        sys.stderr.write(f"\r\x1b[K{line}{end}" if terminal else f"{line}{end}")
        sys.stderr.flush()

    return report
