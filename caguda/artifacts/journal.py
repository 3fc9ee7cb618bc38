"""Which shards of a store are finished: files beside the store, one for each part, a line for each shard."""

import glob
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caguda.artifacts.maps import MapStore
from caguda.artifacts.provenance import fingerprint, origin_of
from caguda.errors import UserError

Digests = Mapping[str, list[str | None]]
"""The SHA-256 of the chunk of each image of a shard, by the name of the array."""


@dataclass(frozen=True)
class Journal:
    """The journal of one part, such as `1-of-2`, of a store: `NAME.zarr.1-of-2.journal` beside it.

    A line follows the shard that it is of: after a kill between the two, the shard is written again. Each line has a key, a
    digest of the settings, method version and inputs that the store was created with.
    """

    store: MapStore
    division: str

    def written(self, numbers: Iterable[int]) -> dict[int, Digests]:
        """Of these shards, the finished ones: those with a line, of any part, that has the store's key and the digests of
        the chunks as they are now."""
        told: dict[int, list[Digests]] = {}
        key, path = self.key(), self.store.path
        for file in sorted(path.parent.glob(f"{glob.escape(path.name)}.*.journal")):
            _refuse_irregular(file)
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                if (entry := _read(line)) is not None and entry["key"] == key:
                    told.setdefault(entry["shard"], []).append(entry["chunk_sha256"])
        found = {number: self._now(number) for number in numbers if number in told}
        return {number: digests for number, digests in found.items() if digests in told[number]}

    def _now(self, number: int) -> Digests | None:
        """The digests of a shard as it is; None where it is damaged."""
        try:
            return self.store.digests(self.store.shards[number])
        except UserError:
            return None

    def add(self, number: int, digests: Digests) -> None:
        """Notes that a shard is written, with the digests of what was written."""
        file = self.store.path.with_name(f"{self.store.path.name}.{self.division}.journal")
        _refuse_irregular(file)
        line = json.dumps({"shard": number, "key": self.key(), "chunk_sha256": digests})
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"\n{line}\n")  # the first break ends what a killed writer may have left

    def key(self) -> str:
        """A digest of what decides the maps: settings, method version, and the contents of the inputs."""
        return fingerprint({"origin": origin_of(self.store.attributes["provenance"])})


def _refuse_irregular(file: Path) -> None:
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise UserError(f"{file}: the journal must be a regular file, found something else; move it away")


def _read(line: str) -> dict[str, Any] | None:
    """What a line says; None for a torn or an empty one."""
    try:
        told = json.loads(line)
        return told if {"shard", "key", "chunk_sha256"} <= told.keys() else None
    except (ValueError, AttributeError):
        return None
