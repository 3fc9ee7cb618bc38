"""Rare class sampling: what is counted, what is drawn, and that seed and position alone decide it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from miniature import UNSEEN, Miniature
from run_trees import SUPERVISED, experiment, refused
from torch import Tensor

from caguda.classes import class_table
from caguda.config_frames import Augmentation
from caguda.config_training import SourceSampling
from caguda.datasets import loader
from caguda.datasets.frame import Frame
from caguda.datasets.io import frame_labels
from caguda.datasets.loader import Sample, TrainingFrames, training_batches
from caguda.datasets.rare_classes import RareClasses, rare_classes
from caguda.datasets.transforms import augmented
from caguda.equations.sampling import rare_class_probabilities
from caguda.errors import UserError
from caguda.runs import deciding_settings, method_of
from caguda.stages import parallel
from caguda.stages.pack import pack
from caguda.stages.training_frames import open_frames

COUNT, HEIGHT, WIDTH, CATEGORIES = 6, 16, 24, 4
CROPPED = Augmentation(flip=True, crop=(8, 8), color_jitter=0.2)


def label(index: int) -> Tensor:
    """Category 0 with a corner of another one, of 2 to 7 rows and columns; frame 0 has category 0 alone."""
    values = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    values[: index + 1, : index + 1] = index % CATEGORIES
    values[-1] = 255
    return values


def image(index: int) -> Tensor:
    values = torch.randint(0, 256, (3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(index))
    return values.to(torch.uint8)


def counts() -> Tensor:
    return torch.stack([label(index).flatten().bincount(minlength=256)[:CATEGORIES] for index in range(COUNT)])


def frames(settings: SourceSampling | None, augmentation: Augmentation = CROPPED, seed: int = 0) -> TrainingFrames:
    names = [Frame(str(index), Path(f"{index}.png"), None) for index in range(COUNT)]
    rare = None if settings is None else rare_classes(counts(), settings)
    maps = {index: {"label": label(index)} for index in range(COUNT)}
    return TrainingFrames(names, maps.__getitem__, augmentation, seed, "source", image, rare_classes=rare)


def drawn(data: TrainingFrames, position: int) -> tuple[int, int]:
    """The category and the frame of a position."""
    assert data.rare_classes is not None
    return data.rare_classes.draw(data._generator("rare class", position))


def equal(first: Sample, second: Sample) -> bool:
    return all(torch.equal(first[name], second[name]) for name in ("image", "label"))


# What can be drawn


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=5), st.integers(0, 9),
    st.sampled_from([0.05, 1.0]),
)  # fmt: skip
def test_a_category_is_drawn_from_the_frames_with_enough_pixels(rows: list[list[int]], least: int, heat: float) -> None:
    rows[0][1] = 10
    found = rare_classes(torch.tensor(rows), SourceSampling(temperature=heat, least_pixels=least, crop_share=0.3))
    by_category = [[index for index, row in enumerate(rows) if row[c] > least] for c in range(3)]
    assert [each.tolist() for each in found.frames] == by_category
    total = sum(map(sum, rows))
    weights = [np.exp((1 - sum(row[c] for row in rows) / total) / heat) * bool(by_category[c]) for c in range(3)]
    assert found.probabilities.tolist() == pytest.approx([weight / sum(weights) for weight in weights])
    assert found.least_in_crop == 0.3 * least


def test_least_pixels_of_0_leaves_out_what_has_no_pixels() -> None:
    pixels = torch.tensor([[5, 0, 1], [0, 0, 3]])
    assert torch.equal(rare_class_probabilities(pixels, 0.5), rare_class_probabilities(pixels, 0.5, 0))
    assert rare_class_probabilities(pixels, 0.5, 4).tolist() == [1.0, 0.0, 0.0]


def test_frames_with_too_few_pixels_of_everything_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^source_sampling\.least_pixels: .* more than 10 .* at most 10; lower it$"):
        rare_classes(torch.tensor([[3, 10]]), SourceSampling(least_pixels=10))


def test_rare_categories_and_all_their_frames_are_drawn_as_often_as_their_probability_says() -> None:
    """Of category 1, in frames 1 (4 pixels) and 5 (36), the second is drawn alone if more than 10 are asked for."""
    for least, of_first in ((3, {1: [1, 5], 2: [2], 3: [3]}), (10, {1: [5], 3: [3]})):
        data = frames(SourceSampling(temperature=1.0, least_pixels=least))
        assert data.rare_classes is not None
        pairs = Counter(drawn(data, position) for position in range(2000))
        for category, expected in enumerate(data.rare_classes.probabilities):
            of_it = {frame: number for (c, frame), number in pairs.items() if c == category}
            assert sum(of_it.values()) / 2000 == pytest.approx(expected, abs=0.04)
            assert sorted(of_it) == ([0, 1, 2, 3, 4, 5] if category == 0 else of_first.get(category, []))
            assert not of_it or max(of_it.values()) < 2.2 * min(of_it.values())


# What a sample is


def test_samples_depend_on_seed_and_position_alone() -> None:
    settings = SourceSampling(temperature=0.3, least_pixels=3)
    data = frames(settings)
    whole = list(training_batches(data, 4, 0, 5, 0))
    torch.manual_seed(99)
    later = list(training_batches(frames(settings), 4, 2, 5, 0))
    assert all(equal(a, b) for a, b in zip(whole[2:], later, strict=True))
    shares = [list(training_batches(frames(settings), 4, 0, 5, 0, (rank, 2))) for rank in (0, 1)]
    for one, *parts in zip(whole, *shares, strict=True):
        assert equal(one, {name: torch.cat([part[name] for part in parts]) for name in one})
    other = frames(settings, seed=1)
    assert [drawn(other, position) for position in range(20)] != [drawn(data, position) for position in range(20)]


def crops(data: TrainingFrames, index: int, position: int, number: int) -> list[Sample]:
    """The random crops of a frame at a position, one after another."""
    generator, made = data._generator("transform", position), []
    for _ in range(number):
        torch.manual_seed(int(generator.integers(2**62)))
        made.append(augmented(data.augmentation, image(index), {"label": label(index)}))
    return made


def test_a_crop_is_the_first_of_eleven_with_enough_pixels_of_the_category_or_the_last() -> None:
    data, places = frames(SourceSampling(temperature=1.0, least_pixels=3, crop_share=0.9)), Counter[int]()
    for position in range(60):
        category, index = drawn(data, position)
        made = crops(data, index, position, 11)
        enough = [k for k, crop in enumerate(made) if int((crop["label"] == category).sum()) > 0.9 * 3]
        chosen = enough[0] if enough else 10
        places[chosen] += 1
        assert equal(data[position], made[chosen]), position
    assert places[0] > 9 and places[10] > 0 and len(places) > 4, "all cases occur"


def test_without_a_crop_nothing_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(loader, "augmented", lambda *given: calls.append(1) or augmented(*given))  # type: ignore[func-returns-value]
    data = frames(SourceSampling(least_pixels=3, crop_share=1.0), Augmentation(flip=True))
    assert all(data[position]["label"].shape == (HEIGHT, WIDTH) for position in range(10)) and len(calls) == 10


def test_the_first_crop_is_augmented_as_without_sampling() -> None:
    """Whichever frame is drawn: so the only difference between two such runs is which frames they see."""
    data, plain = frames(SourceSampling(temperature=1.0, least_pixels=0, crop_share=0.0)), frames(None)
    for position in range(12):
        category, index = drawn(data, position)
        first = crops(plain, index, position, 1)[0]
        assert equal(data[position], first) or not (first["label"] == category).any()


# The key


def test_the_key_is_recorded_where_it_is_given_alone() -> None:
    plain = experiment({"source": SUPERVISED})
    for runs in ({"source": {**SUPERVISED, "source_sampling": None}}, {"source": SUPERVISED}):
        assert deciding_settings(experiment(runs), "source") == deciding_settings(plain, "source")
    assert "source_sampling" not in deciding_settings(plain, "source")
    made = deciding_settings(experiment({"source": {**SUPERVISED, "source_sampling": {"least_pixels": 7}}}), "source")
    assert made["source_sampling"] == {"temperature": 0.01, "least_pixels": 7, "crop_share": 0.5}


def test_a_run_that_reads_no_labels_of_the_source_cannot_have_it() -> None:
    oracle = {**SUPERVISED, "frames": "target"}
    said = refused({"source": SUPERVISED, "oracle": oracle | {"source_sampling": {}}})
    assert said == "runs.oracle.source_sampling: supervised reads no labels of the source here, set the key to null"


# The frames of an experiment


def opened(mini: Miniature, packed: list[Path], **settings: Any) -> RareClasses:
    configuration = mini.configuration(runs__pretrain__source_sampling=settings, runs__oracle__source_sampling=None)
    method = method_of(configuration, "pretrain")
    made = open_frames(configuration, mini.manifest, packed, method)
    found = made.training("source", method, "stage 1", 0, made.truth("source")).rare_classes
    assert found is not None
    return found


def test_the_pixels_of_all_frames_are_counted(
    mini: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(mini, [], least_pixels=20)
    said = capsys.readouterr().out
    configuration = mini.configuration()
    table = class_table(configuration, configuration.source)
    method = method_of(configuration, "pretrain")
    named = open_frames(configuration, mini.manifest, [], method).manifest.frames("source")
    pixels = torch.zeros(len(named), table.count, dtype=torch.int64)
    for index, frame in enumerate(named):
        for value, number in zip(*frame_labels(frame, table).unique(return_counts=True), strict=True):
            if value < table.count:
                pixels[index, int(value)] = number
    assert (pixels.sum(dim=1) > 0).all()
    expected = rare_classes(pixels, SourceSampling(least_pixels=20))
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    for frames_found, frames_expected in zip(found.frames, expected.frames, strict=True):
        np.testing.assert_array_equal(frames_found, frames_expected)
    assert said.count("\n") == 1 and UNSEEN in said and "more than 20 pixels" in said
    cache = tmp_path / "source.h5"
    pack(configuration, mini.manifest, "source", cache)
    np.testing.assert_array_equal(opened(mini, [cache], least_pixels=20).probabilities, expected.probabilities)
    shares = []
    monkeypatch.setattr(parallel, "size", lambda: 2)
    monkeypatch.setattr(parallel, "all_reduce_sum", lambda values: shares.append(values) or pixels)  # type: ignore[func-returns-value]
    for rank in (0, 1):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        opened(mini, [], least_pixels=20)
    assert torch.equal(shares[0] + shares[1], pixels) and all((share > 0).any() for share in shares)
