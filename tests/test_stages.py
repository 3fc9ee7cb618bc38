"""The stages in miniature: every artifact equals what a loop over frames and pixels finds."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from miniature import UNSEEN, Miniature, at_cells, label_files
from torch import Tensor, nn
from torch.nn import functional

from caguda.artifacts.anchors import load_anchors
from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.checkpoint import load_checkpoint
from caguda.artifacts.state import load_state
from caguda.classes import IGNORE, class_table
from caguda.config_run import Method
from caguda.datasets.frame import Frame, label_file
from caguda.datasets.io import read_image, read_label
from caguda.datasets.loader import TrainingFrames, training_batches
from caguda.datasets.manifest import SetName, read_manifest
from caguda.equations.labels import by_anchor, by_probability
from caguda.errors import UserError
from caguda.networks.layers.batch_norm import estimate_statistics, freeze
from caguda.networks.layers.discriminator import discriminator
from caguda.networks.layers.inputs import IMAGENET_MEAN, IMAGENET_STD
from caguda.networks.small import SmallNetwork
from caguda.recorded_settings import settings_of_run
from caguda.runs import method_of
from caguda.stages import train as stage
from caguda.stages.check import check
from caguda.stages.diagnose import diagnose
from caguda.stages.evaluate import evaluate
from caguda.stages.evidence import write_part
from caguda.stages.evidence_store import create_evidence
from caguda.stages.figure import draw_figure
from caguda.stages.generate import generate
from caguda.stages.labelling import open_labelling
from caguda.stages.optimisers import build_optimiser
from caguda.stages.runtime import restore_network
from caguda.stages.train import train_model, training_fingerprint
from caguda.stages.training_frames import open_frames

CPU = torch.device("cpu")
Folder = pytest.TempPathFactory


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def frames_of(mini: Miniature, name: SetName) -> list[Frame]:
    return read_manifest(mini.manifest).frames(name)


def outputs(mini: Miniature, weights: Path, frame: Frame) -> tuple[Tensor, Tensor]:
    """Features and logits of one frame."""
    network, _ = restore_network(weights, CPU, class_table(mini.configuration()))
    pixels = read_image(frame.image).double() / 255
    with torch.inference_mode():
        features, logits, _ = network(pixels.float()[None])
    return features, logits


def truths(mini: Miniature, frame: Frame, at: Callable[[Tensor], Tensor] = lambda labels: labels) -> np.ndarray:
    return at(read_label(label_file(frame), class_table(mini.configuration()))[None])[0].numpy()


def test_the_warm_up_moves_network_and_discriminator(mini: Miniature, elsewhere: Miniature) -> None:
    state = load_state(mini.folder / "warmup" / "state" / "state.pt")
    assert state is not None
    one = elsewhere.configuration(runs__warmup__iterations=1)
    elsewhere.train("one", "warmup", one, start=mini.weights("pretrain"))
    first = load_state(elsewhere.folder / "one" / "state" / "state.pt")
    assert first is not None
    for module in ("network", "discriminator"):
        names = [name for name in first["modules"][module] if name.endswith("weight")]
        assert all(not torch.equal(first["modules"][module][n], state["modules"][module][n]) for n in names)
    assert state["modules"]["discriminator"].keys() == {f"{i}.{w}" for i in (0, 2, 4, 6, 8) for w in ("weight", "bias")}
    source_only, _ = load_checkpoint(mini.weights("pretrain"))
    warm, description = load_checkpoint(mini.weights("warmup"))
    assert all(not torch.equal(warm[name], source_only[name]) for name in warm if name.endswith("weight"))
    assert warm.keys() == source_only.keys(), "the discriminator is no part of the checkpoint"
    assert description["metrics"]["history"][-1].keys() == {
        "iteration", "source_cross_entropy", "adversarial", "discriminator"}  # fmt: skip


def test_the_adversarial_weight_decides_how_much_the_network_is_moved(mini: Miniature, elsewhere: Miniature) -> None:
    """Without it the target leaves no trace; with it, the discriminator is deceived. Frozen statistics, to see that."""
    found, deceived = {}, {}
    for weight in (0.0, 500.0):
        settings = elsewhere.configuration(
            runs__warmup__weight=weight, runs__warmup__batch_norm="frozen", runs__warmup__target_statistics=False
        )
        weights = elsewhere.train(f"w{weight}", "warmup", settings, start=mini.weights("pretrain"))
        found[weight], description = load_checkpoint(weights)
        deceived[weight] = description["metrics"]["history"][-1]["adversarial"]
    stepwise = source_only_steps(elsewhere, method_of(settings, "warmup"), "warmup", mini.weights("pretrain"))
    assert close(found[0.0], stepwise) and not close(found[500.0], stepwise)
    assert deceived[500.0] < deceived[0.0]


def source_frames(mini: Miniature, training: Method, order: str) -> TrainingFrames:
    """The source's frames with their truth, in the order of a run."""
    frames = open_frames(mini.configuration(), mini.manifest, (), training)
    return frames.training("source", training, order, 0, frames.truth("source"))


