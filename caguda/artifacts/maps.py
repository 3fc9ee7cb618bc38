"""Stores of maps: the maps of all images of a set as sharded arrays (n, h, w) of one zarr v3 group, one chunk per image.

A shard holds consecutive images, which keeps the number of files low. One writer writes a whole shard at once.
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

ZSTD_LEVEL = 1
REMEDY = "; move this folder away and make it again"
_ABSENT = 2**64 - 1  # the offset and length of an absent chunk in the index of a shard
_CRC_BYTES = 4  # the checksum that follows the index
Faults = Callable[[Mapping[str, NDArray[Any]], int], list[str]]
"""A check: the faults in the maps of one image of c categories, a sentence each."""


@dataclass(frozen=True, eq=False)
class MapStore:
    """An open store of images of `shape` (h, w), `per_shard` in a shard. It can be pickled, and read in forked processes."""

    path: Path
    format: MapFormat
    image_ids: tuple[str, ...]
    attributes: Mapping[str, Any]
    shape: tuple[int, int]
    per_shard: int
    chunk_sha256: Mapping[str, Sequence[str]] | None = None
    """The SHA-256 of the chunk of each array and image, if a JSON vouches for the store."""

    @property
    def count(self) -> int:
        """The number of images, n."""
        return len(self.image_ids)

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the c categories; a label is an index into them."""
        return tuple(self.attributes["categories"])

    @property
    def shards(self) -> list[range]:
        """The indices of the images of every shard, in order."""
        return [range(i, min(i + self.per_shard, self.count)) for i in range(0, self.count, self.per_shard)]

    def chunk(self, index: int, name: str) -> bytes | None:
        """The stored bytes of one image's chunk of an array; None if it was not written."""
        shard, position = divmod(index, self.per_shard)
        index_bytes = 16 * self.per_shard + _CRC_BYTES
        path = self.path / name / f"c.{shard}.0.0"
        try:
            refuse_irregular(path)
            with path.open("rb", buffering=0) as file:
                file.seek(-index_bytes, os.SEEK_END)
                offset, length = np.frombuffer(file.read(index_bytes), "<u8", 2, 16 * position)
                if offset == _ABSENT:
                    return None
                file.seek(int(offset))
                return file.read(int(length))
        except FileNotFoundError:
            return None

    def read(self, index: int, name: str) -> NDArray[Any]:
        """One array of one image, (h, w); its fill value where it was not written, a UserError where it is damaged.

        The chunk is one frame of zstd, and is decoded as one: zarr takes some ten times as long.
        """
        with _damage_as_user_error(self.path, f"image {self.image_ids[index]}: {name}"):
            content = self.chunk(index, name)
            if self.chunk_sha256 is not None and _sha256(content) != self.chunk_sha256[name][index]:
                raise ValueError("its chunk is not the one that was verified")
            dtype = self.format.dtypes[name]
            if content is None:
                return np.full(self.shape, self.format.fill_value(name), dtype)
            values = np.frombuffer(decompress(content), dtype.newbyteorder("<"))
            return values.reshape(self.shape).astype(dtype)

    def read_all(self, index: int) -> dict[str, NDArray[Any]]:
        """All arrays of one image by name, (h, w) each."""
        return {name: self.read(index, name) for name in self.format.dtypes}

    def digests(self, images: Sequence[int]) -> dict[str, list[str | None]]:
        """The SHA-256 of the chunks of some images, by the name of the array; None where a chunk was not written."""
        return {name: [self._digest(index, name) for index in images] for name in self.format.dtypes}

    def _digest(self, index: int, name: str) -> str | None:
        with _damage_as_user_error(self.path, f"image {self.image_ids[index]}: {name}"):
            return _sha256(self.chunk(index, name))

    def missing(self) -> list[int]:
        """The images whose shard lacks an array, in order."""
        files = [{entry.name for entry in (self.path / name).iterdir()} for name in self.format.dtypes]
        written = set.intersection(*files)
        return [i for shard, images in enumerate(self.shards) if f"c.{shard}.0.0" not in written for i in images]


