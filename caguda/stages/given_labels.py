"""The pseudo-labels that a training is given: opened through one door, and compared with what the run asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from caguda.artifacts.chain import inputs_of, provenance_of, refuse_other_manifest
from caguda.artifacts.identity import contents_of_inputs, refuse_other_ancestors, refuse_other_origin
from caguda.artifacts.labels import LABELS
from caguda.artifacts.maps import MapStore
from caguda.artifacts.provenance import content_of
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
    """The stores of pseudo-labels by the name of their rule; UserError unless they are of each rule once.

    They must be of the manifest's target frames and the configured categories, of one evidence store, and that must be made
    with the files `made_with`, by what they are called in a message: the model that the training starts from, and the anchors.
    """
    wanted = {name: rule.described() for name, rule in rules.items()}
    ids = [frame.id for frame in read_manifest(manifest, configuration=configuration).frames("target")]
    found: dict[str, MapStore] = {}
    for path in labels:
        store = vouched_store(path, LABELS)
        refuse_other_frames(store, ids, manifest)
        _refuse_other_labels(configuration, path, store, manifest, made_with)
        told = store.attributes["rule"]
        if told != wanted.get(told["name"]):
            raise UserError(f"{path}: the labels must be made with the configured thresholds {wanted.get(told['name'])}, found {told}; "
                            "make them again")  # fmt: skip
        found[told["name"]] = store
    if found.keys() != wanted.keys() or len(labels) != len(wanted):
        where = labels[0] if labels else "--labels"
        raise UserError(f"{where}: labels by {' and by '.join(wanted)} must be given, found those by {', '.join(found) or 'no rule'}; name "
                        "one store of each")  # fmt: skip
    if len({store.attributes["evidence_digest"] for store in found.values()}) > 1:
        raise UserError(f"{labels[-1]}: the labels of all rules must be made of the same evidence, found those of other evidence than "
                        f"{labels[0]}; make them again")  # fmt: skip
    return found


def _refuse_other_labels(
    configuration: Configuration, path: Path, store: MapStore, manifest: Path, made_with: Mapping[str, Path]
) -> None:
    """UserError unless pseudo-labels are of the configured categories, and their evidence of these files."""
    if store.categories != class_table(configuration).names:
        raise UserError(f"{path}: the labels must be of the configured categories in their order, found others; make "
                        "them again")  # fmt: skip
    evidence = next(item.path for item in inputs_of(path) if item.path.suffix == ".json")
    for file in (path, evidence):
        refuse_other_origin(file, configuration)
    refuse_other_ancestors(path, configuration)
    refuse_other_manifest(evidence, manifest)
    recorded = contents_of_inputs(provenance_of(evidence))
    for what, file in made_with.items():
        if content_of(file) not in recorded:
            raise UserError(f"{path}: the labels must be made with the {what}, {file}, found labels of another; make them "
                            "again")  # fmt: skip