def target_frames(mini: Miniature, training: Method, order: str, maps: Any = None) -> TrainingFrames:
    """The target's frames with these label maps, in the order of a run."""
    return TrainingFrames(frames_of(mini, "target"), maps, training.augmentation_of("target"), 0, f"{order} target")


def source_only_steps(mini: Miniature, training: Method, order: str, initial: Path) -> dict[str, Tensor]:
    """The weights after the same source batches and nothing but their cross entropy, step by step."""
    network, _ = restore_network(initial, CPU, class_table(mini.configuration()))
    freeze(network.train())
    optimiser = build_optimiser(network, training.optimiser, training.optimiser.learning_rate)
    batches = training_batches(source_frames(mini, training, order), training.batch_size, 0, training.iterations, 0)
    for iteration, sample in enumerate(batches):
        logits = network(sample["image"] / 255)[1]
        enlarged = functional.interpolate(logits, sample["label"].shape[-2:], mode="bilinear")
        loss = functional.cross_entropy(enlarged, sample["label"].long(), ignore_index=IGNORE)
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = training.optimiser.learning_rate * (1 - iteration / training.iterations) ** 0.9
        optimiser.step()
        optimiser.zero_grad()
    return {key: value.detach() for key, value in network.state_dict().items()}


def close(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.allclose(first[name].float(), second[name].float(), rtol=1e-3, atol=2e-5) for name in first)


def test_a_stage_without_loss_weights_is_source_only(mini: Miniature, elsewhere: Miniature) -> None:
    settings = elsewhere.configuration()
    labels = mini.folder / "labels" / "labels.json"
    weights, description = load_checkpoint(
        elsewhere.stage("nothing", settings, mini.weights("warmup"), labels, "nothing/stage1")
    )
    stepwise = source_only_steps(elsewhere, method_of(settings, "nothing/stage1"), "stage 1", mini.weights("warmup"))
    assert close(weights, stepwise)
    assert not close(load_checkpoint(mini.weights("stage"))[0], stepwise), "the comparison would see a difference"
    terms = {"iteration", "source_cross_entropy", "source_distance", "target_distance", "anchor_cross_entropy",
             "probability_cross_entropy"}  # fmt: skip
    assert all(entry.keys() == terms for entry in description["metrics"]["history"])


def by_hand(
    training: Method, source: TrainingFrames, target: TrainingFrames, modules: list[nn.Module], loss: Any
) -> None:
    """Train on `loss(source, target)`: the network's objective and, where it is there, what the discriminator minimises."""
    optimisers = [build_optimiser(module, training.optimiser, training.optimiser.learning_rate) for module in modules]
    streams = [training_batches(s, training.batch_size, 0, training.iterations, 0) for s in (source, target)]
    for iteration, batch in enumerate(zip(*streams, strict=True)):
        for module, optimiser, objective in zip(modules, optimisers, loss(*batch), strict=False):
            weights = [weight for weight in module.parameters() if weight.requires_grad]
            gradients = torch.autograd.grad(objective, weights, retain_graph=True)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            for group in optimiser.param_groups:
                group["lr"] = training.optimiser.learning_rate * (1 - iteration / training.iterations) ** 0.9
        for optimiser in optimisers:
            optimiser.step()


def truth_loss(logits: Tensor, label: Tensor) -> Tensor:
    enlarged = functional.interpolate(logits, label.shape[-2:], mode="bilinear")
    return functional.cross_entropy(enlarged, label.long(), ignore_index=IGNORE)


def test_two_steps_of_the_warm_up_by_hand(mini: Miniature, elsewhere: Miniature) -> None:
    settings = elsewhere.configuration(
        runs__warmup__iterations=2, runs__warmup__weight=500.0, runs__warmup__batch_norm="frozen",
        runs__warmup__target_statistics=False,
    )  # fmt: skip
    weights = elsewhere.train("warmup", "warmup", settings, start=mini.weights("pretrain"))
    network, _ = restore_network(mini.weights("pretrain"), CPU, class_table(settings))
    freeze(network.train())
    torch.manual_seed(0)
    judge = discriminator(20, 8)

    def loss(source: Any, target: Any) -> tuple[Tensor, Tensor]:
        logits, other = network(source["image"] / 255)[1], network(target["image"] / 255)[1]
        on_source, on_target = judge(logits.softmax(1).detach()), judge(other.softmax(1).detach())
        deceived = judge(other.softmax(1))
        bce = functional.binary_cross_entropy_with_logits
        told = bce(on_source, torch.ones_like(on_source)) / 2 + bce(on_target, torch.zeros_like(on_target)) / 2
        return truth_loss(logits, source["label"]) + 500 * bce(deceived, torch.ones_like(deceived)), told

    training = method_of(settings, "warmup")
    source, target = source_frames(mini, training, "warmup"), target_frames(mini, training, "warmup")
    by_hand(training, source, target, [network, judge], loss)
    assert close(load_checkpoint(weights)[0], network.state_dict())
    state = load_state(elsewhere.folder / "warmup" / "state" / "state.pt")
    assert state is not None and close(state["modules"]["discriminator"], judge.state_dict())


