"""Divides a pass over frames into parts, one for each job. The results do not depend on the number of parts."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from caguda.artifacts.provenance import same_origin
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.recorded_settings import settings_of_pass

T = TypeVar("T")


def units_of_part(units: Sequence[T], part: int, parts: int, set_name: str) -> Sequence[T]:
    """The units of part `part` of `parts` (1-based): consecutive ones; the sizes of two parts differ by at most one unit.

    A unit is one or more whole batches, since the last bits of a feature may depend on its batch. UserError if a part would be empty.
    """
    if not 1 <= part <= parts:
        raise UserError(f"--part must be 1 to --parts, found --part {part} --parts {parts}; name one of them")
    if parts > len(units):
        raise UserError(
            f"compute.parts: the {set_name} frames can be divided into at most {len(units)} parts, "
            f"found {parts}; lower it, or compute.inference_batch_size"
        )
    return units[len(units) * (part - 1) // parts : len(units) * part // parts]


def prediction_settings(configuration: Configuration) -> dict[str, Any]:
    """The settings that decide predictions, with the batch size, which also decides the division into parts."""
    settings = configuration.model_dump(mode="json", include={"inference"}) | settings_of_pass(configuration)
    return settings | {"inference_batch_size": configuration.compute.inference_batch_size}


def refuse_other_part(path: Path, recorded: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """UserError unless the provenance of a part, `recorded`, has the settings and inputs of the provenance `expected`."""
    if not same_origin(recorded, expected):
        raise UserError(
            f"{path}: a part must be made of the given files with the configured settings, found other ones; "
            "move it away and make it again"
        )


def refuse_apart(folder: Path, output: Path) -> None:
    """UserError unless the JSON `output` lies beside the folder whose checksums it has: it names that without a path."""
    if folder.absolute().parent.resolve() != output.absolute().parent.resolve():
        raise UserError(f"{output}: this JSON must lie beside {folder}, found another place; name a file beside it")


def refuse_gaps(paths: Sequence[Path], units: Collection[T], expected: Collection[T]) -> None:
    """UserError unless the units of all parts are the expected ones, each once; `paths` are the files of the parts."""
    message = f"{', '.join(map(str, paths))}: these parts must make a whole, found"
    if twice := len(units) - len(set(units)):
        raise UserError(f"{message} {twice} units of work in two of them; name every part of one division once")
    if missing := sum(unit not in units for unit in expected):
        raise UserError(
            f"{message} {missing} of {len(expected)} units of work missing; name every part of one division"
        )
