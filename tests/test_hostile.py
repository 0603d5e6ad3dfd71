"""Files made to harm: nothing runs, nothing is written, and the one class of error says why."""

from collections import Counter

import pytest

from tests.fuzz import do_cases, run_all
from tests.hostile_cases import CASES

PROMISED = 100


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hostile_files_do_nothing(tmp_path):
    arguments = ("tests.hostile_cases:CASES", str(tmp_path / "files"))
    outcomes = run_all(do_cases, arguments, count=len(CASES), folder=tmp_path)
    kinds = Counter(outcome.kind for outcome in outcomes)
    print(f"{len(outcomes)} hostile files, {kinds['error']} clean errors, 0 canaries touched")
    assert len(outcomes) >= PROMISED
    assert not list(tmp_path.rglob("canary*"))
    assert not [outcome for outcome in outcomes if outcome.kind != "error"]
