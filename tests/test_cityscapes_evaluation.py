"""IoU and its means against the Cityscapes tools, which read the same files, and against torchmetrics."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from cityscapesscripts.helpers.labels import labels as official_labels
from PIL import Image
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

from caguda.classes import CITYSCAPES_19, IGNORE, smaller_sets
from caguda.datasets.io import read_label
from caguda.equations.metrics import confusion_matrix, iou, mean_iou
from caguda.errors import UserError
from caguda.stages.evaluate import confusion_of

if not hasattr(np, "in1d"):  # a stand-in: cityscapesScripts 2.3 scores instances by what NumPy 2.4 has under this name
    np.in1d = np.isin  # type: ignore[attr-defined]

HEIGHT, WIDTH = 1024, 2048
ROAD, TERRAIN, BUS, TRAIN = 7, 22, 28, 31
VOID = [label.id for label in official_labels if label.ignoreInEval and label.id >= 0]
JUDGED = [label.id for label in official_labels if not label.ignoreInEval]
WITH_INSTANCES = [label.id for label in official_labels if label.hasInstances]
WITHOUT_16 = {"terrain", "truck", "train"}
WITHOUT_13 = WITHOUT_16 | {"wall", "fence", "pole"}


def blocks(values: list[int], seed: int, side: int = 32) -> np.ndarray:
    """A map (H, W) of squares, each with one of the values."""
    random = np.random.default_rng(seed)
    squares = random.choice(np.array(values, dtype=np.uint8), (HEIGHT // side, WIDTH // side))
    return squares.repeat(side, 0).repeat(side, 1)


def pair(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth with void regions, and a prediction of it, as label ids.

    No train occurs, bus is predicted alone, and terrain is predicted on void alone, where nothing is judged.
    """
    truth = blocks([*VOID, *(i for i in JUDGED if i not in (TERRAIN, BUS, TRAIN))], number)
    guess = blocks([i for i in JUDGED if i not in (TERRAIN, TRAIN)], number + 10, side=8)
    wrong = np.random.default_rng(number).random((HEIGHT, WIDTH)) < 0.4
    void = np.isin(truth, VOID)
    return truth, np.where(void, TERRAIN, np.where(wrong, guess, truth)).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """Truth and prediction of two images of Cityscapes' size, named as its tools expect, with instances beside them."""
    folder = tmp_path_factory.mktemp("cityscapes")
    paths = []
    for number in range(2):
        stem = f"aachen_00000{number}_000019"
        both = folder / f"{stem}_gtFine_labelIds.png", folder / f"{stem}_prediction.png"
        truth, prediction = pair(number)
        right = np.arange(WIDTH) >= WIDTH // 2
        instances = np.where(np.isin(truth, WITH_INSTANCES), 1000 * truth.astype(np.uint16) + right, truth)
        names = (*both, folder / f"{stem}_gtFine_instanceIds.png")
        for path, values in zip(names, (truth, prediction, instances.astype(np.uint16)), strict=True):
            Image.fromarray(values).save(path, compress_level=1)
        paths.append(both)
    return paths


@pytest.fixture(scope="module")
def confusion(files: list[tuple[Path, Path]]) -> torch.Tensor:
    """Ours, image by image."""
    total = torch.zeros(19, 19, dtype=torch.int64)
    for truth, prediction in files:
        guess = read_label(prediction, CITYSCAPES_19)
        matrix = confusion_of(guess, truth, CITYSCAPES_19)
        assert torch.equal(matrix, confusion_matrix(guess[None], read_label(truth, CITYSCAPES_19)[None], 19))
        total += matrix
    return total


