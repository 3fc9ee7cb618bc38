"""The kinds of stores that this program writes, recognised by their group file."""

import json
from pathlib import Path

from caguda.artifacts.evidence import EVIDENCE, evidence_faults
from caguda.artifacts.labels import LABELS, label_faults
from caguda.artifacts.maps import Faults
from caguda.artifacts.maps_metadata import MapFormat, is_remains
from caguda.errors import UserError
from caguda.files import read_regular

STORES: dict[str, tuple[MapFormat, Faults]] = {
    EVIDENCE.name: (EVIDENCE, evidence_faults),
    LABELS.name: (LABELS, label_faults),
}


def kind_of_store(path: Path) -> tuple[MapFormat, Faults]:
    """The format of a store and the check of its maps, by its group file; those of a label store if it names none of ours."""
    try:
        name = json.loads(read_regular(path / "zarr.json"))["attributes"]["format"]
    except (UserError, ValueError, TypeError, LookupError):
        name = None
    return STORES.get(str(name), STORES[LABELS.name])


def is_store_of_ours(path: Path) -> bool:
    """Whether a folder is a store that this program wrote, or the remains of one."""
    return any(is_remains(path, form) for form, _ in STORES.values())
