"""What an artifact says that it is: its kind, by the verb that made it, and its model. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import read_json
from caguda.artifacts.chain import provenance_of
from caguda.errors import UserError

CHECKPOINT = "the JSON of a checkpoint"
KIND_BY_VERB: Mapping[str, str] = {
    "generate": "what `generate` left",
    "check": "a manifest",
    "check-test": "a manifest",
    "check-translated": "a manifest",
    "pack": "a packed cache",
    "anchor-part": "the sums of one part of the source",
    "anchors": "category anchors",
    "convert-anchors": "category anchors",
    "evidence-store": "the JSON of an evidence store",
    "evidence-part": "what `evidence-part` left",
    "evidence": "the JSON of an evidence store",
    "labels": "the JSON of a label store",
    "evaluate": "an evaluation",
    "diagnose": "a label report",
    "predict-part": "what `predict-part` left",
    "predict": "the JSON of predictions",
    "submission": "the JSON of a submission",
    **dict.fromkeys(("train", "import", "convert-checkpoint"), CHECKPOINT),
}
"""The kind of artifact that each verb writes, in the words of messages."""


def model_of(provenance: Mapping[str, Any]) -> str:
    """The model that a provenance names, RUN or RUN/stageK; empty for a converted model, which belongs to no run."""
    run = provenance["settings"].get("run")
    return str(run["name"]) if isinstance(run, dict) else ""


def contents_of_inputs(provenance: Mapping[str, Any]) -> set[str]:
    """The content digests of all files that an artifact was made of."""
    return {recorded["content"] for recorded in provenance["inputs"].values()}


def kind_of(path: Path) -> str | None:
    """The kind of an artifact, a value of KIND_BY_VERB; None for a file without provenance."""
    made_by = provenance_of(path).get("made_by")
    return None if made_by is None else KIND_BY_VERB.get(made_by, "a file of an earlier version")


def read_artifact(path: Path, kind: str) -> dict[str, Any]:
    """The content of a verb's JSON; UserError unless it is of this kind, a value of KIND_BY_VERB."""
    if path.suffix != ".json":
        raise UserError(f"{path}: this must be {kind}, NAME.json, found another name; name the right file")
    content = read_json(path)
    if (actual := kind_of(path)) != kind:
        raise UserError(f"{path}: this must be {kind}, found {actual or 'a file that does not say what made it'}; name the "
                        "right file")  # fmt: skip
    return content


def refuse_other_model(path: Path, provenance: Mapping[str, Any], expected: str) -> None:
    """Raises UserError unless a checkpoint is of the model `expected`; one that belongs to no run is accepted."""
    if (actual := model_of(provenance)) not in ("", expected):
        raise UserError(
            f"{path}: this must be the model of {expected}, found that of {actual}; name the right checkpoint"
        )
