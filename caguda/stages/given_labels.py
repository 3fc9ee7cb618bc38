"""Opens the label stores that a training reads, and checks that they are those of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from caguda.artifacts.chain import inputs_of, provenance_of
from caguda.artifacts.checks import refuse_other_origin
from caguda.artifacts.identity import contents_of_inputs, model_of
from caguda.artifacts.labels import LABELS
from caguda.artifacts.maps import MapStore
from caguda.artifacts.provenance import content_digest
from caguda.artifacts.vouched import refuse_other_frames, vouched_store
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.pseudo_labels import Rule


def stores_by_rule(
    configuration: Configuration,
    rules: Mapping[str, Rule],
    manifest: Path,
    labels: Sequence[Path],
    made_with: Mapping[str, Path],
) -> dict[str, MapStore]:
    """The label store of each rule, by the rule's name; UserError unless there is one store of each of the run's `rules`.

    All must have the manifest's target frames and the configured categories, and be made of the same evidence. The evidence
    must be made with the files `made_with`: the model that the training starts from, and the anchors. Its keys are their
    names in messages.
    """
    configured = {name: rule.described() for name, rule in rules.items()}
    ids = [frame.id for frame in read_manifest(manifest, configuration=configuration).frames("target")]
    stores: dict[str, MapStore] = {}
    for path in labels:
        store = vouched_store(path, LABELS)
        refuse_other_frames(store, ids, manifest)
        _refuse_other_labels(configuration, path, store, manifest, made_with)
        rule = store.attributes["rule"]
        if rule != (expected := configured.get(rule["name"])):
            raise UserError(f"{path}: the labels must be made with the configured thresholds {expected}, found {rule}; "
                            "make them again")  # fmt: skip
        stores[rule["name"]] = store
    if stores.keys() != configured.keys() or len(labels) != len(configured):
        where = labels[0] if labels else "--labels"
        raise UserError(f"{where}: labels by {' and by '.join(configured)} must be given, found those by "
                        f"{', '.join(stores) or 'no rule'}; name one store of each")  # fmt: skip
    if len({store.attributes["evidence_digest"] for store in stores.values()}) > 1:
        raise UserError(f"{labels[-1]}: the labels of all rules must be made of the same evidence, found those of other evidence than "
                        f"{labels[0]}; make them again")  # fmt: skip
    return stores


def refuse_other_labeller(labels: Sequence[Path], model: str | None, seed: int) -> None:
    """UserError unless labels are made of the evidence of this model, of this seed."""
    for path in labels:
        evidence = next(item.path for item in inputs_of(path) if item.path.suffix == ".json")
        checkpoint = next(item.path for item in inputs_of(evidence) if item.path.suffix == ".safetensors")
        provenance = provenance_of(checkpoint)
        found = model_of(provenance)
        if found not in ("", model) or provenance["seed"] not in (None, seed):
            raise UserError(f"{path}: the labels must be made with the model of {model} and seed {seed}, found those of {found}, seed "
                            f"{provenance['seed']}; name those")  # fmt: skip


def _refuse_other_labels(
    configuration: Configuration, path: Path, store: MapStore, manifest: Path, made_with: Mapping[str, Path]
) -> None:
    """UserError unless labels have the configured categories, and their evidence is made of the manifest and `made_with`."""
    if store.categories != class_table(configuration).names:
        raise UserError(f"{path}: the labels must be of the configured categories in their order, found others; make "
                        "them again")  # fmt: skip
    evidence = next(item.path for item in inputs_of(path) if item.path.suffix == ".json")
    refuse_other_origin(path, configuration)
    refuse_other_origin(evidence, configuration, manifest)
    recorded = contents_of_inputs(provenance_of(evidence))
    for description, file in made_with.items():
        if content_digest(file) not in recorded:
            raise UserError(f"{path}: the labels must be made with the {description}, {file}, found labels of another; make them "
                            "again")  # fmt: skip
