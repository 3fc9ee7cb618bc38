"""The evidence store: what a frozen model predicts for every target pixel, before any threshold; Eq. 5 and the softmax.

Evidence has the resolution of f_D. Labels of any rule and any threshold are made from it without the network.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caguda.artifacts.journal import Journals
from caguda.artifacts.maps import MapStore, create_store
from caguda.artifacts.maps_metadata import MapFormat
from caguda.artifacts.provenance import json_digest, origin_of
from caguda.classes import UNWRITTEN, ClassTable
from caguda.errors import UserError

EVIDENCE = MapFormat(
    "caguda-evidence",
    1,
    "evidence store",
    {
        "nearest_anchor": np.dtype("u1"),
        "margin": np.dtype("f4"),
        "predicted": np.dtype("u1"),
        "confidence": np.dtype("f4"),
    },
)

Digests = Mapping[str, list[str | None]]
"""The SHA-256 of the chunk of each image of a shard, by the name of the array."""


def create_evidence_store(
    path: Path, image_ids: Sequence[str], shape: tuple[int, int], per_shard: int, table: ClassTable,
    attributes: Mapping[str, Any],
) -> None:  # fmt: skip
    """Makes an empty evidence store; see create_store. `attributes` are its provenance and the anchors' mean distance."""
    array_attributes = {
        "nearest_anchor": flags(table),
        "margin": {"long_name": "d2 - d1 of Eq. 6"},
        "predicted": flags(table),
        "confidence": {"long_name": "largest softmax probability"},
    }
    attributes = {"categories": list(table.names), **attributes}
    create_store(path, EVIDENCE, image_ids, shape, per_shard, attributes, array_attributes)


def flags(table: ClassTable, other_values: Mapping[int, str] | None = None) -> dict[str, Any]:
    """The CF flags of a map of categories: names and colours for xarray and cf_xarray.

    `other_values` are values that are no category, with their names; they are black.
    """
    other_values = other_values or {}
    names = [*table.names, *other_values.values()]
    colors = [*table.colors, *[(0, 0, 0)] * len(other_values)]
    return {
        "flag_values": [*range(table.count), *other_values],
        "flag_meanings": " ".join("_".join(name.split()) for name in names),
        "flag_colors": " ".join("#{:02x}{:02x}{:02x}".format(*color) for color in colors),
    }


def evidence_faults(maps: Mapping[str, NDArray[Any]], categories: int) -> list[str]:
    """The faults in the evidence of one image, a sentence each; none if it is complete and in its ranges."""
    faults = []
    for name in ("nearest_anchor", "predicted"):
        if (maps[name] == UNWRITTEN).any():
            faults.append(f"{name} holds {UNWRITTEN}, never written")
        elif (largest := maps[name].max()) >= categories:
            faults.append(f"{name} must be below {categories}, found {largest}")
    if not (maps["margin"] >= 0).all():
        faults.append("margin must be 0 or more, found a negative value or nan (never written)")
    if not ((maps["confidence"] >= 0) & (maps["confidence"] <= 1)).all():
        faults.append("confidence must be 0 to 1, found a value outside or nan (never written)")
    return faults


@dataclass(frozen=True)
class ShardJournal:
    """The journal of one part of the work, such as `1-of-2`, on an evidence store: a line for each shard that is written.

    A line is added after the files of its shard: after a kill between the two, the shard is written again.
    """

    store: MapStore
    part: str

    def written(self, shards: Iterable[int]) -> dict[int, Digests]:
        """The digests of the finished ones among some shards, by their numbers; see Journals.finished."""
        return self._journals.finished(dict.fromkeys(shards, self._key), self._current_digests)

    def add(self, shard: int, digests: Digests) -> None:
        """Adds a line for a shard with the digests of its chunks as they were written."""
        self._journals.append(self.part, shard, self._key, digests)

    @property
    def _journals(self) -> Journals:
        return Journals(self.store.path, "shard", "chunk_sha256")

    @property
    def _key(self) -> str:
        """The SHA-256 of all that decides the maps: settings, method version and the contents of the inputs."""
        return json_digest({"origin": origin_of(self.store.attributes["provenance"])})

    def _current_digests(self, shard: int) -> Digests | None:
        """The digests of a shard's chunks; None where it is damaged."""
        try:
            return self.store.digests(self.store.shards[shard])
        except UserError:
            return None
