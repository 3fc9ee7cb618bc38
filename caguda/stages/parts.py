"""One pass over the frames of a set, divided into parts for as many jobs: the same results for any number of parts."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from caguda.artifacts.provenance import same_origin
from caguda.config import Configuration
from caguda.errors import UserError

T = TypeVar("T")


def units_of_part(units: Sequence[T], part: int, parts: int, set_name: str) -> Sequence[T]:
    """The units of work of part `part` of `parts` (1-based): consecutive ones, as many as in the others or one more.

    A unit is never divided, since the last bits of a feature may depend on the batch that it is in. UserError where a
    part would have none.
    """
    if not 1 <= part <= parts:
        raise UserError(f"--part must be 1 to --parts, found --part {part} --parts {parts}; name one of them")
    if parts > len(units):
        raise UserError(
            f"compute.parts: the {set_name} frames can be divided into at most {len(units)} parts of whole batches, "
            f"found {parts}; lower it, or compute.inference_batch_size"
        )
    return units[len(units) * (part - 1) // parts : len(units) * part // parts]


def divided(configuration: Configuration) -> dict[str, Any]:
    """What decides predictions, and how their frames are divided over parts: by whole batches."""
    size = configuration.compute.inference_batch_size
    return configuration.model_dump(mode="json", include={"inference"}) | {"inference_batch_size": size}


def refuse_others(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """UserError unless a part was made with just those settings of just those inputs; both are provenances."""
    if not same_origin(found, expected):
        raise UserError(
            f"{path}: a part must be made of the given files with the configured settings, found other ones; "
            "move it away and make it again"
        )


def refuse_apart(folder: Path, output: Path) -> None:
    """UserError unless a JSON is to lie beside the folder that it vouches for, which it names without a path."""
    if folder.absolute().parent.resolve() != output.absolute().parent.resolve():
        raise UserError(
            f"{output}: this JSON must lie beside {folder}, which it is of, found another folder; name one there"
        )


def refuse_gaps(paths: Sequence[Path], found: Collection[T], expected: Collection[T]) -> None:
    """UserError unless the parts have every unit of work, and each once."""
    if twice := len(found) - len(set(found)):
        raise UserError(
            f"{', '.join(map(str, paths))}: these parts must make a whole, found {twice} units of work in two of them; name "
            "every part of one division once"
        )
    if missing := sum(unit not in found for unit in expected):
        raise UserError(
            f"{', '.join(map(str, paths))}: these parts must make a whole, found {missing} of {len(expected)} units of "
            "work missing; name every part of one division"
        )
