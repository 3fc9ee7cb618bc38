"""The sums of Eq. 4 that one job adds up for the category anchors, one for each block of images, as one HDF5 file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from caguda.artifacts.hdf5 import read_arrays, write_arrays
from caguda.equations.anchors import ClassSums

FORMAT = "caguda-class-sums"
FORMAT_VERSION = 1
DATASETS = ("sums", "squares", "weights", "counts")


def save_class_sums(path: Path, blocks: Sequence[ClassSums], attributes: Mapping[str, Any]) -> None:
    """Writes the sums of blocks of images, at least one block, atomically with `attributes` (JSON values by name)."""
    arrays = {name: torch.stack([getattr(block, name) for block in blocks]).cpu().numpy() for name in DATASETS}
    write_arrays(path, (FORMAT, FORMAT_VERSION), arrays, attributes)


def load_class_sums(path: Path) -> tuple[list[ClassSums], dict[str, Any]]:
    """The sums of the blocks and the attributes; a UserError if the file is missing, damaged or of another format."""
    arrays, attributes = read_arrays(path, (FORMAT, FORMAT_VERSION), DATASETS)
    stacked = [torch.from_numpy(array) for array in arrays.values()]
    return [ClassSums(*block) for block in zip(*stacked, strict=True)], attributes
