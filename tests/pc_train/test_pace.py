from types import SimpleNamespace

import pytest
from pc_train.pace import Pace
from pc_train.tables import read_table


class _Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def _run(pace, clock, trainer, steps, *, wait, work):
    for step in steps:
        clock.now += wait
        pace.on_train_batch_start(trainer, None, None, 0)
        clock.now += work
        trainer.global_step = step
        pace.on_train_batch_end(trainer, None, None, None, 0)


@pytest.fixture
def trainer():
    logged = []
    logger = SimpleNamespace(log_metrics=lambda row, step: logged.append((step, row)))
    return SimpleNamespace(global_step=0, is_global_zero=True, logger=logger, logged=logged)


def test_seconds_and_waiting_between_rows(tmp_path, trainer):
    clock = _Clock()
    pace = Pace(tmp_path / "pace.csv", clock=clock)
    pace.on_train_start(trainer, None)
    _run(pace, clock, trainer, [1], wait=3.0, work=1.0)
    assert pace.waiting == pytest.approx(0.75)
    _run(pace, clock, trainer, range(2, 26), wait=1.0, work=1.0)
    read = read_table(tmp_path / "pace.csv")
    assert read["step"].tolist() == [1, 10, 20]
    assert read["seconds"].tolist() == pytest.approx([4, 2, 2])
    assert read["waiting"].tolist() == pytest.approx([0.75, 0.5, 0.5])
    assert [step for step, _ in trainer.logged] == [1, 10, 20]
    assert trainer.logged[-1][1]["waiting for data"] == pytest.approx(0.5)


def test_a_resumed_run_goes_on(tmp_path, trainer):
    clock = _Clock()
    first = Pace(tmp_path / "pace.csv", clock=clock)
    first.on_train_start(trainer, None)
    _run(first, clock, trainer, range(1, 31), wait=0.0, work=1.0)
    trainer.global_step = 12
    clock.now += 1000
    again = Pace(tmp_path / "pace.csv", clock=clock)
    again.on_train_start(trainer, None)
    _run(again, clock, trainer, range(13, 21), wait=1.0, work=1.0)
    read = read_table(tmp_path / "pace.csv")
    assert read["step"].tolist() == [1, 10, 20]
    assert read["seconds"].tolist() == pytest.approx([1, 1, 2])


def test_other_processes_write_nothing(tmp_path, trainer):
    clock, trainer.is_global_zero = _Clock(), False
    pace = Pace(tmp_path / "pace.csv", clock=clock)
    pace.on_train_start(trainer, None)
    _run(pace, clock, trainer, range(1, 21), wait=1.0, work=1.0)
    assert not list(tmp_path.iterdir())
