"""A study: rows in processes of their own, what they cost, the table, what is refused."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pc_data.datasets import DataConfig
from pc_data.features import LIDAR_FEATURES
from pc_train.configs import FineTuneConfig, ProbeConfig
from pc_train.demos.plan import Demo
from pc_train.demos.study import Study, run_study
from pc_train.demos.study_cost import machine_name, measure_cost, read_steps, recorded_steps
from pc_train.demos.study_report import plot_study, study_rows, study_text
from pc_train.hardware import HardwareConfig
from pc_train.networks import save_model
from pc_train.pretrain_config import PretrainConfig
from pc_train.pretraining import start_backbone

from tests.fork_server import fork_rows
from tests.pc_train.study_work import killed, take_steps, wrong_setting

CPU = HardwareConfig(accelerator="cpu", num_workers=0)
LATER = DataConfig(root=Path())
COMMON = {"backbone": Path(), "data": LATER, "out": Path(), "batch_size": 1, "hardware": CPU}
COMMON |= {"max_points": 300, "voxel_size": 0.5}
MEGA = 1_000_000


def _pretrain(out, data, seed, num_steps, *, held=0):
    """Stand in for pre-training, with so many bytes held; leaves a finished run alone."""
    file = out / "backbone.safetensors"
    if not file.is_file():
        ballast = np.ones(held // 8)
        take_steps(num_steps)
        config = PretrainConfig(data=data, out=out, epochs=1, batch_size=1, seed=seed)
        arguments = {"depth": 3, "channels": 8, "num_neighbors": 4, "grids": ((8, 8),) * 3}
        backbone = start_backbone(config, "waffleiron", LIDAR_FEATURES, **arguments)
        card = {"process": os.getpid(), "held": ballast.nbytes}
        save_model(out, backbone, card=card)
    return file


@pytest.fixture
def study(street_world):
    demo = Demo(
        title="A demo",
        lead="",
        loss="",
        data=LATER,
        make_world=lambda root, _: shutil.copytree(street_world, root),
        pretrain=_pretrain,
        pretraining_steps=7,
        features=LIDAR_FEATURES,
        probing=ProbeConfig(**COMMON, max_steps=5),
        tuning=FineTuneConfig(**COMMON, fraction=0.5, max_steps=5),
        ceiling=FineTuneConfig(**COMMON),
    )
    rows = {"small": _pretrain, "large_one": partial(_pretrain, held=400 * MEGA)}
    return Study(title="A study", lead="This or that", demo=demo, rows=rows, reference="small")


@pytest.mark.slow
def test_whole_study(study, tmp_path, monkeypatch):
    out = tmp_path / "study"
    fork_rows(monkeypatch)
    monkeypatch.setattr("pc_train.downstream.report_segmentation", lambda *_, **__: None)  # slow
    result = run_study(study, out, max_steps=3)
    assert json.loads((out / "study.json").read_text()) == result
    assert list(result["rows"]) == ["random", "small", "large_one"]
    assert (result["pretraining_steps"], result["num_seeds"], result["device"]) == (3, 1, "cpu")
    for row in result["rows"].values():
        for measure in ("linear_probe_miou", "finetune_50pct_miou"):
            assert 0 <= row[measure] <= 1
            assert row[f"{measure}_by_seed"] == [row[measure]]
    small, large = (result["rows"][name] for name in study.rows)
    assert 300 * MEGA < large["peak_bytes"] - small["peak_bytes"] < 500 * MEGA
    assert small["seconds_per_step"] > 0
    assert "peak_bytes" not in result["rows"]["random"]
    assert json.loads((out / "small/seed0/cost.json").read_text())["num_timed"] == 2
    page = (out / "report.html").read_text()
    for part in ("A study", "This or that; 3 steps of pre-training, 1 seed", "large one", "(1.0x)"):
        assert part in page
    assert page.count("data:image/png") == 1

    monkeypatch.setattr("pc_train.downstream.fit", None)
    monkeypatch.setattr("pc_train.demos.study_cost._run_apart", None)
    assert run_study(study, out, max_steps=3) == result  # nothing is done again

    assert result["machines"] == [machine_name("cpu")]
    file = out / "large_one/seed0/cost.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"machines": ["elsewhere"]}))
    assert run_study(study, out, max_steps=3)["machines"] == [machine_name("cpu"), "elsewhere"]


def test_steps_are_timed_from_one_to_the_next(tmp_path):
    file = tmp_path / "steps.csv"
    for _ in range(2):  # a run in two parts
        with recorded_steps(file):
            take_steps(3, 0.02)
    take_steps(5)  # not of the run
    cost = read_steps(file)
    assert cost.num_timed == 4  # the first of each part begins a count
    assert cost.seconds_per_step >= 0.02
    assert cost.peak_bytes > 50 * MEGA


def test_costs_of_a_file(tmp_path):
    file = tmp_path / "steps.csv"
    first = ",900,cpu,a\n0.5,1000,cpu,a\n9.0,3000,cpu,a\n"
    file.write_text(f'{first},100,cpu,"b, 2 cores"\n0.25,2000,cpu,"b, 2 cores"\n0.')
    cost = read_steps(file)
    assert (cost.seconds_per_step, cost.peak_bytes, cost.num_timed) == (0.5, 3000, 3)
    assert cost.machines == ("a", "b, 2 cores")


def test_a_torn_line_is_not_completed_by_the_next(tmp_path):
    file = tmp_path / "steps.csv"
    whole = ",900,cpu,a\n0.5,1000,cpu,a\n"
    for torn in ("9", "9.0,3", "9.0,3000,cpu,a"):
        file.write_text(whole + torn)
        with recorded_steps(file):
            take_steps(2)
        text = file.read_text()
        assert text.startswith(f"{whole},")
        assert len(text.splitlines()) == 4
        assert read_steps(file).num_timed == 2
    file.write_text("0.")
    with recorded_steps(file):
        pass
    assert file.read_text() == ""


def test_machines(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "A GPU")
    machine_name.cache_clear()
    assert machine_name("cuda") == f"{machine_name('cpu')}, A GPU"
    machine_name.cache_clear()
    assert "GPU" not in machine_name("cpu")


def test_cost_file_of_another_form(tmp_path):
    file = tmp_path / "cost.json"
    for text in ("{", "[]", '{"device": "cpu"}', '{"machines": ["a"]}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"cost\.json holds no cost as .* measures again"):
            measure_cost(wrong_setting, tmp_path)


def test_costs_of_no_step(tmp_path):
    file = tmp_path / "steps.csv"
    for text in ("", ",900,cpu,a\n"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"steps.csv holds the time of no step; remove"):
            read_steps(file)


def test_errors_of_the_process(tmp_path):
    with pytest.raises(ValueError, match="lr must be positive, got -1"):
        measure_cost(wrong_setting, tmp_path)
    with pytest.raises(ChildProcessError, match=r"was killed by signal 9; .* the same command"):
        measure_cost(killed, tmp_path)
    assert not (tmp_path / "cost.json").exists()


@pytest.mark.slow
def test_end_is_passed_on(tmp_path):
    """A signal to the command alone: the pre-training saves its step before both leave."""
    started, saved = tmp_path / "started", tmp_path / "saved"
    code = (
        "from functools import partial; from pathlib import Path\n"
        "from pc_train.demos import study_cost\n"
        "from tests.pc_train.study_work import leave_on_request\n"
        "study_cost._GRACE = 0.1\n"
        f"names = [Path({str(started)!r}), Path({str(saved)!r})]\n"
        "if __name__ == '__main__':\n"
        "    work = partial(leave_on_request, *names)\n"
        f"    study_cost.measure_cost(work, Path({str(tmp_path)!r}))\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], cwd=root) as process:
        until = time.monotonic() + 60
        while not started.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert saved.exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_seeds": 0}, "num_seeds must be at least 1, got 0"),
        ({"max_steps": -1}, "max_steps must be 0 or more, got -1"),
        ({"max_steps": 1}, "max_steps must be 0 or at least 2, got 1"),
    ],
)
def test_limits(study, tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match):
        run_study(study, tmp_path / "study", **arguments)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"rows": {}}, "rows must hold at least one way to pre-train, got none"),
        ({"rows": {"random": _pretrain}}, "not random or world, got 'random'; rename it"),
        ({"rows": {"a/b": _pretrain}}, "letters, digits, - and _, .* got 'a/b'"),
        ({"reference": "smal"}, r"one of the rows small, large_one, got 'smal'; did you mean sma"),
    ],
)
def test_rows(study, changes, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(study, **changes)


def test_folder_of_a_demo(study, tmp_path):
    (tmp_path / "config.yaml").write_text("num_seeds: 1\nmax_steps: 2\n")
    with pytest.raises(ValueError, match=r"other settings \(study None -> 'A study'\)"):
        run_study(study, tmp_path, max_steps=2)


def _result():
    """Two seeds, made up."""

    def row(probe, tune, seconds=(), peak=()):
        values = {"linear_probe_miou": probe, "finetune_1pct_miou": tune}
        values |= {"seconds_per_step": seconds, "peak_bytes": peak} if seconds else {}
        made = {}
        for name, by_seed in values.items():
            made |= {name: sum(by_seed) / 2, f"{name}_by_seed": list(by_seed)}
        return made

    return {
        "reference": "cross",
        "pretraining_steps": 1200,
        "num_seeds": 2,
        "device": "cuda",
        "machines": ["a machine"],
        "rows": {
            "random": row((0.2, 0.22), (0.1, 0.1)),
            "single_units": row((0.2, 0.2), (0.1, 0.1), (0.3, 0.5), (3e9, 3e9)),
            "cross": row((0.3, 0.4), (0.15, 0.17), (0.5, 0.5), (1.5e9, 2.5e9)),
        },
    }


def test_table():
    result = _result()
    assert study_rows(result) == [
        ["random weights", "21.0", "10.0", "-", "-"],
        ["single units", "20.0 (-1.0)", "10.0 (+0.0)", "0.400 (0.8x)", "3.00 (1.5x)"],
        ["cross", "35.0 (+14.0)", "16.0 (+6.0)", "0.500 (1.0x)", "2.00 (1.0x)"],
    ]
    lines = study_text(result, Path("out")).splitlines()
    assert lines[1].split("  ")[0] == "pre-training"
    assert "fine-tuning, 1% of the labels" in lines[1]
    assert len({len(line) for line in lines[1:5]}) == 1
    assert lines[5] == "1,200 steps of pre-training, mean over 2 seeds, a machine."
    assert "multiples of those of cross" in lines[6]
    assert lines[7].endswith("Memory: the most that tensors held on the GPU at once.")
    assert lines[8] == "report: out/report.html; numbers: out/study.json"


def test_rows_of_different_machines():
    result = _result() | {"machines": ["a machine", "another"]}
    text = study_text(result, Path("out"))
    assert "different machines, so that times do not compare (a machine; another)." in text


def test_picture():
    result = _result()
    panels = plot_study(result).axes
    assert [len(axes.patches) for axes in panels] == [3] * 4
    widths = [bar.get_width() for bar in panels[0].patches]
    np.testing.assert_allclose(widths, [21, 20, 35])
    np.testing.assert_allclose([bar.get_width() for bar in panels[3].patches], [0, 3, 2])
    dots = [line.get_xdata().tolist() for line in panels[2].lines]
    assert dots == [[0.3, 0.5], [0.5, 0.5]]