def test_two_steps_of_a_stage_by_hand(mini: Miniature, elsewhere: Miniature) -> None:
    """Eq. 12 with three different weights, written out; distances in units of the anchors' mean distance."""
    chosen = {"distance": 0.2, "anchor_cross_entropy": 0.5, "probability_cross_entropy": 0.9}
    settings = elsewhere.configuration(
        runs__cag__iterations=2, runs__cag__weights=chosen, runs__cag__target_augmentation={"flip": True}
    )
    labels = mini.folder / "labels" / "labels.json"
    weights = elsewhere.stage("stage", settings, mini.weights("warmup"), labels)
    anchors, _ = load_anchors(labels.with_name("anchors.h5"))
    store = open_labelling(labels)
    network, _ = restore_network(mini.weights("warmup"), CPU, class_table(settings))
    freeze(network.train())

    def distance(features: Tensor, label: Tensor) -> Tensor:
        vectors, found = torch.from_numpy(anchors.vectors), []
        for n, y, x in (label != IGNORE).nonzero().tolist():
            found.append((features[n, :, y, x] - vectors[int(label[n, y, x])]).norm())
        return torch.stack(found).mean() / anchors.mean_distance

    def loss(source: Any, target: Any) -> tuple[Tensor, ...]:
        features, logits, _ = network(source["image"] / 255)
        other, other_logits, _ = network(target["image"] / 255)
        anchor, probability = at_cells(target["a"]).long(), at_cells(target["p"]).long()
        total = truth_loss(logits, source["label"])
        total = total + 0.2 * (distance(features, at_cells(source["label"])) + distance(other, anchor))
        total = total + 0.5 * functional.cross_entropy(other_logits, anchor, ignore_index=IGNORE)
        return (total + 0.9 * functional.cross_entropy(other_logits, probability, ignore_index=IGNORE),)

    def maps(index: int) -> dict[str, Tensor]:
        row = store.read(index)
        return {"a": torch.from_numpy(row.anchor_label), "p": torch.from_numpy(row.probability_label)}

    training = method_of(settings, "cag/stage1")
    source, target = source_frames(mini, training, "stage 1"), target_frames(mini, training, "stage 1", maps)
    by_hand(training, source, target, [network], loss)
    assert close(load_checkpoint(weights)[0], network.state_dict())


@pytest.mark.parametrize("weight", ["distance", "anchor_cross_entropy", "probability_cross_entropy"])
def test_every_loss_weight_has_an_effect(mini: Miniature, elsewhere: Miniature, weight: str) -> None:
    nothing = {"distance": 0, "anchor_cross_entropy": 0, "probability_cross_entropy": 0}
    labels = mini.folder / "labels" / "labels.json"
    found = []
    for value in (0, 1):
        settings = elsewhere.configuration(runs__cag__weights=nothing | {weight: value}, runs__cag__iterations=1)
        found.append(load_checkpoint(elsewhere.stage(f"{value}", settings, mini.weights("warmup"), labels))[0])
    assert not close(*found)


def test_frozen_statistics_stay_and_target_statistics_replace_them(mini: Miniature, elsewhere: Miniature) -> None:
    warm, _ = load_checkpoint(mini.weights("warmup"))
    stage, _ = load_checkpoint(mini.weights("stage"))
    norms = [name.removesuffix("running_mean") for name in warm if name.endswith("running_mean")]
    assert len(norms) == 14
    for norm in norms:
        assert all(torch.equal(warm[norm + part], stage[norm + part]) for part in ("running_var", "weight", "bias"))
    settings = elsewhere.configuration(runs__cag__target_statistics=True)
    labels = mini.folder / "labels" / "labels.json"
    other, _ = load_checkpoint(elsewhere.stage("s", settings, mini.weights("warmup"), labels))
    for name in warm:
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(stage[name], other[name]) == ("running_" not in name)
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    stem = torch.stack([
        nn.functional.conv2d((_input(frame) - mean) / std, other["encoder.stem.0.0.weight"], stride=2, padding=1)[0]
        for frame in frames_of(mini, "target")
    ])  # fmt: skip
    torch.testing.assert_close(other["encoder.stem.0.1.running_mean"], stem.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other["encoder.stem.0.1.running_var"], stem.var((0, 2, 3)), rtol=1e-3, atol=1e-4)


