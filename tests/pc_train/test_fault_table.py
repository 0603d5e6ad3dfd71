"""The README says how often each fault is injected: as often as the tests do."""

import re
from pathlib import Path

from tests.fuzz_readers import DATASETS, PARSERS
from tests.hostile_cases import CASES
from tests.pc_data.test_bad_samples import WORKERS
from tests.pc_train.test_checkpoints import DAMAGES
from tests.pc_train.test_disk import FAULTS
from tests.pc_train.test_faults import KILLS, MESSAGES, STOPS
from tests.pc_train.test_finite import DEATHS, KINDS, PRECISIONS
from tests.pc_train.test_interruption import SIGNALS
from tests.pc_train.test_processes import ENDS
from tests.test_fuzz import NUM
from tests.test_kills import APPS, FEWEST_CALLS
from tests.test_kills import KILLS as KILLS_OF_APP

README = Path(__file__).parents[2] / "packages/pc-train/README.md"
SCALED = 1  # a kind that the scaler leaves out by itself
COUNTS = {
    "SIGKILL at a random moment, five apps, at least": len(APPS) * KILLS_OF_APP,
    "SIGKILL at each call of a save, two file systems, at least": 2 * FEWEST_CALLS,
    # Besides ends, skips and deaths: too many in a row, also over a restart, the exit code, and two
    # processes that skip.
    "a loss or gradient that is not finite": len(KINDS) * (1 + len(PRECISIONS))
    - SCALED
    + len(DEATHS)
    + 4,
    "a gradient that overflows under 16-bit scaling": SCALED + 2,
    "a damaged scan": 2 * len(WORKERS) + 1,
    "no space, quota, read-only or I/O error at each call of a save": len(FAULTS),
    "saves that fail; a disk of 1 MB that is full": 6,
    "a checkpoint cut, emptied, with a flipped bit, or of another run": len(DAMAGES) + 3,
    f"a file of any kind that is read, damaged at random: {len(PARSERS)} kinds of files and "
    f"{len(DATASETS)} datasets, {NUM} times each": (len(PARSERS) + len(DATASETS)) * NUM,
    "a pickle, YAML, archive or path made to harm": len(CASES),
    "a loader process killed, or without memory, shared memory or file handles": len(KILLS)
    + len(MESSAGES),
    "a GPU out of memory (raised by a test)": 1,
    "SIGINT, SIGTERM, SIGUSR1": len(STOPS) + len(SIGNALS),
    "one of two processes fails or is killed": len(ENDS),
}


def test_table():
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| ", README.read_text(encoding="utf-8"), re.MULTILINE)
    said = {name: int(count) for name, count in rows if name in COUNTS}
    assert said == COUNTS
