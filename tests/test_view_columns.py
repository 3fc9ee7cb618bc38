"""Labels and predictions of several rules and models beside each other: columns, pictures, pages, and what is refused."""

import base64
import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from many_rules import label_arrays, labelled_by_many_rules, stores_of, truth_array
from miniature import Miniature
from PIL import Image
from test_view import page_data

from caguda.artifacts.atomic import read_json, write_json
from caguda.classes import CITYSCAPES_19, IGNORE, class_table
from caguda.cli import main
from caguda.datasets.io import read_label
from caguda.datasets.manifest import read_manifest
from caguda.equations.grid import enlarged_labels
from caguda.stages.evaluate import evaluate
from caguda.stages.predict import predict_part
from caguda.stages.predictions import list_predictions
from caguda.viewer.columns import DISAGREEMENTS, ComparedFrame, disagreement, write_columns_sheet

Said = pytest.CaptureFixture[str]


@pytest.fixture
def many(mini: Miniature, tmp_path: Path) -> Miniature:
    return labelled_by_many_rules(mini, tmp_path / "results")


def predicted(kept: Miniature, model: str, name: Any) -> Path:
    """The JSON of the predictions of a set by a model, as the workflow places it."""
    output = kept.folder / model / "predictions" / f"{name}.json"
    given = (kept.configuration(), kept.manifest, kept.weights(model), name, output.with_suffix(""))
    part = output.with_name(f"{name}.1-of-1.json")
    predict_part(*given, 1, 1, part)
    list_predictions(*given, [part], output)
    return output


def shown(paths: list[Path], output: Path, *options: str) -> dict[str, list[np.ndarray]]:
    """The planes (h, w) of every column of each frame of the page that a call makes, by the frame's id, in its order."""
    shutil.rmtree(output, ignore_errors=True)
    assert main(["view", *map(str, paths), "--html", *options, "--output", str(output)]) == 0
    frames = {}
    for number in range(len(list((output / "frames").iterdir()))):
        data = page_data(output, number)
        size = data["size"]["height"], data["size"]["width"]
        planes = [np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8) for text in data["stages"]]
        frames[data["name"]] = [plane.reshape(-1, *size) for plane in planes]
    return frames


def titles(page: Path) -> list[str]:
    """The titles of the columns of a page."""
    found = re.search(r"^const data = (.*);$", (page / "index.html").read_text(), re.MULTILINE)
    assert found
    return [stage["title"] for stage in json.loads(found[1])["stages"]]


def refusal(said: Said, paths: list[Path], tmp_path: Path, *options: str) -> str:
    said.readouterr()
    assert main(["view", *map(str, paths), *options, "--output", str(tmp_path / "out")]) == 2
    error = said.readouterr().err
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()
    return error


LABELS = hnp.arrays(np.uint8, (3, 4, 5), elements=st.sampled_from([0, 1, 2, IGNORE]))


@given(LABELS, st.booleans())
def test_the_difference_says_which_of_two_is_right(maps: np.ndarray, known: bool) -> None:
    first, second, truth = maps
    found = disagreement(first, second, truth if known else None)
    for place in np.ndindex(first.shape):
        a, b, right = (int(labels[place]) for labels in maps)
        if a == b:
            expected = "same"
        elif right == IGNORE or not known:
            expected = "differ: truth not known"
        else:
            expected = {a: "differ: the first right", b: "differ: the second right"}.get(right, "differ: neither right")
        assert list(DISAGREEMENTS)[found[place]] == expected


def test_a_column_for_every_rule_has_its_labels(many: Miniature, tmp_path: Path) -> None:
    files = stores_of(many)
    labels, truth = label_arrays(files), truth_array(many)
    found = shown(files, tmp_path / "page")
    assert titles(tmp_path / "page") == list(labels) and len(labels) == 5
    ids = [frame.id for frame in read_manifest(many.manifest).frames("target")]
    assert list(found) == ids
    for index, name in enumerate(ids):
        for column, planes in zip(labels.values(), found[name], strict=True):
            np.testing.assert_array_equal(planes, [column[index], truth[index]])
    report = many.folder / "labels" / "labels.json"
    papers = [file.parent.name for file in files if file.parent.name.startswith(("anchor", "probability"))]
    shown([report, files[0]], tmp_path / "page")
    assert titles(tmp_path / "page") == [*papers, files[0].parent.name]
    assert main(["view", str(report), "--output", str(tmp_path / "one")]) == 0
    picture = next((tmp_path / "one").iterdir())
    with Image.open(picture) as image:
        assert image.size[0] == 1440, "one report by the paper's rules is drawn in detail"


