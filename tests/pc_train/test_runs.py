"""A run folder is resumed by its own command and by no other."""

import subprocess
import sys

import pytest
from pc_train.runs import lock_run, open_run


def test_new_then_resumed(tmp_path):
    out = tmp_path / "run"
    open_run(out, "lr: 0.1\n")
    open_run(out, "lr: 0.1\n")
    assert (out / "config.yaml").read_text() == "lr: 0.1\n"


def test_other_settings_are_refused(tmp_path):
    open_run(tmp_path / "run", "lr: 0.1\ndata: {root: a}\n")
    with pytest.raises(ValueError, match=r"data\.root 'a' -> 'b', lr 0.1 -> 0.2\); pass another"):
        open_run(tmp_path / "run", "lr: 0.2\ndata: {root: b}\n")


def test_speed_settings_may_change(tmp_path):
    open_run(tmp_path / "run", "save_every: 5\nhardware: {num_workers: 2}\n")
    open_run(tmp_path / "run", "save_every: 9\nhardware: {num_workers: 0}\n")


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="is no run of this command; pass another --out"):
        open_run(tmp_path, "lr: 0.1\n")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_devices_may_change_but_not_precision(tmp_path):
    hardware = "hardware: {{accelerator: {}, devices: {}, num_nodes: {}, precision: {}}}\n"
    open_run(tmp_path / "run", hardware.format("cpu", 1, 1, "auto"))
    open_run(tmp_path / "run", hardware.format("auto", 0, 2, "auto"))
    with pytest.raises(ValueError, match=r"\(hardware\.precision 'auto' -> 'bf16-mixed'\)"):
        open_run(tmp_path / "run", hardware.format("cpu", 1, 1, "bf16-mixed"))


def test_one_place_spelled_otherwise_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_run(tmp_path / "run", "data: {root: world}\nmore_data: [{root: ./more}]\n")
    same = f"data: {{root: {tmp_path}/world}}\nmore_data: [{{root: {tmp_path}/more}}]\n"
    open_run(tmp_path / "run", same)
    with pytest.raises(ValueError, match=r"more_data\.0\.root '\./more' -> 'other'\)"):
        open_run(tmp_path / "run", "data: {root: world}\nmore_data: [{root: other}]\n")


def test_many_differences_are_cut(tmp_path):
    open_run(tmp_path / "run", "".join(f"k{i}: 0\n" for i in range(9)))
    with pytest.raises(ValueError, match=r"k4 0 -> 1, 4 more\); pass"):
        open_run(tmp_path / "run", "".join(f"k{i}: 1\n" for i in range(9)))


@pytest.mark.parametrize("content", [b"", b"just words", b"a: [1", b"\xff\xfe\x00", b"- 1"])
def test_damaged_settings(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.yaml is damaged: it does not hold a run's"):
        open_run(tmp_path, "lr: 0.1\n")


def test_a_place_may_be_spelt_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_run(tmp_path / "run", f"more_superpixels: [{tmp_path / 'made'}]\ndata: {{root: made}}\n")
    open_run(tmp_path / "run", f"more_superpixels: [made]\ndata: {{root: {tmp_path / 'made'}}}\n")
    with pytest.raises(ValueError, match=r"more_superpixels\.0 .* -> 'other'"):
        open_run(tmp_path / "run", "more_superpixels: [other]\ndata: {root: made}\n")


def test_changed_input_is_refused(tmp_path):
    weights = tmp_path / "weights"
    weights.write_bytes(b"one")
    open_run(tmp_path / "run", "lr: 0.1\n", inputs={"backbone": weights})
    open_run(tmp_path / "run", "lr: 0.1\n", inputs={"backbone": weights})
    weights.write_bytes(b"two")
    with pytest.raises(ValueError, match=r"weights has changed since the run in .* began from it"):
        open_run(tmp_path / "run", "lr: 0.1\n", inputs={"backbone": weights})


def test_lock_lasts_as_long_as_its_process(tmp_path):
    holder = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / ".lock")],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="another process is at work in"), lock_run(tmp_path):
            pass
        process.kill()
        process.wait()
        with lock_run(tmp_path):
            pass


def test_lock_keeps_others_out(tmp_path):
    taker = "import fcntl, sys; fcntl.lockf(open(sys.argv[1]+'/.lock', 'a'), fcntl.LOCK_EX | 4)"
    with lock_run(tmp_path):
        taken = subprocess.run(
            [sys.executable, "-c", taker, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert "BlockingIOError" in taken.stderr
