import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import torch
import yaml
from pc_data.commandline import run, to_yaml
from pc_data.errors import (
    DataError,
    DivergedError,
    MachineError,
    MissingExtraError,
    ResourceError,
)


@dataclass(frozen=True)
class Data:
    """One dataset.

    Attributes:
        name: Which dataset.
        root: Its folder.
    """

    name: Literal["nuscenes", "semantic_kitti"] = "nuscenes"
    root: Path = Path("data")


@dataclass(frozen=True)
class Model:
    """The network.

    Attributes:
        width: Channels of each layer.
        grid: Cells along x and y.
        amp: Half precision.
    """

    width: int = 8
    grid: tuple[int, int] = (2, 3)
    amp: bool = False


@dataclass(frozen=True)
class Config:
    """The run.

    Attributes:
        out: Run folder.
        lr: Learning rate at its peak.
        model: The network.
        data: The datasets.
        seed: Makes runs differ.
        tags: Free words.
    """

    out: Path
    lr: float = 1e-3
    model: Model = field(default_factory=Model)
    data: list[Data] = field(default_factory=lambda: [Data()])
    seed: int | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")


def demo() -> Config:
    """Small and quick."""
    return Config(
        out=Path("demo"),
        lr=7.0,
        model=Model(width=1, amp=True),
        data=[Data("semantic_kitti", Path("k")), Data()],
    )


class Program:
    """Commands that remember how they were called."""

    def __init__(self) -> None:
        self.calls = []
        self.result = None
        self.error = None

    def pretrain(self, config: Config) -> int | None:
        """Train without labels.

        All of it.
        """
        return self._called(config)

    def probe(self, weights: Path, config: Model) -> int | None:
        """Train a head on frozen features.

        Args:
            weights: Where the backbone is.
            config: Not shown.
        """
        return self._called(weights, config)

    def make(
        self,
        world: Literal["street", "room"],
        *,
        out: Path,
        scenes: int = 8,
        json: bool = False,
        size: tuple[int, int] = (4, 5),
        data: Data = Data(),
    ) -> int | None:
        """Write a world.

        Args:
            world: Which one.
            out: Folder to write.
            scenes: How many.
            json: Machine-readable.
            size: Width and height.
            data: Source.
        """
        return self._called(world, out, scenes, json, size, data)

    def _called(self, *values):
        self.calls.append(values)
        if self.error is not None:
            raise self.error
        return self.result

    def __call__(self, line):
        commands = {"pretrain": self.pretrain, "probe": self.probe, "make": self.make}
        return run(
            commands,
            prog="pc",
            description="Does things.",
            presets={"pretrain": {"demo": demo}},
            argv=line.split() if isinstance(line, str) else line,
        )


@pytest.fixture
def program():
    return Program()


def refused(program, capsys, line):
    """Run a line that must be refused before the command; return the first line of the error."""
    assert program(line) == 2
    assert not program.calls
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err.splitlines()[0]


# --- values


def test_positional_and_flags(program):
    assert program("make street --out d --scenes 3") == 0
    assert program.calls == [("street", Path("d"), 3, False, (4, 5), Data())]


def test_order_of_flags_does_not_matter(program):
    assert program("make --scenes=3 --json --out d room --data.root r") == 0
    assert program.calls == [("room", Path("d"), 3, True, (4, 5), Data(root=Path("r")))]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("--json", True), ("--json true", True), ("--json=false", False), ("--json no", False)],
)
def test_switches(program, flags, expected):
    assert program(f"make street {flags} --out d") == 0
    assert program.calls[0][3] is expected


@pytest.mark.parametrize("value", ["7,9", "[7,9]", "[7, 9]"])
def test_lists_need_no_brackets(program, value):
    assert program(["make", "street", "--out", "d", "--size", value]) == 0
    assert program.calls[0][4] == (7, 9)


def test_negative_numbers_are_values(program):
    assert program("pretrain --out o --seed -3") == 0
    assert program.calls[0][0].seed == -3


def test_a_dataclass_is_spread_over_the_top_level(program):
    assert program("pretrain --out o --model.width 3 --model.amp --lr 1e-2 --tags a,b") == 0
    assert program.calls == [
        (Config(out=Path("o"), lr=0.01, model=Model(width=3, amp=True), tags=("a", "b")),)
    ]


def test_positional_beside_a_dataclass(program):
    assert program("probe w.safetensors --width 5") == 0
    assert program.calls == [(Path("w.safetensors"), Model(width=5))]