def _sha256(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


def create_store(
    path: Path, form: MapFormat, image_ids: Sequence[str], shape: tuple[int, int], per_shard: int,
    attributes: Mapping[str, Any], array_attributes: Mapping[str, Mapping[str, Any]],
) -> None:  # fmt: skip
    """Makes an empty store for images of `shape` (h, w), and replaces an older one at `path`.

    `attributes` are JSON values of the group, among them `categories`; `array_attributes` are those of each array. A
    UserError unless there is at least one image id, and all ids differ.
    """
    if not image_ids or len(set(image_ids)) != len(image_ids):
        raise UserError(f"{path}: the {form.title} needs images with one id each, found {len(image_ids)} ids, "
                        f"{len(set(image_ids))} of them different; check the frames")  # fmt: skip
    head = {"format": form.name, "format_version": form.version}
    compressors = [ZstdCodec(level=ZSTD_LEVEL, checksum=True)]
    separator: Any = {"name": "default", "separator": "."}
    with _replaced_folder(path, form) as folder:
        group = zarr.create_group(folder, zarr_format=3, attributes=head | dict(attributes))
        for name, dtype in form.dtypes.items():
            group.create_array(
                name,
                shape=(len(image_ids), *shape),
                shards=(per_shard, *shape),
                chunks=(1, *shape),
                dtype=dtype,
                fill_value=form.fill_value(name),
                filters=None,
                compressors=compressors,
                chunk_key_encoding=separator,
                dimension_names=("image", "y", "x"),
                attributes=dict(array_attributes[name]),
            )
        ids = group.create_array("image_id", shape=(len(image_ids),), dtype=str, dimension_names=("image",),
                                 compressors=compressors, chunk_key_encoding=separator)  # fmt: skip
        ids[:] = np.array(image_ids, dtype=object)
        group.update_attributes({"sha256": digest_of_metadata(folder, form, dict(group.attrs))})


@contextmanager
def _replaced_folder(path: Path, form: MapFormat) -> Iterator[Path]:
    """Yields a new path; the folder written there replaces a store at `path` when the block ends without an error.

    UserError if something else than a store of this format, or the remains of one, lies at `path`. (The workflow makes a
    folder for the group file, which is replaced too.) Folders that killed calls left beside it are removed.
    """
    if os.path.lexists(path) and not is_remains(path, form):
        raise UserError(f"{path}: only an older {form.title} is replaced, found something else; move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)

    def partial_folders() -> list[Path]:
        folders = path.parent.glob(f"{glob.escape(path.name)}.{HEX}.partial")
        return [folder for folder in folders if is_remains(folder, form)]

    with at_work(path.parent, partial_folders):
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)


def write_shard(store: MapStore, number: int, maps: Mapping[str, NDArray[Any]]) -> dict[str, list[str | None]]:
    """Writes all arrays of the images of a shard, (s, h, w) each, every file atomically; zarr writes the same bytes.

    Returns the SHA-256 of the chunk of each image, by the name of the array. Processes that write different shards need no
    lock.
    """
    images = store.shards[number]
    digests: dict[str, list[str | None]] = {}
    with at_work(store.path):
        for name, dtype in store.format.dtypes.items():
            values = maps[name]
            assert values.dtype == dtype and values.shape == (len(images), *store.shape), (name, values.shape)
            chunks = [
                compress(np.ascontiguousarray(image, dtype.newbyteorder("<")), ZSTD_LEVEL, True) for image in values
            ]
            with replace_atomically(store.path / name / f"c.{number}.0.0") as partial:
                partial.write_bytes(encoded_shard(chunks, store.per_shard))
            digests[name] = [_sha256(chunk) for chunk in chunks]
    return digests


def remove_partial_files(store: MapStore) -> None:
    """Removes the partial files of killed writers, which readers ignore, unless a writer is at work."""
    pattern = f"c.*.0.0.{HEX}.partial"
    with at_work(
        store.path, lambda: [file for name in store.format.dtypes for file in (store.path / name).glob(pattern)]
    ):
        pass


def encoded_shard(chunks: Sequence[bytes], per_shard: int) -> bytes:
    """The bytes of a zarr v3 shard with its index at the end: some chunks in order, the rest of `per_shard` absent."""
    index = np.full((per_shard, 2), _ABSENT, "<u8")
    lengths = np.array([len(chunk) for chunk in chunks], "<u8")
    index[: len(chunks), 0], index[: len(chunks), 1] = np.cumsum(lengths) - lengths, lengths
    table = index.tobytes()
    return b"".join([*chunks, table, crc32c(table).to_bytes(_CRC_BYTES, "little")])


def open_store(path: Path, form: MapFormat) -> MapStore:
    """The store at `path`; a UserError unless its structure is that of the format. No image is read."""
    refuse_other_metadata(path, form)
    with _damage_as_user_error(path, "zarr.json"):
        group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        attributes = dict(group.attrs)
    if (found := (attributes.get("format"), attributes.get("format_version"))) != (form.name, form.version):
        raise UserError(
            f"{path}: the {form.title} must be {form.name} {form.version}, found {found[0]} {found[1]}; if an earlier version "
            "made it, make it again under another name, or move it away"
        )
    arrays = [_open_array(group, path, form, name) for name in form.dtypes]
    if len({(array.shape, array.shards) for array in arrays}) > 1:
        raise UserError(f"{path}: all arrays must have one shape, found others{REMEDY}")
    (count, height, width), shards = arrays[0].shape, arrays[0].shards
    assert shards is not None
    with _damage_as_user_error(path, "image_id or zarr.json"):
        if attributes.pop("sha256", None) != digest_of_metadata(path, form, attributes):
            raise ValueError("these files do not have the digest that they were written with")
        image_ids = tuple(str(name) for name in np.asarray(group["image_id"]))
        store = MapStore(path, form, image_ids, attributes, (height, width), shards[0])
        categories = store.categories
    if store.count != count or len(set(image_ids)) != count or not categories:
        raise UserError(f"{path}: {count} different image ids and some categories are needed, found other ones{REMEDY}")
    return store


def _open_array(group: zarr.Group, path: Path, form: MapFormat, name: str) -> zarr.Array[Any]:
    """An array of a store; a UserError unless it has the structure with which `create_store` makes it."""
    with _damage_as_user_error(path, f"{name}/zarr.json"):
        array = group[name]
    if (
        isinstance(array, zarr.Array)
        and array.ndim == 3
        and array.dtype == form.dtypes[name]
        and array.chunks == (1, *array.shape[1:])
        and array.shards is not None
        and array.shards[1:] == array.shape[1:]
        and np.array_equal(array.fill_value, form.fill_value(name), equal_nan=True)
    ):
        return array
    raise UserError(f"{path}: {name} must have the format's structure, found {array}{REMEDY}")


@contextmanager
def _damage_as_user_error(path: Path, part: str) -> Iterator[None]:
    """Turns whatever zarr and its codecs raise on damaged files (a dozen types) into one line that names the part."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: {part} is damaged ({reason}){REMEDY}") from None
