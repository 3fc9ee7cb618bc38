"""What would end a training hours later is said by the check: sizes that make no batch, and labels that are not there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from frame_trees import HEIGHT, WIDTH, configuration, make_root, problems, write_image
from miniature import Miniature
from PIL import Image

from caguda.config_frames import Augmentation
from caguda.datasets.loader import TrainingFrames, training_batches
from caguda.datasets.manifest import read_manifest
from caguda.datasets.requirements import parts_problems
from caguda.datasets.transforms import augmented
from caguda.errors import UserError
from caguda.networks.deeplab_v2 import DeepLabV2
from caguda.networks.deeplab_v3plus import DeepLabV3Plus
from caguda.networks.small import SmallNetwork
from caguda.stages.check import check

OTHER = (HEIGHT + 8, WIDTH)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "data")


def passes(root: Path, **keys: Any) -> None:
    check(configuration(root, **keys), root.parent / "manifest.json")


def resize(image: Path, label: Path, size: tuple[int, int] = OTHER) -> None:
    """A frame of another size."""
    write_image(image, 5, size)
    Image.open(label).resize(size[::-1], Image.Resampling.NEAREST).save(label)


@pytest.fixture
def source_of_two_sizes(root: Path) -> Path:
    resize(root / "gta/images/00002.png", root / "gta/labels/00002.png")
    return root


ON_SOURCE = ("source_only", "warm-up", "cag", "control")
"""The runs of the demo that read source frames."""


def runs(*names: str, **keys: Any) -> dict[str, Any]:
    """Some runs of the demo, each with these keys."""
    return {"runs": dict.fromkeys(names, keys)}


# Sizes


def test_target_frames_of_two_sizes_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stem = "ulm/ulm_000000_000000"
    image = root / f"city/leftImg8bit/train/{stem}_leftImg8bit.png"
    resize(image, root / f"city/gtFine/train/{stem}_gtFine_labelIds.png")
    crops = runs("source_only", "warm-up", augmentation={"crop": [16, 16]})
    for keys in ({}, crops):
        (line,) = problems(root, capsys, **keys)
        assert line.startswith(f"target: {root}/city/leftImg8bit/train/")
        assert "the frames must have one size" in line and "skip" in line
        assert f"{WIDTH}x{HEIGHT} (1)" in line and f"{OTHER[1]}x{OTHER[0]} (1)" in line
    passes(root, target={"layout": "cityscapes", "root": "city", "split": "train", "skip": ["ulm_000000_000000"]})


def test_source_frames_of_two_sizes_need_a_window(
    source_of_two_sizes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = problems(source_of_two_sizes, capsys)
    assert line.startswith(
        f"source: {source_of_two_sizes}/gta/images/00002.png: frames of one batch must have one size"
    )
    assert f"found {WIDTH}x{HEIGHT} (2), {OTHER[1]}x{OTHER[0]} (1)" in line
    assert f"for each of {', '.join(f'runs.{name}.augmentation.crop' for name in ON_SOURCE)}, as" in line
    more = {"runs": {f"more{number}": {"like": "control"} for number in range(9)}}
    assert "runs.more0.augmentation.crop and 8 more, as crop" in problems(source_of_two_sizes, capsys, **more)[0]
    passes(source_of_two_sizes, training={"augmentation": {"crop": [16, 16]}})


@pytest.mark.parametrize("name", ON_SOURCE)
def test_each_training_without_a_window_is_named(
    source_of_two_sizes: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    crops = runs(*(other for other in ON_SOURCE if other != name), augmentation={"crop": [64, 64]})
    (line,) = problems(source_of_two_sizes, capsys, **crops)
    assert f"for each of runs.{name}.augmentation.crop, as crop: [height, width]" in line
    crops["runs"][name] = {"augmentation": {"crop": [16, 16]}}
    passes(source_of_two_sizes, **crops)


def test_frames_of_two_sizes_pass_where_nothing_batches_them(source_of_two_sizes: Path) -> None:
    passes(source_of_two_sizes, training={"batch_size": 1})
    passes(source_of_two_sizes, training={"batch_size": 2}, compute={"processes": 2})
    brought = runs("cag", "control", augmentation={"crop": [16, 16]})
    brought["runs"] |= {"warm-up": {"method": "imported", "file": "w.safetensors"}}
    brought["runs"] |= {"source_only": None, "oracle": {"like": "control", "start": None}}
    passes(source_of_two_sizes, **brought)


def test_evaluation_frames_may_differ_in_size(root: Path) -> None:
    stem = "ulm/ulm_000000_000000"
    labels = root / f"city/gtFine/val/{stem}_gtFine_labelIds.png"
    resize(root / f"city/leftImg8bit/val/{stem}_leftImg8bit.png", labels)
    passes(root)


NETWORKS = {
    "small": SmallNetwork(name="small", width=4, blocks=(1, 1, 1, 1), feature_channels=8),
    "deeplab_v2": DeepLabV2(name="deeplab_v2", backbone="resnet50", weights="none"),
    "deeplab_v3plus": DeepLabV3Plus(name="deeplab_v3plus", backbone="resnet50", weights="none"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_trains_on_one_image_larger_than_its_stride(name: str) -> None:
    network, stride = NETWORKS[name].build(3).train(), NETWORKS[name].coarsest_stride
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(torch.rand(1, 3, stride, stride))
    for size in ((stride + 1, 1), (1, stride + 1)):
        network(torch.rand(1, 3, *size))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 8)])
def test_frames_too_small_for_the_network_are_refused(
    root: Path, capsys: pytest.CaptureFixture[str], size: tuple[int, int]
) -> None:
    paths = [(root / f"gta/images/{name}.png", root / f"gta/labels/{name}.png") for name in ("00001", "00002", "00003")]
    for image, label in paths:
        resize(image, label, size)
    (line,) = problems(root, capsys)
    assert line.startswith(f"source: {paths[0][0]}, ") and f"found {size[1]}x{size[0]} (3); enlarge" in line
    assert "larger than the network's stride of 8" in line
    network = {"name": "deeplab_v3plus", "weights": "none"}
    for image, label in paths:
        resize(image, label, (16, 16))
    assert "stride of 16, found 16x16 (3)" in problems(root, capsys, network=network)[0]
    passes(root)


def test_a_window_too_small_for_the_network_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = runs("cag", augmentation={"crop": [8, 4]}, target_augmentation={"crop": [2, 2]})
    found = problems(root, capsys, **stages)
    assert found == [
        "source: runs.cag.augmentation.crop: must be larger than the network's stride of 8, found (8, 4)",
        "target: runs.cag.target_augmentation.crop: must be larger than the network's stride of 8, found (2, 2)",
    ]
    found = problems(root, capsys, **runs("warm-up", "oracle", augmentation={"crop": [8, 4]}))
    assert found == [
        f"{domain}: runs.{name}.augmentation.crop: must be larger than the network's stride of 8, found (8, 4)"
        for domain, name in (("source", "warm-up"), ("target", "warm-up"), ("target", "oracle"))
    ]


def test_a_window_too_small_for_the_blur_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for crop in ([1, 64], [64, 2]):
        (line,) = problems(root, capsys, **runs("cag", target_augmentation={"crop": crop, "blur": 1.0}))
        assert line == (
            "target: runs.cag.target_augmentation.blur: needs windows of at least 3 pixels in height and width, found "
            f"{min(crop)}; leave it out"
        )
    for crop, blur in (([1, 64], 0.0), ([3, 64], 1.0)):
        passes(root, **runs("cag", target_augmentation={"crop": crop, "blur": blur}))
    smallest = Augmentation(crop=(3, 3), blur=1.0)
    for _ in range(8):
        assert augmented(smallest, torch.zeros(3, 9, 9, dtype=torch.uint8), {})["image"].shape == (3, 3, 3)


def test_parts_without_work_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The source has three frames, the target two."""
    compute = {"compute": {"parts": 3, "inference_batch_size": 1}}
    expected = "compute.parts: must be at most the 2 shards of the evidence store, found 3; lower it"
    (line,) = problems(root, capsys, **compute)
    assert line.startswith(f"target: {expected}")
    assert len(problems(root, capsys, compute={"parts": 4, "inference_batch_size": 1})) == 2
    given = {"anchors": "a.h5"}
    (line,) = problems(root, capsys, compute={"parts": 2, "inference_batch_size": 2}, **runs("cag", **given))
    assert line.startswith("target: compute.parts: must be at most the 1 shards")
    (line,) = parts_problems(configuration(root, compute={"parts": 64, "inference_batch_size": 1}), "target", 101)
    assert "at most the 51 shards" in line, "a shard of 101 frames has two"
    passes(root, compute={"parts": 2, "inference_batch_size": 1})
    passes(root, compute={"parts": 4}, runs={"cag": None})


