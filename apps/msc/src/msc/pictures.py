"""What a pre-trained MSC sees: hidden input, reconstruction and original; features as colours."""

import numpy as np
import torch
from matplotlib.figure import Figure
from pc_data.batch import PointBatch
from pc_data.colors import IGNORED
from pc_train.figures import features_as_colors, plot_colors
from torch import Tensor

from msc.method import MSC
from msc.samples import ViewPair
from msc.targets import TARGETS


@torch.inference_mode()
def picture_of_reconstruction(method: MSC, sample: ViewPair, target: str) -> Figure:
    """Draw the input with its hidden part grey, the same with the answers there, and the truth.

    Args:
        method: On the CPU and in eval mode; reconstructs the target.
        sample: Of one scan; its key view is shown.
        target: One of `TARGETS`.
    """
    view, masked = sample.key, sample.key_masked
    answer = method.heads[target](method.encode(view, masked))
    original = view.feat[:, method.columns[target]]
    truth = as_colors(original, target)
    hidden = masked.numpy()
    shown, filled = truth.copy(), truth.copy()
    shown[hidden] = IGNORED
    filled[hidden] = as_colors(answer, target, like=original)[hidden]
    views = {"what the network sees": shown, "with its reconstruction": filled, "truth": truth}
    return plot_colors(view.xyz.numpy(), views)


@torch.inference_mode()
def picture_of_features(networks: dict[str, torch.nn.Module], sample: PointBatch) -> Figure:
    """Draw the features of each network as colours, by their three main directions."""
    views = {
        title: features_as_colors(network(sample.xyz, sample.feat, sample.batch).numpy())
        for title, network in networks.items()
    }
    return plot_colors(sample.xyz.numpy(), views)


def as_colors(value: Tensor, target: str, *, like: Tensor | None = None) -> np.ndarray:
    """RGB in 0..1 of a target: colour itself, a normal's direction, or intensity as grey.

    Args:
        value: Of each point.
        target: One of `TARGETS`.
        like: Values whose range the greys span, to compare with; their own by default.
    """
    if target == "normal":
        value = torch.nn.functional.normalize(value, dim=1)
    if target == "intensity":
        low, high = torch.quantile(
            value if like is None else like, torch.tensor([0.02, 0.98])
        ).tolist()
        value = ((value - low) / max(high - low, 1e-6) * 2 - 1).expand(-1, 3)
    if value.shape[1] != 3:
        raise ValueError(f"a target of {', '.join(TARGETS)} has 3 columns, got {value.shape[1]}")
    return ((value + 1) / 2).clamp(0, 1).numpy()
