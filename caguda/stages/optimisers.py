"""The optimisers of a training: their parameter groups, and the learning rate of every iteration."""

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from caguda.config_run import Training
from caguda.config_training import Optimiser
from caguda.equations.schedule import linear_warmup, poly
from caguda.networks.layers.network import ParameterGroup, SegmentationNetwork


def build_optimiser(module: nn.Module, settings: Optimiser, rate: float) -> Optimizer:
    """The optimiser of a module's trainable weights; `rate` is the initial learning rate of the poly schedule.

    The learning rate of a network's parameter group is its factor times that rate, in every iteration.
    """
    groups = [
        {"params": [weight for weight in group.weights if weight.requires_grad], "initial_lr": rate * group.factor}
        for group in _groups_of(module, settings.head_factor)
    ]
    if settings.name == "sgd":
        return SGD(groups, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=True)
    return AdamW(groups, lr=rate, weight_decay=settings.weight_decay)


def _groups_of(module: nn.Module, head_factor: float) -> list[ParameterGroup]:
    """The parameter groups of a network, which must have all its weights; one group for other modules.

    `head_factor` multiplies the factor of the weights that do not belong to the network's encoder.
    """
    if not isinstance(module, SegmentationNetwork):
        return [ParameterGroup(1.0, list(module.parameters()))]
    groups = module.parameter_groups()
    grouped = {weight for group in groups for weight in group.weights}
    if missing := [name for name, weight in module.named_parameters() if weight not in grouped]:
        raise ValueError(f"parameter_groups must have every weight of the network, found none with {missing[0]}")
    if head_factor == 1:
        return groups
    encoder = set(module.encoder.parameters())
    halves = [
        ParameterGroup(group.factor * factor, [weight for weight in group.weights if (weight in encoder) == is_encoder])
        for group in groups
        for is_encoder, factor in ((True, 1.0), (False, head_factor))
    ]
    return [half for half in halves if half.weights]


def set_rates(optimisers: Iterable[Optimizer], settings: Training, iteration: int) -> None:
    """Set the learning rates of an iteration: the initial rates times the factors of the schedule and of its warm-up."""
    chosen = settings.optimiser
    factor = poly(iteration, chosen.poly_iterations or settings.iterations, chosen.poly_power)
    factor *= linear_warmup(iteration, chosen.warmup_iterations)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor
