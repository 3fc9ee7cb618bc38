"""The metadata of a store of maps, which are checked before a library opens the store."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caguda.artifacts.atomic import HEX
from caguda.artifacts.provenance import json_digest
from caguda.classes import UNWRITTEN
from caguda.errors import UserError
from caguda.files import read_regular, sha256

MOST_SHARDS = 100


@dataclass(frozen=True)
class MapFormat:
    """A kind of store: the name and version of its format, its title in messages, and the type of each array."""

    name: str
    version: int
    title: str
    dtypes: Mapping[str, np.dtype[Any]]

    def fill_value(self, name: str) -> int | float:
        """The value of an array that means "never written"."""
        return UNWRITTEN if self.dtypes[name].kind == "u" else float("nan")


def shard_size(images: int, batch_size: int) -> int:
    """The number of images in a shard: the fewest whole batches of inference that give at most MOST_SHARDS shards."""
    return batch_size * max(1, -(-images // (batch_size * MOST_SHARDS)))


def refuse_other_metadata(path: Path, form: MapFormat) -> None:
    """UserError unless a folder is a zarr v3 group with the arrays of a format, encoded as this program encodes them.

    A group of another zarr version, or with other codecs, would make zarr load code that the store names.
    """
    if not (path / "zarr.json").exists():
        raise UserError(f"{path}: the {form.title} must exist, found no zarr group; make it first")
    _refuse_other_values(path / "zarr.json", form, {"zarr_format": 3, "node_type": "group"})
    head = {"zarr_format": 3, "node_type": "array", "storage_transformers": []}
    for name in ("image_id", *form.dtypes):
        is_id = name == "image_id"
        codecs = ["vlen-utf8", "zstd"] if is_id else ["sharding_indexed", ["bytes", "zstd"], ["bytes", "crc32c"]]
        if (path / name / "zarr.json").exists():  # else opening the array reports it as missing
            _refuse_other_values(path / name / "zarr.json", form, head | {"codecs": codecs})


def _refuse_other_values(file: Path, form: MapFormat, expected: Mapping[str, Any]) -> None:
    """UserError unless the metadata in a file have the expected values; codecs are compared by their names."""
    try:
        content = json.loads(read_regular(file).decode("utf-8"))
    except ValueError as error:
        raise UserError(
            f"{file.parent}: zarr.json is damaged ({error}); if this is the {form.title}, make it again"
        ) from None
    for key, value in expected.items():
        actual = content.get(key) if isinstance(content, dict) else None
        actual = _codec_names(actual) if key == "codecs" else actual
        if actual != value:
            raise UserError(
                f"{file}: the {form.title} must have {key} {value} here, found {actual}; name the right folder, or "
                "the JSON beside it"
            )


def _codec_names(codecs: Any) -> list[Any]:
    """The names of an array's codecs; after `sharding_indexed` the lists of those of its chunks and of its index."""
    names: list[Any] = []
    for codec in codecs if isinstance(codecs, list) else [codecs]:
        if not isinstance(codec, dict):
            names.append(codec)
            continue
        names.append(codec.get("name"))
        inner = codec.get("configuration")
        if codec.get("name") == "sharding_indexed" and isinstance(inner, dict):
            names += [_codec_names(inner.get("codecs")), _codec_names(inner.get("index_codecs"))]
    return names


def metadata_digests(path: Path, form: MapFormat) -> dict[str, str]:
    """The SHA-256 of every metadata file of a store and of its image ids, by its path in the store."""
    arrays = (path / name / "zarr.json" for name in form.dtypes)
    files = [path / "zarr.json", *sorted((path / "image_id").glob("*")), *arrays]
    return {file.relative_to(path).as_posix(): sha256(file) for file in files if file.suffix != ".partial"}


def digest_of_metadata(path: Path, form: MapFormat, attributes: Mapping[str, Any]) -> str:
    """The attribute `sha256` of a store's group: the digest of its other attributes and of the other metadata files."""
    others = {name: value for name, value in attributes.items() if name != "sha256"}
    files = {name: digest for name, digest in metadata_digests(path, form).items() if name != "zarr.json"}
    return json_digest({"attributes": others, "files": files})


def is_remains(path: Path, form: MapFormat) -> bool:
    """Whether a folder is a store of a format or the remains of one: it holds no other files, and no links."""
    if path.is_symlink() or not path.is_dir():
        return False
    entries = [entry for entry in path.rglob("*") if entry.is_symlink() or not entry.is_dir()]
    names = [entry.relative_to(path).as_posix() for entry in entries]
    arrays = "|".join(form.dtypes)
    of_store = rf"zarr\.json|image_id/(zarr\.json|c\.0)|({arrays})/(zarr\.json|c\.\d+\.0\.0(\.{HEX}\.partial)?)"
    return (
        not any(entry.is_symlink() for entry in entries)
        and all(re.fullmatch(of_store, name) for name in names)
        and all(_is_metadata_of(path, name, form) for name in names if name.endswith("zarr.json"))
    )


def _is_metadata_of(path: Path, name: str, form: MapFormat) -> bool:
    """Whether the group file names the format, or the first dimension of an array's metadata is that of a store."""
    try:
        content = json.loads(read_regular(path / name))
        if name == "zarr.json":
            return bool(content["attributes"]["format"] == form.name)
        return bool(content["dimension_names"][0] == "image")
    except (UserError, ValueError, TypeError, LookupError):
        return False
