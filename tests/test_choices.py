"""Every reading of the paper that a configuration may choose, and every way to use the machine, does what it says."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from miniature import Miniature, at_cells
from torch import Tensor
from torch.nn import functional

from caguda.artifacts.anchors import load_anchors
from caguda.artifacts.checkpoint import load_checkpoint
from caguda.artifacts.state import load_state
from caguda.classes import IGNORE, class_table
from caguda.datasets.frame import label_file
from caguda.datasets.io import read_image, read_label
from caguda.datasets.loader import TrainingFrames, training_batches
from caguda.datasets.manifest import read_manifest
from caguda.networks.layers.batch_norm import freeze
from caguda.runs import method_of
from caguda.stages.labelling import open_labelling
from caguda.stages.optimisers import build_optimiser
from caguda.stages.runtime import restore_network
from caguda.stages.training_frames import open_frames

CPU = torch.device("cpu")
ONLY_DISTANCE = {"distance": 1.0, "anchor_cross_entropy": 0.0, "probability_cross_entropy": 0.0}


def first_terms(mini: Miniature, elsewhere: Miniature, weights: dict[str, float], **keys: Any) -> dict[str, float]:
    """The loss terms of the first iteration of a stage."""
    one = {"like": "cag", "stages": None, "iterations": 1, "weights": weights}
    settings, labels = elsewhere.configuration(runs__r=one | keys), mini.folder / "labels" / "labels.json"
    _, description = load_checkpoint(elsewhere.stage("s", settings, mini.weights("warmup"), labels, "r"))
    (terms,) = description["metrics"]["history"]
    return {name: value for name, value in terms.items() if name != "iteration"}


def first_batch(mini: Miniature) -> dict[str, Any]:
    """What the network says of the first batch of both domains, with all label maps."""
    settings = mini.configuration()
    method = method_of(settings, "cag/stage1")
    frames = open_frames(settings, mini.manifest, [], method)
    network, _ = restore_network(mini.weights("warmup"), CPU, class_table(settings))
    freeze(network.train())
    store = open_labelling(mini.folder / "labels" / "labels.json")

    def maps(index: int) -> dict[str, Tensor]:
        row = store.read(index)
        return {"a": torch.from_numpy(row.anchor_label), "p": torch.from_numpy(row.probability_label)}

    source = frames.training("source", method, "stage 1", 0, frames.truth("source"))
    target = TrainingFrames(frames.manifest.frames("target"), maps, method.target_augmentation, 0, "stage 1 target")
    batch, other = (next(training_batches(domain, method.batch_size, 0, 1, 0)) for domain in (source, target))
    with torch.inference_mode():
        features, logits, _ = network(batch["image"] / 255)
        other_features, other_logits, _ = network(other["image"] / 255)
    return {
        "source": (features, logits, batch["label"]), "target": (other_features, other_logits, other["a"]),
        "probability": other["p"],
    }  # fmt: skip


def by_pixel(features: Tensor, labels: Tensor, vectors: Tensor, power: int) -> list[float]:
    small = at_cells(labels)
    places = (small != IGNORE).nonzero().tolist()
    return [float((features[n, :, y, x] - vectors[int(small[n, y, x])]).norm()) ** power for n, y, x in places]


@pytest.mark.parametrize("unit", ["absolute", "mean_anchor_distance"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("distance", "power"), [("l2", 1), ("squared_l2", 2)])
def test_distance_reduction_and_unit(
    mini: Miniature, elsewhere: Miniature, distance: str, power: int, reduction: str, unit: str
) -> None:
    found = first_terms(mini, elsewhere, ONLY_DISTANCE, distance={"norm": distance, "unit": unit}, reduction=reduction)
    anchors, _ = load_anchors(mini.folder / "labels" / "anchors.h5")
    scale = anchors.mean_distance**power if unit == "mean_anchor_distance" else 1.0
    seen = first_batch(mini)
    for domain in ("source", "target"):
        features, _, labels = seen[domain]
        values = by_pixel(features, labels, torch.from_numpy(anchors.vectors), power)
        expected = np.sum(values) / (len(values) if reduction == "mean" else 1) / scale
        assert found[f"{domain}_distance"] == pytest.approx(expected, rel=1e-4)
    _, logits, labels = seen["source"]
    enlarged = functional.interpolate(logits, labels.shape[-2:], mode="bilinear")
    expected = functional.cross_entropy(enlarged, labels.long(), ignore_index=IGNORE, reduction=reduction)
    assert found["source_cross_entropy"] == pytest.approx(float(expected), rel=1e-5)


def test_distance_pixels_and_class_means(mini: Miniature, elsewhere: Miniature) -> None:
    anchors, _ = load_anchors(mini.folder / "labels" / "anchors.h5")
    vectors = torch.from_numpy(anchors.vectors)
    seen = first_batch(mini)
    features, logits, labels = seen["source"]
    small = at_cells(labels)
    correct = small.where(logits.argmax(1) == small, IGNORE)
    kept = correct.repeat_interleave(4, 1).repeat_interleave(4, 2)
    found = first_terms(mini, elsewhere, ONLY_DISTANCE, distance={"unit": "absolute", "pixels": "correct"})
    expected = np.mean(by_pixel(features, kept, vectors, 1))
    assert found["source_distance"] == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx(np.mean(by_pixel(features, labels, vectors, 1)), rel=1e-2)
    found = first_terms(mini, elsewhere, ONLY_DISTANCE, distance={"unit": "absolute", "norm": "class_mean"})
    pairs = []
    for image, truth in zip(features, small, strict=True):
        for category in range(20):
            member = truth == category
            if member.sum() >= 10:
                value = functional.smooth_l1_loss(image[:, member].mean(1), vectors[category])
                assert value < 5
                pairs.append(10 * float(value))
    assert found["source_distance"] == pytest.approx(np.mean(pairs), rel=1e-4)


@pytest.mark.parametrize("rule", ["anchor", "probability"])
def test_whose_labels_the_targets_distance_has(mini: Miniature, elsewhere: Miniature, rule: str) -> None:
    anchors, _ = load_anchors(mini.folder / "labels" / "anchors.h5")
    seen = first_batch(mini)
    features, _, anchor = seen["target"]
    labels = {"anchor": anchor, "probability": seen["probability"]}
    vectors = torch.from_numpy(anchors.vectors)
    expected = {name: np.mean(by_pixel(features, label, vectors, 1)) for name, label in labels.items()}
    found = first_terms(mini, elsewhere, ONLY_DISTANCE, distance={"unit": "absolute", "target_labels": rule})
    assert found["target_distance"] == pytest.approx(expected[rule], rel=1e-4)
    assert expected["anchor"] != pytest.approx(expected["probability"], rel=1e-3)


def test_target_resolution(mini: Miniature, elsewhere: Miniature) -> None:
    weights = {"distance": 0.0, "anchor_cross_entropy": 1.0, "probability_cross_entropy": 1.0}
    seen = first_batch(mini)
    _, logits, anchor = seen["target"]
    enlarged = functional.interpolate(logits, anchor.shape[-2:], mode="bilinear")
    for name, label in (("anchor", anchor), ("probability", seen["probability"])):
        at_image = functional.cross_entropy(enlarged, label.long(), ignore_index=IGNORE)
        at_features = functional.cross_entropy(logits, at_cells(label).long(), ignore_index=IGNORE)
        for resolution, expected in (("image", at_image), ("features", at_features)):
            found = first_terms(mini, elsewhere, weights, target_resolution=resolution)
            assert found[f"{name}_cross_entropy"] == pytest.approx(float(expected), rel=1e-5)
            shutil.rmtree(elsewhere.folder / "s")


@pytest.mark.parametrize("pixels", ["all", "correct"])
@pytest.mark.parametrize(("mean", "least"), [("pixels", 1), ("images", 1), ("images", 3)])
def test_anchors_of_every_kind(mini: Miniature, elsewhere: Miniature, pixels: str, mean: str, least: int) -> None:
    settings = elsewhere.configuration(anchors={"pixels": pixels, "mean": mean, "min_pixels": least})
    output = elsewhere.folder / "anchors.h5"
    elsewhere.anchors(output, settings, mini.weights("pretrain"))
    anchors, _ = load_anchors(output)
    table = class_table(settings)
    network, _ = restore_network(mini.weights("pretrain"), CPU, table)
    members: list[list[np.ndarray]] = [[] for _ in range(20)]
    for frame in read_manifest(mini.manifest).frames("source"):
        with torch.inference_mode():
            features, logits, _ = network((read_image(frame.image) / 255)[None])
        truth = at_cells(read_label(label_file(frame), table)[None])[0].numpy()
        said = logits[0].argmax(0).numpy()
        for category in range(20):
            member = (truth == category) & ((said == category) if pixels == "correct" else True)
            if member.any():
                members[category].append(features[0].double().numpy()[:, member])
    for category, images in enumerate(members):
        images = [image for image in images if image.shape[1] >= least]
        assert anchors.pixel_count[category] == sum(image.shape[1] for image in images)
        if images:
            means = [image.mean(1) for image in images]
            expected = np.mean(means, 0) if mean == "images" else np.concatenate(images, 1).mean(1)
            np.testing.assert_allclose(anchors.vectors[category], expected, rtol=1e-4, atol=1e-5)
        else:
            assert np.isnan(anchors.vectors[category]).all()


@pytest.mark.parametrize(("sees", "channels"), [("softmax", 20), ("features", 8)])
def test_what_the_discriminator_sees(mini: Miniature, elsewhere: Miniature, sees: str, channels: int) -> None:
    settings = elsewhere.configuration(runs__warmup__discriminator__input=sees, runs__warmup__iterations=2)
    elsewhere.train("w", "warmup", settings, start=mini.weights("pretrain"))
    state = load_state(elsewhere.folder / "w" / "state" / "state.pt")
    assert state is not None and state["modules"]["discriminator"]["0.weight"].shape[1] == channels


def test_accumulated_batches_are_averaged(mini: Miniature, elsewhere: Miniature) -> None:
    """Two updates of SGD by hand, each with the mean gradient of three batches."""
    optimiser = {"name": "sgd", "learning_rate": 0.05, "weight_decay": 0.0}
    changes = {"iterations": 2, "accumulate": 3, "batch_norm": "frozen", "optimiser": optimiser}
    settings = elsewhere.configuration(**{f"runs__pretrain__{name}": value for name, value in changes.items()})
    weights = elsewhere.train("p", "pretrain", settings)
    method = method_of(settings, "pretrain")
    torch.manual_seed(0)
    network = settings.network.build(class_table(settings).count)
    freeze(network.train())
    sgd = build_optimiser(network, method.optimiser, 0.05)
    frames = open_frames(settings, mini.manifest, [], method)
    source = frames.training("source", method, "pretrain", 0, frames.truth("source"))
    batches = list(training_batches(source, method.batch_size, 0, 6, 0))
    assert len(batches) == 6
    for place, sample in enumerate(batches):
        enlarged = functional.interpolate(network(sample["image"] / 255)[1], (32, 64), mode="bilinear")
        (functional.cross_entropy(enlarged, sample["label"].long(), ignore_index=IGNORE) / 3).backward()
        if place % 3 == 2:
            sgd.param_groups[0]["lr"] = 0.05 * (1 - (place // 3) / 2) ** 0.9
            sgd.step()
            sgd.zero_grad()
    for name, value in load_checkpoint(weights)[0].items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_a_schedule_longer_than_the_training(elsewhere: Miniature, mini: Miniature) -> None:
    """The learning rate of the last iteration: after two iterations of a schedule of two or four, and after 12 of 16."""
    for length in (None, 4):
        optimiser = {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.0, "poly_iterations": length}
        settings = elsewhere.configuration(runs__pretrain__iterations=2, runs__pretrain__optimiser=optimiser)
        elsewhere.train(f"{length}", "pretrain", settings)
        state = load_state(elsewhere.folder / f"{length}" / "state" / "state.pt")
        assert state is not None
        rate = state["optimisers"]["network"]["param_groups"][0]["lr"]
        assert rate == pytest.approx(0.01 * (1 - 1 / (length or 2)) ** 0.9)
    optimiser = {"name": "sgd", "learning_rate": 0.01, "poly_iterations": 16}
    control = elsewhere.configuration(runs__control__optimiser=optimiser)
    elsewhere.train("c", "control", control, start=mini.weights("warmup"))
    state = load_state(elsewhere.folder / "c" / "state" / "state.pt")
    assert state is not None and state["progress"]["iteration"] == 12
    assert state["optimisers"]["network"]["param_groups"][0]["lr"] == pytest.approx(0.01 * (1 - 11 / 16) ** 0.9)


def test_activations_computed_again_change_no_bit(mini: Miniature, elsewhere: Miniature) -> None:
    settings = elsewhere.configuration(compute__recompute_activations=True)
    assert elsewhere.train("p", "pretrain", settings).read_bytes() == mini.weights("pretrain").read_bytes()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision(mini: Miniature, elsewhere: Miniature, precision: str) -> None:
    """Weights stay float32 and close to those of float32, and a training that was interrupted ends with the same bits."""
    settings = elsewhere.configuration(compute__precision=precision)
    weights, description = load_checkpoint(elsewhere.train("p", "pretrain", settings))
    single, reference = load_checkpoint(mini.weights("pretrain"))
    assert all(value.dtype == single[name].dtype for name, value in weights.items())
    first, other = (made["metrics"]["history"] for made in (description, reference))
    assert first != other
    assert first[0]["source_cross_entropy"] == pytest.approx(other[0]["source_cross_entropy"], rel=0.02)
    state = load_state(elsewhere.folder / "p" / "state" / "state.pt")
    assert state is not None and bool(state["scaler"]) == (precision == "float16")
    again = replace(elsewhere, folder=elsewhere.folder / "again")
    again.folder.mkdir()
    shutil.copy(elsewhere.manifest, again.manifest)
    with pytest.MonkeyPatch.context() as patch:
        steps = iter(range(7))
        update = __import__("caguda.stages.training", fromlist=["update_weights"]).update_weights
        patch.setattr("caguda.stages.training.update_weights", lambda setup: (next(steps), update(setup)))
        with pytest.raises(StopIteration):
            again.train("p", "pretrain", settings)
    assert again.train("p", "pretrain", settings).read_bytes() == elsewhere.weights("p").read_bytes()


@pytest.mark.slow
def test_a_compiled_network_trains_alike(
    mini: Miniature, elsewhere: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cache of its own: a compiler that was killed leaves cut files in the one that all programs of a user share."""
    if not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler on a CPU, found no g++")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    settings = elsewhere.configuration(compute__compile=True)
    _, description = load_checkpoint(elsewhere.train("p", "pretrain", settings))
    _, reference = load_checkpoint(mini.weights("pretrain"))
    for first, other in zip(description["metrics"]["history"], reference["metrics"]["history"], strict=True):
        assert first == pytest.approx(other, rel=1e-3)
