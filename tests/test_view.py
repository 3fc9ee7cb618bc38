"""Pseudo-labels to look at: what the pictures say, which frames are chosen, and what becomes of files that are gone."""

import base64
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from miniature import Miniature, at_cells, edit_sealed, edit_store
from PIL import Image

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.evidence import EVIDENCE
from caguda.artifacts.label_statistics import ImageLabels
from caguda.artifacts.maps import MapStore, open_store
from caguda.classes import CITYSCAPES_19, IGNORE, class_table
from caguda.cli import main
from caguda.datasets.io import read_label
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.files import sha256
from caguda.stages.diagnose import diagnose
from caguda.stages.labelling import open_labelling
from caguda.stages.view import view
from caguda.viewer.overlays import DIFFERENCES, ViewedFrame, agreement, difference, regions, small_objects, write_sheet
from caguda.viewer.page import LabellingHead, Page, pack, write_page

SMALL = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 2))


def labels(nearest: np.ndarray, active: np.ndarray, predicted: np.ndarray | None = None) -> ImageLabels:
    """Consistent arrays of one image; predicted is nearest unless given."""
    predicted = nearest if predicted is None else predicted
    anchor = np.where(active & 1, nearest, IGNORE).astype(np.uint8)
    probability = np.where(active & 2, predicted, IGNORE).astype(np.uint8)
    share = np.linspace(0, 1, nearest.size, dtype=np.float32).reshape(nearest.shape)
    return ImageLabels(active.astype(np.uint8), anchor, probability, nearest, predicted, 7 * share, share)


