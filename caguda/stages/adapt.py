"""One stage of training: source labels, anchors and cached pseudo-labels (Algorithm 1, lines 7 to 10)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from caguda.ablations import chains, sweep
from caguda.artifacts.anchors import Anchors, load_anchors
from caguda.artifacts.identity import ModelOf, contents_of_inputs, refuse_other_recipe
from caguda.artifacts.labels import LabelStore
from caguda.artifacts.provenance import content_of
from caguda.config import Configuration, Recipe
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
from caguda.stages.common import Run
from caguda.stages.supervised import image_cross_entropy
from caguda.stages.training import Batch, Step
from caguda.stages.vouched import refuse_other_origin, verified_labels

DISTANCES = {"l2": distance_loss, "squared_l2": squared_distance_loss, "class_mean": class_mean_distance_loss}


def adapt(
    configuration: Configuration,
    seed: int,
    recipe: str,
    stage: int,
    manifest: Path,
    initial: Path,
    anchors: Path,
    labels: Path,
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
        "stage": stage,
    }
    run = Run(f"stage {stage}", configuration, seed, manifest, settings, [initial, anchors, labels], packed)
    before = ModelOf(f"stage {stage - 1}", recipe) if stage > 1 else ModelOf(weights.start)
    network = run.restored(initial, before)
    model = run.ready_to_train(network, training)
    source = run.frames("source", training.augmentation, labelled=True)
    vectors, _ = load_anchors(anchors)
    store = verified_labels(labels, run.manifest.frames("target"), manifest)
    _refuse_other_labels(run, labels, store, initial, anchors, recipe)
    target = _pseudo_labelled(run, store)
    step = _objective_step(run, model, vectors, weights, store.attributes)
    rates = {"network": training.optimiser.learning_rate}
    run.train(step, training, {"network": network}, rates, run.batches(training, source, target), output, state)


def _refuse_other_stage(configuration: Configuration, recipe: str, stage: int) -> None:
    """UserError unless there is to be such a stage: the configured ones, and for Table 4 one more."""
    last = configuration.stages.count + 1
    if stage > last:
        raise UserError(f"--stage {stage}: the stages of recipe {recipe} must be 1 to {last}, found another; check the key "
                        "stages.count")  # fmt: skip


def _refuse_other_labels(run: Run, path: Path, store: LabelStore, initial: Path, anchors: Path, recipe: str) -> None:
    """UserError unless pseudo-labels are of the configured categories and thresholds, by this model and these anchors."""
    made = store.attributes["provenance"]
    if store.categories != run.table.names:
        raise UserError(f"{path}: the labels must be of the configured categories in their order, found others; make "
                        "them again")  # fmt: skip
    swept = sweep(run.configuration.labels)
    key, value = swept.get(recipe, ("p0", run.configuration.labels.p0))
    wanted = run.configuration.labels.model_dump(mode="json") | {key: value}
    if made["settings"]["labels"] != wanted:
        raise UserError(f"{path}: the labels must be made with the configured thresholds {wanted}, found "
                        f"{made['settings']['labels']}; make them again")  # fmt: skip
    recorded = contents_of_inputs(made)
    for what, file in (("model that the stage starts from", initial), ("anchors", anchors)):
        if content_of(file) not in recorded:
            raise UserError(f"{path}: the labels must be made with the {what}, {file}, found labels of another; make them "
                            "again")  # fmt: skip
    refuse_other_origin(path, store, run.configuration, run.manifest_path)


def _objective_step(
    run: Run, model: nn.Module, anchors: Anchors, weights: Recipe, thresholds: Mapping[str, float]
) -> Step:
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
            renewed = _renewed(features.detach(), logits.detach(), vectors, present, thresholds)
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
    features: Tensor, logits: Tensor, vectors: Tensor, present: Tensor, thresholds: Mapping[str, float]
) -> dict[str, Tensor]:
    """Both pseudo-labels of a batch by the network as it is, (n, h, w): Eq. 6, 7 and 11 without the delay of a stage."""
    anchored = by_anchor(features, vectors, present, thresholds["margin"])
    probable = by_probability(logits, thresholds["p0"])
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
    """Both kinds of pseudo-labels of a frame as its label maps, for processes that load frames too."""

    store: LabelStore

    def __call__(self, index: int) -> dict[str, Tensor]:
        names = ("anchor_label", "probability_label")
        return {name: torch.from_numpy(self.store.read_array(index, name)) for name in names}


def _pseudo_labelled(run: Run, store: LabelStore) -> TrainingFrames:
    """The target's frames for training, with both kinds of pseudo-labels as their label maps."""
    maps = _PseudoLabels(store)
    augmentation = run.configuration.stages.target_augmentation
    purpose = f"stage {run.settings['stage']} target"
    return TrainingFrames(run.manifest.frames("target"), maps, augmentation, run.seed, purpose, run.images("target"))
