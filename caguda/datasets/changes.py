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


def changed_frames(configuration: Configuration, content: Mapping[str, Any], manifest: Path) -> list[str]:
    """What has changed since a manifest of this `content` was written, a few words for each frame; none if nothing has.

    A file of the size and times that the check wrote down is not opened; any other one is hashed.
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
        for frame in now.keys() & entries.keys():
            pairs = (
                (now[frame].image, entries[frame]["image_sha256"]),
                (now[frame].label, entries[frame]["label_sha256"]),
            )
            found += [f"{file or frame} was changed" for file, sha256 in pairs if not _same(file, sha256, known)]
    return found


def _same(file: Path | None, sha256: str | None, known: Mapping[tuple[Any, ...], str]) -> bool:
    if file is None or sha256 is None:
        return file is None and sha256 is None
    status = file.stat()
    recorded = known.get((str(file), status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return sha256 in (recorded, None) or hashlib.sha256(file.read_bytes()).hexdigest() == sha256


def _known(record: Path) -> dict[tuple[Any, ...], str]:
    """The digest of each file that the check has read, by its path, size and times."""
    found: dict[tuple[Any, ...], str] = {}
    for stamp, (entry, _) in read_record(record).items():
        for kind, files in (("image", stamp[1:5]), ("label", stamp[5:9])):
            if entry.get(f"{kind}_sha256"):
                found[tuple(files)] = entry[f"{kind}_sha256"]
    return found
