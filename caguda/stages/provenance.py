"""The verb `provenance`: the chain from an artifact back to its frames and settings."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import read_json
from caguda.artifacts.chain import inputs_of, provenance_of
from caguda.artifacts.identity import model_of
from caguda.artifacts.maps import open_store
from caguda.artifacts.ownership import agrees_with_json
from caguda.artifacts.stores import kind_of_store
from caguda.errors import UserError, printable
from caguda.files import sha256

_KEYS = {
    "made_by",
    "caguda",
    "method_version",
    "configuration",
    "settings",
    "inputs",
    "seed",
    "machine",
    "seconds",
    "created",
}
"""Keys of every provenance of ours. An object without one of them is of another program."""


def print_provenance(artifact: Path, as_json: bool) -> None:
    """Print the inputs of an artifact, their inputs and so on, and whether each file is unchanged.

    The inputs of a file are printed once. The output is a tree for a person, or JSON with all settings and versions.
    """
    if not artifact.exists() or not provenance_of(artifact).keys() >= _KEYS:
        raise UserError(
            f"{artifact}: an artifact that says what made it is needed, found none; give its JSON or its file"
        )
    if artifact.is_dir():
        open_store(artifact, kind_of_store(artifact)[0])  # refuses changed metadata
    elif artifact.suffix in (".safetensors", ".zip") and not agrees_with_json(artifact):
        raise UserError(f"{artifact}: the file must have the SHA-256 that the JSON beside it gives, found another; put the "
                        "right one there, or make it again")  # fmt: skip
    chain = _chain(artifact, "asked for", cache(sha256), set())
    print(json.dumps(chain, indent=1, ensure_ascii=False) if as_json else "\n".join(map(printable, _lines(chain, ""))))


def _chain(path: Path, state: str, digest: Callable[[Path], str], printed: set[Path]) -> dict[str, Any]:
    """The `path` and `state` of an artifact; the first time also its provenance as `made`, its `frames` and `inputs`."""
    chain: dict[str, Any] = {"path": path.as_posix(), "state": state}
    if path in printed or state == "missing":
        return chain
    printed.add(path)
    try:
        provenance, inputs, frames = provenance_of(path), inputs_of(path, digest), _frames(path)
        if provenance and not provenance.keys() >= _KEYS:
            raise UserError(f"{path}: its provenance must have {', '.join(sorted(_KEYS))}, found fewer; make it again")
    except UserError as error:  # it has changed to something else
        return chain | {"unreadable": str(error)}
    chain["made"] = {key: value for key, value in provenance.items() if key != "inputs"}
    return chain | {"frames": frames, "inputs": [_chain(item.path, item.state, digest, printed) for item in inputs]}


def _frames(path: Path) -> dict[str, Any]:
    """The root, number and digest of the frames of each set of a manifest; empty for another file."""
    content = read_json(path) if path.suffix == ".json" else {}
    sets = {name: value for name, value in content.items() if isinstance(value, dict) and "frames" in value}
    return {name: {"root": s["root"], "frames": len(s["frames"]), "digest": s["digest"]} for name, s in sets.items()}


def _lines(chain: dict[str, Any], indent: str) -> list[str]:
    """The lines of the tree below an artifact, indented by four spaces for each step back."""
    if "made" not in chain:
        return [f"{indent}{chain['path']}: {chain['state']}" + (", see above" if chain["state"] == "unchanged" else "")]
    lines = [f"{indent}{chain['path']}: {chain['state']}"]
    if provenance := chain["made"]:
        writer = " ".join(filter(None, (provenance["made_by"], model_of(provenance))))
        seed = "" if provenance["seed"] is None else f", seed {provenance['seed']}"
        lines += [
            f"{indent}  by {writer}{seed}, settings {provenance['configuration'][:12]}, method {provenance['method_version']}",
            f"{indent}  {provenance['created']}, {provenance['seconds']:.0f} s on {provenance['machine']['host']}, caguda {provenance['caguda']}",
        ]
    for name, frames in chain["frames"].items():
        lines.append(f"{indent}  {name}: {frames['frames']} frames in {frames['root']}, digest {frames['digest'][:12]}")
    return lines + [line for item in chain["inputs"] for line in _lines(item, indent + "    ")]
