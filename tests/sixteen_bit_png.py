"""16-bit RGB PNG files, written and read byte by byte: an oracle that shares nothing with the package's reader."""

import struct
import zlib
from pathlib import Path

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write(path: Path, red: np.ndarray, green: np.ndarray | int = 0) -> None:
    """A PNG as SYNTHIA's labels are: class ids (H, W) in red, instances in green, nothing in blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.stack([red, np.broadcast_to(green, red.shape), np.zeros_like(red)], axis=-1).astype(">u2")
    header = struct.pack(">IIBBBBB", red.shape[1], red.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    content = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    path.write_bytes(SIGNATURE + content)


def byte_of_pixels(path: Path, place: int) -> np.ndarray:
    """One of the six bytes of every pixel of a PNG with three channels of 16 bits (H, W): filters keep them apart."""
    content, at, packed = path.read_bytes(), len(SIGNATURE), b""
    width, height, bits, kind = struct.unpack(">IIBB", content[16:26])
    assert (bits, kind, content[28]) == (16, 2, 0), "16 bits, RGB, not interlaced"
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        if content[at + 4 : at + 8] == b"IDAT":
            packed += content[at + 8 : at + 8 + length]
        at += length + 12
    raw, stride, above = zlib.decompress(packed), 1 + 6 * width, [0] * width
    rows = []
    for start in range(0, height * stride, stride):
        above = _unfiltered(raw[start], raw[start + 1 + place : start + stride : 6], above)
        rows.append(above)
    return np.array(rows, dtype=np.uint8)


def _unfiltered(kind: int, values: bytes, above: list[int]) -> list[int]:
    """A row before its filter: none, left, above, their mean, or the nearest to left + above - corner."""
    row: list[int] = []
    left = corner = 0
    for value, up in zip(values, above, strict=True):
        guess = left + up - corner
        nearest = min((left, up, corner), key=lambda candidate: abs(guess - candidate))
        left = (value + (0, left, up, (left + up) // 2, nearest)[kind]) % 256
        corner = up
        row.append(left)
    return row
