"""DACS: its mixtures, its teacher, and a training that goes on after an interruption as if there had been none."""

from pathlib import Path
from typing import Any

import pytest
import torch
from interruptions import interruptible
from torch import Tensor

from caguda.artifacts.state import load_state
from caguda.config import Compute
from caguda.config_run import method_classes
from caguda.costs.arithmetic import NetworkPasses, bytes_of
from caguda.datasets import transforms
from caguda.datasets.transforms import recoloured
from caguda.equations.grid import enlarged_logits
from caguda.errors import UserError
from caguda.methods.dacs import STRONG, Dacs
from caguda.networks.layers.batch_norm import batch_norms
from caguda.networks.small import SmallNetwork
from caguda.stages import parallel
from caguda.stages.session import Batch, Session
from caguda.stages.train import setup_of
from caguda.stages.training import TrainingSetup, compute_gradients, train, update_weights

CATEGORIES, HEIGHT, WIDTH, IGNORE = 5, 16, 24, 255
SMALL = SmallNetwork(name="small", width=4, blocks=(1, 1, 1, 1), feature_channels=8)
TRAINING: dict[str, Any] = {
    "iterations": 6, "batch_size": 2, "batch_norm": "train", "optimiser": {"name": "sgd", "learning_rate": 0.1},
}  # fmt: skip


def method(**keys: Any) -> Dacs:
    made = method_classes()["dacs"].model_validate({"method": "dacs", **TRAINING, **keys})
    assert isinstance(made, Dacs)
    return made


def session(made: Dacs, seed: int = 0) -> Session:
    """A new training on the CPU; all of one seed start from the same weights."""
    torch.manual_seed(seed)
    return Session(made, Compute(), SMALL.build(CATEGORIES), torch.device("cpu"), None, seed)


def batch(number: int, images: int = 2, height: int = HEIGHT, width: int = WIDTH) -> Batch:
    """Random frames of both domains, a tenth of the source's pixels void."""
    generator = torch.Generator().manual_seed(number)

    def values(end: int, *shape: int) -> Tensor:
        return torch.randint(0, end, shape, generator=generator, dtype=torch.uint8)

    label = values(CATEGORIES, images, height, width)
    label[torch.rand(label.shape, generator=generator) < 0.1] = IGNORE
    source, target = (values(256, images, 3, height, width) for _ in range(2))
    return {"source": {"image": source, "label": label}, "target": {"image": target}}


