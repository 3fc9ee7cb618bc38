"""The common parts of HDF5 artifacts: text attributes, a digest of the content, and a checksum over all bytes."""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caguda.artifacts.atomic import write_atomically
from caguda.errors import UserError
from caguda.files import read_regular, refuse_irregular

USER_BLOCK = 512
"""Bytes before the HDF5 file proper, which HDF5 skips: they hold the checksum. It is the `userblock_size` of a new file."""

_SIGNATURE = b"\x89HDF\r\n"
"""The first bytes of a file without user block, which another program wrote."""


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
    refuse_irregular(path)
    try:
        with h5py.File(path, "r") as file:
            return read_texts(file)
    except Exception as error:  # noqa: BLE001  h5py raises OSError, KeyError, RuntimeError or ValueError
        raise UserError(
            f"{path}: the file must be whole HDF5, found {error}; make it again, or name the right file"
        ) from None


def content_of_arrays(path: Path) -> str | None:
    """The digest of the arrays and attributes of a file of `write_arrays`, without its provenance; None for another file."""
    if not checksum_agrees(path):
        return None
    with h5py.File(path, "r") as file:
        texts = {name: text for name, text in read_texts(file).items() if name not in ("sha256", "provenance")}
        if any(not isinstance(item, h5py.Dataset) for item in file.values()):
            return None
        return digest_of({name: np.asarray(file[name]) for name in sorted(file)}, texts)


def digest_of(arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    """The SHA-256 of arrays, in the given order, and of texts, sorted by name (docs/formats.md)."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    for name in sorted(texts):
        digest.update(f"{name}\0{texts[name]}\0".encode())
    return digest.hexdigest()


def write_arrays(
    path: Path, kind: tuple[str, int], arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> None:
    """Writes a small file of arrays and JSON attributes atomically; `kind` is its format and the format's version."""
    # From version 1.8 of the format on, HDF5 keeps checksums of its own structures and long attributes.
    with write_atomically(path) as partial:
        with h5py.File(partial, "w", libver=("v108", "v108"), userblock_size=USER_BLOCK) as file:
            write_content(file, kind, arrays, attributes)
        write_checksum(partial)


def read_arrays(
    path: Path, kind: tuple[str, int], names: Iterable[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of these names and the attributes of a file of `write_arrays`; UserError if damaged or of another kind."""
    content = read_regular(path)
    if not content.startswith(_SIGNATURE) and content[:USER_BLOCK] != _block(
        hashlib.sha256(content[USER_BLOCK:]).hexdigest()
    ):
        raise _damaged(path, "another SHA-256 than the one that it begins with")
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            texts = read_texts(file)
            if absent := [name for name in names if not isinstance(file.get(name, getlink=True), h5py.HardLink)]:
                raise ValueError(f"no array {absent[0]} of its own")
            arrays = {name: np.asarray(file[name]) for name in names}
    except Exception as error:  # noqa: BLE001  h5py raises OSError, KeyError, RuntimeError or ValueError
        raise _damaged(path, str(error)) from None
    actual = (texts.pop("format", None), texts.pop("format_version", None))
    if actual != (kind[0], str(kind[1])):
        raise UserError(f"{path}: the file must be {kind[0]} {kind[1]}, found {actual[0]} {actual[1]}")
    if texts.pop("sha256", None) != digest_of(arrays, texts):
        raise _damaged(path, "content that does not have the digest it was written with")
    return arrays, {name: json.loads(text) for name, text in texts.items()}


def _damaged(path: Path, fault: str) -> UserError:
    return UserError(
        f"{path}: the file must be a whole one of this program, found {fault}; make it again, or name the right file"
    )


def write_checksum(path: Path) -> None:
    """Writes the SHA-256 of all bytes after the user block of a closed file into that block."""
    with path.open("r+b") as file:
        file.seek(USER_BLOCK)
        block = _block(hashlib.file_digest(file, "sha256").hexdigest())
        file.seek(0)
        file.write(block)


def checksum_agrees(path: Path) -> bool:
    """Whether a file has the bytes of its checksum. It is not opened as HDF5, which can loop for ever on damaged files."""
    with path.open("rb") as file:
        block = file.read(USER_BLOCK)
        return block == _block(hashlib.file_digest(file, "sha256").hexdigest())


def _block(digest: str) -> bytes:
    return f"SHA-256 from byte {USER_BLOCK} on: {digest}\n".encode().ljust(USER_BLOCK, b"\0")


def write_content(
    file: h5py.File, kind: tuple[str, int], arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> None:
    """Writes arrays and JSON attributes into an open file, with its format, the format's version and their digest."""
    texts = {name: json.dumps(value, ensure_ascii=False, sort_keys=True) for name, value in attributes.items()}
    for name, array in arrays.items():
        file.create_dataset(name, data=array)
    write_texts(file, {"format": kind[0], "format_version": str(kind[1]), "sha256": digest_of(arrays, texts)} | texts)
