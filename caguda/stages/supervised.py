"""Training with labels and cross entropy alone (Eq. 2): pretraining, the control and the oracle."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional

from caguda.artifacts.identity import ModelOf
from caguda.config import Configuration, Training
from caguda.datasets.manifest import SetName
from caguda.equations.losses import LossSum, cross_entropy
from caguda.networks.layers.network import SegmentationNetwork
from caguda.stages.common import Run
from caguda.stages.training import Batch

CHOICES: dict[str, Any] = {"network": True, "losses": {"reduction"}}


def pretrain(
    configuration: Configuration, seed: int, manifest: Path, output: Path, state: Path, packed: Sequence[Path] = ()
) -> None:
    """Train on the labelled source from fresh weights: "source only", M0^p (Algorithm 1, line 1)."""
    _from_fresh_weights("pretrain", "source", configuration, seed, manifest, output, state, packed)


def oracle(
    configuration: Configuration, seed: int, manifest: Path, output: Path, state: Path, packed: Sequence[Path] = ()
) -> None:
    """Train on the target's own labels as pretraining does on the source: an upper bound, no part of the method."""
    _from_fresh_weights("oracle", "target", configuration, seed, manifest, output, state, packed)


def control(
    configuration: Configuration,
    seed: int,
    manifest: Path,
    initial: Path,
    output: Path,
    state: Path,
    packed: Sequence[Path] = (),
) -> None:
    """Go on from the warm-up with the source's cross entropy alone, for as many iterations as all stages together.

    All else is as in the stages, their treatment of batch normalisation too.
    """
    stages = configuration.stages
    length = stages.optimiser.poly_iterations
    schedule = {"poly_iterations": length and stages.count * length}
    training = stages.model_copy(
        update={
            "iterations": stages.count * stages.iterations,
            "optimiser": stages.optimiser.model_copy(update=schedule),
        }
    )
    settings = configuration.model_dump(mode="json", include={**CHOICES, "stages": True})
    run = Run("control", configuration, seed, manifest, settings, [initial], packed)
    network = run.restored(initial, ModelOf("warmup"))
    _supervised(run, network, training, "source", output, state)


def _from_fresh_weights(
    name: str, domain: SetName, configuration: Configuration, seed: int, manifest: Path, output: Path, state: Path,
    packed: Sequence[Path],
) -> None:  # fmt: skip
    settings: Mapping[str, Any] = configuration.model_dump(mode="json", include={**CHOICES, "pretrain": True})
    run = Run(name, configuration, seed, manifest, settings, configuration.network.pretrained_files(), packed)
    _supervised(run, run.fresh_network(), configuration.pretrain, domain, output, state)


def _supervised(
    run: Run, network: SegmentationNetwork, training: Training, domain: SetName, output: Path, state: Path
) -> None:
    """Train a network on the truth of one domain with Eq. 2, and publish it."""
    model = run.ready_to_train(network, training)

    def step(batch: Batch) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        (sample,) = batch
        logits = run.forward(model, sample["image"]).logits
        loss = run.reduced(image_cross_entropy(logits, sample["label"].to(run.device)))
        yield loss, {f"{domain}_cross_entropy": loss}

    frames = run.frames(domain, training.augmentation, labelled=True)
    rates = {"network": training.optimiser.learning_rate}
    run.train(step, training, {"network": network}, rates, run.batches(training, frames), output, state)


def image_cross_entropy(logits: Tensor, labels: Tensor) -> LossSum:
    """Eq. 2 at the resolution of the image: logits (n, c, h, w) are enlarged to labels (n, H, W)."""
    return cross_entropy(functional.interpolate(logits, labels.shape[-2:], mode="bilinear"), labels)
