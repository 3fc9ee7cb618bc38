"""Whether a folder is a label store or what is left of one, which a new one may replace."""

import json
import re
from pathlib import Path

from caguda.artifacts.atomic import HEX, at_work
from caguda.artifacts.label_arrays import NAMES
from caguda.errors import UserError
from caguda.files import read_regular

FORMAT = "caguda-labels"


def is_remains(path: Path) -> bool:
    """Whether a folder is a label store, or what is left of one: no file in it is of anything else, and none a link."""
    if path.is_symlink() or not path.is_dir():
        return False
    entries = [entry for entry in path.rglob("*") if entry.is_symlink() or not entry.is_dir()]
    names = [entry.relative_to(path).as_posix() for entry in entries]
    return (
        not any(entry.is_symlink() for entry in entries)
        and all(_OURS.fullmatch(name) for name in names)
        and all(_is_our_metadata(path, name) for name in names if name.endswith("zarr.json"))
    )


_OURS = re.compile(
    rf"zarr\.json|image_id/(zarr\.json|c\.0)|({'|'.join(NAMES)})/(zarr\.json|c\.\d+\.0\.0(\.[0-9a-f]{{8}}\.partial)?)"
)
"""Every file that a label store has, by its path in it."""


def _is_our_metadata(path: Path, name: str) -> bool:
    try:
        told = json.loads(read_regular(path / name))
        if name == "zarr.json":
            return bool(told["attributes"]["format"] == FORMAT)
        return bool(told["dimension_names"][0] == "image")
    except (UserError, ValueError, TypeError, LookupError):
        return False


def remove_partial_files(store: Path) -> None:
    """Clears away the chunks that killed writers left half-written, if none is at work; readers ignore them."""
    folders = [store / name for name in NAMES]
    with at_work(store, lambda: [left for folder in folders for left in folder.glob(f"c.*.0.0.{HEX}.partial")]):
        pass
