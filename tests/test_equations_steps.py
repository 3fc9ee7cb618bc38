"""Two whole iterations of public training loops, written with the package's losses: AdaptSegNet, AdvEnt, MinEnt, CLAN."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from references import golden_tensors, named
from torch import Tensor

from caguda.equations.adversary import (
    ADVERSARIES,
    adversarial_loss,
    classifier_similarity,
    discriminator_loss,
    prediction_discrepancy,
    self_information,
    weighted_adversarial_loss,
    weighted_discriminator_loss,
)
from caguda.equations.grid import enlarged_logits
from caguda.equations.losses import cross_entropy
from caguda.equations.regularisers import entropy_loss, focal_cross_entropy
from caguda.equations.schedule import poly

Weights = dict[str, Tensor]
Discriminators = tuple[Weights, Weights]
Frames = tuple[Tensor, Tensor, Tensor]
Step = Callable[[Weights, Discriminators, Frames, int], tuple[Tensor, Tensor | None]]
ITERATIONS, PREHEAT = 10, 2
SEGMENTATION, ALIGNMENT = (0.1, 1.0), (0.2, 1.0)  # weights of the auxiliary and of the main head
seen_softmax = partial(torch.softmax, dim=1)


def both_heads(net: Weights, image: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of the auxiliary and of the main head at the size of the image."""
    stem = F.conv2d(image, net["stem.weight"], net["stem.bias"], stride=2, padding=1).relu()
    mid = F.conv2d(stem, net["mid.weight"], net["mid.bias"], padding=1).relu()
    heads = (
        F.conv2d(stem, net["layer5.weight"], net["layer5.bias"]),
        F.conv2d(mid, net["layer6.weight"], net["layer6.bias"]),
    )
    size = image.shape[-2:]
    return enlarged_logits(heads[0], size, align_corners=True), enlarged_logits(heads[1], size, align_corners=True)


def judged(discriminator: Weights, maps: Tensor) -> Tensor:
    """The output of a published discriminator, large for the target."""
    weights = list(discriminator.values())
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    for weight, bias in pairs[:-1]:
        maps = F.leaky_relu(F.conv2d(maps, weight, bias, stride=2, padding=1), 0.2)
    return F.conv2d(maps, *pairs[-1], stride=2, padding=1)


def segmentation(heads: tuple[Tensor, Tensor], label: Tensor) -> Tensor:
    losses = [weight * cross_entropy(logits, label).mean() for weight, logits in zip(SEGMENTATION, heads, strict=True)]
    return torch.stack(losses).sum()


def aligned(
    seen: Callable[[Tensor], Tensor], objective: str, net: Weights, judges: Discriminators, frames: Frames, _: int
) -> tuple[Tensor, Tensor]:
    """The losses of AdaptSegNet and of AdvEnt; logits of cross entropies are turned to those of "source"."""
    (image, label, target_image), (network, discriminator) = frames, ADVERSARIES[objective]
    sign = -1 if objective == "cross_entropy" else 1
    source, target = both_heads(net, image), both_heads(net, target_image)
    loss, told = segmentation(source, label), torch.zeros(())
    for weight, judge, of_source, of_target in zip(ALIGNMENT, judges, source, target, strict=True):
        d_source, d_target = (sign * judged(judge, seen(logits.detach())) for logits in (of_source, of_target))
        loss = loss + weight * network(sign * judged(judge, seen(of_target)))
        told = told + discriminator(d_source, d_target)
    return loss, told


def minent(net: Weights, _: Discriminators, frames: Frames, iteration: int) -> tuple[Tensor, None]:
    image, label, target_image = frames
    loss = segmentation(both_heads(net, image), label)
    for weight, logits in zip(ALIGNMENT, both_heads(net, target_image), strict=True):
        loss = loss + weight * entropy_loss(logits).mean()
    return loss, None


