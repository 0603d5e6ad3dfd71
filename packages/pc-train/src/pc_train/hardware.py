"""Where a run computes; shared by all commands."""

import os
from dataclasses import dataclass
from typing import Literal

from pc_data.limits import require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class HardwareConfig:
    """Devices and precision of a run.

    Attributes:
        accelerator: auto takes a GPU if there is one.
        devices: Devices on this machine; 0 takes those of torchrun or Slurm, or all (one process
            on a CPU).
        num_nodes: Machines; start the same command on each through torchrun or Slurm, which tell
            how many there are.
        precision: auto is 16-bit mixed precision on a GPU and 32-bit on a CPU.
        num_workers: Loader processes for each device.
        num_threads: Threads of a process on a CPU; 0 leaves it to PyTorch. Small sparse networks
            are fastest with 1.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 0
    num_nodes: int = 1
    precision: Literal["auto", "32", "16-mixed", "bf16-mixed"] = "auto"
    num_workers: int = 2
    num_threads: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "num_nodes")
        require_not_negative(self, "devices", "num_workers", "num_threads")


def launched_processes() -> tuple[int, int] | None:
    """Processes on this machine and number of machines, as torchrun or srun started them.

    None if neither did; an interactive shell of Slurm counts as neither.
    """
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        here = int(environment["LOCAL_WORLD_SIZE"])
        return here, int(environment["WORLD_SIZE"]) // here
    is_interactive = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if "SLURM_PROCID" in environment and "SLURM_NTASKS" in environment and not is_interactive:
        num_nodes = int(environment.get("SLURM_NNODES", "1"))
        return int(environment["SLURM_NTASKS"]) // num_nodes, num_nodes
    return None
