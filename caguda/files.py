"""Reading what is a file, and nothing that would be waited for; the seal of the JSON files that verbs write."""

import hashlib
from pathlib import Path

from caguda.errors import UserError

SEAL = "sha256_of_all_above"


def refuse_irregular(path: Path) -> None:
    """UserError where a pipe, socket or device is, which would be waited for."""
    try:
        irregular = path.exists() and not path.is_file() and not path.is_dir()
    except OSError as error:
        raise UserError(
            f"{path!s:.300}: the path must be one of a file, found: {error.strerror}; name another"
        ) from None
    if irregular:
        raise UserError(f"{path}: a regular file must be here, found a pipe, socket or device; name the right file")


def read_regular(path: Path, remedy: str = "make it first") -> bytes:
    """The content of a regular file; a UserError where there is none, or a pipe or device that would be waited for."""
    try:
        refuse_irregular(path)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the file must be readable, found: {error.strerror}; {remedy}") from None


def seal(above: bytes) -> bytes:
    """The last line and the brace of a JSON that begins with these bytes."""
    return f' "{SEAL}": "{hashlib.sha256(above).hexdigest()}"\n}}\n'.encode()


def is_sealed(content: bytes) -> bool:
    """Whether these are, to the last bit, the bytes of a file that `write_json` wrote."""
    end = len(seal(b""))
    return content[-end:] == seal(content[:-end])
