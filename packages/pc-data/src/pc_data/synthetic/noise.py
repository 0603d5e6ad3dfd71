"""Counter-based randomness inside kernels: integer hashes and value noise."""

import math

from pc_geometry.compiling import kernel

_MASK = 0xFFFFFFFF


@kernel
def hash3(i: int, j: int, k: int) -> int:
    """Mix three integers into 32 well-spread bits, the same on every machine and thread.

    Constants stay below 2**31, so that the products fit int64 and pure Python agrees.
    """
    h = ((i & _MASK) * 0x1F123BB5 + (j & _MASK) * 0x27D4EB2F) & _MASK
    h ^= h >> 16
    h = (h * 0x7FEB352D) & _MASK
    h = (h ^ (h >> 15)) + (k & _MASK) * 0x165667B1 & _MASK
    h ^= h >> 16
    h = (h * 0x2C1B3C6D) & _MASK
    h ^= h >> 15
    h = (h * 0x297A2D39) & _MASK
    return h ^ (h >> 15)


@kernel
def uniform3(i: int, j: int, k: int) -> float:
    """A number in [0, 1) from three integers."""
    return (hash3(i, j, k) & 0xFFFFFF) / 16777216.0


@kernel
def normal3(i: int, j: int, k: int) -> float:
    """A standard normal number from three integers (Box-Muller)."""
    h = hash3(i, j, k)
    u = ((h & 0xFFFF) + 1.0) / 65537.0
    return math.sqrt(-2.0 * math.log(u)) * math.cos((h >> 16) * (2.0 * math.pi / 65536.0))


@kernel
def value_noise(x: float, y: float, salt: int) -> float:
    """Smooth noise in [0, 1) with one lattice point per unit."""
    ix = math.floor(x)
    iy = math.floor(y)
    fx = x - ix
    fy = y - iy
    fx = fx * fx * (3.0 - 2.0 * fx)
    fy = fy * fy * (3.0 - 2.0 * fy)
    i = int(ix)
    j = int(iy)
    low = uniform3(i, j, salt) * (1.0 - fx) + uniform3(i + 1, j, salt) * fx
    high = uniform3(i, j + 1, salt) * (1.0 - fx) + uniform3(i + 1, j + 1, salt) * fx
    return low * (1.0 - fy) + high * fy
