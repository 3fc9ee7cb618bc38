"""The label store: the pseudo-labels of every target image as one zarr v3 group, one chunk per image and array.

Labels exist at the resolution of f_D only. Any number of processes may write, as long as no two write one image.
"""

import glob
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs.zstd import compress, decompress
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from caguda.artifacts.atomic import HEX, at_work, partial_of
from caguda.artifacts.label_arrays import BY_ANCHOR, BY_PROBABILITY, DTYPES, NAMES, LabelArrays, LabelStatistics, faults
from caguda.artifacts.label_metadata import chunk_digests, digest_of_metadata, metadata_digests, refuse_other_metadata
from caguda.artifacts.label_remains import FORMAT, is_remains
from caguda.classes import IGNORE, UNWRITTEN, ClassTable
from caguda.errors import UserError
from caguda.files import refuse_irregular

FORMAT_VERSION = 2  # 1 had no digest of attributes
LEVEL = 1  # of zstd
REMEDY = "; move this folder away and make the labels again"
SHOWN_FAULTS = 5
Array = zarr.Array[Any]

__all__ = ["LabelArrays", "LabelStore", "chunk_digests", "create_label_store", "examine_label_store", "metadata_digests",
           "open_label_store", "verify_label_store", "write_labels"]  # fmt: skip


