"""The files that a verb writes, and the files that they may replace. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import read_json
from caguda.artifacts.chain import provenance_of
from caguda.artifacts.checks import misplacement
from caguda.artifacts.hdf5 import texts_of
from caguda.artifacts.identity import CHECKPOINT, KIND_BY_VERB, model_of
from caguda.artifacts.ownership import refuse_foreign, verb_of
from caguda.config import Configuration
from caguda.configfile import configuration_beside
from caguda.errors import UserError, is_plain
from caguda.files import refuse_irregular

_TABLE = (".csv", ".md", ".tex", ".html")
WRITES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(KIND_BY_VERB, (".json",)),
    **{verb: (".safetensors", ".json") for verb, kind in KIND_BY_VERB.items() if kind == CHECKPOINT},
    **dict.fromkeys(("pack", "anchor-part", "anchors", "convert-anchors"), (".h5",)),
    **dict.fromkeys(("figure", "curves", "class-chart"), (".png",)),
    "submission": (".zip", ".json"),
    "table": (".csv", ".md"),
    "paper-table": _TABLE,
    "sweep": (*_TABLE, ".png"),
    "report": (".html",),
}
"""The suffix of each verb's `--output`, and those of the files that it writes beside it."""
_OUTPUTS = ("output", "csv", "markdown")
"""The arguments that name a file to be written."""
_MAY_BE_FOLDERS = ("paths", "artifact", "store", "labellings", "shown", "folder", "state", "plot", *_OUTPUTS)
_WITH_PROVENANCE = (".json", ".h5", ".safetensors", ".zip")
_LONGEST_FOLDER_NAME = 200
"""Bytes, at most: files with longer names are put beside the folder."""


def outputs_of(verb: str, arguments: Mapping[str, Any]) -> list[Path]:
    """The files that a call of a verb writes; UserError for an output whose suffix is not the verb's."""
    files = []
    for key in (key for key in _OUTPUTS if key in arguments and verb in WRITES):
        output: Path = arguments[key]
        suffix, *beside = {"csv": (".csv",), "markdown": (".md",)}.get(key, WRITES[verb])
        if output.suffix != suffix:
            raise UserError(f"{output}: the output's name must end in {suffix}, found another; choose another name")
        files += [output, *map(output.with_suffix, beside)]
    return files


def refuse_outputs(arguments: Mapping[str, Any], outputs: Sequence[Path]) -> None:
    """Raises UserError, before a verb begins, if an output would replace another argument or a file of another program.

    The same error if a file is given twice, if a folder for many files is a file, or if an output would lie in a store.
    """
    for key, value in arguments.items():
        _refuse_argument(key, _paths([value]))
    inputs = _paths(value for key, value in arguments.items() if key not in _OUTPUTS)
    inputs += [path.with_suffix(".json") for path in inputs if path.suffix in (".safetensors", ".zip")]
    resolved = [os.path.realpath(path) for path in (*inputs, *outputs)]
    for path in outputs:
        if resolved.count(os.path.realpath(path)) > 1:
            raise UserError(f"{path}: an output must be a file of its own, found another argument that names it")
    _refuse_places_in_stores(arguments, outputs)
    for folder in (arguments[key] for key in ("state", "folder", "store") if key in arguments):
        if len(os.fsencode(folder.name)) > _LONGEST_FOLDER_NAME:
            raise UserError(
                f"{folder}: the name of this folder must have at most {_LONGEST_FOLDER_NAME} bytes; choose a shorter one"
            )
        refuse_foreign(folder / "any")
    refuse_foreign(*outputs)


def _paths(values: Iterable[Any]) -> list[Path]:
    """The paths among the values of arguments, some of which are lists."""
    lists = (value if isinstance(value, list | tuple) else [value] for value in values)
    return [path for items in lists for path in items if isinstance(path, Path)]


def _refuse_argument(key: str, paths: Sequence[Path]) -> None:
    """Raises UserError for a pipe or device, which would block, a folder in place of a file, or a file named twice."""
    for path in paths:
        if not is_plain(str(path)):
            raise UserError(f"{path!s:.300}: a path must be UTF-8 without control characters, found another; rename it")
        refuse_irregular(path)
        if path.is_dir() and key not in _MAY_BE_FOLDERS:
            raise UserError(f"{path}: a file must be named, found a folder; name the file in it")
    resolved = [os.path.realpath(path) for path in paths]
    for path in paths:
        if key != "paths" and (count := resolved.count(os.path.realpath(path))) > 1:
            raise UserError(f"{path}: a file must be named once, found it {count} times; leave it out")