def clan(net: Weights, judges: Discriminators, frames: Frames, iteration: int) -> tuple[Tensor, Tensor]:
    """Its discriminator's loss is not halved, so it is twice ours."""
    (image, label, target_image), judge = frames, judges[0]
    source, target = both_heads(net, image), both_heads(net, target_image)
    loss = torch.stack([focal_cross_entropy(logits, label, 2.0).mean() for logits in source]).sum()

    def d(heads: tuple[Tensor, Tensor]) -> Tensor:
        return -enlarged_logits(judged(judge, (heads[0] + heads[1]).softmax(1)), image.shape[-2:], align_corners=True)

    kept = [tuple(logits.detach() for logits in heads) for heads in (source, target)]
    d_source, d_target = d(kept[0]), d(kept[1])
    if iteration < PREHEAT:
        adversarial, told = adversarial_loss(d(target)), discriminator_loss(d_source, d_target)
    else:
        discrepancy = prediction_discrepancy(*target)
        adversarial = weighted_adversarial_loss(d(target), discrepancy, 0.4, 40.0)
        told = weighted_discriminator_loss(d_source, d_target, discrepancy.detach(), 0.4, 40.0)
    heads = ([net[f"{head}.weight"], net[f"{head}.bias"]] for head in ("layer5", "layer6"))
    damping = 1 - iteration / ITERATIONS
    return loss + damping * (0.001 * adversarial + 0.01 * 2 * classifier_similarity(*heads)), 2 * told


def trained(arrays: Weights, step: Step, rates: dict[int, float]) -> Iterator[tuple[Weights, Discriminators]]:
    """The network and the discriminators after every iteration, whose rates are fractions of those at the start."""
    net, judges = named(arrays, "net."), (named(arrays, "D1."), named(arrays, "D2."))
    heads = [weight for name, weight in net.items() if name.startswith("layer")]
    body = [weight for name, weight in net.items() if not name.startswith("layer")]
    parameters = body + heads, [weight for judge in judges for weight in judge.values()]
    groups = [{"params": body, "start": 0.025}, {"params": heads, "start": 0.25}]
    optimisers = (
        torch.optim.SGD(groups, lr=0.0, momentum=0.9, weight_decay=5e-4),
        torch.optim.Adam([{"params": parameters[1], "start": 0.01}], betas=(0.9, 0.99)),
    )
    for i, (iteration, rate) in enumerate(rates.items()):
        batch = tuple(arrays[name][i : i + 1] for name in ("source_image", "source_label", "target_image"))
        losses = step(net, judges, batch, iteration)
        for optimiser, loss, weights in zip(optimisers, losses, parameters, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * group["start"]
            if loss is not None:
                gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.grad = gradient
        for optimiser in optimisers:
            optimiser.step()
        yield net, judges


DECAYING = {iteration: poly(iteration, ITERATIONS, 0.9) for iteration in (0, 1)}
AROUND_THE_PREHEAT = {1: 1 / PREHEAT, 5: poly(5, ITERATIONS, 0.9)}


@pytest.mark.parametrize(
    ("system", "step", "rates"),
    [
        ("adaptsegnet_vanilla", partial(aligned, seen_softmax, "cross_entropy"), DECAYING),
        ("adaptsegnet_ls", partial(aligned, seen_softmax, "least_squares"), DECAYING),
        ("advent", partial(aligned, self_information, "cross_entropy"), DECAYING),
        ("minent", minent, DECAYING),
        ("clan", clan, AROUND_THE_PREHEAT),
    ],
)
def test_two_iterations_end_with_the_weights_of_the_public_loop(
    system: str, step: Step, rates: dict[int, float]
) -> None:
    """Where a first gradient is noise about 0, Adam makes a whole step of it: D is compared on 99.9 % of its weights."""
    arrays = golden_tensors("steps")
    for i, (net, judges) in enumerate(trained(arrays, step, rates), start=1):
        for name, weight in net.items():
            expected = arrays[f"{system}.net_after{i}.{name}"]
            torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-6)
            assert (expected - arrays[f"net.{name}"]).abs().max() > 1e-4, "the comparison means something"
        pairs = [
            (weight.detach() - arrays[f"{system}.{judge}_after{i}.{name}"]).abs().flatten()
            for judge, weights in zip(("D1", "D2"), judges, strict=True)
            for name, weight in weights.items()
            if f"{system}.{judge}_after{i}.{name}" in arrays
        ]
        assert len(pairs) == {"minent": 0, "clan": 10}.get(system, 20)
        assert not pairs or (torch.cat(pairs) < 1e-5).float().mean() >= 0.999