@dataclass(frozen=True, eq=False)
class LabelStore:
    """An open label store of `count` images of `shape` (h, w). It may be pickled, and read in forked workers."""

    path: Path
    image_ids: tuple[str, ...]
    attributes: Mapping[str, Any]
    shape: tuple[int, int]
    chunk_sha256: Mapping[str, Sequence[str]] | None = None
    """Where a JSON vouches for the store: the SHA-256 of the chunk of each array and image."""

    @property
    def count(self) -> int:
        """The number of target images, n."""
        return len(self.image_ids)

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the c categories; a label is a position among them."""
        return tuple(self.attributes["categories"])

    def read_array(self, index: int, name: str) -> NDArray[Any]:
        """One of the seven arrays of one image, (h, w); a UserError naming the image if its chunk is damaged.

        The chunk is one file of one zstd frame, so it is read as such: zarr takes some ten times as long for it.
        """
        with _damage_is_named(self.path, f"image {self.image_ids[index]}: {name}"):
            chunk = self.path / name / f"c.{index}.0.0"
            try:
                refuse_irregular(chunk)
                content = chunk.read_bytes()
            except FileNotFoundError:
                if self.chunk_sha256 is not None:
                    raise ValueError("the chunk that `labels` read is gone") from None
                return np.full(self.shape, _fill_value(name), DTYPES[name])
            self._compare(name, index, content)
            values = np.frombuffer(decompress(content), DTYPES[name].newbyteorder("<"))
            return values.reshape(self.shape).astype(DTYPES[name])

    def _compare(self, name: str, index: int, content: bytes) -> None:
        if self.chunk_sha256 is not None and hashlib.sha256(content).hexdigest() != self.chunk_sha256[name][index]:
            raise ValueError("this is not the chunk that `labels` read")

    def read(self, index: int) -> LabelArrays:
        """All seven arrays of one image, each (h, w); 254 and nan where nothing was written."""
        return LabelArrays(**{name: self.read_array(index, name) for name in NAMES})

    def missing(self) -> list[int]:
        """The indices of the images that lack a chunk, in order."""
        found = [{entry.name for entry in (self.path / name).iterdir()} for name in NAMES]
        return [i for i in range(self.count) if not all(f"c.{i}.0.0" in names for names in found)]


def create_label_store(
    path: Path, image_ids: Sequence[str], height: int, width: int, table: ClassTable, attributes: Mapping[str, Any]
) -> None:
    """Makes an empty label store for images of (height, width) = (h, w), in place of an older one at `path`.

    `attributes` are JSON values (thresholds, provenance); the format and the categories are added. Image ids must be
    given, and each once. Only a label store or what is left of one, such as the folder that the workflow makes for the
    group file, is ever replaced: anything else at `path` is a UserError. What a killed call left beside it goes too.
    """
    if not image_ids or len(set(image_ids)) != len(image_ids):
        raise UserError(f"{path}: a label store needs target images with one id each, found {len(image_ids)} ids, "
                        f"{len(set(image_ids))} of them different; check the target's frames")  # fmt: skip
    if os.path.lexists(path) and not is_remains(path):
        raise UserError(f"{path}: only an older label store is replaced, found something else; move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    with at_work(path.parent, lambda: filter(is_remains, path.parent.glob(f"{glob.escape(path.name)}.{HEX}.partial"))):
        try:
            _create(partial, image_ids, (height, width), table, attributes)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)


def _create(
    folder: Path, image_ids: Sequence[str], shape: tuple[int, int], table: ClassTable, attributes: Mapping[str, Any]
) -> None:
    height, width = shape
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "categories": list(table.names)}
    group = zarr.create_group(folder, zarr_format=3, attributes=head | dict(attributes))
    for name in NAMES:
        group.create_array(
            name,
            shape=(len(image_ids), height, width),
            chunks=(1, height, width),
            dtype=DTYPES[name],
            fill_value=_fill_value(name),
            filters=None,
            compressors=[ZstdCodec(level=LEVEL, checksum=True)],
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=("image", "y", "x"),
            attributes=_array_attributes(name, table),
        )
    ids = group.create_array("image_id", shape=(len(image_ids),), dtype=str, dimension_names=("image",),
                             compressors=[ZstdCodec(level=LEVEL, checksum=True)],
                             chunk_key_encoding={"name": "default", "separator": "."})  # fmt: skip
    ids[:] = np.array(image_ids, dtype=object)
    group.update_attributes({"sha256": digest_of_metadata(folder, dict(group.attrs))})


def _fill_value(name: str) -> int | float:
    return UNWRITTEN if DTYPES[name].kind == "u" else float("nan")


def _array_attributes(name: str, table: ClassTable) -> dict[str, Any]:
    """CF flags, from which xarray and cf_xarray know the categories and their colours."""
    described = {"margin": "d2 - d1 of Eq. 6", "confidence": "largest softmax probability"}
    if name in described:
        return {"long_name": described[name]}
    if name == "active":
        return {"flag_masks": [BY_ANCHOR, BY_PROBABILITY], "flag_meanings": "by_anchor by_probability"}
    values, meanings, colors = list(range(table.count)), list(table.names), list(table.colors)
    if name.endswith("_label"):
        values, meanings, colors = [*values, IGNORE], [*meanings, "ignore"], [*colors, (0, 0, 0)]
    return {
        "flag_values": values,
        "flag_meanings": " ".join("_".join(meaning.split()) for meaning in meanings),
        "flag_colors": " ".join("#{:02x}{:02x}{:02x}".format(*color) for color in colors),
    }


def write_labels(store: LabelStore, index: int, labels: LabelArrays) -> None:
    """Writes the arrays of one image; processes that write different images need no lock between them.

    Each chunk appears whole or not at all. All seven are written, the all-ignored and the all-254 included: to the byte
    what zarr writes, which takes several times as long for it.
    """
    assert 0 <= index < store.count, (index, store.count)
    with at_work(store.path):
        for name in NAMES:
            values = getattr(labels, name)
            assert values.dtype == DTYPES[name] and values.shape == store.shape, (name, values.dtype, values.shape)
            content = compress(values.astype(DTYPES[name].newbyteorder("<"), order="C"), LEVEL, True)
            chunk = f"{store.path}/{name}/c.{index}.0.0"  # not a Path: those are half of what Python does here
            partial = f"{chunk}.{secrets.token_hex(4)}.partial"
            try:
                with open(partial, "wb") as file:
                    file.write(content)
                os.rename(partial, chunk)
            except BaseException:
                Path(partial).unlink(missing_ok=True)
                raise


def open_label_store(path: Path) -> LabelStore:
    """The label store at `path`, its structure checked and no image read; a UserError if it is not one."""
    group = _open_group(path)
    arrays = _open_arrays(group, path)
    count, height, width = arrays["active"].shape
    with _damage_is_named(path, "image_id or zarr.json"):
        attributes = dict(group.attrs)
        if attributes.pop("sha256", None) != digest_of_metadata(path, attributes):
            raise ValueError("these files do not have the digest that they were written with")
        image_ids = tuple(str(name) for name in np.asarray(group["image_id"]))
        store = LabelStore(path, image_ids, attributes, (height, width))
        categories = store.categories
    if store.count != count or len(set(image_ids)) != count or not categories:
        raise UserError(f"{path}: {count} different image ids and some categories are needed, found other ones{REMEDY}")
    return store


def verify_label_store(path: Path) -> dict[str, Any]:
    """What a label store holds once every image is decoded and found complete and consistent; else a UserError."""
    summary, found = examine_label_store(path)
    if found:
        more = f"; and {len(found) - SHOWN_FAULTS} more" if len(found) > SHOWN_FAULTS else ""
        listed = "; ".join(found[:SHOWN_FAULTS])
        raise UserError(f"{path}: all images must be complete and consistent, found {listed}{more}{REMEDY}")
    return summary


def examine_label_store(path: Path) -> tuple[dict[str, Any], list[str]]:
    """What a label store holds, every image decoded, and all its faults, a line each; UserError if it cannot be opened.

    Keys: `images`, `height`, `width`, `digest`, `metadata_sha256`, `chunk_sha256` and, where there is no fault, those of
    `LabelStatistics.summary`. The digest is the SHA-256 of the line "n h w", then for each image its id, a zero byte
    and its seven arrays in order (C order, little endian). One image is held at a time.
    """
    store = open_label_store(path)
    missing = frozenset(store.missing())
    (height, width), c = store.shape, len(store.categories)
    digest = hashlib.sha256(f"{store.count} {height} {width}\n".encode())
    statistics, stored = LabelStatistics(c), []
    found: list[str] = []
    for index, image_id in enumerate(store.image_ids):
        stored.append(chunk_digests(path, index))
        if index in missing:
            found.append(f"image {image_id}: not completely written")
            continue
        try:
            labels = store.read(index)
        except UserError as error:
            found.append(str(error).removeprefix(f"{path}: ").removesuffix(REMEDY))
            continue
        found += [f"image {image_id}: {fault}" for fault in faults(labels, c)]
        digest.update(image_id.encode() + b"\0" + b"".join(getattr(labels, name).tobytes() for name in NAMES))
        if not found:
            statistics.add(labels)
    summary = {"images": store.count, "height": height, "width": width, "digest": digest.hexdigest()}
    summary |= {} if found else statistics.summary(store.categories)
    chunks = {name: [digests[name] for digests in stored] for name in NAMES}
    return summary | {"metadata_sha256": metadata_digests(path), "chunk_sha256": chunks}, found


def _open_group(path: Path) -> zarr.Group:
    refuse_other_metadata(path)
    with _damage_is_named(path, "zarr.json"):
        group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        found = (group.attrs.get("format"), group.attrs.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise UserError(
            f"{path}: a label store must be {FORMAT} {FORMAT_VERSION}, found {found[0]} {found[1]}; if an earlier version "
            "made it, make the labels again under another name, or move it away"
        )
    return group


def _open_arrays(group: zarr.Group, path: Path) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name in NAMES:
        with _damage_is_named(path, f"{name}/zarr.json"):
            array = group[name]
        if not isinstance(array, zarr.Array) or not _is_as_created(array, arrays.get("active", array)):
            raise UserError(f"{path}: {name} must have the format's structure, found {array}{REMEDY}")
        arrays[name] = array
    return arrays


def _is_as_created(array: Array, first: Array) -> bool:
    name = array.basename
    fill = array.fill_value
    return (
        array.ndim == 3
        and array.shape == first.shape
        and array.dtype == DTYPES[name]
        and array.chunks == (1, *array.shape[1:])
        and (fill == UNWRITTEN if DTYPES[name].kind == "u" else bool(np.isnan(fill)))
    )


@contextmanager
def _damage_is_named(path: Path, part: str) -> Iterator[None]:
    """Whatever zarr and its codecs raise on damaged files (a dozen types) as one line that says where."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: {part} is damaged ({reason}){REMEDY}") from None