def _input(frame: Frame) -> Tensor:
    return (read_image(frame.image) / 255)[None]


@pytest.mark.parametrize("run", ["pretrain", "warmup"])
def test_anchors_are_the_mean_features_of_all_source_pixels(mini: Miniature, elsewhere: Miniature, run: str) -> None:
    weights, output = mini.weights(run), elsewhere.folder / "anchors.h5"
    elsewhere.anchors(output, mini.configuration(), weights)
    anchors, attributes = load_anchors(output)
    network, _ = restore_network(weights, CPU, class_table(mini.configuration()))
    if run == "warmup":  # it has the target's statistics: the source passes with its own
        estimate_statistics(network, torch.cat([_input(frame) for frame in frames_of(mini, "source")]).split(8))
    vectors: list[list[np.ndarray]] = [[] for _ in range(20)]
    for frame in frames_of(mini, "source"):
        with torch.inference_mode():
            features = network(_input(frame)).features
        values = features[0].double().numpy()
        for (y, x), category in np.ndenumerate(truths(mini, frame, at_cells)):
            if category != IGNORE:
                vectors[category].append(values[:, y, x])
    for category, found in enumerate(vectors):
        assert anchors.pixel_count[category] == len(found)
        if found:
            mean = np.mean(found, axis=0)
            np.testing.assert_allclose(anchors.vectors[category], mean, rtol=1e-4, atol=1e-5)
            spread = np.sqrt(np.mean(np.sum((np.array(found) - mean) ** 2, axis=1)))
            np.testing.assert_allclose(anchors.spread[category], spread, rtol=1e-3, atol=1e-4)
    present = [c for c in range(20) if vectors[c]]
    distances = [np.linalg.norm(anchors.vectors[a] - anchors.vectors[b]) for a in present for b in present if a < b]
    assert anchors.mean_distance == pytest.approx(np.mean(distances), rel=1e-5)
    assert attributes["categories"][-1] == UNSEEN


