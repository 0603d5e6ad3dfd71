"""A run of a few steps that something befalls, in this process or in one of its own."""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule
from pc_data import DataError, Scan
from pc_data.batch import PointBatch
from pc_data.commandline import run
from pc_data.loading import Samples
from pc_train.fitting import fit
from pc_train.hardware import HardwareConfig
from torch import nn

from tests.processes import CONTEXT

CONTEXT.set_forkserver_preload(["torch", "torch._dynamo", "lightning.pytorch", __name__])


class Method(LightningModule):
    """A network with running statistics and a queue; `befall` changes a step's features."""

    def __init__(self, befall=None):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
        self.register_buffer("queue", torch.zeros(16, 4))
        self.befall = befall

    def training_step(self, batch):
        feat = batch.feat if self.befall is None else self.befall(self, batch.feat)
        out = self.network(feat)
        self.queue = torch.cat([out.detach()[:4], self.queue[:-4]])
        return (out - 1).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Clouds:
    """Scans of which those in `damaged` cannot be read; `on_read` is told of each."""

    def __init__(self, num=6, damaged=(), on_read=None):
        self.num, self.damaged, self.on_read = num, damaged, on_read

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        if self.on_read is not None:
            self.on_read(index)
        if index in self.damaged:
            raise DataError(f"/data/{index}.bin: was cut off, fetch it again")
        xyz = np.random.default_rng(index).normal(size=(50, 3)).astype(np.float32)
        return Scan(name=f"scan{index}", xyz=xyz)


def make_sample(scan, rng):
    xyz = torch.from_numpy(scan.xyz[rng.permutation(len(scan))])
    zero = torch.zeros(len(scan), dtype=torch.int64)
    return PointBatch(names=(scan.name,), xyz=xyz, feat=xyz, batch=zero)


def train(
    out,
    *,
    befall=None,
    scans=None,
    num_steps=12,
    num_workers=0,
    precision="32",
    devices=1,
    on_error="raise",
    max_bad_samples=0,
    **options,
):
    """Train and return the method; a checkpoint comes every second step."""
    torch.manual_seed(0)
    method = Method(befall)
    samples = Samples(
        [(scans or Clouds(), make_sample)],
        seed=0,
        on_error=on_error,
        max_bad_samples=max_bad_samples,
    )
    hardware = HardwareConfig(
        accelerator="cpu",
        num_workers=num_workers,
        precision=precision,
        devices=devices,
        num_threads=1,
    )
    options = {"save_every": 2, **options}
    fit(
        method,
        samples,
        batch_size=2,
        out=out,
        num_steps=num_steps,
        seed=0,
        title="test",
        hardware=hardware,
        **options,
    )
    return method


def state(method):
    """All tensors of a method as bytes, to compare to the bit."""
    return {name: value.numpy().tobytes() for name, value in method.state_dict().items()}


def run_apart(function, *arguments, **options):
    """Call a function as a command in a process of its own.

    Returns:
        Its exit code, negative for a signal, and what it wrote.
    """
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as said:
        process = start_apart(said.name, function, *arguments, **options)
        process.join(120)
        return process.exitcode, said.read()


def start_apart(said, function, *arguments, **options):
    """Start such a process; it writes to the file `said`."""
    process = CONTEXT.Process(target=_command, args=(said, function, arguments, options))
    process.start()
    return process


def _command(said, function, arguments, options):
    file = Path(said).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115 - until the end
    os.dup2(file.fileno(), 2)
    os.dup2(file.fileno(), 1)
    sys.stderr = sys.stdout = file

    def command():
        function(*arguments, **options)

    sys.exit(run({"go": command}, prog="test", description="", argv=["go"]))
