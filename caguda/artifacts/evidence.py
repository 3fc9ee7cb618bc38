"""The evidence store: what a frozen model says of every pixel of the target, before any threshold.

Evidence exists at the resolution of f_D only. Labels of any rule and any threshold are made of it without the network.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caguda.artifacts.maps import create_store
from caguda.artifacts.maps_metadata import MapFormat
from caguda.classes import UNWRITTEN, ClassTable

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
_LONG_NAMES = {"margin": "d2 - d1 of Eq. 6", "confidence": "largest softmax probability"}


def create_evidence_store(
    path: Path, image_ids: Sequence[str], shape: tuple[int, int], per_shard: int, table: ClassTable,
    attributes: Mapping[str, Any],
) -> None:  # fmt: skip
    """Makes an empty evidence store; see create_store. `attributes` are its provenance and the anchors' mean distance."""
    described = {
        name: {"long_name": _LONG_NAMES[name]} if name in _LONG_NAMES else flags(table) for name in EVIDENCE.dtypes
    }
    create_store(
        path, EVIDENCE, image_ids, shape, per_shard, {"categories": list(table.names), **attributes}, described
    )


def flags(table: ClassTable, more: Mapping[int, str] | None = None) -> dict[str, Any]:
    """CF flags of a map of categories, from which xarray and cf_xarray know names and colours; `more` values are black."""
    more = more or {}
    names = [*table.names, *more.values()]
    colors = [*table.colors, *[(0, 0, 0)] * len(more)]
    return {
        "flag_values": [*range(table.count), *more],
        "flag_meanings": " ".join("_".join(name.split()) for name in names),
        "flag_colors": " ".join("#{:02x}{:02x}{:02x}".format(*color) for color in colors),
    }


def evidence_faults(maps: Mapping[str, NDArray[Any]], categories: int) -> list[str]:
    """What is wrong with the evidence of one image, a sentence each; none if it is complete and in its ranges."""
    found = []
    for name in ("nearest_anchor", "predicted"):
        if (maps[name] == UNWRITTEN).any():
            found.append(f"{name} holds {UNWRITTEN}, never written")
        elif (largest := maps[name].max()) >= categories:
            found.append(f"{name} must be below {categories}, found {largest}")
    if not (maps["margin"] >= 0).all():
        found.append("margin must be 0 or more, found a negative value or nan (never written)")
    if not ((maps["confidence"] >= 0) & (maps["confidence"] <= 1)).all():
        found.append("confidence must be 0 to 1, found a value outside or nan (never written)")
    return found
