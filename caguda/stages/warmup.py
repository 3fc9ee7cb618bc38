"""The warm-up: adversarial alignment of both domains as a whole (Algorithm 1, line 2)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from caguda.config import Configuration
from caguda.datasets.transforms import normalise
from caguda.method.warmup import adversarial_loss, discriminator_loss
from caguda.models.batch_norm import freeze
from caguda.models.discriminator import discriminator
from caguda.stages.common import Run
from caguda.stages.runtime import place, restore_network
from caguda.stages.supervised import image_cross_entropy
from caguda.stages.training import Batch, Job, build_optimiser


def warmup(configuration: Configuration, seed: int, manifest: Path, initial: Path, output: Path, state: Path) -> None:
    """Train M0 from M0^p on source labels and target images, so that a discriminator cannot tell the domains apart.

    The discriminator sees the softmax of the logits. Each domain passes by itself: where batch normalisation is
    trained, it normalises either with its own statistics, and what is left to align is what statistics cannot.
    """
    training = configuration.warmup
    settings = configuration.model_dump(mode="json", include={"network", "warmup"})
    run = Run("warmup", configuration, seed, manifest, settings, [initial])
    network, _ = restore_network(initial, run.device, run.table)
    torch.manual_seed(seed)
    judge = place(discriminator(run.table.count, training.discriminator_width), run.device)
    network.train()
    if training.batch_norm == "frozen":
        freeze(network)

    def step(batch: Batch) -> Mapping[str, Tensor]:
        source, target = batch
        _, logits = network(normalise(source["image"], run.device))
        _, target_logits = network(normalise(target["image"], run.device))
        supervised = image_cross_entropy(logits, source["label"].to(run.device))
        adversarial = adversarial_loss(judge(target_logits.softmax(dim=1)))
        (supervised + training.adversarial_weight * adversarial).backward()
        judge.zero_grad(set_to_none=True)
        told = discriminator_loss(*(judge(seen.detach().softmax(dim=1)) for seen in (logits, target_logits)))
        told.backward()
        return {
            "source_cross_entropy": supervised.detach(),
            "adversarial": adversarial.detach(),
            "discriminator": told.detach(),
        }

    source = run.frames("source", training.augmentation, labelled=True)
    target = run.frames("target", training.augmentation, labelled=False)
    optimisers = {
        "network": build_optimiser(network, training.optimiser),
        "discriminator": build_optimiser(judge, training.optimiser, training.discriminator_learning_rate),
    }
    modules = {"network": network, "discriminator": judge}
    batches = run.batches(training, source, target)
    job = Job(run.name, modules, optimisers, batches, step, training.iterations, training.optimiser.poly_power)
    run.train(job, network, training, output, state)
