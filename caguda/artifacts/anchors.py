"""The category anchors as one HDF5 file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Bool, Float32, Int64

from caguda.artifacts.atomic import write_atomically
from caguda.artifacts.hdf5 import digest_of, read_texts, write_texts
from caguda.errors import UserError

FORMAT = "caguda-anchors"
FORMAT_VERSION = 1
DATASETS = {"anchors": "<f4", "pixel_count": "<i8", "spread": "<f4", "pairwise": "<f4"}


@dataclass(frozen=True, eq=False)
class Anchors:
    """The category anchors of Eq. 4 and what a margin can be measured against; absent categories hold nan.

    `spread` is the root mean square distance of a category's features from its anchor, `pairwise` the L2 distance
    between two anchors. An absent category has no pixels: it is not a zero vector and can never become a label.
    """

    vectors: Float32[np.ndarray, "c d"]
    pixel_count: Int64[np.ndarray, " c"]
    spread: Float32[np.ndarray, " c"]
    pairwise: Float32[np.ndarray, "c c"]

    @property
    def present(self) -> Bool[np.ndarray, " c"]:
        """Which categories have an anchor."""
        return self.pixel_count > 0

    @property
    def mean_distance(self) -> float:
        """The mean L2 distance between two different anchors over all pairs of present categories; nan without one."""
        here = np.flatnonzero(self.present)
        first, second = np.triu_indices(len(here), k=1)
        distances = self.pairwise[here[first], here[second]].astype(np.float64)
        return float(distances.mean()) if len(distances) else float("nan")


def save_anchors(path: Path, anchors: Anchors, attributes: Mapping[str, Any]) -> None:
    """Writes the anchors atomically with `attributes` (JSON values by name, among them `categories`, `provenance`)."""
    _check(anchors, path)
    arrays = _arrays(anchors)
    texts = {name: json.dumps(value, ensure_ascii=False, sort_keys=True) for name, value in attributes.items()}
    # From version 1.8 of the format on, HDF5 keeps checksums of its own structures and long attributes.
    with write_atomically(path) as partial, h5py.File(partial, "w", libver=("v108", "v108")) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        head = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "sha256": digest_of(arrays, texts)}
        write_texts(file, head | texts)


def load_anchors(path: Path) -> tuple[Anchors, dict[str, Any]]:
    """The anchors and their attributes; a UserError if the file is missing, damaged or of another format."""
    try:
        with h5py.File(path, "r") as file:
            texts = read_texts(file)
            arrays = {name: np.asarray(file[name]) for name in DATASETS}
    except FileNotFoundError:
        raise UserError(f"{path}: the anchors must exist, found no file; make them first") from None
    except Exception as error:  # noqa: BLE001  h5py raises OSError, KeyError, RuntimeError or ValueError
        raise _damaged(path, str(error)) from None
    found = (texts.pop("format", None), texts.pop("format_version", None))
    if found != (FORMAT, str(FORMAT_VERSION)):
        raise UserError(f"{path}: anchors must be {FORMAT} {FORMAT_VERSION}, found {found[0]} {found[1]}")
    if texts.pop("sha256", None) != digest_of(arrays, texts):
        raise _damaged(path, "content that does not have the digest it was written with")
    anchors = Anchors(arrays["anchors"], arrays["pixel_count"], arrays["spread"], arrays["pairwise"])
    _check(anchors, path)
    return anchors, {name: json.loads(text) for name, text in texts.items()}


def _arrays(anchors: Anchors) -> dict[str, np.ndarray]:
    values = (anchors.vectors, anchors.pixel_count, anchors.spread, anchors.pairwise)
    return {name: np.ascontiguousarray(value) for name, value in zip(DATASETS, values, strict=True)}


def _check(anchors: Anchors, path: Path) -> None:
    arrays = _arrays(anchors)
    c, d = anchors.vectors.shape if anchors.vectors.ndim == 2 else (-1, -1)
    shapes = {"anchors": (c, d), "pixel_count": (c,), "spread": (c,), "pairwise": (c, c)}
    for name, array in arrays.items():
        if array.shape != shapes[name] or array.dtype != np.dtype(DATASETS[name]):
            raise UserError(
                f"{path}: {name} must be {DATASETS[name]} of shape {shapes[name]}, found {array.dtype} {array.shape}"
            )
    present = anchors.present
    finite = np.isfinite(anchors.vectors).all(axis=1)
    odd = np.flatnonzero(finite != present)
    if len(odd):
        raise UserError(
            f"{path}: an anchor must be finite where its category has pixels and nan where it has none, "
            f"found otherwise for category {odd[0]}; the network that made the features may have diverged"
        )


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: the anchors must be whole, found {what}; delete the file and make it again")
