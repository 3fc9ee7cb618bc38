"""The identity that an artifact claims: its kind, the run whose model it is, and what it was made of. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import read_json
from caguda.artifacts.chain import ancestors_of, provenance_of, refuse_changed_inputs, refuse_other_manifest
from caguda.artifacts.hdf5 import texts_of
from caguda.artifacts.ownership import OUTPUTS, verb_of
from caguda.config import Configuration
from caguda.configfile import configuration_beside
from caguda.errors import UserError
from caguda.recorded import refuse_misplaced, refuse_other_settings

MODEL = "the JSON of a checkpoint"
KINDS: Mapping[str, str] = {
    "generate": "what `generate` left",
    "check": "a manifest",
    "check-test": "a manifest",
    "pack": "a packed cache",
    "anchor-part": "the sums of one part of the source",
    "anchors": "category anchors",
    "convert-anchors": "category anchors",
    "evidence-store": "the JSON of an evidence store",
    "evidence-part": "what `evidence-part` left",
    "evidence": "the JSON of an evidence store",
    "labels": "the JSON of a label store",
    "evaluate": "an evaluation",
    "diagnose": "the statistics of pseudo-labels",
    "predict-part": "what `predict-part` left",
    "predict": "the JSON of predictions",
    "submission": "the JSON of a submission",
    **dict.fromkeys(("train", "import", "convert-checkpoint"), MODEL),
}
"""What each verb writes."""


_TABLE = (".csv", ".md", ".tex", ".html")
WRITES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(KINDS, (".json",)),
    **{verb: (".safetensors", ".json") for verb, kind in KINDS.items() if kind == MODEL},
    **dict.fromkeys(("pack", "anchor-part", "anchors", "convert-anchors"), (".h5",)),
    **dict.fromkeys(("figure", "curves", "class-chart"), (".png",)),
    "submission": (".zip", ".json"),
    "table": (".csv", ".md"),
    "paper-table": _TABLE,
    "sweep": (*_TABLE, ".png"),
    "report": (".html",),
}
"""How the name of a verb's output ends, and of the files that it writes beside it."""


def model_of(made: Mapping[str, Any]) -> str:
    """The run whose model a provenance is of, RUN or RUN/stageK; empty for a model from elsewhere that stands for no run."""
    run = made["settings"].get("run")
    return str(run["name"]) if isinstance(run, dict) else ""


def kind_of(path: Path) -> str | None:
    """What a file is, by the verb that made it, in words of KINDS; None where it does not say."""
    made_by = provenance_of(path).get("made_by")
    return None if made_by is None else KINDS.get(made_by, "a file of an earlier version")


def read_artifact(path: Path, kind: str) -> dict[str, Any]:
    """The content of a JSON that a verb wrote; UserError unless it is of this kind, one of the values of KINDS."""
    if path.suffix != ".json":
        raise UserError(f"{path}: this must be {kind}, NAME.json, found another name; name the right file")
    content = read_json(path)
    if (found := kind_of(path)) != kind:
        raise UserError(f"{path}: this must be {kind}, found {found or 'a file that does not say what made it'}; name the "
                        "right file")  # fmt: skip
    return content


def contents_of_inputs(made: Mapping[str, Any]) -> set[str]:
    """The digests of the contents of all that an artifact was made of, by its provenance."""
    return {recorded["content"] for recorded in made["inputs"].values()}


def outputs_of(verb: str, given: Mapping[str, Any]) -> list[Path]:
    """The files that `--output` names, and those that the verb puts beside them; UserError for a name of another form."""
    files = []
    for key in (key for key in OUTPUTS if key in given and verb in WRITES):
        suffix, *beside = {"csv": (".csv",), "markdown": (".md",)}.get(key, WRITES[verb])
        if given[key].suffix != suffix:
            raise UserError(f"{given[key]}: the output's name must end in {suffix}, found another; choose another name")
        files += [given[key], *map(given[key].with_suffix, beside)]
    return files


def refuse_other_outputs(
    verb: str, given: Mapping[str, Any], outputs: Sequence[Path], configuration: Configuration | None
) -> None:
    """UserError where an output of a verb would replace what another verb made, or what it made of other files.

    A verb with a seed writes into no folder of another seed, a training into none of another run, a verb with a
    configuration into none of another experiment, and what a frozen model says lies beside no other model.
    """
    wanted = "paper-table" if verb == "sweep" else _call_of(verb, given.get("run"))
    for path in (path for path in outputs if path.is_file()):
        found, seed = _writer_of(path)
        if found != ("sweep" if (verb, path.suffix) == ("sweep", ".png") else wanted):
            raise UserError(f"{path}: an output must be a new file or one that `{wanted}` wrote before, found one of "
                            f"`{found}`; choose another output")  # fmt: skip
        if "seed" in given and seed not in (None, given["seed"]):
            raise UserError(f"{path}: an output must be a new file or of seed {given['seed']}, found one of seed {seed}; "
                            "choose another output")  # fmt: skip
        if other := _other_subject(path, given) or _other_input(verb, path, given, configuration):
            raise UserError(f"{path}: an output must be a new file or one of the same files, found one that was made of {other}; "
                            "choose another output")  # fmt: skip
    for path in (*outputs, *([given["store"]] if "store" in given and verb in WRITES else [])):
        _refuse_other_place(verb, path, given, configuration)


