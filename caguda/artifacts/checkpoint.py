"""A checkpoint: the weights of a network as safetensors, and beside them a JSON that describes them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from caguda.artifacts.atomic import read_json, sha256, write_atomically, write_json
from caguda.artifacts.ownership import refuse_foreign
from caguda.errors import UserError
from caguda.files import read_regular

FORMAT = "caguda-checkpoint"
FORMAT_VERSION = 1


def save_checkpoint(path: Path, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Writes a checkpoint: first its JSON, then its weights to `path` (.safetensors), the same bytes for the same weights.

    `description` holds `architecture`, `classes`, `metrics` and `provenance`; format and digest are added. A checkpoint is
    complete if its JSON agrees with its weights: older weights are removed before the JSON changes. Weights may be on any
    device.
    """
    assert path.suffix == ".safetensors", path
    if broken := not_finite(weights):
        raise UserError(
            f"{path}: every weight must be finite, found {broken} that is not; nothing was written: lower the learning rate, "
            "or take another model"
        )
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    refuse_foreign(path.with_suffix(".json"))
    with write_atomically(path) as partial:
        partial.write_bytes(save(copies))  # save_file makes files that only their owner may read
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "weights_sha256": sha256(partial)}
        path.unlink(missing_ok=True)
        write_json(path.with_suffix(".json"), head | dict(description))


def not_finite(weights: Mapping[str, Tensor]) -> str:
    """The name of the first weight with an infinite or nan value; empty without one."""
    return next((name for name, weight in weights.items() if not weight.isfinite().all()), "")


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights (on the CPU) and the description of a checkpoint; a UserError if either is missing or damaged."""
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path}: a checkpoint is named by its weights, NAME.safetensors, found another name; name these"
        )
    side = path.with_suffix(".json")
    description = read_json(side)
    actual = (description.get("format"), description.get("format_version"))
    if actual != (FORMAT, FORMAT_VERSION):
        raise UserError(f"{side}: a checkpoint must be {FORMAT} {FORMAT_VERSION}, found {actual[0]} {actual[1]}")
    content = read_regular(path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != description.get("weights_sha256"):
        raise UserError(
            f"{path}: the weights must have the SHA-256 that {side.name} gives, found {digest}; "
            "the file is damaged or belongs to another run: put the right one there, or move both away and make them again"
        )
    try:
        return load(content), description
    except SafetensorError as error:
        raise UserError(f"{path}: the weights must be safetensors, found: {error}; make them again") from None


def load_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a safetensors file, on the CPU; a UserError if it is missing or damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: the weights must be a whole safetensors file, found: {error}; take another file, or bring one of torch.save "
            "by convert-checkpoint"
        ) from None
