"""The table of all demos, and its place in a README."""

import json
import shutil

import pytest
from pc_data.features import LIDAR_FEATURES
from pc_train.cli import main
from pc_train.demos.evidence import BEGIN, END, evidence_table, write_evidence
from pc_train.networks import new_backbone, save_model


def _demo(path, method, *, linear=(0.1, 0.12, 0.14), data="nuscenes", max_steps=0):
    run = path / "seed0" / "pretrain"
    run.mkdir(parents=True)
    (path / "config.yaml").write_text(f"num_seeds: {len(linear)}\nmax_steps: {max_steps}\n")
    (run / "config.yaml").write_text(
        "data: {root: d}\nepochs: 1\nbatch_size: 2\nstart_from: null\n"
    )
    card = {"method": method, "data": [{"name": data}]}
    save_model(run, new_backbone("inputs", len(LIDAR_FEATURES)), card=card)
    few = {"pretrained": [0.3] * len(linear), "random": [0.35] * len(linear)}
    summary = {
        "linear_probe_miou_by_seed": {"pretrained": list(linear), "random": [0.05] * len(linear)},
        "finetune_1pct_miou_by_seed": few,
        "floor_linear_probe_miou": 0.075,
        "ceiling_all_labels_miou": 0.2166,
    }
    (path / "summary.json").write_text(json.dumps(summary))
    return path


@pytest.fixture
def demos(tmp_path):
    return [
        _demo(tmp_path / "a", "ScaLR"),
        _demo(tmp_path / "b", "MSC", linear=(0.5,), data="scannet"),
    ]


def test_table(demos):
    head, rule, first, second, *note = evidence_table(demos).splitlines()
    assert head == (
        "| method | world | network | seeds | linear probe, all labels: pre-trained | random | "
        "gain | fine-tuning, 1% of the labels: pre-trained | random | gain | floor, ceiling |"
    )
    assert rule.count("|") == head.count("|")
    assert first == (
        "| ScaLR | streets | inputs | 3 | 12.0 ± 2.0 | 5.0 ± 0.0 | +7.0 | 30.0 ± 0.0 | "
        "35.0 ± 0.0 | -5.0 | 7.5, 21.7 |"
    )
    assert second == (
        "| MSC | rooms | inputs | 1 | 50.0 | 5.0 | +45.0 | 30.0 | 35.0 | -5.0 | 7.5, 21.7 |"
    )
    assert note[0] == ""
    assert "standard deviation over the seeds" in note[1]


def test_readme_keeps_all_but_the_table(demos, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    words = ["evidence", *map(str, demos), f"--readme={readme}"]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert table == evidence_table(demos)
    expected = f"before\n\n{BEGIN}\n{table}{END}\n\nafter\n"
    assert readme.read_text() == expected
    assert main(words) == 0
    assert readme.read_text() == expected  # the same demos, the same text


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_readme_without_its_marks_is_left_alone(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match=r"must hold the lines .* once each, in this order"):
        write_evidence(readme, "table\n")
    assert readme.read_text() == text


def test_refusals(demos, tmp_path):
    with pytest.raises(ValueError, match="was cut to 10 steps a run; run it in full"):
        evidence_table([_demo(tmp_path / "cut", "ScaLR", max_steps=10)])
    with pytest.raises(ValueError, match="is a run of pretrain; pass folders of an app's demo"):
        evidence_table([demos[0] / "seed0" / "pretrain"])
    summary = demos[1] / "summary.json"
    summary.write_text(json.dumps({"linear_probe_miou_by_seed": {}}))
    with pytest.raises(ValueError, match="has no finetune_1pct_miou; run it anew"):
        evidence_table(demos)
    summary.unlink()
    with pytest.raises(FileNotFoundError, match="is not finished; let its command end first"):
        evidence_table(demos)
    shutil.rmtree(demos[0] / "seed0" / "pretrain")
    with pytest.raises(FileNotFoundError, match=r"pretrain holds no config\.yaml"):
        evidence_table(demos[:1])
