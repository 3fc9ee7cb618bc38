"""Reading and decoding image and label files. Annotated shapes: H W, the size of the image."""

import hashlib
import importlib
import io
import stat
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from PIL import Image
from torch import Tensor

from caguda.classes import UNWRITTEN, ClassTable
from caguda.datasets.frame import Frame, label_file
from caguda.datasets.header import JPEG, PNG, label_header, read_header
from caguda.errors import UserError, first

UNCHANGED, RGB = 0, 3  # of torchvision.io.ImageReadMode
_DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_bytes(path: Path, sha256: str | None = None) -> bytes:
    """The content of a file; UserError if it cannot be read, is empty, or differs from the SHA-256 of the check."""
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise UserError(f"{path}: this must be a regular file, found a pipe, socket or device; put a file there")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: this file cannot be read ({error.strerror})") from None
    if not content:
        raise UserError(f"{path}: this file is empty")
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path}: this file must be as it was when it was checked, found another content; check again")
    return content


def _damaged(path: Path, kind: str, error: Exception) -> UserError:
    return UserError(f"{path}: this {kind} is damaged ({' '.join(str(error).split())})")


@cache
def _decoders() -> Any:
    """The image decoders of torchvision, without its other modules: to import those takes longer than to import torch."""
    package = PathFinder.find_spec("torchvision")
    library = PathFinder.find_spec("image", package.submodule_search_locations) if package else None
    if library and library.origin:
        torch.ops.load_library(library.origin)
    else:
        importlib.import_module("torchvision.io")
    return torch.ops.image


def _decode(content: bytes, path: Path, kind: str, mode: int) -> UInt8[Tensor, "channels H W"]:
    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    try:
        channels: Tensor = _decoders().decode_image(encoded, mode, False)  # False: as it is stored, not turned by EXIF
    except RuntimeError as error:
        raise _damaged(path, kind, error) from None
    return channels


def decode_image(content: bytes, path: Path) -> UInt8[Tensor, "3 H W"]:
    """The RGB image, 0 to 255, in the content of a PNG or JPEG file; `path` is for messages.

    Grey and palette images and those with fewer bits become RGB as in Pillow, and transparency is dropped. UserError for
    any other kind.
    """
    if not content.startswith((PNG, JPEG)):
        raise UserError(f"{path}: an image must be a PNG or JPEG file, and this is neither")
    if (bits := read_header(content, path, "image").bits) > 8:
        raise UserError(f"{path}: an image must have 8 bits a channel, found {bits}; save it with 8 bits a channel")
    return _decode(content, path, "image", RGB)


def decode_label(content: bytes, path: Path) -> Shaped[np.ndarray, "H W"]:
    """The values in the content of a one-channel PNG, uint8 or uint16; those of a palette PNG are its indices."""
    header = label_header(content, path)
    if header.bits >= 8 and header.kind == 0:
        return first_channel(content, path)
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.mode != "P":
                raise UserError(
                    f"{path}: a label must be a PNG of one 8-bit, 16-bit or palette channel that holds label values, "
                    f"found mode {image.mode}" + (" with fewer bits" if image.mode in ("1", "L") else "")
                )
            return np.asarray(image)
    except _DAMAGED as error:
        raise _damaged(path, "label", error) from None


def first_channel(content: bytes, path: Path) -> Shaped[np.ndarray, "H W"]:
    """The first channel of a PNG with all its bits. (Of 16 bits in RGB, Pillow silently keeps the upper 8, here all 0.)"""
    return _decode(content, path, "label", UNCHANGED)[0].numpy()


def raw_values(content: bytes, path: Path, table: ClassTable) -> Shaped[np.ndarray, "H W"]:
    """The raw values of a label file's content, uint8 or uint16, decoded by the layout of its set."""
    if table.decoder is None:
        return decode_label(content, path)
    try:
        raw = np.asarray(table.decoder.decode_label(content, path))
    except _DAMAGED as error:
        raise _damaged(path, "label", error) from None
    if raw.ndim != 2 or raw.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"{path}: a layout must decode a label to an array (H, W) of uint8 or uint16, found {raw.shape} of "
            f"{raw.dtype}; correct its decode_label"
        )
    return raw


def to_train_ids(raw: Shaped[np.ndarray, "H W"], table: ClassTable, path: Path) -> UInt8[Tensor, "H W"]:
    """The train ids of raw values, IGNORE for void; UserError with the unknown values and their numbers of pixels."""
    if raw.dtype == np.uint8:  # the same as np.take, in half the time
        mapped = bytearray(raw).translate(table.lookup[:256].tobytes())
        train_ids = np.frombuffer(mapped, dtype=np.uint8).reshape(raw.shape)
    else:
        train_ids = np.take(table.lookup, raw)
    if (unknown := train_ids == UNWRITTEN).any():
        values, counts = np.unique(raw[unknown], return_counts=True)
        listed = first([f"{value} ({count} pixels)" for value, count in zip(values, counts, strict=True)], 5)
        raise UserError(
            f"{path}: label values outside the class table: {listed}; correct the file, or add them to "
            "the keys classes or ignore"
        )
    return torch.from_numpy(train_ids)


def read_image(path: Path, sha256: str | None = None) -> UInt8[Tensor, "3 H W"]:
    """The RGB image of a PNG or JPEG file, 0 to 255; UserError if it cannot be read or differs from `sha256`."""
    return decode_image(read_bytes(path, sha256), path)


def read_label(path: Path, table: ClassTable, sha256: str | None = None) -> UInt8[Tensor, "H W"]:
    """The train ids of a label file, IGNORE for void.

    UserError if it cannot be read, holds an unknown value, or differs from `sha256`.
    """
    return to_train_ids(raw_values(read_bytes(path, sha256), path, table), table, path)


def frame_image(frame: Frame) -> UInt8[Tensor, "3 H W"]:
    """The RGB image of a frame, 0 to 255; UserError if its file has changed since the check."""
    return read_image(frame.image, frame.image_sha256)


def frame_labels(frame: Frame, table: ClassTable) -> UInt8[Tensor, "H W"]:
    """The train ids of a frame's label, IGNORE for void; UserError if it has none or has changed since the check."""
    return read_label(label_file(frame), table, frame.label_sha256)
