"""What turns a point's feature into an answer: small modules over [n c]."""

from torch import nn


def linear_probe_head(in_dim: int, num_classes: int) -> nn.Sequential:
    """Batch norm and a linear layer that starts at zero, so every class starts equal.

    Source: ScaLR (Puy et al., CVPR 2024), linear probing; the head of its fine-tuning too.
    """
    linear = nn.Linear(in_dim, num_classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(in_dim), linear)


def mlp_head(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    """Two linear layers with ReLU between.

    Source: ScaLR, Sec. 4.5: the distillation head for several teachers at once.
    """
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim))


def two_conv_head(in_dim: int, num_classes: int) -> nn.Sequential:
    """Two convolutions over single points, with batch norm and ReLU between.

    Source: SSPL (Zhang et al., NeurIPS 2022), Sec. 4.3: "a light-weight decoder with two
        convolutional layers", of which no more is said. Here they look at one point each, the
        first keeps the width, and both are drawn as torch does.
    """
    return nn.Sequential(
        nn.Linear(in_dim, in_dim, bias=False),
        nn.BatchNorm1d(in_dim),
        nn.ReLU(),
        nn.Linear(in_dim, num_classes),
    )
