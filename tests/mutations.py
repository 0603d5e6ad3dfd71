"""Seeded damage of files: bits, chunks, counts, numbers, depth, and what lies inside archives."""

import gzip
import io
import re
import struct
import zipfile
import zlib

import numpy as np

EDGES = (0, 1, 2, -1, -2, *(sign * 2**power + off for power in (7, 8, 15, 16, 31, 32, 40, 62, 63)
         for sign in (1, -1) for off in (-1, 0)))  # fmt: skip
NUMBERS = (
    *(b"-1", b"0", b"1e999", b"-1e308", b"nan", b"inf", b"-0", b"1e-320", b"0x10", b"1_0", b"\xb2"),
    *(b"9" * 9, b"9" * 19, b"9" * 400, b"9" * 5000, b"18446744073709551616", b"2147483648", b""),
)
DEPTH = 50_000
BOMB_RATIO = 1000
"""Bytes that one byte of a bomb becomes: about what deflate can do."""
_BOMB = 96 << 20  # bytes unpacked
_HEAD = 512  # bytes in which counts are likely


def mutate(content, rng):
    """Damage a file once, or up to four times; returns what was done and the new content."""
    inner = _REPACK.get(content[:4]) or _REPACK.get(content[:2])
    if inner and rng.random() < 0.6:
        how, damaged = inner(content, rng)
        return f"inside: {how}", damaged
    names = []
    for _ in range(int(rng.choice((1, 1, 1, 2, 4)))):
        name = str(rng.choice(list(MUTATORS)))
        content = MUTATORS[name](content, rng)
        names.append(name)
    return ", ".join(names), content


def _place(content, rng):
    """Anywhere, but most often where headers and footers are."""
    size = max(len(content), 1)
    low, high = [(0, size), (0, min(size, _HEAD)), (max(size - _HEAD, 0), size)][rng.integers(3)]
    return int(rng.integers(low, high))


def _chunk(content, rng):
    start = _place(content, rng)
    return start, start + int(rng.choice((1, 2, 4, 8, 16, 64, 1024)))


def flip_bits(content, rng):
    damaged = bytearray(content or b"\0")
    for _ in range(int(rng.integers(1, 9))):
        damaged[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def fill(content, rng):
    start, end = _chunk(content, rng)
    value = int(rng.choice((0x00, 0xFF, 0x7F, 0x80, 0x20, 0x0A)))
    return content[:start] + bytes([value]) * len(content[start:end]) + content[end:]


def truncate(content, rng):
    return content[: _place(content, rng)]


def insert(content, rng):
    start = _place(content, rng)
    return content[:start] + rng.bytes(int(rng.integers(1, 40))) + content[start:]


def remove(content, rng):
    start, end = _chunk(content, rng)
    return content[:start] + content[end:]


def duplicate(content, rng):
    start, end = _chunk(content, rng)
    times = int(rng.choice((1, 1, 2, 500)))
    return content[:end] + content[start:end] * times + content[end:]


def swap(content, rng):
    (a, b), (c, d) = sorted((_chunk(content, rng), _chunk(content, rng)))
    c = max(b, c)
    d = max(c, d)
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def edge_integer(content, rng):
    """A number at the edge of its type where a count may be."""
    size = int(rng.choice((1, 2, 4, 8)))
    value = int(EDGES[rng.integers(len(EDGES))]) % 2 ** (8 * size)
    start = _place(content, rng)
    start -= start % size * int(rng.integers(2))
    packed = value.to_bytes(size, ("little", "big")[rng.integers(2)])
    return content[:start] + packed + content[start + size :]


def edge_float(content, rng):
    value = rng.choice((np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-40))
    code = ("<f", "<d", ">f")[rng.integers(3)]
    packed = struct.pack(code, value)
    start = _place(content, rng) // len(packed) * len(packed)
    return content[:start] + packed + content[start + len(packed) :]


def edge_text(content, rng):
    """A number in a text becomes huge, negative, no number or no more."""
    start = _place(content, rng)
    window = content[start : start + 4096]
    found = list(re.finditer(rb"-?\d[\d.e+-]*", window))
    if not found:
        return edge_integer(content, rng)
    match = found[rng.integers(len(found))]
    value = NUMBERS[rng.integers(len(NUMBERS))]
    return content[: start + match.start()] + value + content[start + match.end() :]


def nest(content, rng):
    """Brackets that open and do not close, or that close again."""
    pair = (b"[]", b"{}", b"()", b"- ", b'{"a":', b"(l")[rng.integers(6)]
    start, depth = _place(content, rng), int(rng.choice((30, 2000, DEPTH)))
    closing = pair[1:2] * depth if rng.random() < 0.5 else b""
    return content[:start] + pair[:-1] * depth + closing + content[start:]


def words(content, rng):
    """A word of a text becomes another one of it, or an odd one."""
    found = list(re.finditer(rb"[A-Za-z_]{2,}", content[: 1 << 16]))
    if not found:
        return swap(content, rng)
    match = found[rng.integers(len(found))]
    other = found[rng.integers(len(found))][0]
    new = (other, b"null", b"", b"A" * 20_000, b"\x1b[31m", b"../../x", b"\xff\xfe", b"\0")
    return content[: match.start()] + new[rng.integers(len(new))] + content[match.end() :]


MUTATORS = {
    change.__name__: change
    for change in (
        *(flip_bits, fill, truncate, insert, remove, duplicate, swap),
        *(edge_integer, edge_float, edge_text, nest, words),
    )
}


# --- inside what is packed


def gzip_inside(content, rng):
    plain = gzip.decompress(content)
    if rng.random() < 0.03:
        return "bomb", gzip.compress(plain + bytes(_BOMB), compresslevel=9)
    how, damaged = mutate(plain, rng)
    return how, gzip.compress(damaged, compresslevel=1)


def zip_inside(content, rng):
    """One member damaged, with its checksum made right; or a bomb."""
    members = read_zip(content)
    names = list(members)
    target = names[rng.integers(len(names))]
    if rng.random() < 0.03:
        members[target] += bytes(_BOMB)
        return "bomb", write_zip(members, zipfile.ZIP_DEFLATED)
    if rng.random() < 0.1:
        odd = ("../out", "/tmp/out", "a\0b", "a" * 300, names[0])[rng.integers(5)]
        members = {odd if name == target else name: value for name, value in members.items()}
        return "name", write_zip(members)
    how, members[target] = mutate(members[target], rng)
    return f"{target}: {how}", write_zip(members)


def png_inside(content, rng):
    """One chunk damaged, with its checksum made right."""
    chunks, at = [], 8
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        chunks.append([content[at + 4 : at + 8], content[at + 8 : at + 8 + size]])
        at += 12 + size
    chunk = chunks[rng.integers(len(chunks))]
    how, chunk[1] = mutate(chunk[1], rng)
    packed = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b))
              for k, b in chunks)  # fmt: skip
    return f"{chunk[0].decode()}: {how}", content[:8] + b"".join(packed)


def read_zip(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(members, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, value in members.items():
            archive.writestr(name, value)
    return stream.getvalue()


_REPACK = {b"\x1f\x8b": gzip_inside, b"PK\x03\x04": zip_inside, b"\x89PNG": png_inside}
