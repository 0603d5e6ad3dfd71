"""Random tensors named, shaped and laid out as those of published sparse U-Nets."""

import torch


def random_norm(name, width, generator):
    return {
        f"{name}.weight": torch.rand(width, generator=generator) + 0.5,
        f"{name}.bias": torch.randn(width, generator=generator) * 0.2,
        f"{name}.running_mean": torch.randn(width, generator=generator) * 0.2,
        f"{name}.running_var": torch.rand(width, generator=generator) + 0.5,
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def random_weight(shape, fan_in, generator):
    return torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5


def spunet_tensors(
    *,
    in_dim=6,
    stem=8,
    kernel=5,
    widths=(8, 8, 16, 16, 16, 16, 8, 8),
    depths=(1, 1, 1, 1, 1, 1, 1, 1),
    num_classes=0,
    seed=0,
):
    """SpUNet-v1m1, without any prefix, in the layout (out, k, k, k, in)."""
    g = torch.Generator().manual_seed(seed)
    tensors = {}

    def conv(name, norm, size, in_, out):
        shape = (out, size, size, size, in_)
        tensors[f"{name}.weight"] = random_weight(shape, size**3 * in_, g)
        tensors.update(random_norm(norm, out, g))

    def blocks(stage, depth, in_, out):
        for i in range(depth):
            block, in_ = f"{stage}.block{i}", in_ if i == 0 else out
            if in_ != out:
                conv(f"{block}.proj.0", f"{block}.proj.1", 1, in_, out)
            conv(f"{block}.conv1", f"{block}.bn1", 3, in_, out)
            conv(f"{block}.conv2", f"{block}.bn2", 3, out, out)

    conv("conv_input.0", "conv_input.1", kernel, in_dim, stem)
    enc, dec = (stem, *widths[:4]), widths[4:][::-1]  # both finest first
    for s in range(4):
        conv(f"down.{s}.0", f"down.{s}.1", 2, enc[s], enc[s + 1])
        blocks(f"enc.{s}", depths[s], enc[s + 1], enc[s + 1])
        conv(f"up.{s}.0", f"up.{s}.1", 2, enc[4] if s == 3 else dec[s + 1], dec[s])
        blocks(f"dec.{s}", depths[7 - s], dec[s] + enc[s], dec[s])
    if num_classes:
        shape = (num_classes, 1, 1, 1, dec[0])
        tensors["final.weight"] = random_weight(shape, dec[0], g)
        tensors["final.bias"] = torch.randn(num_classes, generator=g)
    return tensors


def minkunet_tensors(
    *,
    in_dim=1,
    kernel=3,
    stem=32,
    widths=(32, 64, 128, 256, 256, 128, 96, 96),
    depths=(2, 3, 4, 6, 2, 2, 2, 2),
    out_dim=64,
    seed=0,
):
    """SLidR's MinkUNet, without any prefix; the stated defaults are the published network."""
    g = torch.Generator().manual_seed(seed)
    tensors = {}

    def conv(name, norm, taps, in_, out):
        shape = (in_, out) if taps == 1 else (taps, in_, out)
        tensors[f"{name}.kernel"] = random_weight(shape, taps * in_, g)
        tensors.update(random_norm(f"{norm}.bn", out, g))

    def blocks(number, in_):
        out = widths[number - 1]
        for i in range(depths[number - 1]):
            block, in_ = f"block{number}.{i}", in_ if i == 0 else out
            conv(f"{block}.conv1", f"{block}.norm1", 27, in_, out)
            conv(f"{block}.conv2", f"{block}.norm2", 27, out, out)
            if in_ != out:
                conv(f"{block}.downsample.0", f"{block}.downsample.1", 1, in_, out)

    conv("conv0p1s1", "bn0", kernel**3, in_dim, stem)
    skips = [stem, *widths[:3]]
    for s in range(4):
        conv(f"conv{s + 1}p{2**s}s2", f"bn{s + 1}", 8, skips[s], skips[s])
        blocks(s + 1, skips[s])
    for s in range(4):
        conv(f"convtr{s + 4}p{2 ** (4 - s)}s2", f"bntr{s + 4}", 8, widths[s + 3], widths[s + 4])
        blocks(s + 5, widths[s + 4] + skips[3 - s])
    tensors["final.kernel"] = random_weight((widths[7], out_dim), widths[7], g)
    tensors["final.bias"] = torch.randn(1, out_dim, generator=g)
    return tensors