def test_two_columns_have_their_differences(many: Miniature, tmp_path: Path, capsys: Said) -> None:
    files = stores_of(many)[:2]
    (first, second), truth = label_arrays(files).values(), truth_array(many)
    found = shown(files, tmp_path / "page", "--worst", "3")
    share = (first != second).mean((1, 2))
    ids = [frame.id for frame in read_manifest(many.manifest).frames("target")]
    assert list(found) == [ids[i] for i in np.argsort(-share, kind="stable")[:3]]
    assert "most pixels that differ" in capsys.readouterr().out
    for name, (planes, others) in found.items():
        index = ids.index(name)
        expected = disagreement(first[index], second[index], truth[index])
        np.testing.assert_array_equal(planes, [first[index], expected, truth[index]])
        np.testing.assert_array_equal(others, [second[index], expected, truth[index]])
    (many.folder / "config.json").unlink()
    for name, (planes, _) in shown(files, tmp_path / "page").items():
        np.testing.assert_array_equal(planes[1:], [4 * (first[ids.index(name)] != second[ids.index(name)])])
    assert "no truth is known" in capsys.readouterr().out


def test_predictions_read_and_computed_are_the_same(many: Miniature, tmp_path: Path) -> None:
    """They are those that the evaluation counts, on the evaluation frames unless target frames are asked for."""
    cached = [predicted(many, model, "evaluation") for model in ("warmup", "stage")]
    weights = [many.weights(model) for model in ("warmup", "stage")]
    found = shown(cached, tmp_path / "page")
    assert titles(tmp_path / "page") == ["warmup", "cag/stage1"]
    frames = read_manifest(many.manifest).frames("evaluation")
    table, confusion = class_table(many.configuration()), np.zeros((20, 20), int)
    assert list(found) == [frame.id for frame in frames]
    for frame in frames:
        assert frame.label is not None
        truth = read_label(frame.label, table).numpy()
        for planes in found[frame.id]:
            np.testing.assert_array_equal(planes[2], truth)
        known = truth != IGNORE
        np.add.at(confusion, (truth[known], found[frame.id][1][0][known]), 1)
    evaluate(many.configuration(), many.manifest, weights[1], tmp_path / "evaluation.json")
    assert confusion.tolist() == read_json(tmp_path / "evaluation.json")["as_trained"]["confusion"]
    for paths in (weights, [cached[0], weights[1]]):
        again = shown(paths, tmp_path / "page")
        for name, columns in found.items():
            for planes, others in zip(columns, again[name], strict=True):
                np.testing.assert_array_equal(planes, others)
    shown([weights[0], cached[0]], tmp_path / "page")
    assert titles(tmp_path / "page") == ["1: warmup", "2: warmup"]


def test_labels_are_enlarged_beside_predictions(many: Miniature, tmp_path: Path) -> None:
    store, weights, cached = stores_of(many)[1], many.weights("warmup"), predicted(many, "warmup", "target")
    (labels,) = label_arrays([store]).values()
    found = shown([store, weights], tmp_path / "page")
    assert titles(tmp_path / "page") == [store.parent.name, "warmup"]
    for (first, second), label in zip(found.values(), labels, strict=True):
        np.testing.assert_array_equal(first[0], enlarged_labels(torch.from_numpy(label.copy()), (32, 64)).numpy())
        assert second[0].shape == (32, 64)
    for name, columns in shown([store, cached], tmp_path / "page").items():
        np.testing.assert_array_equal(columns[1], found[name][1])


def test_the_worst_of_three_columns_are_those_of_the_first(many: Miniature, tmp_path: Path, capsys: Said) -> None:
    files = stores_of(many)[1:4]
    first, truth = next(iter(label_arrays(files).values())), truth_array(many)
    ids = [frame.id for frame in read_manifest(many.manifest).frames("target")]
    both = (first != IGNORE) & (truth != IGNORE)
    right = [(first[i] == truth[i])[both[i]].mean() for i in range(8)]
    assert list(shown(files, tmp_path / "page", "--worst", "8")) == [ids[i] for i in np.argsort(right, kind="stable")]
    assert "lowest agreement of the first column" in capsys.readouterr().out
    (many.folder / "config.json").unlink()
    active = (first != IGNORE).mean((1, 2))
    assert list(shown(files, tmp_path / "page", "--worst", "8")) == [ids[i] for i in np.argsort(active, kind="stable")]
    assert list(shown(files, tmp_path / "page", "--frames", f"{ids[4]},{ids[1]}")) == [ids[4], ids[1]]


