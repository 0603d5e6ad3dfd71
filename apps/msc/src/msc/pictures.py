"""What a pre-trained MSC sees: hidden input, reconstruction and original; features as colours."""

import numpy as np
import torch
from matplotlib.figure import Figure
from pc_data.batch import PointBatch
from pc_data.colors import IGNORED
from pc_train.reports.figures import features_as_colors, plot_colors
from pc_train.reports.first_batch import CloudPanel, draw_batch, place_colors
from torch import Tensor

from msc.config import Config
from msc.method import MSC
from msc.samples import ViewPair
from msc.targets import TARGETS, columns_of


def picture_of_batch(config: Config, sample: ViewPair) -> Figure:
    """Draw both views as the network gets them: what is masked is grey, pairs share a colour."""
    grey, clouds, pairs = np.asarray(IGNORED), [], []
    low, high = sample.key.xyz.numpy().min(0), sample.key.xyz.numpy().max(0)
    size = np.maximum(high - low, 1e-6)[:2]
    place = (sample.key.xyz.numpy()[sample.pairs[:, 1].numpy(), :2] - low[:2]) / size
    color = place_colors(place, (1, 1))
    views = ((sample.query, sample.query_masked), (sample.key, sample.key_masked))
    for column, (view, masked) in enumerate(views):
        shown = _paint(view, config)
        shown[masked.numpy()] = grey
        name = ("query", "key")[column]
        title = f"{name}, {float(masked.float().mean()):.0%} masked"
        clouds.append(CloudPanel(title, view.xyz.numpy(), shown))
        painted = np.tile(grey, (len(view.xyz), 1))
        painted[sample.pairs[:, column].numpy()] = color
        pairs.append(CloudPanel(f"{name}, pairs", view.xyz.numpy(), painted))
    mixed = ", laid over the next scan's" if bool(sample.mixed[0]) else ""
    title = f"scan {sample.names[0]}{mixed}: {len(sample.pairs):,} pairs of points"
    return draw_batch(title, clouds + pairs)


def _paint(view: PointBatch, config: Config) -> np.ndarray:
    """Colours by the first target that the input holds, or by height."""
    for target in TARGETS:
        if set(TARGETS[target]) <= set(config.features):
            value = view.feat[:, columns_of(target, config.features)]
            return as_colors(value, target)
    return as_colors(view.xyz[:, 2:], "intensity")


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
