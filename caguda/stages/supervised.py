"""Training with labels and cross entropy alone (Eq. 2): pretraining, the control and the oracle."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from caguda.config import Configuration, Training
from caguda.datasets.manifest import SetName
from caguda.datasets.transforms import normalise
from caguda.method.losses import cross_entropy
from caguda.models.batch_norm import freeze
from caguda.stages.common import Run
from caguda.stages.runtime import restore_network
from caguda.stages.training import Batch, Job, build_optimiser


def pretrain(configuration: Configuration, seed: int, manifest: Path, output: Path, state: Path) -> None:
    """Train on the labelled source from fresh weights: "source only", M0^p (Algorithm 1, line 1)."""
    settings = configuration.model_dump(mode="json", include={"network", "pretrain"})
    run = Run("pretrain", configuration, seed, manifest, settings)
    _supervised(run, run.fresh_network(), configuration.pretrain, "source", output, state)


def oracle(configuration: Configuration, seed: int, manifest: Path, output: Path, state: Path) -> None:
    """Train on the target's own labels as pretraining does on the source: an upper bound, no part of the method."""
    settings = configuration.model_dump(mode="json", include={"network", "pretrain"})
    run = Run("oracle", configuration, seed, manifest, settings)
    _supervised(run, run.fresh_network(), configuration.pretrain, "target", output, state)


def control(configuration: Configuration, seed: int, manifest: Path, initial: Path, output: Path, state: Path) -> None:
    """Go on from the warm-up with the source's cross entropy alone, for as many iterations as all stages together.

    All else is as in the stages, their treatment of batch normalisation too.
    """
    stages = configuration.stages
    training = stages.model_copy(update={"iterations": stages.count * stages.iterations})
    settings = configuration.model_dump(mode="json", include={"network", "stages"})
    run = Run("control", configuration, seed, manifest, settings, [initial])
    network, _ = restore_network(initial, run.device, run.table)
    _supervised(run, network, training, "source", output, state)


def _supervised(run: Run, network: nn.Module, training: Training, domain: SetName, output: Path, state: Path) -> None:
    """Train a network on the truth of one domain with Eq. 2, and publish it."""
    network.train()
    if training.batch_norm == "frozen":
        freeze(network)
    optimiser = build_optimiser(network, training.optimiser)

    def step(batch: Batch) -> Mapping[str, Tensor]:
        (sample,) = batch
        _, logits = network(normalise(sample["image"], run.device))
        loss = image_cross_entropy(logits, sample["label"].to(run.device))
        loss.backward()
        return {"source_cross_entropy" if domain == "source" else "target_cross_entropy": loss.detach()}

    frames = run.frames(domain, training.augmentation, labelled=True)
    job = Job(
        run.name,
        {"network": network},
        {"network": optimiser},
        run.batches(training, frames),
        step,
        training.iterations,
        training.optimiser.poly_power,
    )
    run.train(job, network, training, output, state)


def image_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 2 at the resolution of the image: logits (n, c, h, w) are enlarged to labels (n, H, W)."""
    return cross_entropy(functional.interpolate(logits, labels.shape[-2:], mode="bilinear"), labels)
