"""Which images of a label store are finished: files beside the store, one for each part, a line for each image."""

import glob
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caguda.artifacts.label_metadata import chunk_digests
from caguda.artifacts.provenance import fingerprint, origin_of
from caguda.errors import UserError

Digests = dict[str, str | None]


@dataclass(frozen=True)
class Journal:
    """The journal of one part, such as `1-of-2`, of the store at `path`, whose provenance is `made`: `NAME.zarr.1-of-2.journal`.

    A line follows the image that it is of: after a kill between the two, the image is written again. Each line has a key, a
    digest of the store's settings, method version and inputs.
    """

    path: Path
    division: str
    made: Mapping[str, Any]

    def written(self, indices: Iterable[int]) -> dict[int, Digests]:
        """Of these images, the finished ones, with the SHA-256 of each array's chunk: those with a line, of any part, that
        has the store's key and the digests of the files as they are now."""
        told: dict[int, list[Digests]] = {}
        key = self.key()
        for file in sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}.*.journal")):
            _refuse_irregular(file)
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                if (entry := _read(line)) is not None and entry["key"] == key:
                    told.setdefault(entry["image"], []).append(entry["chunk_sha256"])
        now = {index: chunk_digests(self.path, index) for index in indices if index in told}
        return {index: digests for index, digests in now.items() if digests in told[index]}

    def add(self, index: int) -> Digests:
        """Notes that an image is written; the SHA-256 of its chunks."""
        digests = chunk_digests(self.path, index)
        file = self.path.with_name(f"{self.path.name}.{self.division}.journal")
        _refuse_irregular(file)
        line = json.dumps({"image": index, "key": self.key(), "chunk_sha256": digests})
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"\n{line}\n")  # the first break ends what a killed writer may have left
        return digests

    def key(self) -> str:
        """A digest of what decides the labels: settings, method version, and the contents of the inputs."""
        return fingerprint({"origin": origin_of(self.made)})


def _refuse_irregular(file: Path) -> None:
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise UserError(f"{file}: the journal must be a regular file, found something else; move it away")


def _read(line: str) -> dict[str, Any] | None:
    """What a line says; None for a torn or an empty one."""
    try:
        told = json.loads(line)
        return told if {"image", "key", "chunk_sha256"} <= told.keys() else None
    except (ValueError, AttributeError):
        return None
