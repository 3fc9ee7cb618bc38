"""The label store: the pseudo-labels that one rule gives every target image; Eq. 6 and 7, or Eq. 11."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caguda.artifacts.evidence import flags
from caguda.artifacts.maps import create_store
from caguda.artifacts.maps_metadata import MapFormat
from caguda.classes import IGNORE, UNWRITTEN, ClassTable

LABELS = MapFormat("caguda-labels", 3, "label store", {"active": np.dtype("u1"), "label": np.dtype("u1")})


def create_label_store(
    path: Path, image_ids: Sequence[str], shape: tuple[int, int], per_shard: int, table: ClassTable,
    attributes: Mapping[str, Any],
) -> None:  # fmt: skip
    """Makes an empty label store; see create_store. `attributes` are its rule and its provenance."""
    array_attributes = {
        "active": {"flag_values": [0, 1], "flag_meanings": "ignored active"},
        "label": flags(table, {IGNORE: "ignore"}),
    }
    attributes = {"categories": list(table.names), **attributes}
    create_store(path, LABELS, image_ids, shape, per_shard, attributes, array_attributes)


def label_faults(maps: Mapping[str, NDArray[Any]], categories: int) -> list[str]:
    """The faults in the labels of one image, a sentence each; none if they are complete and consistent."""
    active, label = maps["active"], maps["label"]
    faults = [f"{name} holds {UNWRITTEN}, never written" for name in maps if (maps[name] == UNWRITTEN).any()]
    if (active > 1).any() and not faults:
        faults.append(f"active must be 0 or 1, found {active.max()}")
    inconsistent = np.count_nonzero((label < categories) != (active == 1))
    inconsistent += np.count_nonzero(label[active == 0] != IGNORE)
    if inconsistent:
        faults.append(
            f"label must be below {categories} where active and {IGNORE} elsewhere, found {inconsistent} others"
        )
    return faults
