"""The provenance of a new artifact: all that is needed to make it again, and to notice that it is stale."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import read_json
from caguda.artifacts.hdf5 import content_of_arrays
from caguda.files import is_sealed, sha256
from caguda.version import METHOD_VERSION, VERSION

LIBRARIES = ("numpy", "torch", "torchvision", "pillow", "h5py", "zarr", "safetensors", "pydantic")


def json_digest(content: Any) -> str:
    """The SHA-256 of a JSON value in hexadecimal, keys sorted, without spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def new_provenance(
    made_by: str, settings: Mapping[str, Any], inputs: Sequence[Path], seed: int | None, started: float, artifact: Path
) -> dict[str, Any]:
    """The provenance of a new artifact: the verb, its settings, inputs and seed, versions, machine and seconds.

    `settings` are the JSON values of the configuration that the artifact depends on, `started` is `time.time()` when the
    work began, and `artifact` is the path from which inputs are located. An input that cannot be read is a UserError.
    """
    return {
        "made_by": made_by,
        "caguda": VERSION,
        "method_version": METHOD_VERSION,
        "configuration": json_digest(settings),
        "settings": dict(settings),
        "inputs": {
            path.as_posix(): {
                "sha256": sha256(path),
                "content": content_digest(path),
                "from_here": os.path.relpath(path.absolute(), artifact.absolute().parent),
            }
            for path in inputs
        },
        "seed": seed,
        "libraries": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "machine": {"host": platform.node(), "system": platform.platform(), "cores": os.cpu_count()},
        "seconds": round(time.time() - started, 3),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def content_digest(path: Path) -> str:
    """A SHA-256 of the content of a file, without when, where and how it was made.

    It covers the frames and the categories of a manifest, with their raw values in every set, all of an HDF5 file of arrays
    but its provenance, and the maps of a store by its JSON; in any other file, all bytes.
    """
    if path.suffix == ".h5":
        return content_of_arrays(path) or sha256(path)
    if path.suffix == ".json" and is_sealed(path.read_bytes()):
        content = read_json(path)
        if "warnings" in content:
            sets = {
                name: [value["digest"], value.get("train_ids")]
                for name, value in content.items()
                if isinstance(value, dict) and "digest" in value
            }
            return json_digest({"sets": sets, "classes": content["classes"]})
        if "chunk_sha256" in content and "digest" in content:
            return json_digest({key: content.get(key) for key in ("digest", "anchor_distance", "rule")})
    return sha256(path)


def same_origin(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two provenances have the same settings, method version and input contents, whatever the inputs' names."""
    return origin_of(first) == origin_of(second)


def origin_of(provenance: Mapping[str, Any]) -> list[Any]:
    """All of a provenance that decides an artifact: its settings, method version and input contents."""
    contents = sorted(recorded["content"] for recorded in provenance["inputs"].values())
    return [provenance["configuration"], provenance["method_version"], contents]
