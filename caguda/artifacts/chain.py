"""The chain from an artifact back to the frames: of which files it was made, and whether they are still the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from caguda.artifacts.atomic import read_json, sha256
from caguda.artifacts.hdf5 import texts_of
from caguda.artifacts.provenance import content_of
from caguda.errors import UserError
from caguda.files import read_regular


@dataclass(frozen=True)
class Input:
    """A file that an artifact was made of: where it is now, and whether it is what it was."""

    path: Path
    state: Literal["unchanged", "changed since", "missing"]


def provenance_of(path: Path) -> dict[str, Any]:
    """What an artifact says of its making; empty where it says nothing, a UserError where it cannot be read."""
    if path.is_dir():
        return _provenance_of_store(path / "zarr.json")
    side = path
    if path.suffix in (".safetensors", ".zip"):
        side = path.with_suffix(".json")
    if path.suffix == ".h5":
        found = json.loads(texts_of(path).get("provenance", "null"))
    elif side.suffix == ".json" and (side.exists() or not path.exists()):
        content = read_json(side)
        found = content.get("attributes", content).get("provenance")
    else:
        found = None
    return found if isinstance(found, dict) else {}


def _provenance_of_store(metadata: Path) -> dict[str, Any]:
    """What the group file of a store says of its making."""
    try:
        if not os.path.lexists(metadata):
            return {}
        found = json.loads(read_regular(metadata).decode())["attributes"].get("provenance")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise UserError(f"{metadata}: the group file of a store must be whole JSON, found damage; make the store "
                        "again") from None  # fmt: skip
    return found if isinstance(found, dict) else {}


def inputs_of(
    path: Path, digest: Callable[[Path], str] = sha256, content: Callable[[Path], str] = content_of
) -> list[Input]:
    """What an artifact was made of, as its provenance says, compared by `digest` and `content` with what is there now."""
    found = []
    for name, recorded in provenance_of(path).get("inputs", {}).items():
        if not isinstance(recorded, dict) or not {"sha256", "from_here"} <= recorded.keys():
            raise UserError(
                f"{path}: its provenance must say of {name} what and where it was, found less; make it again"
            )
        file = _located(name, recorded, path)
        if not file.is_file():
            found.append(Input(file, "missing"))
        else:
            same = digest(file) == recorded["sha256"]
            same = same or (file.suffix != ".safetensors" and content(file) == recorded.get("content"))
            found.append(Input(file, "unchanged" if same else "changed since"))
    return found


def _located(name: str, recorded: Mapping[str, Any], artifact: Path) -> Path:
    """Where a file is that an artifact was made of: where it lay from there, so that results may be moved and renamed.

    A file with an absolute name, which lies elsewhere, may have stayed where it was.
    """
    here = Path(os.path.normpath(artifact.absolute().parent / recorded["from_here"]))
    if not here.exists() and Path(name).is_absolute():
        return Path(name)
    return here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here


def recorded_sha256(path: Path) -> str:
    """The SHA-256 of a file; of a checkpoint the one that its JSON gives, so that no weights are read."""
    side = path.with_suffix(".json")
    recorded = read_json(side).get("weights_sha256") if path.suffix == ".safetensors" and side.exists() else None
    return sha256(path) if recorded is None else str(recorded)


def refuse_changed_inputs(path: Path) -> None:
    """UserError where a file that an artifact was made of is there, and is another one now.

    So an artifact of another seed or experiment is noticed, or one that is older than what it was made of. A file that is
    gone, as after results were copied in part, tells nothing; nor does a model that was imported.
    """
    if provenance_of(path).get("made_by") == "import":
        return
    for item in inputs_of(path, recorded_sha256):
        if item.state == "changed since":
            raise UserError(
                f"{path}: this must be made of the files that are there now, found one for which {item.path} was another "
                "file; put back what belongs here, or make it again"
            )


def ancestors_of(path: Path) -> set[Path]:
    """All that an artifact was made of, and what that was made of, as far as it is still there.

    The chain ends at a model that a user brought.
    """
    found: set[Path] = set()
    left = [path]
    while left:
        made = provenance_of(of := left.pop())
        recorded = made.get("inputs", {}) if made.get("made_by") != "import" else {}
        here = {_located(name, item, of) for name, item in recorded.items()}
        left += [file for file in here - found if file.is_file()]
        found |= {file for file in here if file.is_file()}
    return found


def refuse_other_manifest(path: Path, manifest: Path) -> None:
    """UserError unless an artifact was made of the frames of this manifest; a model that was imported tells nothing."""
    made = provenance_of(path)
    if not made or made.get("made_by") == "import":
        return
    recorded = [item for item in made.get("inputs", {}).values() if isinstance(item, dict)]
    known = {item.get(key) for item in recorded for key in ("sha256", "content")}
    if known.isdisjoint({sha256(manifest), content_of(manifest)}):
        raise UserError(
            f"{path}: this must be made of the frames of {manifest}, found one of other frames; name the manifest that it was "
            "made of, or make it again"
        )


def refuse_broken_chain(path: Path, digest: Callable[[Path], str], seen: set[Path]) -> None:
    """Returns when all that an artifact was made of, and what that was made of, is still the same; else a UserError.

    Artifacts in `seen` are not looked at again, and those that were are added. The chain ends at a model that a user
    brought: it has to be what was imported, whatever has become of its own inputs.
    """
    if path in seen:
        return
    brought = provenance_of(path).get("made_by") == "import"
    for item in inputs_of(path, digest):
        if item.state != "unchanged":
            raise UserError(
                f"{path}: all that it was made of must be there unchanged, found {item.path} {item.state}; make it again"
            )
        if not brought:
            refuse_broken_chain(item.path, digest, seen)
    seen.add(path)
