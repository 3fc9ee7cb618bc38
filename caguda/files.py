"""Reading of regular files only, and the checksum in the last line of each JSON file that a verb writes."""

import hashlib
from pathlib import Path

from caguda.errors import UserError

SEAL = "sha256_of_all_above"
"""The last key of a JSON file of ours: the SHA-256 of all bytes above it."""


def refuse_irregular(path: Path) -> None:
    """UserError if the path is a pipe, socket or device, on which a read might wait forever."""
    try:
        irregular = path.exists() and not path.is_file() and not path.is_dir()
    except OSError as error:
        raise UserError(
            f"{path!s:.300}: the path must be one of a file, found: {error.strerror}; name another"
        ) from None
    if irregular:
        raise UserError(f"{path}: a regular file must be here, found a pipe, socket or device; name the right file")


def read_regular(path: Path, remedy: str = "make it first") -> bytes:
    """The content of a regular file. UserError if there is none, or a pipe, socket or device."""
    try:
        refuse_irregular(path)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the file must be readable, found: {error.strerror}; {remedy}") from None


def seal(above: bytes) -> bytes:
    """The end of a JSON file that begins with these bytes: the line with their SHA-256, and the closing brace."""
    return f' "{SEAL}": "{hashlib.sha256(above).hexdigest()}"\n}}\n'.encode()


def is_sealed(content: bytes) -> bool:
    """Whether the content ends with the right SHA-256 of all bytes above it, as `write_json` writes it."""
    end = len(seal(b""))
    return content[-end:] == seal(content[:-end])


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes in hexadecimal; a UserError if the file cannot be read."""
    try:
        refuse_irregular(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: the file must be readable, found: {error.strerror}; make it first") from None
