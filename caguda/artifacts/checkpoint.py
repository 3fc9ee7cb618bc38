"""A checkpoint: the weights of a network as safetensors, and beside them a JSON that describes them.

No torch until weights are read or written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from caguda.artifacts.atomic import read_json, write_atomically, write_json
from caguda.errors import UserError
from caguda.files import read_regular, sha256

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "caguda-checkpoint"
FORMAT_VERSION = 1


def save_checkpoint(path: Path, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Writes a checkpoint: first its JSON, then its weights to `path` (.safetensors), the same bytes for the same weights.

    `description` holds `architecture`, `classes`, `metrics` and `provenance`; format and digest are added. A checkpoint is
    complete if its JSON agrees with its weights: older weights are removed before the JSON changes. Weights may be on any
    device.
    """
    from safetensors.torch import save

    assert path.suffix == ".safetensors", path
    if broken := not_finite(weights):
        raise UserError(
            f"{path}: every weight must be finite, found {broken} that is not; nothing was written: lower the learning rate, "
            "or take another model"
        )
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    with write_atomically(path, path.with_suffix(".json")) as partial:
        partial.write_bytes(save(copies))  # save_file makes files that only their owner may read
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "weights_sha256": sha256(partial)}
        path.unlink(missing_ok=True)
        write_json(path.with_suffix(".json"), head | dict(description))


def not_finite(weights: Mapping[str, Tensor]) -> str:
    """The name of the first weight with an infinite or nan value; empty without one."""
    return next((name for name, weight in weights.items() if not weight.isfinite().all()), "")


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights (on the CPU) and the description of a checkpoint; a UserError if either is missing or damaged."""
    from safetensors.torch import load

    description, content = _description(path), read_regular(path)
    _refuse_other_weights(path, description, hashlib.sha256(content).hexdigest())
    try:
        return load(content), description
    except SafetensorError as error:
        raise UserError(f"{path}: the weights must be safetensors, found: {error}; make them again") from None


def read_description(path: Path) -> dict[str, Any]:
    """The description of a checkpoint, without its weights; a UserError if either is missing or damaged."""
    description = _description(path)
    _refuse_other_weights(path, description, sha256(path))
    return description


def _description(path: Path) -> dict[str, Any]:
    """The description of the checkpoint whose weights are in `path`, which are not read."""
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path}: a checkpoint is named by its weights, NAME.safetensors, found another name; name these"
        )
    side = path.with_suffix(".json")
    description = read_json(side)
    actual = (description.get("format"), description.get("format_version"))
    if actual != (FORMAT, FORMAT_VERSION):
        raise UserError(f"{side}: a checkpoint must be {FORMAT} {FORMAT_VERSION}, found {actual[0]} {actual[1]}")
    return description


def _refuse_other_weights(path: Path, description: Mapping[str, Any], digest: str) -> None:
    """Raises UserError unless the weights of a checkpoint have the SHA-256 of its description."""
    if digest != description.get("weights_sha256"):
        raise UserError(
            f"{path}: the weights must have the SHA-256 that {path.with_suffix('.json').name} gives, found {digest}; "
            "the file is damaged or belongs to another run: put the right one there, or move both away and make them again"
        )


def load_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a safetensors file, on the CPU; a UserError if it is missing or damaged."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: the weights must be a whole safetensors file, found: {error}; take another file, or bring one of torch.save "
            "by convert-checkpoint"
        ) from None
