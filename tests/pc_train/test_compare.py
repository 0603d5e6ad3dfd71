"""Runs side by side, on folders with planted differences."""

import json
import re

import pytest
from pc_data.features import LIDAR_FEATURES
from pc_train.cli import main
from pc_train.networks import new_backbone, save_model
from pc_train.reports.compare import class_rows, compare_runs, setting_rows
from pc_train.reports.page import Report
from pc_train.run_folders import read_run

NAN = float("nan")
IOU = {"car": 0.5, "road": 0.9, "traffic_cone": 0.1, "absent": NAN}


def _curve(steps, slope):
    rows = [f"{k},{5 - slope * k},0.1,{k}" for k in range(1, steps + 1)]
    return "\n".join(["step,loss,lr,spread", *rows, ""])


def _probe(path, *, lr=0.1, iou=IOU, steps=5, seed=0):
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(
        f"backbone: b\nout: {path}\nval_split: val\nhead: linear\nlr: {lr}\nseed: {seed}\n"
        "grids:\n- [32, 8]\n- [4, 2]\nscenes: null\n"
    )
    (path / "metrics.csv").write_text(_curve(steps, 0.1))
    if iou is not None:
        known = [value for value in iou.values() if value == value]
        scores = {"miou": sum(known) / len(known), "iou": iou, "num_scans": 2}
        (path / "scores.json").write_text(json.dumps(scores))
    return path


def _pretraining(path, *, method="", extra="", steps=40):
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(
        f"data: {{root: d}}\nepochs: 1\nbatch_size: 2\nstart_from: null\n{extra}"
    )
    (path / "metrics.csv").write_text(_curve(steps, 0.01))
    if method:
        network = new_backbone("inputs", len(LIDAR_FEATURES))
        save_model(path, network, card={"method": method})
    return path


def _demo(path, *, gain):
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("num_seeds: 1\nmax_steps: 0\n")
    by_seed = {"pretrained": [0.2 + gain], "random": [0.2]}
    summary = {
        "linear_probe_miou": {key: value[0] for key, value in by_seed.items()},
        "linear_probe_miou_by_seed": by_seed,
        "floor_linear_probe_miou": 0.1,
        "ceiling_all_labels_miou": 0.6,
    }
    (path / "summary.json").write_text(json.dumps(summary))
    return path


def _cells(page):
    return [
        re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row)
        for row in re.findall(r"<tr>(.*?)</tr>", page.read_text())
    ]


def test_only_settings_that_differ_are_listed(tmp_path):
    runs = {
        name: read_run(_probe(tmp_path / name, lr=lr, seed=seed))
        for name, lr, seed in (("a", 0.1, 0), ("b", 0.2, 0), ("c", 0.1, 3))
    }
    assert setting_rows(runs) == [["lr", "0.1", "0.2", "0.1"], ["seed", "0", "0", "3"]]
    text = (tmp_path / "c" / "config.yaml").read_text()
    (tmp_path / "c" / "config.yaml").write_text(text.replace("[4, 2]", "[4, 3]") + "more: 1\n")
    runs["c"] = read_run(tmp_path / "c")
    rows = {row[0]: row[1:] for row in setting_rows(runs)}
    assert rows["grids"] == ["32, 8, 4, 2", "32, 8, 4, 2", "32, 8, 4, 3"]
    assert rows["more"] == ["", "", "1"]


def test_classes_that_differ_most_come_first():
    other = {"car": 0.4, "road": 0.9, "traffic_cone": 0.6, "bus": 1.0, "absent": NAN}
    assert class_rows({"a": IOU, "b": other}) == [
        ["traffic cone", "10.0", "60.0"],
        ["car", "50.0", "40.0"],
        ["road", "90.0", "90.0"],
        ["absent", "-", "-"],
    ]