def test_a_window_that_was_taken_away_is_one_line_where_a_batch_is_made(source_of_two_sizes: Path) -> None:
    passes(source_of_two_sizes, **runs(*ON_SOURCE, augmentation={"crop": [16, 16]}))
    frames = read_manifest(source_of_two_sizes.parent / "manifest.json").frames("source")
    batches = training_batches(TrainingFrames(frames, None, Augmentation(), 0, "source"), 3, 0, 1, 0)
    with pytest.raises(
        UserError, match=rf"must have one size, found {WIDTH}x{HEIGHT} and {OTHER[1]}x{OTHER[0]}; give the"
    ):
        next(batches)


# Labels of the target


def without_labels(root: Path, pattern: str = "*") -> Path:
    """The first label that was taken away."""
    labels = sorted((root / "city/gtFine/train").rglob(f"{pattern}.png"))
    for label in labels:
        label.unlink()
    return labels[0]


def test_a_target_without_its_labels_is_told_what_to_set(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = without_labels(root)
    (line,) = problems(root, capsys)
    assert line.startswith(f"target: {place}: none of the 2 frames has a label, this is where the first one belongs")
    assert "set target.labels: null" in line
    passes(root, target={"layout": "cityscapes", "root": "city", "split": "train", "labels": None})
    capsys.readouterr()
    passes(root, runs={"oracle": None})
    assert f"warning: {line}" in capsys.readouterr().out.splitlines()


def test_a_target_with_some_labels_has_a_diagnosis_and_no_oracle(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = without_labels(root, "ulm*")
    (line,) = problems(root, capsys)
    assert line.startswith(f"target: {place}: the run oracle needs the label of every frame, and 1 of the 2 have none")
    assert line.endswith("or leave out what needs them with runs.oracle: null")
    more = {"runs": {"more": {"like": "oracle", "start": "warm-up"}}}
    (line,) = problems(root, capsys, **more)
    assert ": the runs oracle, more need the label" in line and line.endswith("runs.oracle: null, runs.more: null")
    passes(root, runs={"oracle": None})


def test_the_runs_and_what_is_left_out(mini: Miniature) -> None:
    no_labels = {"layout": "cityscapes", "root": "target", "split": "train", "labels": None}
    others = ["pretrain", "warmup", "cag", "nothing"]
    accuracy = "the accuracy of pseudo-labels (the target has no labels)"
    out = [f"{name} (runs.{name} is null)" for name in ("control", "oracle")]
    for keys, made, told in (
        ({}, ["control", "oracle"], ()),
        ({"runs__control": None}, ["oracle"], (out[0],)),
        ({"runs__control": None, "runs__oracle": None}, [], tuple(out)),
        ({"target": no_labels}, ["control"], (f"oracle and {accuracy}",)),
        ({"target": no_labels, "runs__oracle": None}, ["control"], (out[1], accuracy)),
    ):
        configured = mini.configuration(**keys)
        assert list(configured.active_runs) == [*others, *made] and configured.left_out == told
    for wrong in ({"runs__oracle__start": "upper"}, {"runs__warmup": None}, {"runs__control": "oracle"}):
        with pytest.raises(UserError, match=r"^miniature\.yaml: runs\."):
            mini.configuration(**wrong)
