"""Loading whose every sample is a pure function of (seed, epoch, index).

Neither the number of workers nor an interruption changes what a step sees: the order of an epoch
follows from (seed, epoch), a sample's random numbers from (seed, epoch, index), and a resumed
loader starts at its step without replaying anything.
"""

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from pc_data.bad_samples import BadSamples
from pc_data.batch import pack
from pc_data.errors import DataError, OnError
from pc_data.scan import Scan


@runtime_checkable
class Scans(Protocol):
    """What every dataset is: scans by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Scan: ...


MakeSample = Callable[[Scan, np.random.Generator], Any]
"""From a scan to a sample: a `PointBatch`, or a `pc_data.batch.Packable` of the method's own."""

_ORDER_STREAM = 1 << 63  # keeps the epochs' orders apart from the samples' streams


class SampleKey(NamedTuple):
    """What a loader asks a dataset for."""

    epoch: int
    index: int


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Random numbers of one sample of one epoch."""
    key = np.array([seed, (epoch << 40) + index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def epoch_order(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """Order in which an epoch visits the samples."""
    key = np.array([seed, _ORDER_STREAM + epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(num_samples)


class Samples(Dataset):
    """One or several datasets, end to end, each with its own way from scan to sample.

    Args:
        sources: Pairs of a dataset and the function that makes a sample of one of its scans.
        seed: Of all random numbers.
        on_error: What damage does, in a file or in what a sample is made of: `raise` ends the run,
            `skip` warns, notes it in `bad` and takes the next scan.
        max_bad_samples: Distinct scans that may be skipped; 0 for 1% of them, rounded up.

    Attributes:
        bad: Which scans were skipped; `bad.keep_in` counts over processes and restarts.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Scans, MakeSample]],
        *,
        seed: int,
        on_error: OnError = "raise",
        max_bad_samples: int = 0,
    ) -> None:
        """Keep the sources.

        Raises:
            ValueError: If `on_error` is neither.
        """
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error must be raise or skip, got {on_error!r}")
        self.sources = list(sources)
        self.seed = seed
        self.on_error = on_error
        self.starts = np.cumsum([0, *(len(scans) for scans, _ in self.sources)])
        self.bad = BadSamples(max_bad_samples or -(-int(self.starts[-1]) // 100))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: tuple[int, int]) -> Any:  # noqa: ANN401 - what its functions make
        epoch, number = index
        last: DataError | None = None
        for step in range(len(self)):
            tried = (number + step) % len(self)
            try:
                return self._make(epoch, tried)
            except DataError as error:
                if self.on_error == "raise":
                    raise
                last = error
                if self.bad.note(tried, error):
                    warnings.warn(f"scan left out: {error}", stacklevel=2)
        raise DataError(f"none of the {len(self)} scans can be used; the last: {last}")

    def _make(self, epoch: int, number: int) -> Any:  # noqa: ANN401
        source = int(np.searchsorted(self.starts, number, side="right")) - 1
        scans, make_sample = self.sources[source]
        scan = scans[int(number - self.starts[source])]
        return make_sample(scan, sample_rng(self.seed, epoch, number))


def count_joint_batches(num_samples: int, joint_batch_size: int) -> int:
    """Steps of one epoch; what does not fill a joint batch is left out.

    Raises:
        ValueError: If the samples do not fill one.
    """
    if joint_batch_size < 1 or num_samples < joint_batch_size:
        raise ValueError(
            f"batch_size must be in [1, {num_samples}] (the number of scans), got "
            f"{joint_batch_size}"
        )
    return num_samples // joint_batch_size


class _StepSampler(Sampler[list[SampleKey]]):
    """Batches of this rank from a given step on."""

    def __init__(
        self, num_samples: int, *, batch_size: int, seed: int, rank: int, world_size: int
    ) -> None:
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.steps_per_epoch = count_joint_batches(num_samples, batch_size * world_size)
        self.first, self.last = 0, 0

    def __iter__(self) -> Iterator[list[SampleKey]]:
        joint = self.batch_size * self.world_size
        current, order = -1, np.empty(0, np.int64)
        for step in range(self.first, self.last):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != current:
                current, order = epoch, epoch_order(self.seed, epoch, self.num_samples)
            # Neighbours stay in one process: a method may mix the scans of a batch in pairs.
            start = position * joint + self.rank * self.batch_size
            mine = order[start : start + self.batch_size]
            yield [SampleKey(epoch, int(index)) for index in mine]


class StepLoader:
    """A training run's batches, from the first step to the last, resumable at any step.

    Epochs follow each other without a seam; what does not fill a joint batch is left out of its
    epoch. The state counts batches handed out, not those that workers prepared ahead.

    Args:
        samples: The samples.
        batch_size: Scans a process sees in a step.
        num_steps: Length of the run.
        rank: This process.
        world_size: Number of processes; they share each joint batch.
        num_workers: Worker processes; 0 loads in this one.

    Raises:
        ValueError: If the samples do not fill one joint batch.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        batch_size: int,
        num_steps: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        self.num_steps = num_steps
        self.next_step = 0
        self._sampler = _StepSampler(
            len(samples), batch_size=batch_size, seed=samples.seed, rank=rank, world_size=world_size
        )
        self._loader = DataLoader(
            samples,
            batch_sampler=self._sampler,
            num_workers=num_workers,
            collate_fn=pack,
            worker_init_fn=_leave_signals if num_workers else None,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Joint batches in one pass over the samples."""
        return self._sampler.steps_per_epoch

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[Any]:
        self._sampler.first, self._sampler.last = self.next_step, self.num_steps
        for batch in self._loader:
            self.next_step += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The number of batches handed out."""
        return {"next_step": self.next_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after that many batches."""
        self.next_step = state["next_step"]


def _leave_signals(worker: int) -> None:  # noqa: ARG001 - torch's signature
    """Leave signals to the process that trains: it saves a step, for which batches are needed.

    A terminal or a scheduler sends them to the whole group, so a loader process has its own. It
    ends with its parent all the same: it looks every few seconds whether that is alive.
    """
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


class _RankSampler(Sampler[list[SampleKey]]):
    """Each sample once over all ranks, in order; ranks may differ by one sample."""

    def __init__(self, num_samples: int, *, batch_size: int, rank: int, world_size: int) -> None:
        self.mine = list(range(rank, num_samples, world_size))
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.mine) // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in range(0, len(self.mine), self.batch_size):
            yield [SampleKey(0, i) for i in self.mine[start : start + self.batch_size]]


def evaluation_loader(
    samples: Samples,
    *,
    batch_size: int = 1,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    repeats: bool = False,
) -> DataLoader:
    """Every sample exactly once over all processes, nothing padded or repeated.

    Args:
        samples: The samples.
        batch_size: Of this process.
        rank: This process.
        world_size: Number of processes.
        num_workers: Worker processes; 0 loads in this one.
        repeats: Let samples skip damaged scans, in whose place the next ones come a second time:
            for means that a few scans do not move.

    Raises:
        ValueError: If the samples skip damaged scans and `repeats` is not set.
    """
    if samples.on_error != "raise" and not repeats:
        raise ValueError(
            f"samples to evaluate on must have on_error raise, got {samples.on_error!r}: a score "
            "would count the scan after a damaged one twice"
        )
    sampler = _RankSampler(len(samples), batch_size=batch_size, rank=rank, world_size=world_size)
    return DataLoader(samples, batch_sampler=sampler, num_workers=num_workers, collate_fn=pack)


def label_fraction(num_samples: int, fraction: float, *, seed: int) -> np.ndarray:
    """Choose a share of the samples for training with few labels; at least one.

    Subsets of one seed are nested: a smaller fraction is part of every larger one.

    Returns:
        Sorted indices.

    Raises:
        ValueError: If the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    count = max(1, round(num_samples * fraction))
    return np.sort(epoch_order(seed, 0, num_samples)[:count])
