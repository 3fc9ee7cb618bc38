"""Maps of every image of a set as one zarr v3 group: sharded arrays (n, h, w), one chunk per image in each shard.

A shard holds some neighbouring images, so that files are few. One writer makes a whole shard and publishes it at once.
"""

import glob
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from google_crc32c import value as crc32c
from numcodecs.zstd import compress, decompress
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from caguda.artifacts.atomic import HEX, at_work, partial_of, replace_atomically
from caguda.artifacts.maps_metadata import MapFormat, digest_of_metadata, is_remains, refuse_other_metadata
from caguda.errors import UserError
from caguda.files import refuse_irregular

LEVEL = 1  # of zstd
MOST_SHARDS = 100
REMEDY = "; move this folder away and make it again"
_ABSENT = 2**64 - 1  # in the index of a shard
_CRC = 4  # bytes of the checksum behind it
Array = zarr.Array[Any]
Faults = Callable[[Mapping[str, NDArray[Any]], int], list[str]]
"""What is wrong with the maps of one image of c categories, a sentence each."""


def shard_size(images: int, batch_size: int) -> int:
    """How many images a shard holds: whole batches of inference, as few as give at most MOST_SHARDS shards."""
    return batch_size * max(1, -(-images // (batch_size * MOST_SHARDS)))


@dataclass(frozen=True, eq=False)
class MapStore:
    """An open store of `count` images of `shape` (h, w), `per_shard` in a shard. It may be pickled, and read in forked workers."""

    path: Path
    format: MapFormat
    image_ids: tuple[str, ...]
    attributes: Mapping[str, Any]
    shape: tuple[int, int]
    per_shard: int
    chunk_sha256: Mapping[str, Sequence[str]] | None = None
    """Where a JSON vouches for the store: the SHA-256 of the chunk of each array and image."""

    @property
    def count(self) -> int:
        """The number of images, n."""
        return len(self.image_ids)

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the c categories; a label is a position among them."""
        return tuple(self.attributes["categories"])

    @property
    def shards(self) -> list[range]:
        """The images of every shard, in order."""
        return [range(i, min(i + self.per_shard, self.count)) for i in range(0, self.count, self.per_shard)]

    def chunk(self, index: int, name: str) -> bytes | None:
        """The bytes of one image's chunk of an array, as they are stored; None where its shard was not written."""
        shard, place = divmod(index, self.per_shard)
        size = 16 * self.per_shard + _CRC
        path = self.path / name / f"c.{shard}.0.0"
        try:
            refuse_irregular(path)
            with path.open("rb") as file:
                file.seek(-size, os.SEEK_END)
                offset, length = np.frombuffer(file.read(size), "<u8", 2, 16 * place)
                if offset == _ABSENT:
                    return None
                file.seek(int(offset))
                content = file.read(int(length))
        except FileNotFoundError:
            return None
        return content

    def read(self, index: int, name: str) -> NDArray[Any]:
        """One array of one image, (h, w); its fill value where it was never written, a UserError where it is damaged.

        The chunk is one frame of zstd, so it is read as such: zarr takes some ten times as long for it.
        """
        with _damage_is_named(self.path, f"image {self.image_ids[index]}: {name}"):
            content = self.chunk(index, name)
            if self.chunk_sha256 is not None:
                self._compare(name, index, content)
            dtype = self.format.dtypes[name]
            if content is None:
                return np.full(self.shape, self.format.fill_value(name), dtype)
            values = np.frombuffer(decompress(content), dtype.newbyteorder("<"))
            return values.reshape(self.shape).astype(dtype)

    def _compare(self, name: str, index: int, content: bytes | None) -> None:
        assert self.chunk_sha256 is not None
        if content is None:
            raise ValueError("what was verified is gone")
        if hashlib.sha256(content).hexdigest() != self.chunk_sha256[name][index]:
            raise ValueError("this is not what was verified")

    def read_all(self, index: int) -> dict[str, NDArray[Any]]:
        """All arrays of one image by name, (h, w) each."""
        return {name: self.read(index, name) for name in self.format.dtypes}

    def digests(self, images: Sequence[int]) -> dict[str, list[str | None]]:
        """The SHA-256 of the chunk of each of some images, by the name of the array; None where one is missing."""
        return {name: [self._digest(index, name) for index in images] for name in self.format.dtypes}

    def _digest(self, index: int, name: str) -> str | None:
        with _damage_is_named(self.path, f"image {self.image_ids[index]}: {name}"):
            chunk = self.chunk(index, name)
        return None if chunk is None else hashlib.sha256(chunk).hexdigest()

    def missing(self) -> list[int]:
        """The images whose shard lacks an array, in order."""
        there = {name: {entry.name for entry in (self.path / name).iterdir()} for name in self.format.dtypes}
        return [
            index
            for number, images in enumerate(self.shards)
            if not all(f"c.{number}.0.0" in names for names in there.values())
            for index in images
        ]


def create_store(
    path: Path, form: MapFormat, image_ids: Sequence[str], shape: tuple[int, int], per_shard: int,
    attributes: Mapping[str, Any], described: Mapping[str, Mapping[str, Any]],
) -> None:  # fmt: skip
    """Makes an empty store for images of `shape` (h, w), in place of an older one at `path`.

    `attributes` are JSON values of the group, `categories` among them; `described` are those of each array. Image ids must
    be given, and each once. Only a store of this format or what is left of one, such as the folder that the workflow makes
    for the group file, is ever replaced: anything else is a UserError. What a killed call left beside it goes too.
    """
    if not image_ids or len(set(image_ids)) != len(image_ids):
        raise UserError(f"{path}: the {form.title} needs images with one id each, found {len(image_ids)} ids, "
                        f"{len(set(image_ids))} of them different; check the frames")  # fmt: skip
    if os.path.lexists(path) and not is_remains(path, form):
        raise UserError(f"{path}: only an older {form.title} is replaced, found something else; move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)

    def left_by_killed_calls() -> list[Path]:
        return [left for left in path.parent.glob(f"{glob.escape(path.name)}.{HEX}.partial") if is_remains(left, form)]

    with at_work(path.parent, left_by_killed_calls):
        try:
            _create(partial, form, image_ids, shape, per_shard, attributes, described)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)


def _create(
    folder: Path, form: MapFormat, image_ids: Sequence[str], shape: tuple[int, int], per_shard: int,
    attributes: Mapping[str, Any], described: Mapping[str, Mapping[str, Any]],
) -> None:  # fmt: skip
    head = {"format": form.name, "format_version": form.version}
    group = zarr.create_group(folder, zarr_format=3, attributes=head | dict(attributes))
    separator: Any = {"name": "default", "separator": "."}
    for name, dtype in form.dtypes.items():
        group.create_array(
            name,
            shape=(len(image_ids), *shape),
            shards=(per_shard, *shape),
            chunks=(1, *shape),
            dtype=dtype,
            fill_value=form.fill_value(name),
            filters=None,
            compressors=[ZstdCodec(level=LEVEL, checksum=True)],
            chunk_key_encoding=separator,
            dimension_names=("image", "y", "x"),
            attributes=dict(described[name]),
        )
    ids = group.create_array("image_id", shape=(len(image_ids),), dtype=str, dimension_names=("image",),
                             compressors=[ZstdCodec(level=LEVEL, checksum=True)], chunk_key_encoding=separator)  # fmt: skip
    ids[:] = np.array(image_ids, dtype=object)
    group.update_attributes({"sha256": digest_of_metadata(folder, form, dict(group.attrs))})


def write_shard(store: MapStore, number: int, maps: Mapping[str, NDArray[Any]]) -> dict[str, list[str | None]]:
    """Writes all arrays of the images of a shard, (s, h, w) each; each file appears whole or not at all.

    Returns the SHA-256 of the chunk of each image, by the name of the array. Processes that write different shards need no
    lock between them. To the byte what zarr writes.
    """
    images = store.shards[number]
    digests: dict[str, list[str | None]] = {}
    with at_work(store.path):
        for name, dtype in store.format.dtypes.items():
            values = maps[name]
            assert values.dtype == dtype and values.shape == (len(images), *store.shape), (name, values.shape)
            chunks = [compress(np.ascontiguousarray(image, dtype.newbyteorder("<")), LEVEL, True) for image in values]
            with replace_atomically(store.path / name / f"c.{number}.0.0") as partial:
                partial.write_bytes(encoded_shard(chunks, store.per_shard))
            digests[name] = [hashlib.sha256(chunk).hexdigest() for chunk in chunks]
    return digests


def remove_partial_files(store: MapStore) -> None:
    """Clears away what killed writers left half-written of any shard, if none is at work; readers ignore it."""
    folders = [store.path / name for name in store.format.dtypes]
    with at_work(store.path, lambda: [left for folder in folders for left in folder.glob(f"c.*.0.0.{HEX}.partial")]):
        pass


def encoded_shard(chunks: Sequence[bytes], places: int) -> bytes:
    """A shard of zarr v3 with its index at the end: some chunks in order, and no others of `places` ones."""
    index = np.full((places, 2), _ABSENT, "<u8")
    lengths = np.array([len(chunk) for chunk in chunks], "<u8")
    index[: len(chunks), 0], index[: len(chunks), 1] = np.cumsum(lengths) - lengths, lengths
    table = index.tobytes()
    return b"".join([*chunks, table, crc32c(table).to_bytes(_CRC, "little")])


def open_store(path: Path, form: MapFormat) -> MapStore:
    """The store at `path`, its structure checked and no image read; a UserError if it is not one of this format."""
    group = _open_group(path, form)
    arrays = {name: _open_array(group, path, form, name) for name in form.dtypes}
    first_one = next(iter(arrays.values()))
    if any(array.shape != first_one.shape or array.shards != first_one.shards for array in arrays.values()):
        raise UserError(f"{path}: all arrays must have one shape, found others{REMEDY}")
    count, height, width = first_one.shape
    assert first_one.shards is not None
    with _damage_is_named(path, "image_id or zarr.json"):
        attributes = dict(group.attrs)
        if attributes.pop("sha256", None) != digest_of_metadata(path, form, attributes):
            raise ValueError("these files do not have the digest that they were written with")
        image_ids = tuple(str(name) for name in np.asarray(group["image_id"]))
        store = MapStore(path, form, image_ids, attributes, (height, width), first_one.shards[0])
        categories = store.categories
    if store.count != count or len(set(image_ids)) != count or not categories:
        raise UserError(f"{path}: {count} different image ids and some categories are needed, found other ones{REMEDY}")
    return store


def _open_group(path: Path, form: MapFormat) -> zarr.Group:
    refuse_other_metadata(path, form)
    with _damage_is_named(path, "zarr.json"):
        group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        found = (group.attrs.get("format"), group.attrs.get("format_version"))
    if found != (form.name, form.version):
        raise UserError(
            f"{path}: the {form.title} must be {form.name} {form.version}, found {found[0]} {found[1]}; if an earlier version "
            "made it, make it again under another name, or move it away"
        )
    return group


def _open_array(group: zarr.Group, path: Path, form: MapFormat, name: str) -> Array:
    with _damage_is_named(path, f"{name}/zarr.json"):
        array = group[name]
    if not isinstance(array, zarr.Array) or not _is_as_created(array, form):
        raise UserError(f"{path}: {name} must have the format's structure, found {array}{REMEDY}")
    return array


def _is_as_created(array: Array, form: MapFormat) -> bool:
    fill = array.fill_value
    wanted = form.fill_value(array.basename)
    return (
        array.ndim == 3
        and array.dtype == form.dtypes[array.basename]
        and array.chunks == (1, *array.shape[1:])
        and array.shards is not None
        and array.shards[1:] == array.shape[1:]
        and bool(fill == wanted or (np.isnan(fill) and np.isnan(wanted)))
    )


@contextmanager
def _damage_is_named(path: Path, part: str) -> Iterator[None]:
    """Whatever zarr and its codecs raise on damaged files (a dozen types) as one line that says where."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: {part} is damaged ({reason}){REMEDY}") from None