def test_dashes_and_underscores_are_the_same(program, capsys):
    assert program("pretrain --out o --print-config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["out"] == "o"


def test_lists_of_dataclasses(program):
    one = [Data("semantic_kitti", Path("k"))]
    assert program("pretrain --out o --data.name semantic_kitti --data.root k") == 0
    assert program.calls.pop()[0].data == one
    assert program(["pretrain", "--out", "o", "--data+", '{"root": "k"}']) == 0
    assert program.calls.pop()[0].data == [Data(), Data(root=Path("k"))]
    assert (
        program(["pretrain", "--out=o", "--data", '[{"name": "semantic_kitti", "root": "k"}]']) == 0
    )
    assert program.calls.pop()[0].data == one


# --- presets and files


def test_preset_replaces_the_defaults(program):
    assert program("pretrain --preset demo") == 0
    assert program.calls == [(demo(),)]


def test_a_preset_leaves_open_what_only_the_user_knows(capsys):
    def nameless() -> Config:
        return Config(out=Path(), lr=5.0)

    calls = []

    def train(config: Config) -> None:
        calls.append(config)

    def program(line):
        return run(
            {"train": train},
            prog="pc",
            description="Does things.",
            presets={"train": {"nameless": nameless}},
            argv=line.split(),
        )

    assert program("train --preset nameless") == 2
    assert capsys.readouterr().err.startswith("error: missing: --out\n")
    assert program("train --preset nameless --out o") == 0
    assert calls == [Config(out=Path("o"), lr=5.0)]


def test_defaults_then_preset_then_files_then_flags(program, tmp_path):
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text("lr: 0.5\nseed: 1\nmodel:\n  width: 77\n")
    second.write_text("seed: 2\n")
    orders = (
        f"--lr 3 --config {first} --preset demo --config {second}",
        f"--preset=demo --config={first} --config={second} --lr=3",
    )
    for flags in orders:
        assert program(f"pretrain {flags}") == 0
        config = program.calls.pop()[0]
        assert config.lr == 3  # the flag
        assert config.seed == 2  # the later file
        assert config.model == Model(width=77, amp=True)  # file and preset
        assert config.data == demo().data  # preset
        assert config.tags == ()  # default


@pytest.mark.parametrize("flags", ["--out o", "--preset demo --seed 4"])
def test_printed_config_reads_back(program, capsys, tmp_path, flags):
    assert program(f"pretrain {flags} --print_config") == 0
    assert not program.calls
    file = tmp_path / "config.yaml"
    file.write_text(capsys.readouterr().out)
    assert program(f"pretrain {flags}") == 0
    assert program(f"pretrain --config {file}") == 0
    assert program.calls[0] == program.calls[1]


def test_written_config_reads_back(program, tmp_path):
    config = Config(out=Path("a b"), model=Model(grid=(5, 6)), data=demo().data, tags=("x",))
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    assert program(["pretrain", "--config", str(file)]) == 0
    assert program.calls == [(config,)]


# --- help


def test_overview(program, capsys):
    assert program("--help") == 0
    out = capsys.readouterr().out
    assert "Does things." in out
    assert "pretrain  Train without labels." in out
    assert program([]) == 2
    assert "Train without labels." in capsys.readouterr().err


def test_help_of_a_command_shows_the_docstrings(program, capsys):
    assert program("make --help") == 0
    out = capsys.readouterr().out
    for text in ("Write a world.", "How many.", "default: 8", "Which one.", "--data.name"):
        assert text in out
    assert program("pretrain -h") == 0
    out = capsys.readouterr().out
    for text in ("Channels of each layer.", "Learning rate at its peak.", "demo (Small and quick)"):
        assert text in out
    assert "<class" not in out
    assert not program.calls


# --- mistakes


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--model.widht", "--model.width"),
        ("--modle.width", "--model.width"),
        ("--model.with", "--model.width"),
        ("--width", "--model.width"),
        ("--model-width", "--model.width"),
        ("--grid", "--model.grid"),
        ("--lrr", "--lr"),
        ("--LR", "--lr"),
        ("--outt", "--out"),
        ("--ot", "--out"),
        ("--data.nmae", "--data.name"),
        ("--data.rot", "--data.root"),
        ("--dtaa.root", "--data.root"),
        ("--sed", "--seed"),
        ("--tag", "--tags"),
        ("--presets", "--preset"),
        ("--confg", "--config"),
        ("--hlep", "--help"),
    ],
)
def test_unknown_flags_name_the_nearest(program, capsys, typed, meant):
    line = refused(program, capsys, f"pretrain --out o {typed} 3")
    assert line == f"error: unknown flag {typed}; did you mean {meant}?"


def test_prefixes_of_flags_are_not_guessed(program, capsys):
    assert "did you mean --scenes?" in refused(program, capsys, "make street --out d --scene 3")


def test_unknown_command(program, capsys):
    assert refused(program, capsys, "pertrain") == (
        "error: unknown command 'pertrain'; did you mean pretrain?"
    )
    assert "known: make, pretrain, probe" in refused(program, capsys, "xyz")


def test_unknown_preset(program, capsys):
    line = refused(program, capsys, "pretrain --preset dmeo")
    assert line == "error: unknown preset 'dmeo'; one of demo; did you mean demo?"
    assert "needs a name" in refused(program, capsys, "pretrain --preset")


