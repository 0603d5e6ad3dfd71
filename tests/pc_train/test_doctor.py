"""One page about this machine: each fault is named with what to do."""

import resource
import shutil
from importlib import metadata
from types import SimpleNamespace

import pc_backbones
import pytest
import torch
from pc_data.datasets import DataConfig
from pc_train import doctor
from pc_train.cli import main


def test_page(street_world, tmp_path, capsys):
    line = ["doctor", f"--data.root={street_world}", f"--out={tmp_path / 'runs/new'}"]
    assert main(line) == 0
    *lines, summary = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30
    assert {text[:4].strip() for text in lines} <= {"ok", "warn"}
    assert summary == f"{sum(text.startswith('ok') for text in lines)} ok, " + (
        f"{sum(text.startswith('warn') for text in lines)} warn, 0 fail"
    )
    page = "\n".join(lines)
    for part in ("python", f"torch        {torch.__version__}", "ok    spconv cpu", "open files"):
        assert part in page
    assert f"GiB free in {tmp_path}, for runs" in page
    assert f"{street_world}: 2 scans of nuscenes, split train; the first has " in page
    assert not (tmp_path / "runs").exists()


def _only(findings, name):
    (found,) = [finding for finding in findings if finding.name == name]
    return found


def test_a_broken_convolution(monkeypatch):
    def fail(*_):
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(pc_backbones, "create_backbone", fail)
    found = doctor._spconv("cpu")
    assert found.level == "fail"
    assert "fails (libcuda.so.1: cannot open" in found.text
    assert "reinstall spconv-cu120 (Python 3.11)" in found.text
    assert doctor._spconv("cuda").level == "warn"


def test_missing_packages(monkeypatch):
    version = metadata.version

    def missing(name):
        if name in ("timm", "laspy"):
            raise metadata.PackageNotFoundError(name)
        return "9" if name == "pc-data" else version(name)

    monkeypatch.setattr(metadata, "version", missing)
    found = list(doctor._python())
    assert str(_only(found, "packages")) == "fail  packages     no timm: pip install timm"
    assert _only(found, "ours").level == "warn"
    assert "install one version of all" in _only(found, "ours").text
    extra = doctor._extra("laspy", "las files", "pip install it")
    assert (extra.level, extra.text) == ("warn", "no laspy, for las files: pip install it")


@pytest.mark.parametrize(
    ("free", "level", "text"),
    [
        (64 * 2**20, "warn", "0.1 GiB free, for loader processes; give a container more"),
        (2**33, "ok", "8.0 GiB free, for loader processes"),
    ],
)
def test_shared_memory(monkeypatch, free, level, text):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    found = _only(doctor._machine(), "/dev/shm")
    assert found.level == level
    assert found.text.startswith(text)


def test_limit_of_open_files(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    found = _only(doctor._machine(), "open files")
    assert (found.level, "raise it with ulimit -n 4096" in found.text) == ("warn", True)


def test_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    assert "1.0 GiB free in" in doctor._disk(tmp_path / "a/b").text
    assert doctor._disk(tmp_path / "a/b").level == "warn"
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert "cannot be written; pass another --out" in doctor._disk(tmp_path).text


def test_dataset_that_is_not_there(tmp_path):
    found = doctor._dataset(DataConfig(root=tmp_path / "nowhere"))
    assert found.level == "warn"
    assert "does not exist; pc-data check" in found.text


def test_a_gpu_is_not_needed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = list(doctor._devices())
    assert [(finding.level, finding.name) for finding in found] == [("warn", "gpu")]


def test_no_torch(monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    (found,) = doctor._torch()
    assert (found.level, "cannot be imported" in found.text) == ("fail", True)
    monkeypatch.setattr(doctor, "examine", lambda **_: iter([found]))
    assert main(["doctor"]) == 4
    assert capsys.readouterr().out.endswith("0 ok, 0 warn, 1 fail\n")