@given(SMALL)
def test_regions_are_what_a_search_reaches(values: np.ndarray) -> None:
    expected = np.full(values.shape, -1)
    for start in np.ndindex(values.shape):
        queue = [start] if expected[start] < 0 else []
        while queue:
            i, j = queue.pop()
            inside = 0 <= i < values.shape[0] and 0 <= j < values.shape[1]
            if inside and expected[i, j] < 0 and values[i, j] == values[start]:
                expected[i, j] = np.ravel_multi_index(start, values.shape)
                queue += [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
    np.testing.assert_array_equal(regions(values), expected)


def test_a_long_winding_region_is_one() -> None:
    values = np.zeros((41, 40), np.uint8)
    values[1::4, 1:] = values[3::4, :-1] = 1
    found = regions(values)
    assert len(np.unique(found[values == 0])) == 1 and len(np.unique(found[values == 1])) == 20


def test_difference_names_every_case() -> None:
    nearest = np.array([[0, 1, 2, 3, 3]], np.uint8)
    found = difference(labels(nearest, np.array([[0, 1, 2, 3, 3]]), np.array([[0, 0, 2, 3, 4]], np.uint8)))
    assert [list(DIFFERENCES)[value] for value in found[0]] == [
        "neither", "anchors only", "probability only", "both agree", "both differ"]  # fmt: skip


def test_small_objects_are_those_that_the_probability_misses() -> None:
    nearest = np.zeros((40, 50), np.uint8)
    nearest[:, 25:] = 1
    nearest[5:11, 10] = 2  # a pole that anchors alone activate
    nearest[20:26, 10] = 3  # one that the probability has too
    nearest[30, 40:42] = 4  # too small
    active = np.ones(nearest.shape, int)
    active[nearest == 3] = 3
    (mark,) = small_objects(labels(nearest, active))
    assert (mark.x * 50, mark.y * 40) == (10.5, 8.0)
    assert mark.width * 50 == pytest.approx(mark.height * 40) and 6 < mark.height * 40 < 12
    active[5:8, 10] = 3
    assert len(small_objects(labels(nearest, active))) == 1, "half of it is missed"
    active[8, 10] = 3
    assert small_objects(labels(nearest, active)) == []


def test_the_eight_largest_small_objects_are_marked() -> None:
    nearest = np.zeros((40, 50), np.uint8)
    for number in range(10):
        nearest[5 : 8 + number, 4 * number + 2] = number + 1
    marks = small_objects(labels(nearest, np.ones(nearest.shape, int)))
    assert [round(mark.x * 50 - 0.5) for mark in marks] == [4 * number + 2 for number in range(9, 1, -1)]


@pytest.mark.parametrize(("pixels", "found"), [(100, 1), (101, 0)])
def test_a_category_of_more_than_a_twentieth_of_the_image_is_not_small(pixels: int, found: int) -> None:
    nearest = np.zeros((40, 50), np.uint8)
    nearest.flat[:pixels] = 1
    assert len(small_objects(labels(nearest, np.ones(nearest.shape, int)))) == found


@given(hnp.arrays(np.uint8, (2, 3, 4), elements=st.sampled_from([0, 1, IGNORE])))
def test_agreement_counts_pixels_with_label_and_truth(pair: np.ndarray) -> None:
    known = [(a, b) for a, b in zip(pair[0].flat, pair[1].flat, strict=True) if IGNORE not in (a, b)]
    expected = sum(a == b for a, b in known) / len(known) if known else None
    assert agreement(*pair) == (None if expected is None else pytest.approx(expected))


def test_a_page_holds_the_categories_without_loss_and_numbers_as_float16() -> None:
    random = np.random.default_rng(0)
    nearest = random.integers(0, 19, (5, 7)).astype(np.uint8)
    maps = labels(nearest, nearest % 4, nearest[::-1].copy())
    maps.margin[1:] = random.exponential(2.0, (4, 7))
    maps.margin[0, :4] = np.inf, np.nan, 1e6, 1e-7
    planes = zlib.decompress(base64.b64decode(pack(ViewedFrame("a", None, "", [nearest.T.copy()], [maps]), 0)))
    read = np.frombuffer(planes, np.uint8).reshape(8, 35).astype(np.uint16)
    for plane, name in enumerate(("nearest_anchor", "predicted", "active")):
        np.testing.assert_array_equal(read[plane], getattr(maps, name).ravel())
    maps.margin[0, 2] = np.inf  # beyond float16
    for plane, name in ((3, "margin"), (5, "confidence")):
        numbers = (read[plane] | read[plane + 1] << 8).view(np.float16)
        np.testing.assert_allclose(numbers, getattr(maps, name).ravel(), rtol=2**-11, atol=2**-25)
    np.testing.assert_array_equal(read[7], nearest.T.ravel())


@pytest.fixture
def moved(mini: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Miniature:
    """A copy of the experiment and its frames, whose provenance names files as the workflow does."""
    folder = tmp_path / "work" / "results"
    shutil.copytree(mini.folder, folder)
    shutil.copytree(mini.root, tmp_path / "data")
    copy = Miniature(tmp_path / "data", folder)
    write_json(folder / "config.json", copy.configuration().model_dump(mode="json"))
    edit_sealed(copy.manifest, lambda text: text.replace(str(mini.root), str(copy.root)))
    evidence = folder / "labels" / "evidence.zarr"
    edit_store(evidence, EVIDENCE, lambda text: text.replace(str(mini.folder), "results"))
    edit_store(evidence, EVIDENCE, lambda text: text.replace(sha256(mini.manifest), sha256(copy.manifest)))
    monkeypatch.chdir(tmp_path)
    return copy


@pytest.fixture
def store(moved: Miniature) -> Path:
    """What `diagnose` wrote of the labels of both rules."""
    return moved.folder / "labels" / "labels.json"


@pytest.fixture
def sharded(moved: Miniature) -> MapStore:
    """The evidence in three shards, and no JSON that vouches for it, as while parts are at work."""
    batches = moved.configuration(compute__inference_batch_size=3)
    vouching = moved.evidence("shards", batches, moved.weights("warmup"))
    vouching.unlink()
    return open_store(vouching.with_name("evidence.zarr"), EVIDENCE)


def shown(store: Path, output: Path, *options: str) -> list[str]:
    """The frames of the page that a call leaves, in its order."""
    shutil.rmtree(output, ignore_errors=True)
    assert main(["view", str(store), "--html", *options, "--output", str(output)]) == 0
    return [page_data(output, number)["name"] for number in range(len(list((output / "frames").iterdir())))]


def page_data(page: Path, number: int) -> Any:
    """What the script of a frame hands over."""
    return json.loads((page / "frames" / f"{number}.js").read_text().partition(", ")[2].removesuffix(")\n"))


def test_some_frames_are_drawn_and_all_are_on_a_page(store: Path, tmp_path: Path, capsys: Any) -> None:
    ids = open_labelling(store).image_ids
    assert main(["view", str(store), "--output", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{ids[i]}.png" for i in (1, 3, 5, 7)]
    assert "4 of 8 frames, evenly spaced" in capsys.readouterr().out
    assert shown(store, tmp_path / "page") == list(ids)


def test_evidence_is_shown_as_the_configured_thresholds_label_it(
    moved: Miniature, store: Path, tmp_path: Path, capsys: Any
) -> None:
    ids = shown(store, tmp_path / "page")
    expected = [page_data(tmp_path / "page", number) for number in range(len(ids))]
    for path in (store.with_name("evidence.zarr"), store.with_name("evidence.json")):
        assert shown(path, tmp_path / "page") == ids
        assert [page_data(tmp_path / "page", number) for number in range(len(ids))] == expected
    write_json(
        moved.folder / "config.json",
        moved.configuration(runs__cag__pseudo_labels__anchor__margin=0.5).model_dump(mode="json"),
    )
    shown(store, tmp_path / "page")
    assert page_data(tmp_path / "page", 0) == expected[0], "labels are those of their own rules"
    shown(store.with_name("evidence.zarr"), tmp_path / "page")
    assert page_data(tmp_path / "page", 0)["stages"] != expected[0]["stages"]
    (moved.folder / "config.json").unlink()
    assert main(["view", str(store.with_name("evidence.zarr")), "--output", str(tmp_path / "out")]) == 2
    assert "found no config.json of an experiment above it" in capsys.readouterr().err


def test_labels_by_other_thresholds_are_compared_on_a_page(moved: Miniature, store: Path, tmp_path: Path) -> None:
    evidence, other = store.with_name("evidence.json"), store.with_name("other.json")
    settings = moved.configuration(runs__cag__pseudo_labels__anchor__margin=0.5)
    diagnose(settings, moved.manifest, evidence, moved.labels(settings, evidence), other)
    view([store, other], None, None, None, True, tmp_path / "page")
    text = (tmp_path / "page" / "index.html").read_text()
    assert str(store) in text and str(other) in text, "both are of one model: paths tell them apart"
    stages = [
        np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).reshape(8, -1)
        for packed in page_data(tmp_path / "page", 0)["stages"]
    ]
    differ = [(first != second).any() for first, second in zip(*stages, strict=True)]
    assert differ == [False, False, True, *[False] * 5], "active pixels alone"


def test_frames_are_chosen_by_name_or_at_random(store: Path, tmp_path: Path) -> None:
    ids = open_labelling(store).image_ids
    assert shown(store, tmp_path / "page", "--frames", f"{ids[6]},{ids[2]}") == [ids[6], ids[2]]
    random = shown(store, tmp_path / "page", "--random", "3")
    assert len(set(random)) == 3 and random == shown(store, tmp_path / "page", "--random", "3")
    assert sorted(shown(store, tmp_path / "page", "--random", "99")) == list(ids)


def test_the_worst_are_least_right_and_without_truth_least_active(store: Path, tmp_path: Path, capsys: Any) -> None:
    opened, configuration = open_labelling(store), read_json(store.parents[1] / "config.json")
    frames = read_manifest(store.parents[1] / "manifest.json").frames("target")
    table = class_table(Miniature(tmp_path / "data", store.parents[1]).configuration())
    right, active = [], []
    for index, frame in enumerate(frames):
        label = opened.read(index).anchor_label
        assert frame.label is not None
        truth = at_cells(read_label(frame.label, table)[None])[0].numpy()
        known = (truth != IGNORE) & (label != IGNORE)
        right.append((truth == label)[known].sum() / known.sum())
        active.append((label != IGNORE).mean())
    expected = [opened.image_ids[i] for i in np.argsort(right, kind="stable")[:3]]
    assert shown(store, tmp_path / "page", "--worst", "3") == expected
    assert "lowest agreement with the truth" in capsys.readouterr().out
    configuration["classes"][0]["name"] = "path"  # other categories than the store's
    write_json(store.parents[1] / "config.json", configuration)
    expected = [opened.image_ids[i] for i in np.argsort(active, kind="stable")[:3]]
    assert shown(store, tmp_path / "page", "--worst", "3") == expected
    assert "fewest pixels active by anchors" in capsys.readouterr().out


def test_what_is_gone_is_named_and_the_rest_is_shown(store: Path, tmp_path: Path, capsys: Any) -> None:
    frames = read_manifest(store.parents[1] / "manifest.json").frames("target")
    frames[0].image.unlink()
    Image.new("RGB", (64, 32)).save(frames[1].image)
    assert len(shown(store, tmp_path / "page")) == 8
    printed = capsys.readouterr().out
    assert f"{frames[0].image}: this file cannot be read" in printed
    assert f"{frames[1].image}: this file must be as it was when it was checked" in printed
    (store.parents[1] / "config.json").unlink()
    ids = shown(store, tmp_path / "page")
    assert "no truth is known" in capsys.readouterr().out
    first, second, third = (page_data(tmp_path / "page", i) for i in range(3))
    assert first["image"] is None and "cannot be read" in first["missing"] and "another content" in second["missing"]
    assert third["image"].startswith("data:image/jpeg") and not third["truth"]
    (store.parents[1] / "manifest.json").unlink()
    assert main(["view", str(store), "--frames", ids[0], "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / f"{ids[0]}.png").is_file()
    assert "neither images nor truth are known" in capsys.readouterr().out


def test_images_that_are_not_written_are_left_out(sharded: MapStore, tmp_path: Path, capsys: Any) -> None:
    ids, store = sharded.image_ids, sharded.path
    (store / "margin" / "c.1.0.0").unlink()
    assert shown(store, tmp_path / "page") == [*ids[:3], *ids[6:]]
    assert "3 not written yet" in capsys.readouterr().out
    with pytest.raises(UserError, match=f"finished images of the evidence, found '{ids[4]}'"):
        view([store], ids[4], None, None, False, tmp_path / "out")
    for name in EVIDENCE.dtypes:
        for shard in (store / name).glob("c.*"):
            shard.unlink()
    with pytest.raises(UserError, match="found none; make the evidence first"):
        view([store], None, None, None, True, tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--frames", "nobody"], "--frames must name finished images of the evidence, found 'nobody'"),
        (["--worst", "1", "--random", "1"], "one of --frames, --worst and --random"),
        (["SAME", "--html"], "must be named once, found it 2 times"),
    ],
)
def test_faults_are_one_line(store: Path, tmp_path: Path, capsys: Any, options: list[str], words: str) -> None:
    given = [{"SAME": str(store)}.get(option, option) for option in options]
    assert main(["view", str(store), *given, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_stores_of_other_images_are_not_compared(store: Path, tmp_path: Path) -> None:
    other = shutil.copytree(store.parent, tmp_path / "other") / store.name
    edit_store(other.with_name("evidence.zarr"), EVIDENCE, lambda text: text.replace('"unicorn"', '"horse"'))
    with pytest.raises(UserError, match="must have the same images and categories"):
        view([store, other], None, None, None, True, tmp_path / "out")


def test_a_sheet_has_the_colours_of_the_categories(tmp_path: Path) -> None:
    nearest = np.repeat(np.array([0, 10], np.uint8), 8)[None].repeat(8, axis=0)
    grey = np.full((32, 64, 3), 100, np.uint8)
    active = np.where(nearest == 0, 3, 0)
    write_sheet(ViewedFrame("a", grey, "", None, [labels(nearest, active)]), CITYSCAPES_19, "a", tmp_path / "a.png")
    colors = np.unique(np.array(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3), axis=0).astype(int)
    road = [round(0.62 * channel + 0.38 * 100) for channel in CITYSCAPES_19.colors[0]]
    both, neither = (list(bytes.fromhex(DIFFERENCES[name][1:])) for name in ("both agree", "neither"))
    for expected in ([100, 100, 100], road, [38, 38, 38], both, neither):
        assert np.abs(colors - expected).max(axis=1).min() <= 1, expected
    assert np.abs(colors - CITYSCAPES_19.colors[10]).max(axis=1).min() > 1, "no pixel has this label"


def test_a_page_that_was_not_finished_is_none(tmp_path: Path) -> None:
    def frames() -> Iterator[ViewedFrame]:
        nearest = np.zeros((2, 3), np.uint8)
        yield ViewedFrame("a </script>", None, "gone", None, [labels(nearest, nearest)])
        if (tmp_path / "full").exists():
            raise OSError("No space left on device")

    page = Page("in their order", CITYSCAPES_19, [LabellingHead("stage 1", str(tmp_path), 2, 3, 1.5, 0.95)])
    index = write_page(page, frames(), tmp_path / "page")
    assert index.read_text().count("</script>") == 1, "names of frames are escaped"
    assert "http" not in index.read_text(), "nothing comes from outside"
    (tmp_path / "full").touch()
    with pytest.raises(OSError, match="No space"):
        write_page(page, frames(), tmp_path / "page")
    assert not index.exists()
