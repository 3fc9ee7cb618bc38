"""Which frames on disk are no longer those of a manifest: by their names, and by size and times where these are known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caguda.config import Configuration
from caguda.config_frames import Domain
from caguda.datasets.frames import list_frames
from caguda.datasets.record import read_record
from caguda.errors import UserError
from caguda.files import read_regular

Seen = tuple[int, int, str]
"""Size in bytes, time of change in nanoseconds, and SHA-256 of a file."""


def changed_frames(configuration: Configuration, content: Mapping[str, Any], manifest: Path) -> list[str]:
    """What has changed since a manifest of this `content` was written, a few words for each frame; none if nothing has.

    A file of the size and time that the check wrote down is not opened; one with others is hashed.
    """
    known = _known(manifest.parent / ("check-test" if "test" in content else "check") / "frames.jsonl")
    found: list[str] = []
    for name in ("source", "target", "evaluation", "test"):
        domain: Domain | None = getattr(configuration, name)
        if name not in content or domain is None:
            continue
        try:
            frames = list_frames(domain, configuration.domain_root(domain))
        except UserError as error:
            found.append(f"the {name} set: {error}")
            continue
        entries = {entry["id"]: entry for entry in content[name]["frames"]}
        now = {frame.id: frame for frame in frames}
        found += [f"{frame} of the {name} set was added" for frame in sorted(now.keys() - entries.keys())]
        found += [f"{frame} of the {name} set is gone" for frame in sorted(entries.keys() - now.keys())]
        root = Path(content[name]["root"])
        for frame in sorted(now.keys() & entries.keys()):
            for kind, file in (("image", now[frame].image), ("label", now[frame].label)):
                entry = entries[frame]
                before = None if entry[kind] is None else root / entry[kind]
                if not _same(file, before, entry[f"{kind}_sha256"], known):
                    found.append(f"{file or frame} was changed")
    return found


def _same(file: Path | None, before: Path | None, sha256: str | None, known: Mapping[str, Seen]) -> bool:
    """Whether a file is what was checked at `before`, as far as its size and time tell.

    Where these are others it is read, but for one that was moved and has its old size: whatever decodes it compares it
    with its digest.
    """
    if file is None or before is None:
        return file is None and before is None
    try:
        status = file.stat()
        size, mtime, recorded = known.get(str(before), (status.st_size, status.st_mtime_ns, sha256))
        if status.st_size != size or recorded != sha256:
            return False
        if status.st_mtime_ns == mtime or file != before:
            return True
        return hashlib.sha256(read_regular(file)).hexdigest() == sha256
    except (UserError, OSError):
        return False


def _known(record: Path) -> dict[str, Seen]:
    """What the check has seen last of each file, by its path."""
    found: dict[str, Seen] = {}
    for stamp, (entry, _) in read_record(record).items():
        for kind, (path, size, mtime, _) in (("image", stamp[1:5]), ("label", stamp[5:9])):
            if isinstance(path, str) and isinstance(size, int) and isinstance(mtime, int):
                found[path] = (size, mtime, entry[f"{kind}_sha256"])
    return found