def begun(made: Dacs, iteration: int = 0) -> Session:
    """A new training in an iteration."""
    training = session(made)
    training.step(batch(0), iteration)
    return training


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixed images keep their colours."""
    monkeypatch.setattr(transforms, "recoloured", lambda images, *_: images)


def test_the_published_constants_are_the_defaults() -> None:
    made = method()
    assert (made.weight, made.teacher_decay, made.threshold) == (1.0, 0.99, 0.968)
    assert made.reads == {"source": "truth", "target": "images"} and made.adapts and not made.is_reference


@pytest.mark.parametrize("threshold", [0.0, 0.25, 1.0])
def test_a_mixture_has_half_of_the_categories_of_its_source_and_the_teachers_labels_elsewhere(
    plain: None, threshold: float
) -> None:
    made, given = method(threshold=threshold), batch(1)
    source, target, training = given["source"], given["target"]["image"], begun(made)
    images, labels, weights = made.mixtures(training, source, target, *made.teacher_labels(training, target))
    teacher = training.extra_modules["teacher"]
    probability = enlarged_logits(teacher(target / 255).logits, (HEIGHT, WIDTH)).softmax(dim=1)
    share = (probability.amax(dim=1) >= threshold).float().mean()
    assert threshold != 0.25 or 0 < share < 1
    for i in range(2):
        from_source = (images[i] == source["image"][i]).all(dim=0)
        from_target = (images[i] == target[i]).all(dim=0)
        assert (from_source ^ from_target).all()
        inside = set(source["label"][i][from_source].tolist())
        assert len(inside) == 3 and IGNORE not in inside
        assert not inside & set(source["label"][i][from_target].tolist()), "a category is taken as a whole"
        assert torch.equal(labels[i][from_source], source["label"][i][from_source])
        assert torch.equal(labels[i][from_target].long(), probability[i].argmax(dim=0)[from_target])
        torch.testing.assert_close(weights[i], share.where(from_target, 1.0))
    assert not weights.requires_grad


def test_categories_are_drawn_anew_by_seed_iteration_batch_and_image(plain: None) -> None:
    made, given = method(), batch(1)
    twice = {"source": {name: maps[:1].repeat(2, *[1] * (maps.dim() - 1)) for name, maps in given["source"].items()}}
    drawn = set()
    for seed in (0, 1):
        for iteration in (0, 1, 2):
            training = session(made, seed)
            training.step(given, iteration)
            for _ in range(2):
                target = given["target"]["image"]
                images, _, _ = made.mixtures(training, twice["source"], target, *made.teacher_labels(training, target))
                drawn |= {tuple((image == twice["source"]["image"][0]).all(0).flatten().tolist()) for image in images}
    assert len(drawn) > 7, "of ten halves"


def test_the_processes_of_a_batch_draw_what_one_process_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    made = method()
    whole = begun(made).generators("mixture", 4)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        parts += begun(made).generators("mixture", 2)
    draws = [[torch.rand(3, generator=generator).tolist() for generator in each] for each in (whole, parts)]
    assert draws[0] == draws[1] and len({tuple(numbers) for numbers in draws[0]}) == 4


def test_the_mean_of_a_share_is_over_all_processes_whatever_the_reduction(monkeypatch: pytest.MonkeyPatch) -> None:
    from caguda.equations.mixing import confident_share

    training = session(method(reduction="sum"))
    confidence = torch.tensor([0.1, 0.9, 0.9, 0.2]).view(2, 1, 2)
    assert training.mean(confident_share(confidence, 0.5)).item() == 0.5
    monkeypatch.setattr(parallel, "all_reduce_sum", lambda values: values + 4)  # those of another process
    assert training.mean(confident_share(confidence, 0.5)).item() == (2 + 4) / (4 + 4)


def test_colours_change_by_the_generators_alone() -> None:
    images = batch(2)["source"]["image"]
    before = torch.get_rng_state()

    def changed(*seeds: int) -> Tensor:
        return recoloured(images, STRONG, [torch.Generator().manual_seed(seed) for seed in seeds])

    found = changed(1, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(changed(1, 2), found) and found.dtype == torch.uint8 and found.shape == images.shape
    assert torch.equal(changed(1, 3)[0], found[0]) and not torch.equal(changed(1, 3)[1], found[1])
    assert not torch.equal(found[0], images[0])


def test_the_losses_are_those_of_the_source_and_of_the_mixtures(plain: None) -> None:
    made, given = method(weight=0.5, threshold=0.25), batch(3)
    (first, terms), (second, mixed_terms) = session(made).step(given, 0)
    assert {*terms, *mixed_terms} == {"source_cross_entropy", "mixed_cross_entropy"}
    assert first.item() == terms["source_cross_entropy"].item()
    assert second.item() == 0.5 * mixed_terms["mixed_cross_entropy"].item()
    again = session(made)
    again.step(given, 0)
    logits = again.outputs(given["source"]["image"]).logits  # which moves the statistics of its batch normalisation
    losses = torch.nn.functional.cross_entropy(
        enlarged_logits(logits, (HEIGHT, WIDTH)), given["source"]["label"].long(), ignore_index=IGNORE
    )
    assert first.item() == pytest.approx(losses.item(), rel=1e-5)
    target = given["target"]["image"]
    images, labels, weights = made.mixtures(again, given["source"], target, *made.teacher_labels(again, target))
    logits = enlarged_logits(again.outputs(images).logits, (HEIGHT, WIDTH))
    losses = torch.nn.functional.cross_entropy(logits, labels.long(), ignore_index=IGNORE, reduction="none")
    expected = (weights * losses).sum() / weights.numel()
    assert mixed_terms["mixed_cross_entropy"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_the_teacher_follows_the_network_and_works_as_it_does(batch_norm: str) -> None:
    training = session(method(batch_norm=batch_norm))
    teacher, network = training.extra_modules["teacher"], training.network
    setup = setup_of(training, "toy", "toy", lambda _: iter(()))
    assert set(setup.optimisers) == {"network"} and not any(w.requires_grad for w in teacher.parameters())
    before = [norm.running_mean.clone() for norm in batch_norms(teacher)]
    old = [weight.clone() for weight in teacher.parameters()]
    for iteration in range(2):
        compute_gradients(setup, lambda iteration=iteration: batch(iteration), iteration)
        update_weights(setup)
        setup.after_update()
        for average, kept, weight in zip(teacher.parameters(), old, network.parameters(), strict=True):
            decay = iteration / (iteration + 1)
            torch.testing.assert_close(average, decay * kept + (1 - decay) * weight)
        old = [weight.clone() for weight in teacher.parameters()]
    for norm, own, mean in zip(batch_norms(teacher), batch_norms(network), before, strict=True):
        assert norm.running_mean is not None and own.running_mean is not None
        moves = batch_norm == "train"
        assert norm.training == own.training == moves
        assert torch.equal(norm.running_mean, mean) != moves
        assert torch.equal(norm.running_mean, own.running_mean) != moves, "its own statistics, of target images"


def setup(stop_after: int | None = None) -> TrainingSetup:
    """A training with two batches for each update; Ctrl-C or the like comes after an update."""
    return interruptible(session(method(accumulate=2)), batch, 12, stop_after)


@pytest.mark.parametrize("stop_after", [1, 4])
def test_an_interrupted_training_ends_with_the_same_bytes(tmp_path: Path, stop_after: int) -> None:
    """The state that it goes on from is saved after iterations 2, 4 and 6."""
    undisturbed = train(setup(), tmp_path / "a", "f", 2)
    with pytest.raises(KeyboardInterrupt):
        train(setup(stop_after), tmp_path / "b", "f", 2)
    torch.rand(7)  # whatever was drawn meanwhile
    resumed = train(setup(), tmp_path / "b", "f", 2)
    assert resumed.history == undisturbed.history
    states = [load_state(tmp_path / folder / "state.pt") for folder in ("a", "b")]
    assert states[0] is not None and states[1] is not None
    assert set(states[0]["modules"]) == {"network", "teacher"}
    for name, module in states[0]["modules"].items():
        for key, value in module.items():
            assert torch.equal(value, states[1]["modules"][name][key]), f"{name}.{key}"


def test_images_of_different_sizes_are_refused_in_one_line() -> None:
    given = batch(0)
    target = torch.zeros(2, 3, HEIGHT, WIDTH - 1, dtype=torch.uint8)
    with pytest.raises(
        UserError, match=r"one size to be mixed, found 24x16 and 23x16; give .* the same crop"
    ) as refused:
        list(session(method()).step(given | {"target": {"image": target}}, 0))
    assert "\n" not in str(refused.value)


def test_a_plan_follows_its_step_and_counts_the_teacher() -> None:
    passes = NetworkPasses(SMALL, CATEGORIES, Compute())
    sizes: Any = {"source": (32, 64), "target": (32, 64)}
    step = passes.of_step(method(), sizes)
    cost = passes.of_batch((2, 3, 32, 64))
    blur = 2 * 2 * 3 * 25 * (32 * 64)  # of no image, of one or of both
    beside = step.flops - 2 * (cost.forward + cost.backward) - cost.forward
    assert step.note == "" and beside in (0, blur // 2, blur)
    assert step.module_bytes == 2 * bytes_of(passes.network)
    with pytest.raises(UserError, match="one size to be mixed"):
        passes.of_step(method(), {"source": (32, 64), "target": (32, 48)})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_trains_on_a_gpu() -> None:
    made = method()
    torch.manual_seed(0)
    device = torch.device("cuda")
    training = Session(made, Compute(), SMALL.build(CATEGORIES).to(device), device, None, 0)
    found = []
    for loss, _ in training.step(batch(0), 0):
        loss.backward()
        found.append(loss.item())
    made.after_update(training)
    on_cpu = [loss.item() for loss, _ in session(made).step(batch(0), 0)]
    assert found == pytest.approx(on_cpu, rel=0.05)
