"""Reading what is a file, and nothing that would be waited for."""

from pathlib import Path

from caguda.errors import UserError


def read_regular(path: Path, remedy: str = "make it first") -> bytes:
    """The content of a regular file; a UserError where there is none, or a pipe or device that would be waited for."""
    try:
        if not path.is_file() and not path.is_dir() and path.exists():
            raise UserError(f"{path}: a regular file must be here, found a pipe, socket or device; name the right file")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the file must be readable, found: {error.strerror}; {remedy}") from None
