"""The compared systems: each trains a tiny network, resumes to the same weights, and does what makes it that system."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from caguda.artifacts.state import load_state
from caguda.config import Compute
from caguda.config_run import Method, method_classes
from caguda.equations.grid import enlarged_logits
from caguda.equations.translation import fourier_translated
from caguda.networks.layers.discriminator import DISCRIMINATORS, RecentValues, pixel_discriminator
from caguda.networks.small import SmallNetwork
from caguda.stages.session import Batch, Session
from caguda.stages.train import setup_of
from caguda.stages.training import train

CATEGORIES, ITERATIONS = 5, 6
TRAINING: dict[str, Any] = {
    "start": "pretrain", "iterations": ITERATIONS, "batch_size": 2, "batch_norm": "train",
    "optimiser": {"name": "adamw", "learning_rate": 1e-3},
}  # fmt: skip
LABELS = {"class_balanced": {"portion": 0.2}}
DISCRIMINATOR = {"width": 2}
METHODS: dict[str, dict[str, Any]] = {
    "adaptsegnet": {"discriminator": DISCRIMINATOR},
    "advent": {"discriminator": DISCRIMINATOR | {"resolution": "features", "kernel": 3, "objective": "least_squares"}},
    "bdl": {"discriminator": DISCRIMINATOR, "pseudo_labels": {"class_quantile": {"share": 0.5, "cap": 0.9}}},
    "cbst": {"pseudo_labels": LABELS},
    "clan": {"discriminator": DISCRIMINATOR, "preheat": 0.5},
    "crst": {"pseudo_labels": LABELS},
    "cycada": {"discriminator": {"width": 16, "learning_rate": 1e-3}, "gate": 0.0},
    "dcan_like": {},
    "fda": {},
    "maxsquare": {},
    "minent": {},
}


def method(name: str, **changes: Any) -> Method:
    made = method_classes()[name].model_validate({"method": name} | TRAINING | METHODS[name] | changes)
    assert isinstance(made, Method)
    return made


def session(made: Method) -> Session:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = SmallNetwork(name="small", width=4, blocks=(1, 1, 1, 1), feature_channels=6).build(CATEGORIES)
    return Session(made, Compute(), network, torch.device("cpu"), None, 3)


def batch(made: Method, position: int) -> Batch:
    """Random images and label maps, as the method reads them."""
    generator = torch.Generator().manual_seed(position)
    found: dict[str, dict[str, Tensor]] = {}
    for domain, read in made.reads.items():
        image = torch.randint(0, 256, (2, 3, 32, 48), generator=generator, dtype=torch.uint8)
        names = {"images": [], "truth": ["label"], "pseudo-labels": [f"{rule}_label" for rule in made.pseudo_labels]}[
            read
        ]
        labels = torch.randint(0, CATEGORIES + 1, (2, 32, 48), generator=generator, dtype=torch.uint8)
        labels[labels == CATEGORIES] = 255
        found[domain] = {"image": image, **dict.fromkeys(names, labels)}
    return found


def trained(made: Method, folder: Path, *, stop_at: int | None = None) -> Session:
    """A training of some iterations; with `stop_at`, its batches end there as a killed process does."""
    run = session(made)

    def batches(start: int) -> Iterator[Batch]:
        for position in range(start, ITERATIONS):
            if position == stop_at:
                raise KeyboardInterrupt
            yield batch(made, position)

    train(setup_of(run, made.method, "", batches), folder, "f", save_every=1)
    return run


@pytest.mark.parametrize("name", METHODS)
def test_each_resumes_to_the_same_weights(name: str, tmp_path: Path) -> None:
    made = method(name)
    run = trained(made, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(made, tmp_path / "killed", stop_at=3)
    again = trained(made, tmp_path / "killed")
    assert run.modules.keys() == again.modules.keys()
    for part, module in run.modules.items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, again.modules[part].state_dict()[key]), (part, key)


@pytest.mark.parametrize("name", METHODS)
def test_each_moves_the_weights_of_all_its_modules_and_reports_finite_losses(name: str, tmp_path: Path) -> None:
    made = method(name)
    before = {
        part: {k: v.clone() for k, v in module.state_dict().items()} for part, module in session(made).modules.items()
    }
    run = trained(made, tmp_path)
    for part, module in run.modules.items():
        moved = [not torch.equal(before[part][key], weight) for key, weight in module.named_parameters()]
        assert all(moved), part
    history = load_state(tmp_path / "state.pt")["progress"]["history"]
    assert len(history) == ITERATIONS and all(len(row) > 2 or name == "dcan_like" for row in history)


@pytest.mark.parametrize("name", ["adaptsegnet", "advent", "bdl", "clan", "cycada"])
def test_the_adversarial_loss_moves_no_discriminator_and_its_loss_no_network(name: str) -> None:
    made = method(name)
    run = session(made)
    sources: dict[str, set[str]] = {}
    discriminators = {"discriminator", "discriminator+discriminator_accuracy"}
    for loss, terms in run.step(batch(made, 0), 0):
        loss.backward()  # type: ignore[no-untyped-call]
        moved = {
            part for part, m in run.modules.items() if any(w.grad is not None and w.grad.any() for w in m.parameters())
        }
        sources["+".join(terms)] = moved
        for module in run.modules.values():
            module.zero_grad(set_to_none=True)
    assert [moved for terms, moved in sources.items() if terms in discriminators] == [{"discriminator"}]
    adversarial = next(moved for terms, moved in sources.items() if "adversarial" in terms)
    assert "network" in adversarial and "discriminator" not in adversarial


@pytest.mark.parametrize(
    ("kernel", "size", "expected"), [(4, (64, 128), (2, 4)), (3, (64, 128), (2, 4)), (4, (32, 48), (1, 1))]
)
def test_strided_discriminators_halve_their_input_five_times(
    kernel: int, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    made = DISCRIMINATORS[kernel](CATEGORIES, 2)
    assert made(torch.zeros(1, CATEGORIES, *size)).shape == (1, 1, *expected)


def test_a_pixel_discriminator_looks_at_single_pixels() -> None:
    made = pixel_discriminator(CATEGORIES, 8).eval()
    values = torch.randn(1, CATEGORIES, 4, 5)
    changed = values.clone()
    changed[..., 2, 3] += 1
    difference = (made(values) - made(changed))[0, 0] != 0
    assert difference.nonzero().tolist() == [[2, 3]]


def test_the_trained_classifier_of_clan_is_the_sum_of_both() -> None:
    made = method("clan")
    run = session(made)
    features = torch.rand(2, 6, 4, 5)
    both = run.network.classifier(features) + run.modules["second_classifier"](features)
    made.after_training(run)
    torch.testing.assert_close(run.network.classifier(features), both)


@pytest.mark.parametrize(("iteration", "is_weighted"), [(0, False), (2, False), (3, True), (5, True)])
def test_the_discrepancy_of_clan_weighs_after_the_preheat(iteration: int, is_weighted: bool) -> None:
    losses = []
    for local in (0.0, 40.0):
        made = method("clan", epsilon=1.0, local=local)
        run = session(made)
        losses.append(
            {
                name: float(value.detach())
                for _, terms in run.step(batch(made, 0), iteration)
                for name, value in terms.items()
            }
        )
    assert (losses[0]["adversarial"] != losses[1]["adversarial"]) == is_weighted
    assert (losses[0]["discriminator"] != losses[1]["discriminator"]) == is_weighted


def test_fda_trains_on_source_images_with_the_low_frequencies_of_the_target() -> None:
    made = method("fda", beta=0.1)
    run = session(made)
    read = batch(made, 0)
    seen: list[Tensor] = []
    outputs = run.outputs
    run.outputs = lambda images: seen.append(images.clone()) or outputs(images)  # type: ignore[method-assign,func-returns-value]
    for _ in run.step(read, 0):
        pass
    expected = fourier_translated(read["source"]["image"].float(), read["target"]["image"].float(), 0.1)
    torch.testing.assert_close(seen[0], expected)
    assert torch.equal(seen[1], read["target"]["image"])


def test_the_image_resolution_of_a_discriminator_is_that_of_enlarged_logits() -> None:
    made = method("adaptsegnet")
    run = session(made)
    read = batch(made, 0)
    seen: list[Tensor] = []
    run.extra_modules["discriminator"].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    for _ in run.step(read, 0):
        pass
    assert [tuple(values.shape) for values in seen] == [(2, CATEGORIES, 32, 48)] * 3
    run.network.train()
    logits = run.outputs(read["target"]["image"]).logits
    torch.testing.assert_close(seen[0], enlarged_logits(logits, (32, 48)).softmax(dim=1))


def test_cbst_takes_its_rule_alone() -> None:
    with pytest.raises(ValueError, match="must be the rule class_balanced, found probability"):
        method("cbst", pseudo_labels={"probability": {"p0": 0.9}})


def test_cycada_trains_the_network_only_while_the_discriminator_is_right(tmp_path: Path) -> None:
    """With the gate 1 no share of the pixels is enough: the discriminator alone moves."""
    made = method("cycada", gate=1.0)
    before = session(made)
    run = trained(made, tmp_path)
    for part, is_moved in {"network": False, "discriminator": True}.items():
        pairs = zip(before.modules[part].parameters(), run.modules[part].parameters(), strict=True)
        assert all(torch.equal(*pair) != is_moved for pair in pairs)
    history = load_state(tmp_path / "state.pt")["progress"]["history"]
    shares = [row["discriminator_accuracy"] for row in history]
    assert shares == pytest.approx(run.modules["recent_accuracy"].values[:ITERATIONS].tolist())
    assert all("adversarial" not in row for row in history)


def test_recent_values_are_those_of_the_window() -> None:
    recent = RecentValues(3)
    means = [float(recent(iteration, torch.tensor(float(iteration)))) for iteration in range(6)]
    assert means == [0, 0.5, 1, 2, 3, 4]
