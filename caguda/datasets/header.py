"""What the header of a PNG or JPEG file says of its pixels, before any of them is decoded."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from caguda.errors import UserError

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
LARGEST = 89_478_485
"""The pixels of the largest image that is decoded, as in Pillow: its RGB takes 256 MiB."""
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BASELINE_OR_PROGRESSIVE = (0xC0, 0xC1, 0xC2)
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_NOTES = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
"""How a chunk of text in a PNG begins that holds EXIF or XMP."""
_TURNED = range(2, 9)


@dataclass(frozen=True)
class Header:
    """The size of an image, its bits a channel, and its kind: the colour type of a PNG, a JPEG's number of channels.

    `notes` says whether the file may tell an orientation, `late` whether it does so behind the pixels.
    """

    width: int
    height: int
    bits: int
    kind: int
    notes: bool
    late: bool = False


class _OtherKind(Exception):
    """A file of a kind whose pixels are not decoded here."""


def read_header(content: bytes, path: Path, what: str) -> Header:
    """The header of an upright image of a size that can be decoded; UserError for any other.

    `what` is the file to a person, an image or a label; `path` is for messages.
    """
    try:
        header = _png(content) if content.startswith(PNG) else _jpeg(content)
    except (struct.error, IndexError, ValueError):
        raise UserError(f"{path}: this {what} is damaged (its header is not whole)") from None
    except _OtherKind as kind:
        raise UserError(f"{path}: {kind}; save it as an ordinary PNG file") from None
    if header.width * header.height > LARGEST:
        raise UserError(
            f"{path}: this {what} must have at most {LARGEST} pixels, found {header.width}x{header.height}; "
            "cut or resize it, or leave it out with the key skip"
        )
    if header.notes and (turn := _orientation(content, header.late)) in _TURNED:
        raise UserError(
            f"{path}: this {what} must be stored upright, and it has the EXIF orientation {turn}, by which viewers turn "
            "it and its pixels are not turned; turn the pixels and remove the mark (`mogrify -auto-orient`), or the mark "
            "alone if image and label fit without it, or leave the frame out with the key skip"
        )
    return header


def label_header(content: bytes, path: Path) -> Header:
    """The header of a label, which must be a whole PNG file; UserError for any other."""
    if not content.startswith(PNG):
        raise UserError(f"{path}: a label must be a PNG file, and this is not one")
    if b"IEND" not in content:
        raise UserError(f"{path}: this label is damaged (image file is truncated)")
    return read_header(content, path, "label")


def _png(content: bytes) -> Header:
    width, height, bits, kind = struct.unpack_from(">II2B", content, 16)
    at, notes, late, pixels = len(PNG), False, False, False
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        if name == b"acTL":
            raise _OtherKind("a PNG must hold one picture, and this one is animated")
        pixels |= name == b"IDAT"
        if name == b"eXIf" or (name[1:] in (b"EXt", b"TXt") and content.startswith(_NOTES, at + 8)):
            notes, late = True, pixels
        at += length + 12
    return Header(width, height, bits, kind, notes, late)


def _jpeg(content: bytes) -> Header:
    at, notes, frame = 2, False, None
    while content[at + 1] != _START_OF_SCAN:
        if content[at] != 0xFF:
            raise ValueError("no marker")
        marker = content[at + 1]
        if marker == 0xFF:  # fills a gap
            at += 1
            continue
        (length,) = struct.unpack_from(">H", content, at + 2)
        if marker in _START_OF_FRAME:
            frame = (marker, *struct.unpack_from(">BHHB", content, at + 4))
        notes |= marker == _APP1
        at += 2 + length
    if frame is None:
        raise ValueError("a scan without a frame")
    marker, bits, height, width, channels = frame
    if marker not in _BASELINE_OR_PROGRESSIVE or bits != 8:
        raise _OtherKind("a JPEG must be baseline or progressive with 8 bits a channel, and this is another kind")
    if channels not in (1, 3):
        raise _OtherKind(f"a JPEG must be grey or in colour of 3 channels, found {channels} channels (CMYK, for print)")
    return Header(width, height, bits, channels, notes)


def _orientation(content: bytes, late: bool) -> int:
    """The orientation by an image's EXIF or XMP, 1 to 8; 0 where neither can be read or says one."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            if late:
                image.load()
            return int(image.getexif().get(ExifTags.Base.Orientation, 0))
    except (struct.error, OSError, SyntaxError, ValueError, TypeError):
        return 0