def _refuse_places_in_stores(arguments: Mapping[str, Any], outputs: Sequence[Path]) -> None:
    """Raises UserError if an output would lie in a store, or a folder for many files is one or lies in one."""
    folders = [arguments[key] for key in ("output", "folder", "state", "plot") if isinstance(arguments.get(key), Path)]
    for path in (*outputs, *folders):
        around = path.absolute().parents if path in outputs else (path.absolute(), *path.absolute().parents)
        if store := next((folder for folder in around if (folder / "zarr.json").exists()), None):
            raise UserError(f"{path}: an output must not lie in a store, found {store}; choose another output")


def refuse_other_outputs(
    verb: str, arguments: Mapping[str, Any], outputs: Sequence[Path], configuration: Configuration | None
) -> None:
    """Raises UserError if an output would replace a file of another verb, model or seed, or one made of other inputs.

    The same error if an output or a store would lie in the folder of another experiment, seed, run or report, or beside
    another model.
    """
    caller = "paper-table" if verb == "sweep" else _verb_and_model(verb, arguments.get("model"))
    for path in (path for path in outputs if path.is_file()):
        writer, seed = _writer_and_seed(path)
        if writer != ("sweep" if (verb, path.suffix) == ("sweep", ".png") else caller):
            raise UserError(f"{path}: an output must be a new file or one that `{verb if verb == 'sweep' else caller}` wrote before, found one of "
                            f"`{writer}`; choose another output")  # fmt: skip
        if "seed" in arguments and seed not in (None, arguments["seed"]):
            raise UserError(f"{path}: an output must be a new file or of seed {arguments['seed']}, found one of seed {seed}; "
                            "choose another output")  # fmt: skip
        if inputs := _other_store_or_domain(path, arguments) or _other_input(verb, path, arguments):
            raise UserError(f"{path}: an output must be a new file or one of the same files, found one that was made of {inputs}; "
                            "choose another output")  # fmt: skip
    for path in (*outputs, *([arguments["store"]] if "store" in arguments and verb in WRITES else [])):
        _refuse_other_folder(verb, path, arguments, configuration)


def _verb_and_model(verb: str, model: str | None) -> str:
    """A call as messages name it."""
    return f"{verb} --model {model}" if model else verb


def _writer_and_seed(path: Path) -> tuple[str, int | None]:
    """The call that wrote a file of this program, and its seed if it records one."""
    if path.suffix not in _WITH_PROVENANCE:
        return verb_of(path) or "another program", None
    provenance = provenance_of(path)
    writer = _verb_and_model(provenance["made_by"], model_of(provenance)) if provenance else "the workflow"
    is_empty_store = writer == "evidence" and path.suffix == ".json" and "chunk_sha256" not in read_json(path)
    return "evidence-store" if is_empty_store else writer, provenance.get("seed")


def _other_store_or_domain(output: Path, arguments: Mapping[str, Any]) -> str | None:
    """The store or domain that an existing output is of, if the call names another; else None."""
    if "store" in arguments and output.suffix == ".json":
        recorded, current = read_json(output).get("store"), arguments["store"].name
    elif "domain" in arguments and output.suffix == ".h5":
        recorded, current = json.loads(texts_of(output).get("domain", "null")), arguments["domain"]
    else:
        return None
    return None if recorded in (None, current) else f"{recorded}"


def _other_input(verb: str, output: Path, arguments: Mapping[str, Any]) -> str | None:
    """A file that an existing output was made of and the call does not name, as a path from there; None without one.

    The JSON of an evidence store has the inputs of the store.
    """
    if verb == "evidence" or output.suffix not in _WITH_PROVENANCE:
        return None
    folder = (arguments["store"] if verb == "evidence-store" else output).absolute().parent
    named = {os.path.relpath(path.absolute(), folder) for path in _paths(arguments.values())}
    recorded = [item["from_here"] for item in provenance_of(output).get("inputs", {}).values()]
    return next((name for name in recorded if name not in named), None)


def _refuse_other_folder(
    verb: str, path: Path, arguments: Mapping[str, Any], configuration: Configuration | None
) -> None:
    """Raises UserError if a path lies in the folder of another experiment, seed, run or report, or beside another model."""
    folder = path.absolute().parent
    files = _paths(value for key, value in arguments.items() if key not in (*_OUTPUTS, "store"))
    inputs = {str(file): {"from_here": os.path.relpath(file.absolute(), folder)} for file in files}
    settings = {"run": {"name": arguments["model"]}} if "model" in arguments else {}
    provenance = {"made_by": verb, "seed": arguments.get("seed"), "settings": settings, "inputs": inputs}
    is_of_another = "report" in arguments and folder.parent.name == "reports" and folder.name != arguments["report"]
    if configuration and (configuration_beside(path) or configuration).experiment != configuration.experiment:
        is_of_another = True
    if is_of_another or misplacement(path, provenance):
        raise UserError(f"{path}: an output must lie in no folder of another experiment, seed, run or report, found "
                        f"{path.parent}; choose another output")  # fmt: skip
