"""What the HDF5 artifacts share: attributes that are texts, a digest over what they mean, and one over all bytes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from caguda.errors import UserError

USER_BLOCK = 512
"""Bytes before the HDF5 file proper, which HDF5 passes over: `userblock_size` of a file that is to be sealed."""


def write_texts(file: h5py.File, texts: Mapping[str, str]) -> None:
    """Writes attributes of the root group as UTF-8 strings of fixed length.

    Damaged ones of variable length, which have no checksum, make HDF5 loop for ever.
    """
    for name, text in texts.items():
        content = text.encode()
        file.attrs.create(name, content, dtype=h5py.string_dtype("utf-8", len(content)))


def read_texts(file: h5py.File) -> dict[str, str]:
    """The attributes of the root group."""
    return {name: bytes(value).decode() for name, value in file.attrs.items()}


def texts_of(path: Path) -> dict[str, str]:
    """The attributes of a file; a UserError if it is missing or damaged."""
    try:
        with h5py.File(path, "r") as file:
            return read_texts(file)
    except Exception as error:  # noqa: BLE001  h5py raises OSError, KeyError, RuntimeError or ValueError
        raise UserError(f"{path}: the file must be whole HDF5, found {error}; delete it and make it again") from None


def digest_of(arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    """The SHA-256 of arrays, in their order, and of texts, in that of their names, as docs/formats.md says."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    for name in sorted(texts):
        digest.update(f"{name}\0{texts[name]}\0".encode())
    return digest.hexdigest()


def seal(path: Path) -> None:
    """Writes the SHA-256 of all that follows it into the user block of a closed file."""
    with path.open("r+b") as file:
        file.seek(USER_BLOCK)
        block = _block(hashlib.file_digest(file, "sha256").hexdigest())
        file.seek(0)
        file.write(block)


def is_sealed(path: Path) -> bool:
    """Whether a file is to the last bit what was sealed. HDF5 opens nothing here: damage can make it loop for ever."""
    with path.open("rb") as file:
        block = file.read(USER_BLOCK)
        return block == _block(hashlib.file_digest(file, "sha256").hexdigest())


def _block(digest: str) -> bytes:
    return f"SHA-256 from byte {USER_BLOCK} on: {digest}\n".encode().ljust(USER_BLOCK, b"\0")
