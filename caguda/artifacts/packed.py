"""The packed cache: the decoded frames of one domain in one HDF5 file, from which single crops can be read."""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count, zip_longest
from pathlib import Path
from types import EllipsisType
from typing import Any, Literal

import h5py
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from caguda.artifacts.atomic import write_atomically
from caguda.artifacts.hdf5 import USER_BLOCK, digest_of, read_texts, write_checksum, write_content
from caguda.classes import IGNORE
from caguda.errors import UserError

FORMAT = "caguda-packed"
FORMAT_VERSION = 3  # version 1 had no checksums of pixels, and zeroed blocks could pass those of version 2
ROWS_PER_CHUNK = 128
Kind = Literal["image", "label"]
Decoded = tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"] | None]


@dataclass(frozen=True)
class PackedPixels:
    """One image (3, H, W) or label map (H, W) in the file; indexing reads that part alone."""

    frames: "PackedFrames"
    kind: Kind
    index: int

    @property
    def shape(self) -> tuple[int, ...]:
        size = self.frames.sizes[self.index]
        return (3, *size) if self.kind == "image" else size

    def __getitem__(self, part: tuple[EllipsisType, slice, slice]) -> Tensor:
        values = torch.from_numpy(self.frames.read(self.kind, self.index, *part[1:]))
        return values.movedim(-1, 0) if self.kind == "image" else values


@dataclass
class PackedFrames:
    """The frames of a packed cache by their index. Each process opens the file at its first read."""

    path: Path
    ids: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]
    digests: Mapping[Kind, tuple[bytes, ...]]
    checksums: Mapping[Kind, np.ndarray]
    attributes: Mapping[str, Any]
    _opened: tuple[int, h5py.File] | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_opened": None}

    @property
    def labelled(self) -> bool:
        """Whether the cache has label maps."""
        return "label" in self.digests

    def image(self, index: int) -> PackedPixels:
        return PackedPixels(self, "image", index)

    def label(self, index: int) -> PackedPixels:
        """The label map of a frame, in train ids."""
        return PackedPixels(self, "label", index)

    def read(self, kind: Kind, index: int, rows: slice, columns: slice) -> UInt8[np.ndarray, "..."]:
        """A part of an image, (h, w, 3), or of a label map, (h, w); UserError if it cannot be read or is damaged.

        Whole chunks are read, and each is compared with its CRC-32.
        """
        height = self.sizes[index][0]
        start, stop, _ = rows.indices(height)
        first_chunk, end_chunk = start // ROWS_PER_CHUNK, -(-stop // ROWS_PER_CHUNK)
        first_row = first_chunk * ROWS_PER_CHUNK
        try:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = (os.getpid(), h5py.File(self.path, "r"))
            dataset = self._opened[1][_dataset_name(kind, self.sizes[index])]
            values: np.ndarray = dataset[self.rows[index], first_row : min(end_chunk * ROWS_PER_CHUNK, height)]
        except Exception as error:  # noqa: BLE001  h5py raises OSError, KeyError, RuntimeError or ValueError
            raise _damaged(self.path, f"frame {self.ids[index]}: {error}") from None
        if _checksums(values) != self.checksums[kind][index, first_chunk:end_chunk].tolist():
            raise _damaged(self.path, f"frame {self.ids[index]}: {kind} pixels that are not those that were written")
        return values[start - first_row : stop - first_row, columns]

    def close(self) -> None:
        """Closes the file if this process has opened it."""
        if self._opened is not None and self._opened[0] == os.getpid():
            self._opened[1].close()
        self._opened = None


def write_packed(
    path: Path,
    ids: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    frames: Iterable[Decoded],
    attributes: Callable[[], Mapping[str, Any]],
    *,
    labelled: bool,
) -> None:
    """Writes decoded frames, in the order of `ids`, atomically: they are read back and checked before the file appears.

    `attributes` is called after the last frame and returns JSON values by name, among them `provenance` and `categories`,
    the names of the c categories: label maps hold 0 to c - 1 and IGNORE.
    """
    kinds: list[Kind] = ["image", "label"] if labelled else ["image"]
    next_row = {size: count() for size in sizes}
    rows = [next(next_row[size]) for size in sizes]
    digests: dict[Kind, list[bytes]] = {kind: [] for kind in kinds}
    checksums: dict[Kind, list[list[int]]] = {kind: [] for kind in kinds}
    with write_atomically(path) as partial:
        _require_room(path.parent, sum(height * width for height, width in sizes) * (3 + labelled))
        # From version 1.10 of the format on, HDF5 keeps checksums of its own structures, the index of chunks too.
        with h5py.File(partial, "w", libver=("v110", "v110"), userblock_size=USER_BLOCK) as file:
            for size in sorted(set(sizes)):
                for kind in kinds:
                    tail = (3,) if kind == "image" else ()
                    chunk = (1, min(ROWS_PER_CHUNK, size[0]), size[1], *tail)
                    file.create_dataset(
                        _dataset_name(kind, size), (sizes.count(size), *size, *tail), "u1", chunks=chunk
                    )
            for index, decoded in enumerate(frames):
                for kind, values in zip(kinds, decoded, strict=False):
                    assert values is not None and values.shape[:2] == sizes[index]
                    file[_dataset_name(kind, sizes[index])][rows[index]] = values
                    digests[kind].append(hashlib.sha256(values.tobytes()).digest())
                    checksums[kind].append(_checksums(values))
            assert len(digests["image"]) == len(ids)
            arrays = _index(ids, sizes, rows, digests, checksums)
            write_content(file, (FORMAT, FORMAT_VERSION), arrays, attributes())
        check_packed(partial)
        write_checksum(partial)