def _other_subject(output: Path, given: Mapping[str, Any]) -> str | None:
    """The store or the domain that an output is of, where it is not the given one; None where it is, or is of none."""
    if "store" in given and output.suffix == ".json":
        told, asked = read_json(output).get("store"), given["store"].name
    elif "domain" in given and output.suffix == ".h5":
        told, asked = json.loads(texts_of(output).get("domain", "null")), given["domain"]
    else:
        return None
    return None if told in (None, asked) else f"{told}"


def _other_input(verb: str, output: Path, given: Mapping[str, Any], configuration: Configuration | None) -> str | None:
    """A file that an output was made of, by its name as seen from there, which is not given now; None where there is none.

    Weights of a pretrained backbone are named by the configuration; what the JSON of an evidence store was made of is the
    store's.
    """
    if verb == "evidence" or output.suffix not in (".json", ".h5", ".safetensors", ".zip"):
        return None
    folder = (given["store"] if verb == "evidence-store" else output).absolute().parent
    files = [*_files_of(given), *(configuration.network.pretrained_files() if configuration else ())]
    named = {os.path.relpath(path.absolute(), folder) for path in files}
    recorded = [item["from_here"] for item in provenance_of(output).get("inputs", {}).values()]
    return next((name for name in recorded if name not in named), None)


def _files_of(given: Mapping[str, Any]) -> list[Path]:
    """All files and folders that are named in a call."""
    named = [path for value in given.values() for path in (value if isinstance(value, list | tuple) else [value])]
    return [path for path in named if isinstance(path, Path)]


def _refuse_other_place(verb: str, path: Path, given: Mapping[str, Any], configuration: Configuration | None) -> None:
    """UserError where an output would lie in the folder of another experiment, seed, run or report, or beside another model."""
    beside = configuration_beside(path) if configuration else None
    folder = path.absolute().parent
    inputs = {str(file): {"from_here": os.path.relpath(file.absolute(), folder)} for file in _files_of(given)}
    settings = {"run": {"name": given["run"]}} if "run" in given else {}
    misplaced = "report" in given and folder.parent.name == "reports" and folder.name != given["report"]
    try:
        refuse_misplaced(path, {"made_by": verb, "seed": given.get("seed"), "settings": settings, "inputs": inputs})
    except UserError:
        misplaced = True
    is_of_another = beside is not None and configuration is not None and beside.experiment != configuration.experiment
    if is_of_another or misplaced:
        raise UserError(f"{path}: an output must lie in no folder of another experiment, seed, run or report, found "
                        f"{path.parent}; choose another output")  # fmt: skip


def _call_of(verb: str, run: str | None) -> str:
    """The words of a call that say what it makes: its verb, and of a model its run."""
    return f"{verb} --run {run}" if run else verb


def _writer_of(path: Path) -> tuple[str, int | None]:
    """The call that wrote a file of ours, and the seed where it tells one."""
    if path.suffix not in (".json", ".h5", ".safetensors", ".zip"):
        return verb_of(path) or "another program", None
    made = provenance_of(path)
    writer = _call_of(made["made_by"], model_of(made)) if made else "the workflow"
    is_created = writer == "evidence" and path.suffix == ".json" and "chunk_sha256" not in read_json(path)
    return "evidence-store" if is_created else writer, made.get("seed")


def refuse_other_ancestors(path: Path, configuration: Configuration) -> None:
    """UserError unless all that an artifact was made of, as far as it is there, was made with the configuration's settings."""
    for ancestor in sorted(ancestors_of(path)):
        if made := provenance_of(ancestor):  # a file that was brought says nothing
            refuse_other_settings(ancestor, configuration, made)


def refuse_other_origin(path: Path, configuration: Configuration, manifest: Path | None = None) -> None:
    """UserError unless evidence or labels are of the configuration's settings, in their place, and of the files that are there now.

    With a manifest, unless they are of its frames too.
    """
    made = provenance_of(path)
    refuse_other_settings(path, configuration, made)
    refuse_misplaced(path, made)
    refuse_changed_inputs(path)
    if manifest is not None:
        refuse_other_manifest(path, manifest)


def refuse_other_model(path: Path, made: Mapping[str, Any], wanted: str) -> None:
    """UserError unless a model, whose provenance is `made`, is that of a run; a model that names no run is accepted."""
    if (found := model_of(made)) not in ("", wanted):
        raise UserError(f"{path}: this must be the model of {wanted}, found that of {found}; name the right checkpoint")


def refuse_other_checkpoint(
    path: Path, configuration: Configuration | None = None, manifest: Path | None = None
) -> None:
    """UserError unless a checkpoint lies in the folder of its seed and run, and is of the files that are there.

    With a configuration, it and all that it was made of must have been made with its settings; with a manifest, of its frames.
    No weights are read.
    """
    made = provenance_of(path)
    refuse_misplaced(path, made)
    if configuration is not None:
        refuse_other_settings(path, configuration, made)
        refuse_other_ancestors(path, configuration)
    refuse_changed_inputs(path)
    if manifest is not None:
        refuse_other_manifest(path, manifest)
