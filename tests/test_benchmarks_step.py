"""The step that `benchmarks/step.py` measures ours against computes what ours computes: losses and gradients."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def tiny_setting(distance: dict[str, str]) -> Any:
    """What a step is given: a small network, its labels and anchors, and a tiny batch."""
    import step_inputs

    configuration = step_inputs.configured("small")
    small = configuration.network.model_copy(update={"width": 4, "feature_channels": 8})
    method = step_inputs.method_in(configuration)
    chosen = method.model_copy(update={"distance": method.distance.model_copy(update=distance)})
    runs = {**configuration.runs, "cag": chosen}
    return step_inputs.setting(configuration.model_copy(update={"network": small, "runs": runs}), (2, 64, 96))


def terms_and_gradient(way: str, distance: dict[str, str]) -> tuple[dict[str, float], Tensor]:
    """The loss terms of a step on a tiny batch, and the gradient of all weights as one vector."""
    import step

    given = tiny_setting(distance)
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


def test_three_steps_have_the_same_terms_and_lead_to_the_same_weights() -> None:
    """The choices of the authors' code: class means of correctly predicted pixels, aligned corners, SGD."""
    from step import AUTHORS, OURS, setup_of

    from caguda.stages.training import compute_gradients, update_weights

    traces, weights = {}, {}
    for way in (AUTHORS, OURS):
        given = tiny_setting({"norm": "class_mean", "pixels": "correct", "unit": "absolute"})
        optimiser = {"optimiser": given.method.optimiser.model_copy(update={"name": "sgd", "learning_rate": 1e-4})}
        setup = setup_of(given._replace(method=given.method.model_copy(update=optimiser)), way)
        traces[way] = []
        for iteration in range(3):
            traces[way].append(compute_gradients(setup, lambda batch=given.batch: batch, iteration))
            update_weights(setup)
        weights[way] = torch.cat([weight.flatten() for weight in setup.modules["network"].parameters()])
    for theirs, ours in zip(traces[AUTHORS], traces[OURS], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
    assert traces[OURS][0] != pytest.approx(traces[OURS][2], rel=1e-3), "the steps change the losses"
    torch.testing.assert_close(weights[AUTHORS], weights[OURS], rtol=1e-3, atol=1e-5)


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
