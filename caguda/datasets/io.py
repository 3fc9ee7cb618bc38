"""Image and label files as tensors. Annotated shapes: H W, the size of the image."""

import hashlib
import io
import stat
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode
from torchvision.io import decode_image as torchvision_decode

from caguda.classes import UNWRITTEN, ClassTable
from caguda.datasets.frame import Frame, label_of
from caguda.datasets.header import JPEG, PNG, label_header, read_header
from caguda.errors import UserError, first

_DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_bytes(path: Path, sha256: str | None = None) -> bytes:
    """The content of a file; UserError if it cannot be read, is empty, or has not the digest `sha256` of the check."""
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


def decode_image(content: bytes, path: Path) -> UInt8[Tensor, "3 H W"]:
    """The RGB image of a PNG or JPEG file's content, 0 to 255; `path` is for messages.

    Grey, palettes and fewer bits become RGB as in Pillow, and transparency is left out; any other kind is a UserError.
    """
    if not content.startswith((PNG, JPEG)):
        raise UserError(f"{path}: an image must be a PNG or JPEG file, and this is neither")
    if (bits := read_header(content, path, "image").bits) > 8:
        raise UserError(f"{path}: an image must have 8 bits a channel, found {bits}; save it with 8 bits a channel")
    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    try:
        image: Tensor = torchvision_decode(encoded, mode=ImageReadMode.RGB)
    except RuntimeError as error:
        raise UserError(f"{path}: this image is damaged ({' '.join(str(error).split())})") from None
    return image


def decode_label(content: bytes, path: Path) -> Shaped[np.ndarray, "H W"]:
    """The values of a PNG of one channel, uint8 or uint16; a palette gives its indices, not its colours."""
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
        raise UserError(f"{path}: this label is damaged ({' '.join(str(error).split())})") from None


def first_channel(content: bytes, path: Path) -> Shaped[np.ndarray, "H W"]:
    """The first channel of a PNG as it is. Of one with 16 bits in RGB, Pillow would keep the upper 8, all 0, silently."""
    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    try:
        channels: Tensor = torchvision_decode(encoded, mode=ImageReadMode.UNCHANGED)
    except RuntimeError as error:
        raise UserError(f"{path}: this label is damaged ({' '.join(str(error).split())})") from None
    return channels[0].numpy()


def raw_values(content: bytes, path: Path, table: ClassTable) -> Shaped[np.ndarray, "H W"]:
    """The raw values of a label file's content, uint8 or uint16, as the layout of its set decodes it."""
    if table.decoder is None:
        return decode_label(content, path)
    try:
        raw = np.asarray(table.decoder.decode_label(content, path))
    except _DAMAGED as error:
        raise UserError(f"{path}: this label is damaged ({' '.join(str(error).split())})") from None
    if raw.ndim != 2 or raw.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"{path}: a layout must decode a label to an array (H, W) of uint8 or uint16, found {raw.shape} of "
            f"{raw.dtype}; correct its decode_label"
        )
    return raw


def to_train_ids(raw: Shaped[np.ndarray, "H W"], table: ClassTable, path: Path) -> UInt8[Tensor, "H W"]:
    """The train ids of raw values, IGNORE where void; UserError with every unknown value and its number of pixels."""
    if raw.dtype == np.uint8:  # as np.take would, in half the time
        mapped = bytearray(raw).translate(table.lookup[:256].tobytes())
        train_ids = np.frombuffer(mapped, dtype=np.uint8).reshape(raw.shape)
    else:
        train_ids = np.take(table.lookup, raw)
    if (unknown := train_ids == UNWRITTEN).any():
        values, counts = np.unique(raw[unknown], return_counts=True)
        found = first([f"{value} ({count} pixels)" for value, count in zip(values, counts, strict=True)], 5)
        raise UserError(
            f"{path}: label values outside the class table: {found}; correct the file, or add them to "
            "the keys classes or ignore"
        )
    return torch.from_numpy(train_ids)


def read_image(path: Path, sha256: str | None = None) -> UInt8[Tensor, "3 H W"]:
    """The RGB image of a PNG or JPEG file, 0 to 255; UserError if it cannot be read or is not the file of this digest."""
    return decode_image(read_bytes(path, sha256), path)


def read_label(path: Path, table: ClassTable, sha256: str | None = None) -> UInt8[Tensor, "H W"]:
    """The train ids of a label file, IGNORE where void.

    UserError if it cannot be read, holds an unknown value, or is not the file of this digest.
    """
    return to_train_ids(raw_values(read_bytes(path, sha256), path, table), table, path)


def image_of(frame: Frame) -> UInt8[Tensor, "3 H W"]:
    """The RGB image of a frame; UserError unless its file is the one that was checked."""
    return read_image(frame.image, frame.image_sha256)


def labels_of(frame: Frame, table: ClassTable) -> UInt8[Tensor, "H W"]:
    """The train ids of a frame, which must have a label; UserError unless its file is the one that was checked."""
    return read_label(label_of(frame), table, frame.label_sha256)
