"""The metadata of a store of maps: what this program writes, compared before any library opens the store."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caguda.artifacts.atomic import HEX, sha256
from caguda.artifacts.provenance import fingerprint
from caguda.classes import UNWRITTEN
from caguda.errors import UserError
from caguda.files import read_regular


@dataclass(frozen=True)
class MapFormat:
    """A kind of store: the name and version of its format, what a person calls it, and the type of each array."""

    name: str
    version: int
    title: str
    dtypes: Mapping[str, np.dtype[Any]]

    def fill_value(self, name: str) -> int | float:
        """What means "never written" in an array."""
        return UNWRITTEN if self.dtypes[name].kind == "u" else float("nan")


def refuse_other_metadata(path: Path, form: MapFormat) -> None:
    """UserError unless a folder is a zarr v3 group with the arrays of a format, encoded as this program does.

    A group of another version of zarr, or with other codecs, would have zarr load code that the store names.
    """
    if not (path / "zarr.json").exists():
        raise UserError(f"{path}: the {form.title} must exist, found no zarr group; make it first")
    _refuse(path / "zarr.json", form, {"zarr_format": 3, "node_type": "group"}, _metadata(path / "zarr.json", form))
    for name in ("image_id", *form.dtypes):
        file = path / name / "zarr.json"
        if not file.exists():
            continue  # whoever opens the array says that it is missing
        found = _metadata(file, form)
        told = {key: found.get(key) for key in ("zarr_format", "node_type", "storage_transformers")}
        told["codecs"] = _codecs(found.get("codecs"))
        codecs = (
            ["vlen-utf8", "zstd"]
            if name == "image_id"
            else ["sharding_indexed", ["bytes", "zstd"], ["bytes", "crc32c"]]
        )
        wanted = {"zarr_format": 3, "node_type": "array", "storage_transformers": [], "codecs": codecs}
        _refuse(file, form, wanted, told)


def _codecs(listed: Any) -> list[Any]:
    """The names of an array's codecs; behind that of a shard those of its chunks and of its index."""
    found: list[Any] = []
    for codec in listed if isinstance(listed, list) else [listed]:
        if not isinstance(codec, dict):
            found.append(codec)
            continue
        found.append(codec.get("name"))
        inner = codec.get("configuration")
        if codec.get("name") == "sharding_indexed" and isinstance(inner, dict):
            found += [_codecs(inner.get("codecs")), _codecs(inner.get("index_codecs"))]
    return found


def metadata_digests(path: Path, form: MapFormat) -> dict[str, str]:
    """The SHA-256 of every file of a store that belongs to no single image, by its path in the store."""
    arrays = (path / name / "zarr.json" for name in form.dtypes)
    files = [path / "zarr.json", *sorted((path / "image_id").glob("*")), *arrays]
    return {file.relative_to(path).as_posix(): sha256(file) for file in files if file.suffix != ".partial"}


def digest_of_metadata(path: Path, form: MapFormat, attributes: Mapping[str, Any]) -> str:
    """The digest that the group of a store has as its attribute `sha256`: of its other attributes, and of those files."""
    told = {name: value for name, value in attributes.items() if name != "sha256"}
    files = {name: digest for name, digest in metadata_digests(path, form).items() if name != "zarr.json"}
    return fingerprint({"attributes": told, "files": files})


def is_remains(path: Path, form: MapFormat) -> bool:
    """Whether a folder is a store of a format, or what is left of one: no file in it is of anything else, and none a link."""
    if path.is_symlink() or not path.is_dir():
        return False
    entries = [entry for entry in path.rglob("*") if entry.is_symlink() or not entry.is_dir()]
    names = [entry.relative_to(path).as_posix() for entry in entries]
    arrays = "|".join(form.dtypes)
    ours = re.compile(rf"zarr\.json|image_id/(zarr\.json|c\.0)|({arrays})/(zarr\.json|c\.\d+\.0\.0(\.{HEX}\.partial)?)")
    return (
        not any(entry.is_symlink() for entry in entries)
        and all(ours.fullmatch(name) for name in names)
        and all(_is_our_metadata(path, name, form) for name in names if name.endswith("zarr.json"))
    )


def _is_our_metadata(path: Path, name: str, form: MapFormat) -> bool:
    try:
        told = json.loads(read_regular(path / name))
        if name == "zarr.json":
            return bool(told["attributes"]["format"] == form.name)
        return bool(told["dimension_names"][0] == "image")
    except (UserError, ValueError, TypeError, LookupError):
        return False


def _metadata(file: Path, form: MapFormat) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(file).decode("utf-8"))
    except ValueError as error:
        raise UserError(
            f"{file.parent}: zarr.json is damaged ({error}); if this is the {form.title}, make it again"
        ) from None
    return found if isinstance(found, dict) else {}


def _refuse(file: Path, form: MapFormat, expected: dict[str, Any], found: dict[str, Any]) -> None:
    for key, value in expected.items():
        if found.get(key) != value:
            raise UserError(
                f"{file}: the {form.title} must have {key} {value} here, found {found.get(key)}; name the right folder, or "
                "the JSON beside it"
            )