def test_a_category_that_the_source_lacks_is_absent_and_never_a_label(
    mini: Miniature, elsewhere: Miniature, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere.anchors(elsewhere.folder / "anchors.h5", mini.configuration(), mini.weights("warmup"))
    assert f"{UNSEEN}: absent" in capsys.readouterr().out
    anchors, _ = load_anchors(mini.folder / "labels" / "anchors.h5")
    assert not anchors.present[19] and np.isnan(anchors.vectors[19]).all() and anchors.pixel_count[19] == 0
    store = open_labelling(mini.folder / "labels" / "labels.json")
    for index in range(store.count):
        row = store.read(index)
        assert not (row.nearest_anchor == 19).any() and not (row.anchor_label == 19).any()
        assert anchors.present[np.unique(row.nearest_anchor)].all()
    summary = json.loads((mini.folder / "labels" / "labels.json").read_text())
    assert summary["per_category"][19]["anchor"] == 0


def test_one_category_is_too_few_for_anchors(elsewhere: Miniature, mini: Miniature) -> None:
    only = [{"id": 7, "name": "road", "color": [1, 1, 1]}, {"id": 200, "name": UNSEEN, "color": [1, 2, 3]}]
    settings = elsewhere.configuration(classes=only, ignore=[*range(7), *range(8, 35), 255])
    check(settings, elsewhere.manifest)
    weights = elsewhere.train("few", "pretrain", settings)
    with pytest.raises(UserError, match="two categories or more"):
        elsewhere.anchors(elsewhere.folder / "anchors.h5", settings, weights)
    assert not (elsewhere.folder / "anchors.h5").exists()


def test_labels_are_those_of_the_method_for_every_frame(mini: Miniature) -> None:
    anchors, _ = load_anchors(mini.folder / "labels" / "anchors.h5")
    vectors, present = torch.from_numpy(anchors.vectors), torch.from_numpy(anchors.present)
    margin = 0.05 * anchors.mean_distance
    store = open_labelling(mini.folder / "labels" / "labels.json")
    frames = frames_of(mini, "target")
    assert list(store.image_ids) == [frame.id for frame in frames] and store.shape == (8, 16)
    assert (store.margin, store.p0) == (pytest.approx(margin, rel=1e-12), 0.3)
    active = np.zeros(4, int)
    for index, frame in enumerate(frames):
        features, logits = outputs(mini, mini.weights("warmup"), frame)
        anchored, probable = by_anchor(features, vectors, present, margin), by_probability(logits, 0.3)
        row = store.read(index)
        distance = (features[0].double()[None] - vectors.double()[:, :, None, None]).square().sum(1).sqrt()
        first, second = distance.nan_to_num(torch.inf).sort(0).values[:2].numpy()
        clear = second - first > 1e-4
        assert clear.mean() > 0.95
        assert (row.nearest_anchor == distance.nan_to_num(torch.inf).argmin(0).numpy())[clear].all()
        np.testing.assert_allclose(row.margin, second - first, rtol=2e-3, atol=1e-3)
        np.testing.assert_allclose(row.confidence, logits.softmax(1).amax(1)[0], rtol=2e-3, atol=1e-4)
        sure = np.abs(second - first - margin) > 1e-4
        expected = anchored.active[0].numpy() + 2 * probable.active[0].numpy()
        assert (row.active == expected)[sure].mean() > 0.995
        assert (row.predicted == probable.predicted[0].numpy()).mean() > 0.995
        assert (row.anchor_label == np.where(row.active & 1, row.nearest_anchor, IGNORE)).all()
        assert (row.probability_label == np.where(row.active & 2, row.predicted, IGNORE)).all()
        active += np.bincount(row.active.ravel(), minlength=4)
    assert (active > 0).all(), "every combination of the two rules occurs"


def test_a_margin_may_be_absolute(mini: Miniature, elsewhere: Miniature) -> None:
    settings = elsewhere.configuration(runs__cag__pseudo_labels__anchor={"margin": 0.125, "unit": "absolute"})
    labels = elsewhere.label("absolute", settings, mini.weights("warmup"))
    assert json.loads(labels.read_text())["margin"] == 0.125


@pytest.fixture(scope="module")
def evaluation(mini: Miniature) -> dict[str, Any]:
    output = mini.folder / "evaluation.json"
    evaluate(mini.configuration(), mini.manifest, mini.weights("pretrain"), output)
    content: dict[str, Any] = json.loads(output.read_text())
    return content


def test_evaluation_counts_every_pixel(mini: Miniature, evaluation: dict[str, Any]) -> None:
    confusion = np.zeros((20, 20), int)
    for frame in frames_of(mini, "evaluation"):
        _, logits = outputs(mini, mini.weights("pretrain"), frame)
        predicted = functional.interpolate(logits, (32, 64), mode="bilinear")[0].argmax(0).numpy()
        for truth, category in zip(truths(mini, frame).ravel(), predicted.ravel(), strict=True):
            if truth != IGNORE:
                confusion[truth, category] += 1
    assert np.abs(confusion - np.array(evaluation["as_trained"]["confusion"])).sum() <= 4, "but for ties of rounding"
    assert np.count_nonzero(confusion.sum(0)) > 1
    assert (evaluation["model"], evaluation["seed"], evaluation["frames"]) == ("pretrain", 0, 9)


@pytest.mark.parametrize("kind", ["as_trained", "target_statistics"])
def test_iou_is_that_of_the_cityscapes_scripts(evaluation: dict[str, Any], kind: str) -> None:
    """getIouScoreForLabel: tp / (tp + fp + fn) with void left out; nan without any, and left out of the mean."""
    scores = evaluation[kind]
    matrix = np.array(scores["confusion"])
    expected = []
    for label in range(20):
        tp = int(matrix[label, label])
        fn = int(matrix[label, :].sum()) - tp
        fp = int(matrix[[i for i in range(20) if i != label], label].sum())
        expected.append(None if tp + fp + fn == 0 else tp / (tp + fp + fn))
    assert scores["iou"] == pytest.approx(expected)
    assert scores["miou"] == pytest.approx(np.mean([value for value in expected if value is not None]))
    assert kind == "target_statistics" or None in scores["iou"]


def test_target_statistics_are_those_of_the_training_images(mini: Miniature, evaluation: dict[str, Any]) -> None:
    network, _ = restore_network(mini.weights("pretrain"), CPU, class_table(mini.configuration()))
    estimate_statistics(network, [torch.cat([_input(frame) for frame in frames_of(mini, "target")])])
    predicted = torch.zeros(20)
    with torch.inference_mode():
        for frame in frames_of(mini, "evaluation"):
            logits = functional.interpolate(network(_input(frame))[1], (32, 64), mode="bilinear")
            categories = logits[0].argmax(0).numpy()[truths(mini, frame) != IGNORE]
            predicted += torch.from_numpy(np.bincount(categories, minlength=20))
    found = torch.tensor(evaluation["target_statistics"]["confusion"]).sum(0)
    assert float((found - predicted).abs().sum()) <= 8, "but for ties of rounding"
    assert evaluation["target_statistics"]["confusion"] != evaluation["as_trained"]["confusion"]
    before = digest(mini.weights("pretrain"))
    assert before == json.loads(mini.weights("pretrain").with_suffix(".json").read_text())["weights_sha256"]


def test_diagnosis_counts_every_pixel(mini: Miniature, elsewhere: Miniature) -> None:
    output = elsewhere.folder / "accuracy.json"
    diagnose_again(mini, mini.manifest, output)
    found = json.loads(output.read_text())["accuracy"]
    store = open_labelling(mini.folder / "labels" / "labels.json")
    kinds = ("anchor", "probability", "anchor_only", "nearest_anchor_all", "predicted_all")
    pairs: dict[str, list[tuple[int, int]]] = {kind: [] for kind in kinds}
    everything: list[int] = []
    for index, frame in enumerate(frames_of(mini, "target")):
        row = store.read(index)
        for (y, x), truth in np.ndenumerate(truths(mini, frame, at_cells)):
            if truth == IGNORE:
                continue
            everything.append(truth)
            pairs["nearest_anchor_all"].append((truth, row.nearest_anchor[y, x]))
            pairs["predicted_all"].append((truth, row.predicted[y, x]))
            if row.active[y, x] & 1:
                pairs["anchor"].append((truth, row.nearest_anchor[y, x]))
            if row.active[y, x] & 2:
                pairs["probability"].append((truth, row.predicted[y, x]))
            if row.active[y, x] == 1:
                pairs["anchor_only"].append((truth, row.nearest_anchor[y, x]))
    assert read_json(output)["images_with_truth"] == 8
    for kind in kinds:
        right = [truth for truth, label in pairs[kind] if truth == label]
        assert 0 < len(right) < len(pairs[kind])
        assert found[kind]["accuracy"] == pytest.approx(len(right) / len(pairs[kind]))
        assert found[kind]["coverage"] == pytest.approx(len(pairs[kind]) / len(everything))
        for category, scores in enumerate(found[kind]["per_category"]):
            labelled = [label for _, label in pairs[kind] if label == category]
            true = [truth for truth in everything if truth == category]
            precision = right.count(category) / len(labelled) if labelled else None
            recall = right.count(category) / len(true) if true else None
            assert (scores["precision"], scores["recall"]) == (pytest.approx(precision), pytest.approx(recall))


def diagnose_again(mini: Miniature, manifest: Path, output: Path) -> None:
    labels = mini.folder / "labels" / "labels.json"
    diagnose(mini.configuration(), manifest, labels.with_name("evidence.json"), label_files(labels), output)


def without_truth(mini: Miniature, folder: Path, known: int) -> Path:
    content = read_json(mini.manifest)
    for entry in content["target"]["frames"][known:]:
        entry["label"] = None
    path = folder / "unlabelled.json"
    write_json(path, content)
    return path


def test_diagnosis_is_null_where_no_truth_is_known(mini: Miniature, tmp_path: Path) -> None:
    diagnose_again(mini, without_truth(mini, tmp_path, 0), tmp_path / "a.json")
    found, whole = read_json(tmp_path / "a.json"), read_json(mini.folder / "labels" / "labels.json")
    assert found["images_with_truth"] == 0 and found["accuracy"] is None and whole["accuracy"] is not None
    assert all(found[key] == whole[key] for key in ("share", "per_category", "margin_quantiles", "pixels"))
    diagnose_again(mini, without_truth(mini, tmp_path, 3), tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text())["images_with_truth"] == 3


@pytest.fixture
def other_frames(mini: Miniature, tmp_path: Path) -> Iterator[Path]:
    """A manifest whose target has one frame less."""
    content = read_json(mini.manifest)
    del content["target"]["frames"][2]
    path = tmp_path / "other.json"
    write_json(path, content)
    yield path
    assert not list(tmp_path.glob("*.safetensors")) and not (tmp_path / "out").exists()


def test_labels_of_other_frames_are_refused(mini: Miniature, other_frames: Path, tmp_path: Path) -> None:
    settings, labels = mini.configuration(), mini.folder / "labels" / "labels.json"
    output, warm = tmp_path / "out", mini.weights("warmup")
    with pytest.raises(UserError, match=r"labels.* frames of .*other\.json"):
        replace(mini, folder=tmp_path / "run").folder.mkdir()
        shutil.copy(other_frames, tmp_path / "run" / "manifest.json")
        shutil.copy(other_frames, tmp_path / "run" / "other.json")
        run = Elsewhere(mini.root, tmp_path / "run")
        run.stage("stage", settings, warm, labels)
    evidence = labels.with_name("evidence.json")
    with pytest.raises(UserError, match=r"evidence.* frames of .*other\.json"):
        diagnose(settings, other_frames, evidence, label_files(labels), output)
    with pytest.raises(UserError, match=r"evidence.* frames of .*other\.json"):
        models = [mini.weights(name) for name in ("pretrain", "warmup", "stage")]
        chosen = mini.configuration(runs__cag__stages=1)
        draw_figure(chosen, other_frames, "cag", 0, models, output, evidence, label_files(labels))
    store = shutil.copytree(labels.with_name("evidence.zarr"), tmp_path / "evidence.zarr")
    with pytest.raises(UserError, match=r"evidence.* frames of .*other\.json"):
        write_part(settings, other_frames, warm, labels.with_name("anchors.h5"), store, 1, 1, output)


class Elsewhere(Miniature):
    """A miniature whose manifest is called other.json."""

    @property
    def manifest(self) -> Path:
        return self.folder / "other.json"


def test_target_frames_of_two_sizes_have_no_evidence(mini: Miniature, tmp_path: Path) -> None:
    content = read_json(mini.manifest)
    content["target"]["frames"][2]["width"] += 4
    write_json(tmp_path / "sizes.json", content)
    inputs = (tmp_path / "sizes.json", mini.weights("warmup"), mini.folder / "labels" / "anchors.h5")
    with pytest.raises(UserError, match="one size"):
        create_evidence(mini.configuration(), *inputs, tmp_path / "evidence.zarr", tmp_path / "out.json")
    assert not (tmp_path / "evidence.zarr").exists()


def test_features_of_another_size_than_the_stride_says_are_refused(
    mini: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmallNetwork, "feature_stride", 8)
    inputs = (mini.manifest, mini.weights("warmup"), mini.folder / "labels" / "anchors.h5")
    store = tmp_path / "evidence.zarr"
    create_evidence(mini.configuration(), *inputs, store, tmp_path / "created.json")
    with pytest.raises(
        UserError, match=r"evidence\.zarr: the features .* must be of \(4, 8\), .* found \(8, 16\); create"
    ):
        write_part(mini.configuration(), *inputs, store, 1, 1, tmp_path / "part.json")
    assert not (tmp_path / "part.json").exists()
    monkeypatch.setattr(SmallNetwork, "feature_stride", 4)
    create_evidence(mini.configuration(), *inputs, store, tmp_path / "created.json")
    write_part(mini.configuration(), *inputs, store, 1, 1, tmp_path / "part.json")
    assert (tmp_path / "part.json").exists()


def test_a_training_begins_with_a_look_at_the_size_of_the_features(
    elsewhere: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmallNetwork, "feature_stride", 8)
    said = r"network small: the features of an image of 32x32 must be of \(4, 4\), .* found \(8, 8\); correct feature_stride"
    with pytest.raises(UserError, match=said):
        elsewhere.train("pretrain", "pretrain", elsewhere.configuration())
    assert not elsewhere.weights("pretrain").exists()


@pytest.mark.parametrize("stride", [0, -4, 4.0, "4", True, None, (4, 8)])
def test_a_stride_is_a_whole_number_from_1_on(mini: Miniature, monkeypatch: pytest.MonkeyPatch, stride: object) -> None:
    monkeypatch.setattr(SmallNetwork, "feature_stride", stride)
    with pytest.raises(UserError, match="feature_stride"):
        mini.configuration()


def test_no_training_opens_the_target_truth(mini: Miniature, elsewhere: Miniature) -> None:
    """All labels of the target's training frames are gone, and every weight is the same: reproducible, too."""
    hidden, place = mini.root / "hidden", mini.root / "target" / "gtFine" / "train"
    place.rename(hidden)
    try:
        settings = elsewhere.configuration()
        warm = elsewhere.train("warmup", "warmup", settings, start=elsewhere.train("pretrain", "pretrain", settings))
        evidence = elsewhere.evidence("labels", settings, warm)
        labels = elsewhere.labels(settings, evidence)
        anchors = evidence.with_name("anchors.h5")
        elsewhere.train("stage", "cag/stage1", settings, start=warm, anchors=anchors, labels=labels)
    finally:
        hidden.rename(place)
    for name in ("pretrain", "warmup", "stage"):
        assert digest(elsewhere.weights(name)) == digest(mini.weights(name))
    first = [read_json(file)["digest"] for file in label_files(mini.folder / "labels" / "labels.json")]
    second = [read_json(file)["digest"] for file in labels]
    assert first == second


def test_another_seed_is_another_network(mini: Miniature, elsewhere: Miniature) -> None:
    settings = elsewhere.configuration(runs__pretrain__iterations=1)
    weights = []
    for seed in (0, 1):
        weights.append(elsewhere.folder / f"{seed}.safetensors")
        train_model(settings, seed, "pretrain", [mini.manifest], weights[-1], elsewhere.folder / f"state {seed}")
    assert digest(weights[0]) != digest(weights[1])


def test_the_control_goes_on_from_the_warm_up_and_the_oracle_has_the_target_truth(
    mini: Miniature, elsewhere: Miniature
) -> None:
    elsewhere.train("control", "control", elsewhere.configuration(), start=mini.weights("warmup"))
    history = json.loads(elsewhere.weights("control").with_suffix(".json").read_text())["metrics"]["history"]
    assert history[-1]["iteration"] == 12 and "source_cross_entropy" in history[-1]
    settings = elsewhere.configuration(runs__pretrain__iterations=2)
    elsewhere.train("oracle", "oracle", settings)
    history = json.loads(elsewhere.weights("oracle").with_suffix(".json").read_text())["metrics"]["history"]
    assert history[-1]["iteration"] == 2 and "target_cross_entropy" in history[-1]
    unlabelled = without_truth(mini, elsewhere.folder, 5)
    with pytest.raises(UserError, match="found 3 of 8 without; add the labels"):
        train_model(settings, 0, "oracle", [unlabelled], elsewhere.folder / "o.safetensors", elsewhere.folder / "s")


def test_a_finished_training_is_published_again_after_its_checkpoint_was_deleted(
    mini: Miniature, elsewhere: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(mini.folder / "warmup" / "state", elsewhere.folder / "warmup" / "state")
    monkeypatch.setattr("caguda.equations.adversary.adversarial_loss", None)
    weights = elsewhere.train("warmup", "warmup", elsewhere.configuration(), start=mini.weights("pretrain"))
    assert digest(weights) == digest(mini.weights("warmup"))


def swapped(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**content[0], "id": content[1]["id"]}, {**content[1], "id": content[0]["id"]}, *content[2:]]


CHANGES = {
    "nothing": ({}, True),
    "save_every": ({"compute__save_every": 7}, True),
    "workers": ({"compute__workers": 1}, True),
    "labels": ({"runs__cag__pseudo_labels__probability": {"p0": 0.5}}, True),
    "title": ({"runs__pretrain__title": "source"}, True),
    "iterations": ({"runs__pretrain__iterations": 13}, False),
    "shared iterations": ({"training__iterations": 7}, True),
    "shared optimiser": ({"training__optimiser": {"name": "adamw", "learning_rate": 0.05}}, False),
    "network": ({"network__width": 8}, False),
    "a class": ({"classes": swapped}, False),
    "ignore": ({"ignore": lambda values: [*values, 77]}, False),
    "threads": ({"compute__threads": 2}, False),
    "precision": ({"compute__precision": "bfloat16"}, False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_is_gone_on_from_only_if_it_leads_to_the_same_weights(elsewhere: Miniature, name: str) -> None:
    changes, same = CHANGES[name]
    original = elsewhere.configuration().model_dump(mode="json")
    changed = {key: value(original[key]) if callable(value) else value for key, value in changes.items()}

    def found(**keys: Any) -> str:
        configuration = elsewhere.configuration(**keys)
        check(configuration, elsewhere.manifest)
        frames = open_frames(configuration, elsewhere.manifest, (), method_of(configuration, "pretrain"))
        return training_fingerprint(frames, 0, settings_of_run(configuration, "pretrain"), ())

    assert (found(**changed) == found()) is same


def test_a_state_depends_on_name_seed_frames_inputs_and_method(
    elsewhere: Miniature, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = elsewhere.configuration(runs__twin={"like": "pretrain"})

    def told(name: str = "pretrain", seed: int = 0, inputs: tuple[Path, ...] = ()) -> str:
        frames = open_frames(configuration, elsewhere.manifest, (), method_of(configuration, name))
        return training_fingerprint(frames, seed, settings_of_run(configuration, name), inputs)

    first, second = elsewhere.folder / "1", elsewhere.folder / "2"
    first.write_text("1")
    second.write_text("2")
    found = [told(), told("twin"), told(seed=1), told(inputs=(first,))]
    found += [told(inputs=(second,)), told(inputs=(first, second))]
    content = read_json(elsewhere.manifest)
    for name in ("source", "target", "evaluation"):
        changed = content | {name: content[name] | {"digest": "other"}}
        write_json(elsewhere.manifest, changed)
        found.append(told())
    monkeypatch.setattr(stage, "METHOD_VERSION", "other")
    found.append(told())
    assert found[8] == found[0], "evaluation frames decide no weight"
    assert len(set(found)) == len(found) - 1


def test_generating_over_the_frames_of_another_experiment_is_refused(tmp_path: Path) -> None:
    settings = Miniature(tmp_path / "data", tmp_path).configuration
    sizes = {"height": 32, "width": 64, "seed": 0, "strength": 0.5, "photo": 0.5}
    many = sizes | {"source_frames": 2, "target_frames": 1, "evaluation_frames": 1}
    generate(settings(street=many), tmp_path / "data.json")
    first = json.loads((tmp_path / "data.json").read_text())
    assert first["files"] == 8
    generate(settings(street=many), tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert {key: again[key] for key in ("street", "files", "digest")} == {
        key: first[key] for key in ("street", "files", "digest")
    }
    with pytest.raises(UserError, match=r"00002\.png"):
        generate(settings(street=many | {"source_frames": 1}), tmp_path / "fewer.json")
    assert not (tmp_path / "fewer.json").exists()
