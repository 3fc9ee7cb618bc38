"""The chain from an artifact back to the frames: the files that it was made of, and whether they are unchanged. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from caguda.artifacts.atomic import read_json
from caguda.artifacts.hdf5 import texts_of
from caguda.artifacts.provenance import content_digest
from caguda.errors import UserError
from caguda.files import read_regular, sha256

FROM_ELSEWHERE = ("import", "convert-anchors")
"""The verbs of rules whose input comes from elsewhere: it may be moved, and its own inputs are not followed."""


@dataclass(frozen=True)
class Input:
    """A file that an artifact was made of: its path now, and its state since then."""

    path: Path
    state: Literal["unchanged", "changed since", "missing"]


def provenance_of(path: Path) -> dict[str, Any]:
    """The provenance that a file or store records; empty if it records none, a UserError if it cannot be read."""
    side = path.with_suffix(".json") if path.suffix in (".safetensors", ".zip") else path
    provenance = None
    if path.is_dir():
        provenance = _provenance_of_store(path / "zarr.json")
    elif path.suffix == ".h5":
        provenance = _provenance_in_text(path, texts_of(path).get("provenance", "null"))
    elif side.suffix == ".json" and (side.exists() or not path.exists()):
        content = read_json(side)
        provenance = content.get("attributes", content).get("provenance")
    return provenance if isinstance(provenance, dict) else {}


def _provenance_in_text(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(
            f"{path}: its attribute provenance must be JSON of caguda, found other text; name another file"
        ) from None


def _provenance_of_store(group_file: Path) -> Any:
    if not os.path.lexists(group_file):
        return None
    try:
        return json.loads(read_regular(group_file).decode())["attributes"].get("provenance")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise UserError(f"{group_file}: the group file of a store must be whole JSON, found damage; make the store "
                        "again") from None  # fmt: skip


def inputs_of(
    path: Path, digest: Callable[[Path], str] = sha256, content: Callable[[Path], str] = content_digest
) -> list[Input]:
    """The files that an artifact was made of, compared with the digests in its provenance.

    A file is unchanged if its `digest` (SHA-256) or, except for weights, its `content` digest is the recorded one.
    """
    inputs = []
    for name, recorded in provenance_of(path).get("inputs", {}).items():
        if not isinstance(recorded, dict) or not {"sha256", "from_here"} <= recorded.keys():
            raise UserError(
                f"{path}: its provenance must say of {name} what and where it was, found less; make it again"
            )
        file = _located(name, recorded, path)
        if not file.is_file():
            inputs.append(Input(file, "missing"))
        else:
            same = digest(file) == recorded["sha256"]
            same = same or (file.suffix != ".safetensors" and content(file) == recorded.get("content"))
            inputs.append(Input(file, "unchanged" if same else "changed since"))
    return inputs


def _located(name: str, recorded: Mapping[str, Any], artifact: Path) -> Path:
    """The path of an input now: as seen from the artifact, since results may be moved; else its name, if absolute."""
    path = Path(os.path.normpath(artifact.absolute().parent / recorded["from_here"]))
    if not path.exists() and Path(name).is_absolute():
        return Path(name)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def recorded_sha256(path: Path) -> str:
    """The SHA-256 of a file; for a checkpoint the one in its JSON, so that no weights are read."""
    side = path.with_suffix(".json")
    recorded = read_json(side).get("weights_sha256") if path.suffix == ".safetensors" and side.exists() else None
    return sha256(path) if recorded is None else str(recorded)


def chain_of(*paths: Path) -> Iterator[Path]:
    """Yields artifacts, and all existing files that they were made of, back to the frames' manifest; each once.

    The chain ends at an imported model and at anchors from elsewhere: their inputs are not followed.
    """
    pending, yielded = list(paths), set[Path]()
    while pending:
        if (path := pending.pop(0)) in yielded:
            continue
        yielded.add(path)
        yield path
        provenance = provenance_of(path)
        if provenance.get("made_by") not in FROM_ELSEWHERE:
            inputs = (_located(name, item, path) for name, item in provenance.get("inputs", {}).items())
            pending[:0] = [file for file in inputs if file.is_file()]


def files_below(folder: Path, may_enter: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields the files below a folder in order, and the folders that `may_enter` excludes; a linked folder is entered once.

    UserError if a folder cannot be read.
    """
    pending, entered = [folder], set[str]()
    while pending:
        path = pending.pop()
        if not path.is_dir() or not (path == folder or may_enter(path)):
            yield path
        elif (resolved := os.path.realpath(path)) not in entered:
            entered.add(resolved)  # else a link to a folder above would be followed without end
            try:
                pending += sorted(path.iterdir(), reverse=True)
            except OSError as error:
                raise UserError(
                    f"{path}: the folder must be readable, found: {error.strerror}; check its rights"
                ) from None
