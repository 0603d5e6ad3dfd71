"""The network of `SparseUNet` from spconv's own layers, on integer voxels and offsets: the peer.

Its parameters have the names of `SparseUNet`'s, so `copy_weights` is a plain load but for the 1x1
convolutions, whose weights spconv reads in another order than it declares.
"""

import warnings
from functools import partial

import torch
from torch import nn
from torch.nn import functional

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import spconv.pytorch as spconv
    from spconv.core import ConvAlgo

_Norm = partial(nn.BatchNorm1d, eps=1e-3, momentum=0.01)


class _ConvNorm(nn.Module):
    def __init__(self, conv, width):
        super().__init__()
        self.conv, self.norm = conv, _Norm(width)

    def forward(self, x):
        x = self.conv(x)
        return x.replace_feature(functional.relu(self.norm(x.features)))


class _Block(nn.Module):
    def __init__(self, in_dim, out_dim, key, algo):
        super().__init__()
        submanifold = partial(spconv.SubMConv3d, bias=False, algo=algo)
        self.conv1 = submanifold(in_dim, out_dim, 3, padding=1, indice_key=key)
        self.norm1 = _Norm(out_dim)
        self.conv2 = submanifold(out_dim, out_dim, 3, padding=1, indice_key=key)
        self.norm2 = _Norm(out_dim)
        self.shortcut = nn.ModuleList()
        if in_dim != out_dim:
            self.shortcut.extend([submanifold(in_dim, out_dim, 1), _Norm(out_dim)])

    def forward(self, x):
        rest = x.features
        if len(self.shortcut):
            conv, norm = self.shortcut
            rest = norm(conv(x).features)
        x = self.conv1(x)
        x = self.conv2(x.replace_feature(functional.relu(self.norm1(x.features))))
        return x.replace_feature(functional.relu(self.norm2(x.features) + rest))


class _Stage(nn.Module):
    """A change of resolution, and blocks."""

    def __init__(self, name, change, width, blocks):
        super().__init__()
        self.add_module(name, _ConvNorm(change, width))
        self.blocks = nn.Sequential(*blocks)


class PlainUNet(nn.Module):
    """The same network; `native` chooses the only algorithm of spconv that runs on a CPU."""

    def __init__(
        self,
        in_dim,
        *,
        stem_width,
        encoder_widths,
        encoder_depths,
        decoder_widths,
        decoder_depths,
        native,
    ):
        super().__init__()
        algo = ConvAlgo.Native if native else None
        stem = spconv.SubMConv3d(
            in_dim, stem_width, 5, padding=1, bias=False, indice_key="stem", algo=algo
        )
        self.stem = _ConvNorm(stem, stem_width)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        width, skips = stem_width, []
        for stage, (out, depth) in enumerate(zip(encoder_widths, encoder_depths, strict=True)):
            down = spconv.SparseConv3d(
                width, out, 2, stride=2, bias=False, indice_key=f"down{stage}", algo=algo
            )
            blocks = [_Block(out, out, f"level{stage + 1}", algo) for _ in range(depth)]
            self.encoder.append(_Stage("down", down, out, blocks))
            skips.append(width)
            width = out
        for out, depth in zip(decoder_widths, decoder_depths, strict=True):
            stage = len(skips) - 1
            up = spconv.SparseInverseConv3d(
                width, out, 2, bias=False, indice_key=f"down{stage}", algo=algo
            )
            widths = [out + skips.pop()] + [out] * depth
            blocks = [_Block(widths[i], out, f"level{stage}", algo) for i in range(depth)]
            self.decoder.append(_Stage("up", up, out, blocks))
            width = out

    def forward(self, voxel, feat, offset):
        """Feature of each voxel; `offset` is where each room ends."""
        counts = torch.diff(offset, prepend=offset.new_zeros(1))
        batch = torch.repeat_interleave(torch.arange(len(offset), device=offset.device), counts)
        x = spconv.SparseConvTensor(
            features=feat,
            indices=torch.cat([batch[:, None].int(), voxel], 1).contiguous(),
            spatial_shape=(voxel.max(0).values + 96).tolist(),
            batch_size=len(offset),
        )
        x, skips = self.stem(x), []
        for stage in self.encoder:
            skips.append(x)
            x = stage.blocks(stage.down(x))
        for stage in self.decoder:
            x, skip = stage.up(x), skips.pop()
            x = stage.blocks(x.replace_feature(torch.cat([x.features, skip.features], 1)))
        return x.features


def copy_weights(ours, plain):
    """Give the plain network the weights of ours."""
    weights = {
        name: value.t().reshape(len(value), 1, 1, 1, -1) if "shortcut.0" in name else value
        for name, value in ours.state_dict().items()
    }
    plain.load_state_dict(weights)