def colors_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.unique(np.array(picture.convert("RGB")).reshape(-1, 3), axis=0).astype(int)


def has(colors: np.ndarray, color: Any) -> bool:
    return bool(np.abs(colors - color).max(axis=1).min() <= 1)


def test_a_picture_has_every_column_and_the_kinds_of_differences(tmp_path: Path) -> None:
    first = np.repeat(np.array([0, 10, IGNORE, 13], np.uint8), 4)[None].repeat(8, axis=0)
    second, truth = first.copy(), first.copy()
    second[:, :4], truth[:, 8:12] = 2, IGNORE
    second[:, 8:12] = 5
    grey = np.full((32, 64, 3), 100, np.uint8)
    write_columns_sheet(
        ComparedFrame("a", grey, "", truth, [first, second]), ("one", "two"), CITYSCAPES_19, "a", tmp_path / "a.png"
    )
    colors = colors_of(tmp_path / "a.png")
    for category in (0, 2, 5, 10, 13):
        assert has(colors, [round(0.62 * channel + 0.38 * 100) for channel in CITYSCAPES_19.colors[category]]), category
    kinds = {name: list(bytes.fromhex(color[1:])) for name, color in DISAGREEMENTS.items()}
    for name in ("same", "differ: the first right", "differ: truth not known"):
        assert has(colors, kinds[name]), name
    with Image.open(tmp_path / "a.png") as picture:
        lower = np.asarray(picture.convert("RGB")).astype(int)
    counts = {name: (np.abs(lower - color).max(2) <= 1).sum() for name, color in kinds.items()}
    assert counts["differ: the first right"] > 20 * counts["differ: neither right"], "a patch of the legend alone"
    assert counts["same"] == pytest.approx(2 * counts["differ: the first right"], rel=0.05)
    write_columns_sheet(
        ComparedFrame("a", None, "gone", None, [first] * 4), list("1234"), CITYSCAPES_19, "a", tmp_path / "b.png"
    )
    assert not has(colors_of(tmp_path / "b.png"), kinds["differ: the first right"]), "only two are compared"


def test_pictures_of_columns_are_drawn(many: Miniature, tmp_path: Path, capsys: Said) -> None:
    for paths in (stores_of(many), [many.weights("warmup"), many.weights("stage")]):
        assert main(["view", *map(str, paths), "--random", "2", "--output", str(tmp_path / "out")]) == 0
        assert "2 of " in capsys.readouterr().out and len(list((tmp_path / "out").iterdir())) == 2


def test_what_cannot_be_compared_is_refused_in_one_line(many: Miniature, tmp_path: Path, capsys: Said) -> None:
    cached, store, weights = predicted(many, "warmup", "evaluation"), stores_of(many)[0], many.weights("warmup")
    error = refusal(capsys, [store, cached], tmp_path)
    assert str(store) in error and str(cached) in error and "the evaluation set" in error
    assert "frames of every column, found 'nobody'" in refusal(
        capsys, [cached, weights], tmp_path, "--frames", "nobody"
    )
    assert "found something else" in refusal(capsys, [many.manifest, store], tmp_path)
    alone = Path(shutil.copytree(weights.parent, tmp_path / "alone")) / weights.name
    assert f"{alone}: the categories must be known, found no config.json" in refusal(capsys, [alone], tmp_path)
    file = next(cached.with_suffix("").glob("*.png"))
    Image.new("L", (64, 32)).save(file)
    capsys.readouterr()
    assert main(["view", str(cached), "--frames", file.stem, "--output", str(tmp_path / "damaged")]) == 2
    error = capsys.readouterr().err
    assert str(file) in error and error.count("\n") == 1
    other = read_json(many.folder / "config.json")
    other["classes"][0]["name"] = "path"
    write_json(many.folder / "config.json", other)
    error = refusal(capsys, [store, weights], tmp_path)
    assert str(weights) in error or str(many.manifest) in error
