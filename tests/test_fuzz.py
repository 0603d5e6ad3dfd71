"""Hundreds of damaged files for every reader: a value, or one class of error that names the path.

Run by hand with more mutations: `FUZZ=3000 pytest -m slow tests/test_fuzz.py -s`.
"""

import os

import pytest

from tests.fuzz import damage_files, line_of, run_all
from tests.fuzz_readers import DATASETS, PARSERS

NUM = int(os.environ.get("FUZZ", "300"))


def _fuzz(names, count, folder):
    """Fuzz some readers in one child; prints a line for each."""
    arguments = ("tests.fuzz_readers:READERS", names, str(folder / "files"), count)
    outcomes = run_all(damage_files, arguments, count=count * len(names), folder=folder)
    others = []
    for place, name in enumerate(names):
        own = outcomes[place * count : (place + 1) * count]
        print(line_of(name, own))
        assert any(outcome.kind == "error" for outcome in own), name
        others += [(name, index, *each) for index, each in enumerate(own) if each.kind == "other"]
    assert not others, "\n".join(f"{each!r:.600}" for each in others[:20])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_parsers_survive(tmp_path):
    _fuzz(list(PARSERS), NUM, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_datasets_survive(name, tmp_path):
    _fuzz([name], NUM, tmp_path)