def open_packed(path: Path) -> PackedFrames:
    """The frames of a packed cache; UserError if it is missing, of another format, or its index is damaged.

    The pixels are not read: `check_packed` reads them.
    """
    try:
        with h5py.File(path, "r") as file:
            texts = read_texts(file)
            name, version = texts.pop("format", None), texts.pop("format_version", None)
            if is_packed := (name, version) == (FORMAT, str(FORMAT_VERSION)):
                kinds: list[Kind] = ["image", "label"] if "label_sha256" in file else ["image"]
                hashes = [f"{kind}_{algorithm}" for algorithm in ("sha256", "crc32") for kind in kinds]
                arrays = {key: np.asarray(file[key]) for key in ("id", "height", "width", "row", *hashes)}
    except FileNotFoundError:
        raise UserError(f"{path}: the packed cache must exist, found no file; make it with `pack`") from None
    except Exception as error:  # noqa: BLE001  h5py raises OSError, KeyError, RuntimeError or ValueError
        raise _damaged(path, str(error)) from None
    if not is_packed:
        raise UserError(
            f"{path}: a packed cache must be {FORMAT} {FORMAT_VERSION}, found {name} {version}; if an earlier version "
            "made it, make it again under another name, or move it away"
        )
    if texts.pop("sha256", None) != digest_of(arrays, texts):
        raise _damaged(path, "an index that does not have the digest it was written with")
    return PackedFrames(
        path,
        ids=tuple(value.decode() for value in arrays["id"].tolist()),
        sizes=tuple(zip(arrays["height"].tolist(), arrays["width"].tolist(), strict=True)),
        rows=tuple(arrays["row"].tolist()),
        digests={kind: tuple(map(bytes, arrays[f"{kind}_sha256"])) for kind in kinds},
        checksums={kind: arrays[f"{kind}_crc32"] for kind in kinds},
        attributes={key: json.loads(text) for key, text in texts.items()},
    )


def check_packed(path: Path) -> dict[str, int]:
    """Reads all pixels of a packed cache and counts its `frames` and their `bytes`; UserError names a damaged frame."""
    with closing(open_packed(path)) as frames:
        categories, total = len(frames.attributes["categories"]), 0
        for kind, digests in frames.digests.items():
            for index, digest in enumerate(digests):
                values = frames.read(kind, index, slice(None), slice(None))
                if hashlib.sha256(values.tobytes()).digest() != digest:
                    raise _damaged(
                        path, f"frame {frames.ids[index]}: {kind} pixels that are not those that were written"
                    )
                if kind == "label" and ((values >= categories) & (values != IGNORE)).any():
                    raise _damaged(path, f"frame {frames.ids[index]}: a label that is no category")
                total += values.nbytes
    return {"frames": len(frames.ids), "bytes": total}


def _require_room(folder: Path, needed: int) -> None:
    """UserError on a disk without room: HDF5 would end in an error that does not name the cause, or in a crash."""
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UserError(
            f"{folder}: a packed cache needs {needed / 2**30:.2f} GiB, found {free / 2**30:.2f} GiB free; make room there, "
            "or set `cache: false`"
        )


def _dataset_name(kind: Kind, size: tuple[int, int]) -> str:
    """The name of the dataset of all images or label maps of one size."""
    return f"{size[0]}x{size[1]}/{kind}"


def _checksums(values: np.ndarray) -> list[int]:
    """The CRC-32 of each chunk of some rows, the first of which begins a chunk."""
    return [
        zlib.crc32(np.ascontiguousarray(values[row : row + ROWS_PER_CHUNK]).data)
        for row in range(0, len(values), ROWS_PER_CHUNK)
    ]


def _index(
    ids: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    rows: Sequence[int],
    digests: Mapping[Kind, Sequence[bytes]],
    checksums: Mapping[Kind, Sequence[Sequence[int]]],
) -> dict[str, np.ndarray]:
    """The datasets with the position and the digests of each frame."""
    columns = {"height": [size[0] for size in sizes], "width": [size[1] for size in sizes], "row": rows}
    return {
        "id": np.array([name.encode() for name in ids]),
        **{name: np.array(values, dtype="<i4") for name, values in columns.items()},
        **{f"{kind}_sha256": np.array([list(digest) for digest in values], "u1") for kind, values in digests.items()},
        **{f"{kind}_crc32": _padded(values) for kind, values in checksums.items()},
    }


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of different lengths as one array, with zeros after the short ones."""
    return np.array(list(zip_longest(*rows, fillvalue=0)), dtype="<u4").T


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: the packed cache must be whole, found {what}; move the file away and pack again")
