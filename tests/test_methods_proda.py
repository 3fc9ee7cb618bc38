"""ProDA: one step against plain numpy, its prototypes, and a training that goes on as if it had not been interrupted."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
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
from caguda.methods.proda import STRONG, Proda
from caguda.networks.layers.batch_norm import batch_norms, estimate_statistics
from caguda.networks.layers.prototypes import Prototypes
from caguda.networks.small import SmallNetwork
from caguda.stages import parallel
from caguda.stages.session import Batch, Session
from caguda.stages.train import setup_of
from caguda.stages.training import TrainingSetup, compute_gradients, train, update_weights

CATEGORIES, CHANNELS, HEIGHT, WIDTH, IGNORE = 5, 8, 32, 48, 255
SMALL = SmallNetwork(name="small", width=4, blocks=(1, 1, 1, 1), feature_channels=CHANNELS)
TRAINING: dict[str, Any] = {
    "start": "warm-up", "iterations": 6, "batch_size": 2, "batch_norm": "train",
    "optimiser": {"name": "sgd", "learning_rate": 0.05},
}  # fmt: skip
WEIGHTS = {"target_cross_entropy": 0.3, "reverse_cross_entropy": 0.7, "uniform_divergence": 0.2, "consistency": 5.0}
Arrays = list[np.ndarray]


def method(**keys: Any) -> Proda:
    made = method_classes()["proda"].model_validate({"method": "proda", **TRAINING, **keys})
    assert isinstance(made, Proda)
    return made


def session(made: Proda, weights: int = 0, precision: str = "float32") -> Session:
    """A new training on the CPU, whose network predicts several categories in every image."""
    torch.manual_seed(weights)
    network = SMALL.build(CATEGORIES)
    with torch.no_grad():
        network.classifier.weight.mul_(20)
        images = batch(99, 8)["target"]["image"] / 255
        estimate_statistics(network, [images])
        features = network(images).features
        network.classifier.bias.copy_(-(network.classifier.weight.flatten(1) @ features.mean(dim=(0, 2, 3))))
    return Session(made, Compute(precision=precision), network, torch.device("cpu"), None, 3)


def proda_of(training: Session) -> Proda:
    assert isinstance(training.method, Proda)
    return training.method


def prototypes_of(training: Session) -> Prototypes:
    found = training.extra_modules["prototypes"]
    assert isinstance(found, Prototypes)
    return found


def batch(number: int, images: int = 2) -> Batch:
    """Random frames of both domains with areas of one colour, a tenth of the source's pixels void."""
    generator = torch.Generator().manual_seed(number)

    def frames() -> Tensor:
        areas = torch.rand(images, 3, 4, 6, generator=generator)
        noise = torch.rand(images, 3, HEIGHT, WIDTH, generator=generator)
        return (200 * enlarged_logits(areas, (HEIGHT, WIDTH)) + 50 * noise).to(torch.uint8)

    label = torch.randint(0, CATEGORIES, (images, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    label[torch.rand(label.shape, generator=generator) < 0.1] = IGNORE
    return {"source": {"image": frames(), "label": label}, "target": {"image": frames()}}


class Watched:
    """The inputs and outputs of all passes of a session, in order."""

    def __init__(self, training: Session) -> None:
        self.images: list[Tensor] = []
        self.features: Arrays = []
        self.logits: Arrays = []
        self.of_copies: dict[str, tuple[Tensor, np.ndarray, np.ndarray]] = {}
        outputs = training.outputs

        def watched(images: Tensor) -> Any:
            found = outputs(images)
            self.images.append(images)
            self.features.append(found.features.detach().double().numpy())
            self.logits.append(found.logits.detach().double().numpy())
            return found

        training.outputs = watched  # type: ignore[method-assign]
        for name in ("teacher", "start"):
            training.extra_modules[name].register_forward_hook(
                lambda _, inputs, found, name=name: self.of_copies.update(
                    {name: (inputs[0], found.features.double().numpy(), found.logits.double().numpy())}
                )
            )


# Plain numpy


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def pixels(maps: np.ndarray) -> np.ndarray:
    """The vectors of all pixels of (n k h w), image by image, (n h w, k)."""
    return np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1])


