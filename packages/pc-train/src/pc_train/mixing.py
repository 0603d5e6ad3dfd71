"""Mix3D as a way of loading: two augmented scans of an epoch, laid over each other, are a sample.

Which scans meet and whether they are mixed follows from (seed, epoch, index) as all else does, and
a pair stays within one process. Mixing on the device instead would pair the neighbours in each
process's share of a batch, so that results would depend on the number of processes, and it would
come after neighbours and input features were computed.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from pc_data.augment.draws import happens, require_fraction
from pc_data.augment.mixing import mix3d
from pc_data.batch import PointBatch, pack
from pc_data.loading import SampleKey, Samples, epoch_order, sample_rng

from pc_train.samples import Augmented


class MixedPairs(Samples):
    """Pairs of augmented scans, as one scan or as two.

    A pass over the pairs is a pass over the scans; of an odd number the last in the epoch's order
    is left out of it.

    Args:
        augmented: Samples that are `Augmented`, not batches yet.
        to_input: Turns one of them into the network's input.
        probability: Of mixing a pair.

    Raises:
        ValueError: If the probability is not in [0, 1], or there are fewer than two samples.

    Source: Mix3D (Nekrasov et al., 3DV 2021), in the form of MSC's fine-tuning (Wu et al., CVPR
        2023), which decides once for all pairs of a GPU's batch, here for each pair.
    """

    def __init__(
        self,
        augmented: Samples,
        *,
        to_input: Callable[[Augmented], PointBatch],
        probability: float = 0.8,
    ) -> None:
        super().__init__(augmented.sources, seed=augmented.seed, on_error=augmented.on_error)
        require_fraction("probability", probability)
        if len(augmented) < 2:
            raise ValueError(f"mixing takes at least 2 scans, got {len(augmented)}; do not mix")
        self.augmented, self.to_input, self.probability = augmented, to_input, probability
        self.bad = augmented.bad

    def __len__(self) -> int:
        return len(self.augmented) // 2

    def __getitem__(self, index: tuple[int, int]) -> PointBatch:
        epoch, number = index
        num_scans = len(self.augmented)
        order = epoch_order(self.seed, epoch, num_scans)[2 * number : 2 * number + 2]
        first, second = (self.augmented[SampleKey(epoch, int(scan))] for scan in order)
        rng = sample_rng(self.seed, epoch, num_scans + number)  # after those of the scans
        if happens(rng, self.probability):
            return self.to_input(mix(first, second))
        return pack([self.to_input(first), self.to_input(second)])


def mix(first: Augmented, second: Augmented) -> Augmented:
    """Lay one augmented scan over another, with their lower corners at the same place.

    Raises:
        DataError: If one knows of its points what the other does not.
    """
    rng = np.random.default_rng(0)  # decides nothing at probability 1
    seen = mix3d(first.seen, second.seen, rng, probability=1.0)
    if first.felt is first.seen and second.felt is second.seen:
        return Augmented(seen=seen, felt=seen)
    return replace(first, seen=seen, felt=mix3d(first.felt, second.felt, rng, probability=1.0))