def test_scores_and_curves(tmp_path, capsys):
    better = {name: value + 0.05 for name, value in IOU.items()}
    runs = [_probe(tmp_path / "a"), _probe(tmp_path / "b", lr=0.2, iou=better)]
    runs.append(_probe(tmp_path / "c", iou=None, steps=3))
    for run in runs[:2]:
        report = Report("", "")
        report.heading("Pictured")
        report._parts.append('<img alt="" src="data:image/png;base64,QUJD">')
        report.write(run / "report.html")
    out = tmp_path / "pages" / "compare.html"
    assert main(["compare", *map(str, runs), f"--out={out}"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "a  probe  finished  mIoU 50.0%",
        "b  probe  finished  mIoU 55.0%",
        "c  probe  unfinished, step 3  -",
        f"page: {out}",
    ]
    cells = _cells(out)
    assert ["b", "probe", "55.0", "+5.0"] in cells
    assert ["lr", "0.1", "0.2", "0.1"] in cells
    page = out.read_text()
    assert "raw and smoothed: a, b, c." in page
    assert page.count('base64,QUJD"') == 2
    assert page.count("data:image/png") == 5  # bars, losses, what was watched, two pictures
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", page)


def test_kinds_are_kept_apart(tmp_path):
    runs = [
        _pretraining(tmp_path / "x", method="One"),
        _pretraining(tmp_path / "y"),  # not finished: the same settings tell its method
        _pretraining(tmp_path / "z", method="Two", extra="temperature: 0.1\n"),
        _probe(tmp_path / "a"),
        _demo(tmp_path / "m", gain=0.1),
        _demo(tmp_path / "n", gain=-0.05),
    ]
    overview = compare_runs(runs, tmp_path / "compare.html")
    assert [row[2] for row in overview] == [
        *("finished", "unfinished, step 40", "finished"),
        *["finished"] * 3,
    ]
    assert overview[0][3] == "One loss 4.605 over the last 2 steps"
    assert overview[4][3] == "linear probe, all labels: 30.0 (+10.0)"
    page = (tmp_path / "compare.html").read_text()
    for heading in ("Pre-training", "Probing, fine-tuning, evaluation", "Demos"):
        assert f"<h2>{heading}</h2>" in page
    assert "Loss of pretrain One, raw and smoothed: x, y." in page
    assert "Loss of pretrain Two, raw and smoothed: z." in page
    assert ["n", "linear probe, all labels", "15.0", "20.0", "-5.0"] in _cells(
        tmp_path / "compare.html"
    )


def test_studies_share_a_table(tmp_path):
    row = {"linear_probe_miou": 0.2, "linear_probe_miou_by_seed": [0.2]}
    for name, gain in (("s", 0.1), ("t", 0.2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("num_seeds: 1\nmax_steps: 0\nstudy: A\n")
        cost = {"seconds_per_step": 0.5, "peak_bytes": 1e9}
        rows = {"random": row, "one_way": {**row, "linear_probe_miou": 0.2 + gain, **cost}}
        result = {"reference": "one_way", "num_seeds": 1, "rows": rows}
        (tmp_path / name / "study.json").write_text(json.dumps(result))
    compare_runs([tmp_path / "s", tmp_path / "t"], tmp_path / "compare.html")
    assert ["t", "one way", "40.0 (+20.0)", "0.500 (1.0x)", "1.00 (1.0x)"] in _cells(
        tmp_path / "compare.html"
    )


def test_refusals(tmp_path, capsys):
    one = _probe(tmp_path / "a")
    page = tmp_path / "c.html"
    with pytest.raises(ValueError, match="needs at least 2 runs, got 1"):
        compare_runs([one], page)
    with pytest.raises(ValueError, match="named twice"):
        compare_runs([one, tmp_path / "b" / ".." / "a"], page)
    with pytest.raises(ValueError, match=r"is a folder; .* such as .*compare.html"):
        compare_runs([one, tmp_path / "b"], tmp_path)
    assert main(["compare", str(one), str(tmp_path / "nothing"), f"--out={page}"]) == 2
    assert "holds no config.yaml" in capsys.readouterr().err
    assert main(["compare"]) == 2
    assert "missing: runs" in capsys.readouterr().err
    assert not page.exists()
