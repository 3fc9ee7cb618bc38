"""What made an artifact: enough to make it again, and to notice that it is stale."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import is_sealed, read_json, sha256
from caguda.artifacts.hdf5 import content_of_arrays
from caguda.version import METHOD_VERSION, VERSION

LIBRARIES = ("numpy", "torch", "torchvision", "pillow", "h5py", "zarr", "safetensors", "pydantic")


def fingerprint(settings: Mapping[str, Any]) -> str:
    """The SHA-256, in hexadecimal, of the settings as JSON with sorted keys and no spaces: their order is no matter."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def provenance(
    made_by: str, settings: Mapping[str, Any], inputs: Sequence[Path], seed: int | None, started: float, of: Path
) -> dict[str, Any]:
    """Who made the artifact `of` (a verb), of which inputs, with which settings, versions and seed, in how many seconds.

    `settings` are the JSON values of the configuration that the artifact depends on. `started` is `time.time()` when
    the work began. An input that cannot be read is a UserError.
    """
    return {
        "made_by": made_by,
        "caguda": VERSION,
        "method_version": METHOD_VERSION,
        "configuration": fingerprint(settings),
        "settings": dict(settings),
        "inputs": {
            path.as_posix(): {
                "sha256": sha256(path),
                "content": content_of(path),
                "from_here": os.path.relpath(path.absolute(), of.absolute().parent),
            }
            for path in inputs
        },
        "seed": seed,
        "libraries": _library_versions(),
        "machine": {"host": platform.node(), "system": platform.platform(), "cores": os.cpu_count()},
        "seconds": round(time.time() - started, 3),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def content_of(path: Path) -> str:
    """A digest of what a file says, without when, where and how it was made; of any other file that of its bytes.

    Of a manifest, what its frames are; of arrays in HDF5, all but their provenance; of the JSON of a store, its maps.
    """
    if path.suffix == ".h5":
        return content_of_arrays(path) or sha256(path)
    if path.suffix == ".json" and is_sealed(path.read_bytes()):
        content = read_json(path)
        if "warnings" in content:
            sets = {
                name: value["digest"]
                for name, value in content.items()
                if isinstance(value, dict) and "digest" in value
            }
            return fingerprint({"sets": sets, "classes": content["classes"]})
        if "chunk_sha256" in content and "digest" in content:
            return fingerprint({key: content.get(key) for key in ("digest", "anchor_distance", "rule")})
    return sha256(path)


def same_origin(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two provenances have the same settings, method version and inputs, whatever the inputs are called."""

    return origin_of(first) == origin_of(second)


def origin_of(made: Mapping[str, Any]) -> list[Any]:
    """What decides an artifact, by its provenance: settings, method version, and the contents of its inputs."""
    inputs = sorted(given["content"] for given in made["inputs"].values())
    return [made["configuration"], made["method_version"], inputs]


def _library_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