def image_means(features: np.ndarray, logits: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The mean feature of each category that is predicted at ten pixels of an image or more, with the category."""
    found = []
    for of_image, scores in zip(features, logits, strict=True):
        predicted = scores.argmax(axis=0)
        for category in range(CATEGORIES):
            if (predicted == category).sum() >= 10:
                found.append((category, of_image[:, predicted == category].mean(axis=1)))
    return found


def prototype_weights(vector: np.ndarray, prototypes: dict[int, np.ndarray], temperature: float) -> dict[int, float]:
    known = sorted(prototypes)
    lengths = np.array([np.sqrt(((vector - prototypes[category]) ** 2).sum()) for category in known])
    return dict(zip(known, softmax(-temperature * lengths), strict=True)) if known else {}


def expected_terms(
    watched: Watched, labels: np.ndarray, prototypes: dict[int, np.ndarray], temperature: float
) -> dict[str, float]:
    """The means of the target's losses over the pixels of a batch."""
    weak, strong = watched.logits[1], watched.features[2]
    terms: dict[str, list[float]] = {name: [] for name in WEIGHTS}
    for scores, label in zip(pixels(weak), labels, strict=True):
        p, one_hot = softmax(scores), np.eye(CATEGORIES)[label]
        terms["target_cross_entropy"].append(-np.log(p[label]))
        terms["reverse_cross_entropy"].append(-(p * np.log(np.maximum(one_hot, 1e-4))).sum())
        terms["uniform_divergence"].append(-np.log(p).mean())
    for of_teacher, of_student in zip(pixels(watched.of_copies["teacher"][1]), pixels(strong), strict=True):
        t, s = (prototype_weights(vector, prototypes, temperature) for vector in (of_teacher, of_student))
        terms["consistency"] += [t[k] * (np.log(t[k]) - np.log(s[k])) for k in t]
    return {name: float(np.mean(values)) if values else 0.0 for name, values in terms.items()}


def expected_labels(watched: Watched, prototypes: dict[int, np.ndarray], temperature: float) -> np.ndarray:
    labels = []
    for feature, scores in zip(
        pixels(watched.of_copies["teacher"][1]), pixels(watched.of_copies["start"][2]), strict=True
    ):
        weights = np.full(CATEGORIES, 1 / CATEGORIES)
        for category, share in prototype_weights(feature, prototypes, temperature).items():
            weights[category] = share * len(prototypes) / CATEGORIES
        labels.append(int((weights * softmax(scores)).argmax()))
    return np.array(labels)


# The step


def test_the_published_constants_are_the_defaults() -> None:
    made = method()
    weights = {
        "target_cross_entropy": 0.1,
        "reverse_cross_entropy": 1.0,
        "uniform_divergence": 0.1,
        "consistency": 10.0,
    }
    assert made.weights.model_dump() == weights
    assert (made.temperature, made.teacher_decay, made.prototype_decay) == (1.0, 0.999, 0.9999)
    assert made.reads == {"source": "truth", "target": "images"} and made.adapts and not made.is_reference


def test_it_needs_a_run_to_start_from() -> None:
    with pytest.raises(ValueError, match="start: proda must start from a run, whose model gives soft labels"):
        method(start=None)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_the_losses_of_a_step_are_those_of_plain_numpy(precision: str, batch_norm: str) -> None:
    temperature = 0.8
    made = method(weights=WEIGHTS, temperature=temperature, batch_norm=batch_norm)
    training, given = session(made, precision=precision), batch(1)
    known = prototypes_of(training)
    before = np.random.default_rng(0).random((CATEGORIES, CHANNELS)).astype(np.float32)
    known.move(torch.from_numpy(3 * before), torch.tensor([3, 3, 0, 0, 3]), 1.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # so that the three networks differ
        for name in ("teacher", "start"):
            for weight in training.extra_modules[name].parameters():
                weight.mul_(0.97 + 0.06 * torch.rand(weight.shape, generator=generator))
    watched = Watched(training)
    (first, source_terms), (second, terms) = training.step(given, 2)

    prototypes = {category: before[category].astype(np.float64) for category in (0, 1, 4)}
    counts = dict.fromkeys(prototypes, 3)
    means = image_means(*watched.of_copies["teacher"][1:])
    assert len({category for category, _ in means}) >= 2
    for category, mean in means:
        n = counts.get(category, 0)
        prototypes[category] = (n * prototypes.get(category, 0) + mean) / (n + 1)
        counts[category] = n + 1
    labels = expected_labels(watched, prototypes, temperature)
    assert 1 < len(set(labels)) and (labels != pixels(watched.of_copies["start"][2]).argmax(axis=1)).any()
    expected = expected_terms(watched, labels, prototypes, temperature)

    assert first.item() == source_terms["source_cross_entropy"].item()
    logits = enlarged_logits(torch.from_numpy(watched.logits[0]), (HEIGHT, WIDTH))
    supervised = torch.nn.functional.cross_entropy(logits, given["source"]["label"].long(), ignore_index=IGNORE)
    assert first.item() == pytest.approx(supervised.item(), rel=1e-5)
    assert terms.keys() == WEIGHTS.keys()
    for name, value in terms.items():
        assert value.item() == pytest.approx(expected[name], rel=1e-4, abs=1e-7), name
    assert expected["consistency"] > 1e-5
    assert second.item() == pytest.approx(sum(WEIGHTS[name] * value for name, value in expected.items()), rel=1e-4)


def test_the_weak_view_has_labels_and_the_strong_view_other_colours_of_the_same_pixels() -> None:
    training, given = session(method()), batch(1)
    watched = Watched(training)
    list(training.step(given, 4))
    again = session(method())
    again.step(given, 4)
    strong = recoloured(given["target"]["image"], STRONG, again.generators("strong view", 2))
    for seen, expected in zip(
        watched.images, (given["source"]["image"], given["target"]["image"], strong), strict=True
    ):
        assert torch.equal(seen, expected)
    assert all((image != weak).any() for image, weak in zip(strong, given["target"]["image"], strict=True))
    for name in ("teacher", "start"):
        torch.testing.assert_close(watched.of_copies[name][0], given["target"]["image"] / 255)


def test_gradients_reach_the_network_alone() -> None:
    training = session(method())
    for loss, _ in training.step(batch(1), 0):
        loss.backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in training.network.parameters())
    assert not any(w.requires_grad for module in training.extra_modules.values() for w in module.parameters())


# Prototypes


def test_prototypes_are_the_means_of_the_mean_features_of_all_images() -> None:
    training = session(method())
    watched, prototypes = Watched(training), prototypes_of(training)
    means: list[tuple[int, np.ndarray]] = []
    for number in range(4):
        list(training.step(batch(number, 3), number))
        means += image_means(*watched.of_copies["teacher"][1:])
    for category in range(CATEGORIES):
        vectors = [mean for found, mean in means if found == category]
        assert prototypes.image_count[category] == len(vectors)
        expected = np.mean(vectors, axis=0) if vectors else np.zeros(CHANNELS)
        np.testing.assert_allclose(prototypes.vectors[category].numpy(), expected, rtol=1e-5, atol=1e-6)
    counts = prototypes.image_count.tolist()
    assert max(counts) > 6 and len(set(counts)) > 1


def test_a_category_that_was_never_seen_keeps_its_soft_labels_and_has_no_part_in_the_consistency() -> None:
    training, given = session(method(temperature=0.5)), batch(1)
    unseen, prototypes = 3, prototypes_of(training)
    for name in ("teacher", "start"):
        with torch.no_grad():  # the teacher never predicts it, the first network always
            training.extra_modules[name].classifier.bias[unseen] = {"teacher": -1e4, "start": 1e4}[name]
    watched = Watched(training)
    _, (_, terms) = training.step(given, 0)
    assert prototypes.image_count[unseen] == 0 and prototypes.image_count.sum() > 0
    assert not prototypes.vectors[unseen].any()
    labels = proda_of(training).rectified_labels(
        training, given["target"]["image"], torch.from_numpy(watched.of_copies["teacher"][1]).float()
    )
    assert (labels == unseen).all()
    known = {k: prototypes.vectors[k].double().numpy() for k in prototypes.present.nonzero().flatten().tolist()}
    expected = expected_terms(watched, labels.flatten().numpy(), known, 0.5)
    assert terms["consistency"].item() == pytest.approx(expected["consistency"], rel=1e-4)
    assert terms["target_cross_entropy"].item() == pytest.approx(expected["target_cross_entropy"], rel=1e-4)


def test_without_any_prototype_labels_are_the_first_networks_and_there_is_no_consistency(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("caguda.methods.proda.AT_LEAST", HEIGHT * WIDTH)
    training = session(method())
    with torch.no_grad():
        training.extra_modules["start"].classifier.weight.mul_(-1)
    watched = Watched(training)
    for loss, terms in training.step(batch(1), 0):
        loss.backward()
    labels = pixels(watched.of_copies["start"][2]).argmax(axis=1)
    assert (labels != pixels(watched.of_copies["teacher"][2]).argmax(axis=1)).any()
    expected = expected_terms(watched, labels, {}, 1.0)
    assert terms["consistency"].item() == 0
    assert terms["target_cross_entropy"].item() == pytest.approx(expected["target_cross_entropy"], rel=1e-4)
    assert all(w.grad is not None and w.grad.isfinite().all() for w in training.network.parameters())


def test_a_pixel_whose_corrected_labels_are_all_zero_has_none() -> None:
    training, given = session(method()), batch(1)
    prototypes, features = prototypes_of(training), torch.zeros(2, CHANNELS, 8, 12)
    sums = torch.zeros(CATEGORIES, CHANNELS)
    sums[1:] = 1e4  # so far that their weights are 0
    prototypes.move(sums, torch.ones(CATEGORIES, dtype=torch.int64), 1.0)
    with torch.no_grad():
        training.extra_modules["start"].classifier.bias[0] = -1e4
    features[:, 0, :, :6] = 1e4 * CHANNELS**0.5  # far from all
    labels = proda_of(training).rectified_labels(training, given["target"]["image"], features)
    assert (labels[:, :, 6:] == IGNORE).all() and (labels[:, :, :6] != 0).all()


def test_parts_of_a_batch_give_the_losses_and_prototypes_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads stand for two processes. The loss of each is its part of a mean over all."""
    monkeypatch.setattr(transforms, "recoloured", lambda images, *_: 255 - images)
    made, given = method(batch_norm="frozen"), batch(5, 4)
    whole = session(made)
    expected = [loss.item() for loss, _ in whole.step(given, 0)]
    parts, losses = [session(made) for _ in range(2)], [[0.0, 0.0], [0.0, 0.0]]
    alone = [session(made) for _ in range(2)]
    barrier, place, values = threading.Barrier(2, timeout=60), threading.local(), [torch.empty(0), torch.empty(0)]

    def all_reduce_sum(own: Tensor) -> Tensor:
        values[place.rank] = own.detach().clone()
        barrier.wait()
        total = values[0] + values[1]
        barrier.wait()
        return total

    def half(rank: int) -> Batch:
        return {
            domain: {name: maps[2 * rank : 2 * rank + 2] for name, maps in tensors.items()}
            for domain, tensors in given.items()
        }

    def work(rank: int) -> None:
        place.rank = rank
        losses[rank] = [loss.item() for loss, _ in parts[rank].step(half(rank), 0)]

    for rank, training in enumerate(alone):
        list(training.step(half(rank), 0))
    monkeypatch.setattr(parallel, "all_reduce_sum", all_reduce_sum)
    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [sum(both) for both in zip(*losses, strict=True)] == pytest.approx(expected, rel=1e-5)
    of_whole = prototypes_of(whole)
    for part, own in zip(parts, alone, strict=True):
        found = prototypes_of(part)
        assert torch.equal(found.image_count, of_whole.image_count)
        torch.testing.assert_close(found.vectors, of_whole.vectors, rtol=1e-6, atol=1e-6)
        assert not torch.equal(prototypes_of(own).vectors, of_whole.vectors)


# The training


@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_the_teacher_follows_the_network_and_the_first_network_stays(batch_norm: str) -> None:
    training = session(method(batch_norm=batch_norm, teacher_decay=0.9))
    teacher, start, network = training.extra_modules["teacher"], training.extra_modules["start"], training.network
    setup = setup_of(training, "toy", "toy", lambda _: iter(()))
    assert set(setup.optimisers) == {"network"}
    first = [weight.clone() for weight in network.parameters()]
    average = [weight.clone() for weight in first]
    for iteration in range(2):
        compute_gradients(setup, lambda iteration=iteration: batch(iteration), iteration)
        update_weights(setup)
        setup.after_update()
        average = [0.9 * old + 0.1 * new for old, new in zip(average, network.parameters(), strict=True)]
    assert any(not torch.equal(*pair) for pair in zip(first, network.parameters(), strict=True))
    for found, expected in zip(teacher.parameters(), average, strict=True):
        torch.testing.assert_close(found, expected)
    assert all(torch.equal(*pair) for pair in zip(start.parameters(), first, strict=True))
    assert {norm.training for copy in (teacher, start) for norm in batch_norms(copy)} == {batch_norm == "train"}


def setup(stop_after: int | None = None, weights: int = 0) -> TrainingSetup:
    """A training with two batches for each update; Ctrl-C or the like comes after an update."""
    return interruptible(session(method(accumulate=2), weights), batch, 12, stop_after)


@pytest.mark.parametrize("stop_after", [2, 4])
def test_an_interrupted_training_ends_with_the_same_bytes(tmp_path: Path, stop_after: int) -> None:
    """The state after iteration 2 or 4 has all that the rest depends on: the resumed training begins with other weights."""
    undisturbed = train(setup(), tmp_path / "a", "f", 2)
    with pytest.raises(KeyboardInterrupt):
        train(setup(stop_after), tmp_path / "b", "f", 2)
    torch.rand(7)  # whatever was drawn meanwhile
    resumed = train(setup(weights=1), tmp_path / "b", "f", 2)
    assert resumed.history == undisturbed.history
    states = [load_state(tmp_path / folder / "state.pt") for folder in ("a", "b")]
    assert states[0] is not None and states[1] is not None
    assert set(states[0]["modules"]) == {"network", "teacher", "start", "prototypes"}
    assert states[0]["modules"]["prototypes"]["image_count"].max() > 12
    for name, module in states[0]["modules"].items():
        for key, value in module.items():
            assert torch.equal(value, states[1]["modules"][name][key]), f"{name}.{key}"


def test_a_plan_follows_its_step_and_counts_both_copies() -> None:
    passes = NetworkPasses(SMALL, CATEGORIES, Compute())
    sizes: Any = {"source": (32, 64), "target": (32, 64)}
    step = passes.of_step(method(), sizes)
    cost = passes.of_batch((2, 3, 32, 64))
    blur = 2 * 2 * 3 * 25 * (32 * 64)  # of no image, of one or of both
    beside = step.flops - 3 * (cost.forward + cost.backward) - 2 * cost.forward
    assert step.note == "" and beside in (0, blur // 2, blur)
    prototypes = CATEGORIES * CHANNELS * 4 + CATEGORIES * 8
    assert step.module_bytes == 3 * bytes_of(passes.network) + prototypes
