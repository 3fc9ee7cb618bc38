"""The step that `benchmarks/step.py` measures ours against computes what ours computes: losses and gradients."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def terms_and_gradient(way: str, distance: dict[str, str]) -> tuple[dict[str, float], Tensor]:
    """The loss terms of a step on a tiny batch, and the gradient of all weights as one vector."""
    import step
    import step_inputs

    configuration = step_inputs.configured("small")
    small = configuration.network.model_copy(update={"width": 4, "feature_channels": 8})
    method = step_inputs.method_in(configuration)
    chosen = method.model_copy(update={"distance": method.distance.model_copy(update=distance)})
    runs = {**configuration.runs, "cag": chosen}
    given = step_inputs.setting(configuration.model_copy(update={"network": small, "runs": runs}), (2, 64, 96))
    setup, found = step.setup_of(given, way), {}
    for objective, terms in setup.step(given.batch, 0):
        objective.backward()
        found |= {name: float(value.detach()) for name, value in terms.items()}
    weights = setup.modules["network"].parameters()
    return found, torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])


@pytest.mark.parametrize(
    "distance",
    [
        {"norm": "l2", "pixels": "all", "unit": "mean_anchor_distance"},
        {"norm": "class_mean", "pixels": "correct", "unit": "absolute"},
    ],
)
def test_the_authors_way_has_our_losses_and_gradients(distance: dict[str, str]) -> None:
    from step import AUTHORS, OURS

    (theirs, slope), (ours, expected) = (terms_and_gradient(way, distance) for way in (AUTHORS, OURS))
    assert min(ours.values()) > 0
    assert theirs == pytest.approx(ours, rel=1e-4)
    assert (slope - expected).norm() < 1e-3 * expected.norm()


def test_the_floor_has_every_convolution_there_and_back_in_both_domains() -> None:
    import step
    import step_inputs

    configuration, forward = step_inputs.configured("small"), []
    network = configuration.network.build(step_inputs.CATEGORIES)

    def count(layer: nn.Conv2d, _inputs: object, output: Tensor) -> None:
        forward.append(2 * layer.weight[0].numel() * output.numel())

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    network(torch.rand(2, 3, 32, 64))
    back = 2 * sum(forward) - forward[0]  # for the weights and for the input, of which images need none
    assert step.operations(configuration, (2, 32, 64)) == 2 * (sum(forward) + back)
