"""The headers of PNG and JPEG files: size, depth and orientation, known before any pixel is decoded."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from caguda.errors import UserError

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
LARGEST = 89_478_485
"""The most pixels of an image that is decoded, as in Pillow: 256 MiB of RGB."""
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BASELINE_OR_PROGRESSIVE = (0xC0, 0xC1, 0xC2)
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_METADATA_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
"""The beginnings of PNG text chunks that hold EXIF or XMP."""
_TURNED = range(2, 9)
"""The EXIF orientations of images that are turned or mirrored for display."""


@dataclass(frozen=True)
class Header:
    """The size of an image, its bits per channel, and its kind: the colour type of a PNG, a JPEG's number of channels.

    `has_metadata`: the file has EXIF or XMP, which may give an orientation; `after_pixels`: it comes after the pixels.
    """

    width: int
    height: int
    bits: int
    kind: int
    has_metadata: bool
    after_pixels: bool = False


class _Unsupported(Exception):
    """A valid file of a kind that is not decoded."""


def read_header(content: bytes, path: Path, what: str) -> Header:
    """The header of an image; UserError if it is damaged, too large to be decoded, or not stored upright.

    `what` is "image" or "label"; it and `path` are for messages.
    """
    try:
        header = _png(content) if content.startswith(PNG) else _jpeg(content)
    except (struct.error, IndexError, ValueError):
        raise UserError(f"{path}: this {what} is damaged (its header is not whole)") from None
    except _Unsupported as error:
        raise UserError(f"{path}: {error}; save it as an ordinary PNG file") from None
    if header.width * header.height > LARGEST:
        raise UserError(
            f"{path}: this {what} must have at most {LARGEST} pixels, found {header.width}x{header.height}; "
            "cut or resize it, or leave it out with the key skip"
        )
    if header.has_metadata and (orientation := _orientation(content, header.after_pixels)) in _TURNED:
        raise UserError(
            f"{path}: this {what} must be stored upright, and it has the EXIF orientation {orientation}, by which viewers turn "
            "it and its pixels are not turned; turn the pixels and remove the mark (`mogrify -auto-orient`), or the mark "
            "alone if image and label fit without it, or leave the frame out with the key skip"
        )
    return header


def label_header(content: bytes, path: Path) -> Header:
    """The header of a label; UserError unless it is a PNG file that is not truncated."""
    if not content.startswith(PNG):
        raise UserError(f"{path}: a label must be a PNG file, and this is not one")
    if b"IEND" not in content:
        raise UserError(f"{path}: this label is damaged (image file is truncated)")
    return read_header(content, path, "label")


def _png(content: bytes) -> Header:
    width, height, bits, kind = struct.unpack_from(">II2B", content, 16)
    offset, has_metadata, after_pixels, pixels_begun = len(PNG), False, False, False
    while offset + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, offset)
        if name == b"acTL":
            raise _Unsupported("a PNG must hold one picture, and this one is animated")
        pixels_begun |= name == b"IDAT"
        if name == b"eXIf" or (name[1:] in (b"EXt", b"TXt") and content.startswith(_METADATA_TEXTS, offset + 8)):
            has_metadata, after_pixels = True, pixels_begun
        offset += length + 12
    return Header(width, height, bits, kind, has_metadata, after_pixels)


def _jpeg(content: bytes) -> Header:
    offset, has_metadata, frame = 2, False, None
    while content[offset + 1] != _START_OF_SCAN:
        if content[offset] != 0xFF:
            raise ValueError("no marker")
        marker = content[offset + 1]
        if marker == 0xFF:  # padding
            offset += 1
            continue
        (length,) = struct.unpack_from(">H", content, offset + 2)
        if marker in _START_OF_FRAME:
            frame = (marker, *struct.unpack_from(">BHHB", content, offset + 4))
        has_metadata |= marker == _APP1
        offset += 2 + length
    if frame is None:
        raise ValueError("a scan without a frame")
    marker, bits, height, width, channels = frame
    if marker not in _BASELINE_OR_PROGRESSIVE or bits != 8:
        raise _Unsupported("a JPEG must be baseline or progressive with 8 bits a channel, and this is another kind")
    if channels not in (1, 3):
        raise _Unsupported(
            f"a JPEG must be grey or in colour of 3 channels, found {channels} channels (CMYK, for print)"
        )
    return Header(width, height, bits, channels, has_metadata)


def _orientation(content: bytes, after_pixels: bool) -> int:
    """The orientation in an image's EXIF or XMP, 1 to 8; 0 if there is none or it cannot be read."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            if after_pixels:
                image.load()
            return int(image.getexif().get(ExifTags.Base.Orientation, 0))
    except (struct.error, OSError, SyntaxError, ValueError, TypeError):
        return 0
