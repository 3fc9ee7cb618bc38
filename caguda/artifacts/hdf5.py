"""What the HDF5 artifacts share: attributes that are texts, and one digest over arrays and attributes."""

import hashlib
from collections.abc import Mapping

import h5py
import numpy as np


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


def digest_of(arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    """The SHA-256 of arrays, in their order, and of texts, in that of their names, as docs/formats.md says."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    for name in sorted(texts):
        digest.update(f"{name}\0{texts[name]}\0".encode())
    return digest.hexdigest()
