"""Training frames, their transforms and inference batches: fixed by seed and position, geometry exact to the pixel."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from caguda.classes import IGNORE
from caguda.config_frames import Augmentation
from caguda.datasets.frame import Frame
from caguda.datasets.image_batches import read_ahead, scaled
from caguda.datasets.io import frame_image, read_image
from caguda.datasets.loader import Sample, TrainingFrames, _obey_only_the_trainer, enlarge, training_batches
from caguda.datasets.manifest import Manifest
from caguda.datasets.transforms import augmented
from caguda.equations.grid import labels_at
from caguda.errors import UserError

COUNT, HEIGHT, WIDTH = 7, 16, 24
EVERYTHING = Augmentation(flip=True, scale=(0.7, 1.6), crop=(12, 20), color_jitter=0.4, blur=1.0)
LOOP = """
from caguda.datasets import loader
from test_loader import *
received = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: received.append(1))
frames = write_frames(Path(sys.argv[1]))
loader._obey_only_the_trainer = slowly_obeying
batches = training_batches(training_frames(frames), 2, 0, 6, 2)
next(batches)  # the first worker is at work, the second still starts
print("ready", flush=True)
input()
print(len(list(batches)), len(received))
"""


def write_frames(folder: Path, sizes: list[tuple[int, int]] | None = None) -> list[Frame]:
    """Images whose first pixel is their number."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for number, size in enumerate(sizes or [(HEIGHT, WIDTH)] * COUNT):
        values = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        values[0, 0] = number
        Image.fromarray(values).save(folder / f"{number}.png")
        frames.append(Frame(str(number), folder / f"{number}.png", None))
    return frames


def numbered_maps(index: int) -> dict[str, Tensor]:
    values = torch.arange(HEIGHT * WIDTH).view(HEIGHT, WIDTH) + index
    return {"label": (values % 19).byte(), "small": values[::4, ::4].byte()}


def slowly_obeying(worker: int) -> None:
    """A worker that signals reach before it has said that it leaves them to the trainer."""
    time.sleep(worker)
    _obey_only_the_trainer(worker)


def training_frames(
    frames: list[Frame], augmentation: Augmentation | None = None, seed: int = 0, domain: str = "source"
) -> TrainingFrames:
    return TrainingFrames(frames, numbered_maps, augmentation or Augmentation(), seed, domain)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Frame]:
    return write_frames(tmp_path_factory.mktemp("frames"))


def same(first: list[Sample], second: list[Sample]) -> bool:
    return len(first) == len(second) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(first, second, strict=True)
    )