@pytest.fixture(scope="module")
def theirs(files: list[tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the Cityscapes tools find as they are shipped: all that they score, from files, printed and written too."""
    settings = copy.copy(official.args)
    settings.exportFile = str(tmp_path_factory.mktemp("theirs") / "found.json")
    truths, predictions = zip(*[(str(truth), str(prediction)) for truth, prediction in files], strict=True)
    found: dict[str, Any] = official.evaluateImgLists(predictions, truths, settings)
    assert 0 < found["classInstScores"]["car"] < 1 and Path(settings.exportFile).exists()
    return found


def test_every_iou_is_that_of_the_cityscapes_tools(confusion: torch.Tensor, theirs: dict[str, Any]) -> None:
    expected = [theirs["classScores"][name] for name in CITYSCAPES_19.names]
    assert iou(confusion).tolist() == pytest.approx(expected, rel=0, abs=1e-9, nan_ok=True)
    assert mean_iou(confusion).item() == pytest.approx(theirs["averageScoreClasses"], rel=0, abs=1e-9)
    by_name = dict(zip(CITYSCAPES_19.names, expected, strict=True))
    assert math.isnan(by_name["train"]) and math.isnan(by_name["terrain"]) and by_name["bus"] == 0
    assert 0.2 < by_name["road"] < 0.8


def test_means_over_16_and_13_are_those_of_their_scores(confusion: torch.Tensor, theirs: dict[str, Any]) -> None:
    positions = smaller_sets(CITYSCAPES_19.names)
    for number, without in ((16, WITHOUT_16), (13, WITHOUT_13)):
        scores = {name: theirs["classScores"][name] for name in CITYSCAPES_19.names if name not in without}
        expected = official.getScoreAverage(scores, official.args)
        assert mean_iou(confusion, positions[number]).item() == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.fixture
def _not_deterministic() -> Iterator[None]:
    """Verbs of other tests leave torch deterministic, where torchmetrics counts in steps, minutes for an image."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("_not_deterministic")
def test_torchmetrics_finds_the_same(confusion: torch.Tensor, files: list[tuple[Path, Path]]) -> None:
    truth = torch.stack([read_label(path, CITYSCAPES_19) for path, _ in files]).long()
    guess = torch.stack([read_label(path, CITYSCAPES_19) for _, path in files]).long()
    matrix = multiclass_confusion_matrix(guess, truth, 19, ignore_index=IGNORE, validate_args=False)
    assert torch.equal(confusion, matrix)
    found = multiclass_jaccard_index(guess, truth, 19, average=None, ignore_index=IGNORE, validate_args=False)
    assert iou(confusion).nan_to_num(0.0).tolist() == pytest.approx(found.tolist(), abs=1e-6)


@pytest.mark.parametrize("kind", ["bytes", "palette", "16 bits"])
def test_the_truth_is_judged_in_any_kind_of_label_file(kind: str, tmp_path: Path) -> None:
    random, path = np.random.default_rng(0), tmp_path / "truth.png"
    values = random.choice(np.array([*VOID, *JUDGED, 255], np.uint8), (9, 14))
    image = Image.fromarray(values.astype(np.uint16) if kind == "16 bits" else values)
    if kind == "palette":
        image.putpalette(random.integers(0, 256, 768).astype(np.uint8).tobytes())
    image.save(path)
    guess = torch.randint(0, 19, (9, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = confusion_matrix(guess[None], read_label(path, CITYSCAPES_19)[None], 19)
    assert expected.sum() == np.isin(values, JUDGED).sum()
    assert torch.equal(confusion_of(guess, path, CITYSCAPES_19), expected)
    values[4, 5] = 77
    Image.fromarray(values).save(path)
    with pytest.raises(UserError, match=r"truth\.png: label values outside the class table: 77 \(1 pixels\)"):
        confusion_of(guess, path, CITYSCAPES_19)


def test_an_error_towards_a_category_left_out_still_counts() -> None:
    """A mean over fewer of the trained categories is no mean of a network that was trained with fewer."""
    confusion = torch.tensor([[6, 2, 2], [0, 5, 0], [0, 0, 9]])
    assert mean_iou(confusion, [0, 1]).item() == pytest.approx((6 / 10 + 5 / 7) / 2)
    assert mean_iou(confusion[:2, :2]).item() == pytest.approx((6 / 8 + 5 / 7) / 2)


def test_a_mean_over_fewer_leaves_out_what_occurs_nowhere() -> None:
    confusion = torch.tensor([[4, 0, 0], [0, 0, 0], [0, 0, 2]])
    assert mean_iou(confusion, [0, 1]).item() == 1.0
    assert mean_iou(confusion, [1]).isnan()
