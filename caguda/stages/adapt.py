"""One stage of training: source labels, anchors and cached pseudo-labels (Algorithm 1, lines 7 to 10)."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from caguda.artifacts.anchors import Anchors, load_anchors
from caguda.config import Configuration, LossWeights
from caguda.datasets.loader import TrainingFrames
from caguda.datasets.transforms import normalise, training_transform
from caguda.errors import UserError
from caguda.method.anchors import labels_at
from caguda.method.losses import cross_entropy, distance_loss, objective
from caguda.models.batch_norm import freeze
from caguda.stages.common import Run, verified_labels
from caguda.stages.runtime import restore_network
from caguda.stages.supervised import image_cross_entropy
from caguda.stages.training import Batch, Job, build_optimiser


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
) -> None:
    """Train M_k from M_(k-1) with the objective of Eq. 12 on fixed anchors and pseudo-labels.

    The source's cross entropy is at the resolution of the image, the target's losses at that of f_D, where the
    pseudo-labels were made. Distances are divided by the mean distance between anchors, so that the weight of the
    distance losses does not depend on the scale of the features.
    """
    if recipe not in configuration.recipes:
        known = ", ".join(configuration.recipes)
        raise UserError(f"--recipe {recipe}: the configuration has no such recipe, only {known}")
    training, weights = configuration.stages, configuration.recipes[recipe]
    settings = configuration.model_dump(mode="json", include={"network", "stages"}) | {
        "recipe": weights.model_dump(mode="json"),
        "stage": stage,
    }
    run = Run(f"stage {stage}", configuration, seed, manifest, settings, [initial, anchors, labels])
    network, _ = restore_network(initial, run.device, run.table)
    network.train()
    if training.batch_norm == "frozen":
        freeze(network)
    source = run.frames("source", training.augmentation, labelled=True)
    target = _pseudo_labelled(run, labels)
    job = Job(
        f"{recipe} stage {stage}",
        {"network": network},
        {"network": build_optimiser(network, training.optimiser)},
        run.batches(training, source, target),
        _objective_step(run, network, load_anchors(anchors)[0], weights),
        training.iterations,
        training.optimiser.poly_power,
    )
    run.train(job, network, training, output, state)


def _objective_step(
    run: Run, network: nn.Module, anchors: Anchors, weights: LossWeights
) -> Callable[[Batch], Mapping[str, Tensor]]:
    """The step of an iteration: the loss terms of one batch of each domain, whose objective fills the gradients.

    Eq. 12. The source's cross entropy is at the resolution of the image, the other terms at that of f_D. Each domain
    passes by itself: where batch normalisation is trained, it normalises either with its own statistics.
    """
    vectors = torch.nan_to_num(torch.from_numpy(anchors.vectors)).to(run.device)
    present = torch.from_numpy(anchors.present).to(run.device)
    scale = anchors.mean_distance
    objective_weights = {
        "source_cross_entropy": 1.0,
        "source_distance": weights.distance,
        "target_distance": weights.distance,
        "anchor_cross_entropy": weights.anchor_cross_entropy,
        "probability_cross_entropy": weights.probability_cross_entropy,
    }

    def step(batch: Batch) -> Mapping[str, Tensor]:
        source, target = ({name: value.to(run.device) for name, value in sample.items()} for sample in batch)
        source_features, source_logits = network(normalise(source["image"], run.device))
        features, logits = network(normalise(target["image"], run.device))
        size = (features.shape[-2], features.shape[-1])
        truth, by_anchor, by_probability = (
            labels_at(maps, size) for maps in (source["label"], target["anchor_label"], target["probability_label"])
        )
        terms = {
            "source_cross_entropy": image_cross_entropy(source_logits, source["label"]),
            "source_distance": distance_loss(source_features, vectors, truth, present, scale),
            "target_distance": distance_loss(features, vectors, by_anchor, present, scale),
            "anchor_cross_entropy": cross_entropy(logits, by_anchor),
            "probability_cross_entropy": cross_entropy(logits, by_probability),
        }
        objective(terms, objective_weights).backward()
        return {name: value.detach() for name, value in terms.items()}

    return step


def _pseudo_labelled(run: Run, labels: Path) -> TrainingFrames:
    """The target's frames for training, with both kinds of pseudo-labels as their label maps."""
    frames = run.manifest.frames("target")
    store = verified_labels(labels, frames, run.manifest_path)

    def maps(index: int) -> dict[str, Tensor]:
        return {name: torch.from_numpy(store.read_array(index, name)) for name in ("anchor_label", "probability_label")}

    transform = training_transform(run.configuration.stages.target_augmentation)
    return TrainingFrames(frames, maps, transform, run.seed, f"stage {run.settings['stage']} target")