def test_wrong_choice(program, capsys):
    assert refused(program, capsys, "make stret --out d") == (
        "error: world: 'stret' is not one of street, room; did you mean street?"
    )
    assert refused(program, capsys, "pretrain --out o --data.name nuscene") == (
        "error: --data.name: 'nuscene' is not one of nuscenes, semantic_kitti; "
        "did you mean nuscenes?"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--lr x", "--lr: expected float, got 'x'"),
        ("--seed 1.5", "--seed: expected int, got '1.5'"),
        ("--model.width x", "--model.width: expected int, got 'x'"),
        ("--model.grid 1,2,3", "--model.grid: expected tuple[int, int], got"),
        ("--lr --seed 3", "--lr needs a value, got the flag --seed"),
        ("--lr", "argument --lr: expected one argument"),
        ("extra", "unexpected argument 'extra'"),
        ("--config nowhere.yaml", "--config: no such file"),
        ("--lr 0", "lr must be above 0, got 0.0"),
        ("--model 7", "--model takes a YAML file of its settings; these are --model.width, --mod"),
    ],
)
def test_wrong_values(program, capsys, flags, message):
    assert message in refused(program, capsys, f"pretrain --out o {flags}")


def test_missing_arguments(program, capsys):
    assert refused(program, capsys, "pretrain") == "error: missing: --out"
    assert "missing: world" in refused(program, capsys, "make --out d")


def test_missing_in_a_file_too(program, capsys, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("lr: 1.0\n")
    said = refused(program, capsys, f"pretrain --config {file}")
    assert said == f"error: missing: --out; pass it, or set it in {file}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model:\n  widht: 3\n", "unknown key model.widht; did you mean model.width?"),
        ("sede: 3\n", "unknown key sede; did you mean seed?"),
        ("data:\n- nmae: x\n", "unknown key data.nmae; did you mean data.name?"),
        ("model: [\n", "Problems parsing config"),
        ("only words", "Unexpected config"),
        ("model:\n  width: x\n", "expected int, got 'x'"),
        ("data:\n- name: nuscene\n", "did you mean nuscenes?"),
    ],
)
def test_mistakes_in_a_file_name_the_file(program, capsys, tmp_path, content, message):
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    line = refused(program, capsys, f"pretrain --out o --config {file}")
    assert message in line
    assert "bad.yaml" in line


# --- how a command ends


def test_exit_code_of_the_command(program):
    program.result = 5
    assert program("make street --out d") == 5


EXPECTED = [
    (DataError("a.bin: is\n  cut off"), 3, "error: a.bin: is cut off"),
    (ValueError("no"), 2, "error: no"),
    (FileNotFoundError("root x does not exist"), 2, "error: root x does not exist"),
    (PermissionError(13, "Permission denied", "f"), 2, "error: f: Permission denied"),
    (
        DataError(
            "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent "
            "call last):\n  File x\npc_data.errors.DataError: a.bin: has 3 bytes: too few\n"
        ),
        3,
        "error: a.bin: has 3 bytes: too few",
    ),
    (MissingExtraError("no laspy; install it"), 4, "error: no laspy; install it"),
    (ModuleNotFoundError("No module named 'timm'"), 4, "error: No module named 'timm'"),
    (MachineError("no GPU; pass cpu"), 4, "error: no GPU; pass cpu"),
    (DivergedError("the loss is nan"), 5, "error: the loss is nan"),
    (ResourceError("no memory; lower x"), 6, "error: no memory; lower x"),
    (OSError(28, "No space left on device", "f"), 6, "error: f: No space left on device"),
    (OSError(122, "Disk quota exceeded", "f"), 6, "error: f: Disk quota exceeded"),
    (OSError(24, "Too many open files", "f"), 6, "error: f: Too many open files"),
    (OSError(30, "Read-only file system", "f"), 2, "error: f: Read-only file system"),
    (MemoryError(), 6, "error: this machine is out of memory; lower the scans or the points"),
    (torch.OutOfMemoryError("CUDA out of memory."), 6, "error: the GPU is out of memory; lower"),
]


@pytest.mark.parametrize(("error", "code", "line"), EXPECTED)
def test_expected_errors_are_one_line(program, capsys, monkeypatch, error, code, line):
    monkeypatch.delenv("PC_DEBUG", raising=False)
    program.error = error
    assert program("make street --out d") == code
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line)


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_debug_shows_the_traceback(program, capsys, monkeypatch, how):
    program.error = DataError("cut off")
    monkeypatch.setenv("PC_DEBUG", "1" if how == "environment" else "0")
    assert program("make street --out d" + (" --debug" if how == "flag" else "")) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1] == "error: cut off"


def test_unexpected_errors_keep_their_traceback(program):
    program.error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        program("make street --out d")


def test_interrupt(program, capsys):
    program.error = KeyboardInterrupt()
    assert program("make street --out d") == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_front_end_imports_nothing_heavy():
    code = (
        "import sys; from pc_data.cli import main; main(['check', '--help']); "
        "main(['check', '--jsno']); "
        "sys.exit(sum(m in sys.modules for m in ('torch', 'numba', 'matplotlib', 'PIL')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "did you mean --json?" in done.stderr
