"""The page of a run that goes on."""

import re
from types import SimpleNamespace

import pytest
from pc_train.reports.live import LIVE_PAGE, LivePage, draw_progress
from pc_train.runs import write_text
from pc_train.tables import StepTable


@pytest.fixture
def out(tmp_path):
    write_text(tmp_path / "config.yaml", "lr: 0.5\n")
    rows = "".join(f"{k},{1 / k!r},0.1,{k / 30 if k % 10 == 0 else ''}\n" for k in range(1, 31))
    write_text(tmp_path / "metrics.csv", f"step,loss,lr,feature spread\n{rows}")
    pace = StepTable(tmp_path / "pace.csv", ("seconds", "waiting"))
    pace.begin(0)
    pace.append(30, (0.25, 0.4))
    return tmp_path


def test_page_shows_what_the_files_hold(out):
    draw_progress(out, title="pre-training", num_steps=600)
    page = (out / LIVE_PAGE).read_text()
    assert "step 30 of 600" in page
    assert page.count("data:image/png;base64,") == 2
    assert "0.25 s a step, 40% of it waiting for data" in page
    assert "lr: 0.5" in page
    assert re.search(r'<meta http-equiv="refresh" content="\d+">', page)


def test_page_of_a_run_without_a_step(tmp_path):
    draw_progress(tmp_path, title="pre-training", num_steps=600)
    assert "step 0 of 600" in (tmp_path / LIVE_PAGE).read_text()


class _Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("cost", [0.5, 4.0])
def test_drawing_takes_a_hundredth_of_the_time(out, monkeypatch, cost):
    clock, drawn = _Clock(), []

    def draw(*_, **__):
        drawn.append(clock.now)
        clock.now += cost

    monkeypatch.setattr("pc_train.reports.live.draw_progress", draw)
    page = LivePage(out, "run", clock=clock)
    trainer = SimpleNamespace(is_global_zero=True, max_steps=10)
    page.on_train_start(trainer, None)
    while clock.now < 5000:
        clock.now += 1.0
        page.on_train_batch_end(trainer, None, None, None, 0)
    assert drawn[0] == pytest.approx(20, abs=1)
    assert 0.008 < cost * (len(drawn) - 1) / (drawn[-1] - drawn[0]) < 0.01


def test_a_full_disk_stops_no_run_and_the_end_removes_the_page(out, monkeypatch):
    clock = _Clock()
    page = LivePage(out, "run", clock=clock)
    trainer = SimpleNamespace(is_global_zero=True, max_steps=30)
    page.on_train_start(trainer, None)
    clock.now = 21.0

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pc_train.reports.page.write_text", full)
    page.on_train_batch_end(trainer, None, None, None, 0)
    monkeypatch.undo()
    clock.now = 1e6
    page.on_train_batch_end(trainer, None, None, None, 0)
    assert (out / LIVE_PAGE).is_file()
    page.on_train_end(trainer, None)
    assert not (out / LIVE_PAGE).exists()


def test_other_processes_draw_nothing(out):
    clock = _Clock()
    page = LivePage(out, "run", clock=clock)
    trainer = SimpleNamespace(is_global_zero=False, max_steps=30)
    page.on_train_start(trainer, None)
    clock.now = 1e6
    page.on_train_batch_end(trainer, None, None, None, 0)
    assert not (out / LIVE_PAGE).exists()
