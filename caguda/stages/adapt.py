"""One stage of training: source labels, anchors and cached pseudo-labels (Algorithm 1, lines 7 to 10)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from caguda.ablations import chains, rules_of, thresholds_of
from caguda.artifacts.anchors import Anchors, load_anchors
from caguda.artifacts.chain import inputs_of, provenance_of, refuse_other_manifest
from caguda.artifacts.identity import (
    ModelOf,
    contents_of_inputs,
    refuse_other_ancestors,
    refuse_other_origin,
    refuse_other_recipe,
)
from caguda.artifacts.labels import LABELS
from caguda.artifacts.maps import MapStore
from caguda.artifacts.provenance import content_of
from caguda.artifacts.vouched import refuse_other_frames, vouched_store
from caguda.config import Configuration, Labels, Recipe
from caguda.datasets.loader import TrainingFrames
from caguda.equations.anchors import correctly_predicted, labels_at
from caguda.equations.labels import by_anchor, by_probability, pseudo_labels
from caguda.equations.losses import (
    LossSum,
    class_mean_distance_loss,
    cross_entropy,
    distance_loss,
    objective,
    squared_distance_loss,
)
from caguda.errors import UserError
from caguda.pseudo_labels.anchor import AnchorRule
from caguda.stages.common import Run
from caguda.stages.supervised import image_cross_entropy
from caguda.stages.training import Batch, Step

DISTANCES = {"l2": distance_loss, "squared_l2": squared_distance_loss, "class_mean": class_mean_distance_loss}


def adapt(
    configuration: Configuration,
    seed: int,
    recipe: str,
    stage: int,
    manifest: Path,
    initial: Path,
    anchors: Path,
    labels: Sequence[Path],
    output: Path,
    state: Path,
    packed: Sequence[Path] = (),
) -> None:
    """Train M_k from M_(k-1) with the objective of Eq. 12 on fixed anchors and pseudo-labels."""
    known = chains(configuration)
    refuse_other_recipe(recipe, list(known))
    training, weights = configuration.stages, known[recipe]
    _refuse_other_stage(configuration, recipe, stage)
    settings = configuration.model_dump(
        mode="json", include={"network", "stages", "losses"}, exclude={"stages": {"count"}}
    ) | {
        "recipe": {"name": recipe} | weights.model_dump(mode="json"),
        "labels": thresholds_of(configuration, recipe).model_dump(mode="json"),
        "stage": stage,
    }
    run = Run(f"stage {stage}", configuration, seed, manifest, settings, [initial, anchors, *labels], packed)
    before = ModelOf(f"stage {stage - 1}", recipe) if stage > 1 else ModelOf(weights.start)
    network = run.restored(initial, before)
    model = run.ready_to_train(network, training)
    source = run.frames("source", training.augmentation, labelled=True)
    vectors, _ = load_anchors(anchors)
    target = _pseudo_labelled(run, _stores_by_rule(run, labels, initial, anchors, recipe))
    step = _objective_step(run, model, vectors, weights, thresholds_of(configuration, recipe))
    rates = {"network": training.optimiser.learning_rate}
    run.train(step, training, {"network": network}, rates, run.batches(training, source, target), output, state)


def _refuse_other_stage(configuration: Configuration, recipe: str, stage: int) -> None:
    """UserError unless there is to be such a stage: the configured ones, and for Table 4 one more."""
    last = configuration.stages.count + 1
    if stage > last:
        raise UserError(f"--stage {stage}: the stages of recipe {recipe} must be 1 to {last}, found another; check the key "
                        "stages.count")  # fmt: skip


def _stores_by_rule(run: Run, labels: Sequence[Path], initial: Path, anchors: Path, recipe: str) -> dict[str, MapStore]:
    """The stores of pseudo-labels by the name of their rule; UserError unless they are of each rule of the recipe once."""
    rules = {rule.name: rule.described() for rule in rules_of(thresholds_of(run.configuration, recipe)).values()}
    found: dict[str, MapStore] = {}
    for path in labels:
        store = vouched_store(path, LABELS)
        refuse_other_frames(store, [frame.id for frame in run.manifest.frames("target")], run.manifest_path)
        _refuse_other_labels(run, path, store, initial, anchors)
        told = store.attributes["rule"]
        if told != (wanted := rules.get(told["name"])):
            raise UserError(f"{path}: the labels must be made with the configured thresholds {wanted}, found {told}; make them "
                            "again")  # fmt: skip
        found[told["name"]] = store
    if found.keys() != rules.keys() or len(labels) != len(rules):
        raise UserError(f"{labels[0]}: labels by {' and by '.join(rules)} must be given, found those by {', '.join(found)}; name "
                        "one store of each")  # fmt: skip
    if len({store.attributes["evidence_digest"] for store in found.values()}) > 1:
        raise UserError(f"{labels[-1]}: the labels of all rules must be made of the same evidence, found those of other evidence than "
                        f"{labels[0]}; make them again")  # fmt: skip
    return found


def _refuse_other_labels(run: Run, path: Path, store: MapStore, initial: Path, anchors: Path) -> None:
    """UserError unless pseudo-labels are of the configured categories, by this model and these anchors."""
    if store.categories != run.table.names:
        raise UserError(f"{path}: the labels must be of the configured categories in their order, found others; make "
                        "them again")  # fmt: skip
    evidence = next(item.path for item in inputs_of(path) if item.path.suffix == ".json")
    for file in (path, evidence):
        refuse_other_origin(file, run.configuration)
    refuse_other_ancestors(path, run.configuration)
    refuse_other_manifest(evidence, run.manifest_path)
    recorded = contents_of_inputs(provenance_of(evidence))
    for what, file in (("model that the stage starts from", initial), ("anchors", anchors)):
        if content_of(file) not in recorded:
            raise UserError(f"{path}: the labels must be made with the {what}, {file}, found labels of another; make them "
                            "again")  # fmt: skip


def _objective_step(run: Run, model: nn.Module, anchors: Anchors, weights: Recipe, thresholds: Labels) -> Step:
    """The step of an iteration: the part of the objective on a batch of the source, then that on one of the target.

    Eq. 12, read as the section `losses` says. The source's cross entropy is at the resolution of the image, distances
    are at that of f_D, where features and anchors live. Each domain passes by itself: where batch normalisation is
    trained, it normalises either with its own statistics.
    """
    choice = run.configuration.losses
    unit = anchors.mean_distance if choice.distance_unit == "mean_anchor_distance" else 1.0
    vectors = torch.nan_to_num(torch.from_numpy(anchors.vectors)).to(run.device)
    present = torch.from_numpy(anchors.present).to(run.device)
    in_units = vectors / unit
    margin = AnchorRule(margin=thresholds.margin, unit=thresholds.margin_unit).threshold(anchors.mean_distance)

    def distance(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        counted = correctly_predicted(labels, logits) if choice.distance_pixels == "correct" else labels
        return run.reduced(DISTANCES[choice.distance](features / unit, in_units, counted, present))

    target_entropy = image_cross_entropy if choice.target_resolution == "image" else _feature_cross_entropy

    def step(batch: Batch) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        source, target = ({name: value.to(run.device) for name, value in sample.items()} for sample in batch)
        features, logits, _ = run.forward(model, source["image"])
        terms = {
            "source_cross_entropy": run.reduced(image_cross_entropy(logits, source["label"])),
            "source_distance": distance(features, logits, _at(features, source["label"])),
        }
        yield objective(terms, {"source_cross_entropy": 1.0, "source_distance": weights.distance}), terms
        features, logits, _ = run.forward(model, target["image"])
        if weights.renewed == "iteration":
            renewed = _renewed(features.detach(), logits.detach(), vectors, present, margin, thresholds.p0)
            target |= {name: _at(target["image"], labels) for name, labels in renewed.items()}
        terms = {
            "target_distance": distance(features, logits, _at(features, target[f"{weights.distance_labels}_label"])),
            "anchor_cross_entropy": run.reduced(target_entropy(logits, target["anchor_label"])),
            "probability_cross_entropy": run.reduced(target_entropy(logits, target["probability_label"])),
        }
        target_weights = {
            "target_distance": weights.distance,
            "anchor_cross_entropy": weights.anchor_cross_entropy,
            "probability_cross_entropy": weights.probability_cross_entropy,
        }
        yield objective(terms, target_weights), terms

    return step


def _renewed(
    features: Tensor, logits: Tensor, vectors: Tensor, present: Tensor, margin: float, p0: float
) -> dict[str, Tensor]:
    """Both pseudo-labels of a batch by the network as it is, (n, h, w): Eq. 6, 7 and 11 without the delay of a stage."""
    anchored = by_anchor(features, vectors, present, margin)
    probable = by_probability(logits, p0)
    return {
        "anchor_label": pseudo_labels(anchored.nearest, anchored.active),
        "probability_label": pseudo_labels(probable.predicted, probable.active),
    }


def _at(maps: Tensor, labels: Tensor) -> Tensor:
    """Label maps (n, H, W) at the resolution of other maps (n, d, h, w)."""
    return labels_at(labels, (maps.shape[-2], maps.shape[-1]))


def _feature_cross_entropy(logits: Tensor, labels: Tensor) -> LossSum:
    """Eq. 9 and 11 at the resolution of f_D, where the pseudo-labels were made."""
    return cross_entropy(logits, _at(logits, labels))


@dataclass(frozen=True)
class _PseudoLabels:
    """The pseudo-labels of a frame as its label maps, for processes that load frames too; each with its store."""

    stores: Mapping[str, MapStore]

    def __call__(self, index: int) -> dict[str, Tensor]:
        return {name: torch.from_numpy(store.read(index, "label")) for name, store in self.stores.items()}


def _pseudo_labelled(run: Run, stores: Mapping[str, MapStore]) -> TrainingFrames:
    """The target's frames for training, with both kinds of pseudo-labels as their label maps."""
    maps = _PseudoLabels({f"{rule}_label": store for rule, store in sorted(stores.items())})
    augmentation = run.configuration.stages.target_augmentation
    purpose = f"stage {run.settings['stage']} target"
    return TrainingFrames(run.manifest.frames("target"), maps, augmentation, run.seed, purpose, run.images("target"))
