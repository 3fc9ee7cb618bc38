"""Files that are either whole or absent, whenever the process dies."""

import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from caguda.errors import UserError

SEAL = "sha256_of_all_above"
_ROOM = 1 << 20


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A path in the same folder to write to, which becomes `path` when the block ends without an error.

    Readers see the old file or the whole new one. After an error nothing is left; after SIGKILL a `*.partial` file is,
    until the next writer of this file. A disk that is full is an OSError, also where a library calls it something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{glob.escape(path.name)}.????????.partial"):
        left.unlink(missing_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)
    except RuntimeError as error:  # of HDF5 or torch.save
        if shutil.disk_usage(path.parent).free > _ROOM:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as indented UTF-8 JSON, atomically; nan and infinity, which JSON lacks, are a ValueError.

    One key more comes last: the SHA-256 of all the bytes in the lines above it.
    """
    text = json.dumps({**content, SEAL: ""}, indent=1, ensure_ascii=False, allow_nan=False)
    above = text.removesuffix(f' "{SEAL}": ""\n}}').encode()
    with write_atomically(path) as partial:
        partial.write_bytes(above + _seal(above))


def _seal(above: bytes) -> bytes:
    return f' "{SEAL}": "{hashlib.sha256(above).hexdigest()}"\n}}\n'.encode()


def is_sealed(content: bytes) -> bool:
    """Whether these are, to the last bit, the bytes of a file that `write_json` wrote."""
    end = len(_seal(b""))
    return content[-end:] == _seal(content[:-end])


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, without its seal; a UserError when it is missing, damaged or not an object.

    What a person wrote has no seal, and is read as it is.
    """
    try:
        raw = path.read_bytes()
        content = json.loads(raw.decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: the file must be readable, found: {error.strerror}; make it first") from None
    except ValueError as error:
        raise UserError(f"{path}: the file must hold JSON, found: {error}; delete it and make it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: the file must hold a JSON object, found {type(content).__name__}; make it again")
    if content.pop(SEAL, None) is not None and not is_sealed(raw):
        raise UserError(
            f"{path}: the file must be as it was written, found another {SEAL}; delete it and make it again"
        )
    return content


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes in hexadecimal; a UserError when the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: the file must be readable, found: {error.strerror}; make it first") from None
