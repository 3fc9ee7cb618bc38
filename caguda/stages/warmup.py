"""The warm-up: adversarial alignment of both domains as a whole (Algorithm 1, line 2)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from caguda.artifacts.identity import ModelOf
from caguda.config import Configuration
from caguda.equations.warmup import adversarial_loss, discriminator_loss
from caguda.networks.layers.discriminator import discriminator
from caguda.networks.layers.network import Outputs
from caguda.stages import parallel
from caguda.stages.common import Run
from caguda.stages.runtime import place
from caguda.stages.supervised import CHOICES, image_cross_entropy
from caguda.stages.training import Batch


def warmup(
    configuration: Configuration,
    seed: int,
    manifest: Path,
    initial: Path,
    output: Path,
    state: Path,
    packed: Sequence[Path] = (),
) -> None:
    """Train M0 from M0^p on source labels and target images, so that a discriminator cannot tell the domains apart.

    The discriminator sees the softmax of the logits, or f_D's features, as `discriminator_input` says. Each domain
    passes by itself: where batch normalisation is trained, it normalises either with its own statistics, and what is
    left to align is what statistics cannot.
    """
    training = configuration.warmup
    settings = configuration.model_dump(mode="json", include={**CHOICES, "warmup": True})
    run = Run("warmup", configuration, seed, manifest, settings, [initial], packed)
    network = run.restored(initial, ModelOf("pretrain"))
    channels = run.table.count if training.discriminator_input == "softmax" else network.classifier.in_channels
    torch.manual_seed(seed)
    judge = place(discriminator(channels, training.discriminator_width), run.device)
    model, shared_judge = run.ready_to_train(network, training), parallel.shared(judge)

    def judged(said: Outputs) -> Tensor:
        return said.logits.softmax(dim=1) if training.discriminator_input == "softmax" else said.features

    def step(batch: Batch) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        source, target = batch
        said = run.forward(model, source["image"])
        supervised = run.reduced(image_cross_entropy(said.logits, source["label"].to(run.device)))
        seen = judged(said).detach()
        yield supervised, {"source_cross_entropy": supervised}
        target_seen = judged(run.forward(model, target["image"]))
        judge.requires_grad_(False)
        adversarial = adversarial_loss(judge(target_seen))
        judge.requires_grad_(True)
        yield training.adversarial_weight * adversarial, {"adversarial": adversarial}
        told = discriminator_loss(shared_judge(seen), shared_judge(target_seen.detach()))
        yield told, {"discriminator": told}

    source = run.frames("source", training.augmentation, labelled=True)
    target = run.frames("target", training.augmentation, labelled=False)
    modules = {"network": network, "discriminator": judge}
    rates = {"network": training.optimiser.learning_rate, "discriminator": training.discriminator_learning_rate}
    run.train(step, training, modules, rates, run.batches(training, source, target), output, state)
