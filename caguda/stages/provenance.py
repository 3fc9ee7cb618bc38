"""The verb `provenance`: the chain from an artifact back to the frames and the settings that made it."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import read_json, sha256
from caguda.artifacts.chain import inputs_of, provenance_of
from caguda.artifacts.identity import model_of
from caguda.artifacts.maps import open_store
from caguda.artifacts.stores import kind_of_store
from caguda.errors import UserError, printable


def provenance(artifact: Path, as_json: bool) -> None:
    """Print what an artifact was made of, and that of what, and whether each file is still what it was.

    What lies behind an input is told once. As a tree for a person, or as JSON with all settings and versions.
    """
    if not artifact.exists() or not provenance_of(artifact):
        raise UserError(
            f"{artifact}: an artifact that says what made it is needed, found none; give its JSON or its file"
        )
    _refuse_damaged(artifact)
    chain = _chain(artifact, "asked for", cache(sha256), set())
    print(json.dumps(chain, indent=1, ensure_ascii=False) if as_json else "\n".join(map(printable, _lines(chain, ""))))


def _refuse_damaged(artifact: Path) -> None:
    """UserError where what is asked for is not what its own JSON, or the digest in its group file, says."""
    if artifact.is_dir():
        open_store(artifact, kind_of_store(artifact)[0])
    elif artifact.suffix in (".safetensors", ".zip"):
        told = read_json(artifact.with_suffix(".json"))
        if sha256(artifact) not in (told.get("weights_sha256"), told.get("sha256")):
            raise UserError(f"{artifact}: the file must have the SHA-256 that the JSON beside it gives, found another; put the "
                            "right one there, or make it again")  # fmt: skip


def _chain(path: Path, state: str, digest: Callable[[Path], str], told: set[Path]) -> dict[str, Any]:
    """`path` and `state` of an artifact; at its first mention also what `made` it, the `frames` in it, and its `inputs`."""
    chain: dict[str, Any] = {"path": path.as_posix(), "state": state}
    if path in told or state == "missing":
        return chain
    told.add(path)
    try:
        made, inputs, frames = provenance_of(path), inputs_of(path, digest), _frames(path)
    except UserError as error:  # it has changed to something else
        return chain | {"unreadable": str(error)}
    chain["made"] = {key: value for key, value in made.items() if key != "inputs"}
    return chain | {"frames": frames, "inputs": [_chain(item.path, item.state, digest, told) for item in inputs]}


def _frames(path: Path) -> dict[str, Any]:
    """Of a manifest, how many frames of each set are where, and their digest; empty for another file."""
    content = read_json(path) if path.suffix == ".json" else {}
    sets = {name: value for name, value in content.items() if isinstance(value, dict) and "frames" in value}
    return {name: {"root": s["root"], "frames": len(s["frames"]), "digest": s["digest"]} for name, s in sets.items()}


def _lines(chain: dict[str, Any], indent: str) -> list[str]:
    """The tree below an artifact, four spaces for each step back."""
    if "made" not in chain:
        return [f"{indent}{chain['path']}: {chain['state']}" + (", see above" if chain["state"] == "unchanged" else "")]
    found = [f"{indent}{chain['path']}: {chain['state']}"]
    if made := chain["made"]:
        seed = "" if made["seed"] is None else f", seed {made['seed']}"
        found += [
            f"{indent}  by {' '.join(filter(None, (made['made_by'], model_of(made))))}{seed}, settings {made['configuration'][:12]}, method {made['method_version']}",
            f"{indent}  {made['created']}, {made['seconds']:.0f} s on {made['machine']['host']}, caguda {made['caguda']}",
        ]
    for name, frames in chain["frames"].items():
        found.append(f"{indent}  {name}: {frames['frames']} frames in {frames['root']}, digest {frames['digest'][:12]}")
    return found + [line for item in chain["inputs"] for line in _lines(item, indent + "    ")]