def numbers(frames: TrainingFrames, count: int) -> list[int]:
    """Which frames the first positions hold."""
    return [int(frames[position]["image"][0, 0, 0]) for position in range(count)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_samples_depend_on_neither_workers_nor_start(frames: list[Frame]) -> None:
    data = training_frames(frames, EVERYTHING)
    alone = list(training_batches(data, 3, 0, 6, 0))
    assert [tuple(batch["image"].shape) for batch in alone] == [(3, 3, 12, 20)] * 6
    torch.manual_seed(99)
    assert same(alone, list(training_batches(data, 3, 0, 6, 1)))
    assert same(alone, list(training_batches(data, 3, 0, 6, 4)))
    assert same(alone[2:], list(training_batches(data, 3, 2, 6, 0)))
    assert same(alone[5:], list(training_batches(data, 3, 5, 6, 4)))
    assert list(training_batches(data, 3, 6, 6, 0)) == []


def test_a_sample_leaves_the_random_numbers_of_the_training_alone(frames: list[Frame]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    training_frames(frames, EVERYTHING)[4]
    assert torch.equal(torch.rand(3), expected)


def test_a_sample_leaves_the_random_numbers_of_a_gpu_alone(
    frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(1)
    training_frames(frames, EVERYTHING)[0]
    assert seeded == [1]


def test_every_frame_comes_once_in_every_epoch_and_each_epoch_is_shuffled_anew(frames: list[Frame]) -> None:
    drawn = numbers(training_frames(frames), 6 * COUNT)
    epochs = [tuple(drawn[k : k + COUNT]) for k in range(0, len(drawn), COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len(set(epochs)) == 6


def test_domains_and_seeds_have_orders_and_augmentations_of_their_own(frames: list[Frame]) -> None:
    variants = [training_frames(frames, EVERYTHING, seed, domain) for seed in (0, 1) for domain in ("source", "target")]
    orders = [tuple(np.concatenate([data.order(epoch) for epoch in range(3)])) for data in variants]
    assert len(set(orders)) == 4
    pairs = Counter((int(a), int(b)) for e in range(60) for a, b in zip(
        variants[0].order(e), variants[1].order(e), strict=True))  # fmt: skip
    assert len(pairs) == COUNT**2, "a source frame must meet every target frame"
    single = [training_frames(frames[:1], EVERYTHING, seed, domain) for seed in (0, 1) for domain in ("a", "b")]
    images = [data[0]["image"] for data in single]
    assert not any(torch.equal(images[i], images[j]) for i in range(4) for j in range(i))


def test_every_position_is_augmented_anew(frames: list[Frame]) -> None:
    data = training_frames(frames[:1], EVERYTHING)
    images = [data[position]["image"] for position in range(6)]
    assert not any(torch.equal(images[i], images[j]) for i in range(6) for j in range(i))


def test_samples_are_plain_tensors_with_their_label_maps(frames: list[Frame]) -> None:
    sample = training_frames(frames)[0]
    assert {name: (type(value), value.dtype, tuple(value.shape)) for name, value in sample.items()} == {
        "image": (Tensor, torch.uint8, (3, HEIGHT, WIDTH)),
        "label": (Tensor, torch.uint8, (HEIGHT, WIDTH)),
        "small": (Tensor, torch.uint8, (HEIGHT, WIDTH)),
    }
    unlabelled = TrainingFrames(frames, None, Augmentation(), 0, "target")[0]
    assert list(unlabelled) == ["image"]


def coordinates(height: int, width: int) -> tuple[Tensor, dict[str, Tensor]]:
    """An image whose red and green are twice the row and the column of each pixel, and maps of row and column."""
    row = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    column = torch.arange(width, dtype=torch.uint8)[None].expand(height, width)
    image = torch.stack([2 * row, 2 * column, torch.full_like(row, 200)])
    return image, {"row": row, "column": column}


GEOMETRIES = {
    "nothing": (Augmentation(), 0),
    "flip": (Augmentation(flip=True), 0),
    "crop": (Augmentation(crop=(13, 21)), 0),
    "flip, crop": (Augmentation(flip=True, crop=(40, 21)), 0),
    "scale": (Augmentation(scale=(0.6, 1.9)), 1),
    "all": (Augmentation(flip=True, scale=(0.6, 1.9), crop=(31, 45)), 1),
    "twice": (Augmentation(scale=(2.0, 2.0), crop=(40, 60)), 0.5),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_labels_go_where_their_pixels_go(name: str) -> None:
    augmentation, tolerance = GEOMETRIES[name]
    image, maps = coordinates(40, 60)
    seen = set()
    for seed in range(25):
        torch.manual_seed(seed)
        changed = augmented(augmentation, image, maps)
        found = changed["image"].float() / 2
        row, column = changed["row"].float(), changed["column"].float()
        inside = row != IGNORE
        assert torch.equal(inside, column != IGNORE) and inside.any()
        core = inside & (found[0] > 1) & (found[0] < 38) & (found[1] > 1) & (found[1] < 58)
        core &= changed["image"][2] == 200  # no mixture with the black around the frame
        assert core.sum() > 0.5 * inside.sum()
        for map_, channel in ((row, found[0]), (column, found[1])):
            assert float((map_ - channel)[core].abs().max()) <= tolerance
        assert bool((changed["image"][:, ~inside] == 0).all())
        seen.add((tuple(changed["row"].flatten().tolist()), tuple(changed["column"].flatten().tolist())))
    varied = augmentation.flip or augmentation.crop not in (None, (40, 60)) or augmentation.scale[0] < 1
    assert (len(seen) > 1) == (varied or name == "twice")


def test_flips_are_a_coins_and_crops_reach_every_place() -> None:
    image, maps = coordinates(8, 10)
    augmentation = Augmentation(flip=True, crop=(6, 9))
    corners: Counter[tuple[int, int]] = Counter()
    flips = 0
    for seed in range(200):
        torch.manual_seed(seed)
        changed = augmented(augmentation, image, maps)
        assert changed["row"].shape == (6, 9)
        columns = changed["column"][0]
        flips += int(columns[0] > columns[1])
        corners[int(changed["row"].min()), int(columns.min())] += 1
    assert 70 < flips < 130
    assert set(corners) == {(r, c) for r in range(3) for c in range(2)}


def test_a_crop_larger_than_the_frame_is_filled_with_ignore_and_black() -> None:
    image, maps = coordinates(10, 12)
    maps["road"] = torch.zeros(10, 12, dtype=torch.uint8)
    changed = augmented(Augmentation(crop=(16, 30)), image, maps)
    outside = torch.ones(16, 30, dtype=torch.bool)
    outside[:10, :12] = False
    assert bool((changed["road"][outside] == IGNORE).all()) and bool((changed["road"][~outside] == 0).all())
    assert torch.equal(changed["image"][:, :10, :12], image) and bool((changed["image"][:, outside] == 0).all())
    mixed = augmented(Augmentation(crop=(6, 30)), image, maps)
    assert mixed["road"].shape == (6, 30)
    assert bool((mixed["road"][:, 12:] == IGNORE).all()) and bool((mixed["road"][:, :12] == 0).all())


def test_scaled_labels_hold_no_values_of_their_own() -> None:
    label = torch.randint(0, 2, (20, 30), dtype=torch.uint8) * 200 + 5
    torch.manual_seed(3)
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    changed = augmented(Augmentation(scale=(0.6, 1.9), crop=(20, 30)), image, {"l": label})
    assert set(changed["l"].unique().tolist()) <= {5, 205, IGNORE}


def test_colours_change_the_image_alone() -> None:
    image, maps = coordinates(20, 30)
    augmentation = Augmentation(color_jitter=0.5, blur=2.0)
    different = set()
    for seed in range(6):
        torch.manual_seed(seed)
        changed = augmented(augmentation, image, maps)
        assert torch.equal(changed["row"], maps["row"]) and torch.equal(changed["column"], maps["column"])
        assert changed["image"].shape == image.shape and not torch.equal(changed["image"], image)
        different.add(changed["image"].sum().item())
    assert len(different) == 6


@pytest.mark.parametrize("height", [16, 17, 18, 19, 49])
@pytest.mark.parametrize("width", [20, 21, 94, 375])
def test_a_pseudo_label_comes_back_at_the_place_where_it_was_made(height: int, width: int) -> None:
    """A map at stride 4, enlarged for the geometry and taken at stride 4 again, is the same, whatever the size."""
    h, w = -(-height // 4), -(-width // 4)
    small = torch.randperm(h * w).view(h, w).remainder(251).byte()
    large = enlarge(small, (height, width))
    assert large.shape == (height, width) and large.dtype == torch.uint8
    assert torch.equal(labels_at(large[None], (h, w))[0], small)


def test_a_map_smaller_by_a_whole_factor_is_repeated() -> None:
    small = torch.arange(20, dtype=torch.uint8).view(4, 5)
    assert torch.equal(enlarge(small, (16, 15)), small.repeat_interleave(4, 0).repeat_interleave(3, 1))
    assert enlarge(small, (4, 5)) is small


def test_the_networks_input_is_scaled_and_channels_last() -> None:
    images = torch.tensor([[0, 128], [255, 3]], dtype=torch.uint8).expand(2, 3, 2, 2).clone()
    images[1] = 77
    before = images.clone()
    result = scaled(images, torch.device("cpu"))
    assert result.shape == (2, 3, 2, 2) and result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last) and torch.equal(images, before)
    assert torch.equal(result, images.double().div(255).float())


def test_inference_takes_every_frame_once_in_order_and_neighbours_of_one_size_together(tmp_path: Path) -> None:
    a, b = (8, 10), (8, 12)
    frames = write_frames(tmp_path, [a, a, a, b, a, b, b, b])
    entries = [{"height": height, "width": width} for height, width in (a, a, a, b, a, b, b, b)]
    manifest = Manifest((), {"target": {"frames": entries}, "source": {"frames": []}}, {})
    batches = list(read_ahead(frames, manifest.batches("target", 2)))
    assert [indices for indices, _ in batches] == [[0, 1], [2], [3], [4], [5, 6], [7]]
    assert manifest.batches("target", 2, range(1, 4)) == [[1, 2], [3]]
    for indices, images in batches:
        assert images.dtype == torch.uint8
        assert all(torch.equal(read_image(frames[i].image), image) for i, image in zip(indices, images, strict=True))
    assert manifest.batches("source", 2) == [] and list(read_ahead([], [])) == []


def test_inference_reads_one_batch_ahead_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batch comes while the first is at work; damage is told when its turn comes."""
    frames = write_frames(tmp_path, [(8, 10)] * 4)
    frames[3].image.unlink()
    read: list[Path] = []
    second = threading.Event()

    def watched(frame: Frame) -> Tensor:
        read.append(frame.image)
        if frame == frames[1]:
            second.set()
        return frame_image(frame)

    monkeypatch.setattr("caguda.datasets.image_batches.frame_image", watched)
    batches = read_ahead(frames, [[0], [1], [2], [3]])
    assert next(batches)[0] == [0] and second.wait(timeout=60)
    assert len(read) == 2
    assert [indices for indices, _ in islice(batches, 2)] == [[1], [2]]
    with pytest.raises(UserError, match=r"3\.png: this file cannot be read"):
        next(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_frame_that_became_unreadable_is_one_line(tmp_path: Path, workers: int) -> None:
    frames = write_frames(tmp_path, [(HEIGHT, WIDTH)] * 2)
    frames[1].image.write_bytes(b"nothing")
    with pytest.raises(UserError) as caught:
        list(training_batches(training_frames(frames), 1, 0, 4, workers))
    assert str(caught.value) == f"{frames[1].image}: an image must be a PNG or JPEG file, and this is neither"


def test_workers_leave_signals_to_the_trainer(tmp_path: Path) -> None:
    """A scheduler signals a whole process group; the trainer must still get the batch that it is waiting for."""
    here = Path(__file__).parent
    with subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"PYTHONPATH": f"{here.parent}:{here}"},
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for number in (signal.SIGTERM, signal.SIGINT):
            os.killpg(process.pid, number)
        assert process.communicate("go\n", timeout=60)[0] == "5 2\n"
        assert process.returncode == 0
