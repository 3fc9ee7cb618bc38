"""The metadata of a label store, compared with what this program writes before any library opens the store."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import sha256
from caguda.artifacts.label_arrays import NAMES
from caguda.artifacts.provenance import fingerprint
from caguda.errors import UserError
from caguda.files import read_regular

CODECS = {**{name: ["bytes", "zstd"] for name in NAMES}, "image_id": ["vlen-utf8", "zstd"]}


def refuse_other_metadata(path: Path) -> None:
    """UserError unless a folder is a zarr v3 group with the arrays of a label store, encoded as this program does.

    A group of another version of zarr, or with other codecs, would have zarr load code that the store names.
    """
    if not (path / "zarr.json").exists():
        raise UserError(
            f"{path}: the label store must exist, found no zarr group; make it first, or name the folder labels.zarr"
        )
    _refuse(path / "zarr.json", {"zarr_format": 3, "node_type": "group"}, _metadata(path / "zarr.json"))
    for name, codecs in CODECS.items():
        file = path / name / "zarr.json"
        if not file.exists():
            continue  # whoever opens the array says that it is missing
        found = _metadata(file)
        told = {key: found.get(key) for key in ("zarr_format", "node_type", "storage_transformers")}
        listed = found.get("codecs")
        told["codecs"] = [
            codec.get("name") if isinstance(codec, dict) else codec
            for codec in (listed if isinstance(listed, list) else [listed])
        ]
        _refuse(file, {"zarr_format": 3, "node_type": "array", "storage_transformers": [], "codecs": codecs}, told)


def metadata_digests(path: Path) -> dict[str, str]:
    """The SHA-256 of every file of a store that belongs to no single image, by its path in the store."""
    files = [path / "zarr.json", *sorted((path / "image_id").glob("*")), *(path / name / "zarr.json" for name in NAMES)]
    return {file.relative_to(path).as_posix(): sha256(file) for file in files if file.suffix != ".partial"}


def chunk_digests(path: Path, index: int) -> dict[str, str | None]:
    """The SHA-256 of each of the seven files of one image, as they are stored; None where one is missing."""
    files = {name: path / name / f"c.{index}.0.0" for name in NAMES}
    return {name: sha256(file) if file.is_file() else None for name, file in files.items()}


def digest_of_metadata(path: Path, attributes: Mapping[str, Any]) -> str:
    """The digest that the group of a store has as its attribute `sha256`: of its other attributes, and of those files."""
    told = {name: value for name, value in attributes.items() if name != "sha256"}
    files = {name: digest for name, digest in metadata_digests(path).items() if name != "zarr.json"}
    return fingerprint({"attributes": told, "files": files})


def _metadata(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(file).decode("utf-8"))
    except ValueError as error:
        raise UserError(
            f"{file.parent}: zarr.json is damaged ({error}); if this is a label store, make the labels again"
        ) from None
    return found if isinstance(found, dict) else {}


def _refuse(file: Path, expected: dict[str, Any], found: dict[str, Any]) -> None:
    for key, value in expected.items():
        if found.get(key) != value:
            raise UserError(
                f"{file}: a label store must have {key} {value} here, found {found.get(key)}; name the folder labels.zarr or "
                "its labels.json"
            )
