"""The verb `inspect`: what it tells is what the artifacts hold, and what is missing is said and not needed."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniature import Miniature, edit_store
from PIL import Image
from test_artifacts_labels import TABLE, some_labels

from caguda.artifacts.label_arrays import relabelled, rounded
from caguda.artifacts.labels import create_label_store, open_label_store, verify_label_store, write_labels
from caguda.classes import CITYSCAPES_19
from caguda.cli import main
from caguda.stages.evaluate import diagnose
from caguda.stages.labels import create_store, write_part
from caguda.stages.origin import open_origin

PICTURES = {"margins.png", "categories.png", "precision_coverage.png", "anchors.png", "projection.png"}
Said = pytest.CaptureFixture[str]


@pytest.fixture
def kept(mini: Miniature, tmp_path: Path) -> Miniature:
    """The miniature's artifacts in a folder of their own, with the config.json of the workflow."""
    folder = shutil.copytree(mini.folder, tmp_path / "results")
    edit_store(folder / "labels" / "labels.zarr", lambda text: text.replace(f"{mini.folder}/", "results/"))
    (folder / "config.json").write_text(json.dumps(mini.configuration().model_dump(mode="json")))
    return replace(mini, folder=folder)


def store_of(mini: Miniature) -> Path:
    return mini.folder / "labels" / "labels.zarr"


def inspected(said: Said, store: Path, *options: str) -> dict[str, Any]:
    """What the verb says as JSON."""
    said.readouterr()
    assert main(["inspect", str(store), "--json", *options]) == 0
    found: dict[str, Any] = json.loads(said.readouterr().out)
    return found


def told(said: Said, store: Path, *options: str) -> str:
    said.readouterr()
    assert main(["inspect", str(store), *options]) == 0
    return said.readouterr().out


def test_it_tells_what_verification_and_diagnosis_find(
    mini: Miniature, kept: Miniature, capsys: Said, tmp_path: Path
) -> None:
    found = inspected(capsys, kept.folder / "labels" / "labels.json")
    assert found == inspected(capsys, store_of(kept))
    verified = verify_label_store(store_of(kept))
    told_by_both = ("images", "height", "width", "pixels", "share", "per_category", "margin_quantiles")
    assert {key: found[key] for key in told_by_both} == {key: verified[key] for key in told_by_both}
    diagnose(mini.configuration(), mini.manifest, mini.folder / "labels" / "labels.json", tmp_path / "a.json")
    accuracy = json.loads((tmp_path / "a.json").read_text())
    assert found["accuracy"] == {kind: accuracy[kind] for kind in found["accuracy"]}
    assert {"anchor", "probability", "both"} <= found["accuracy"].keys()
    assert (found["images_with_truth"], found["no_truth"], found["missing"]) == (8, None, 0)
    assert set(found["inputs"].values()) == {"unchanged"} and len(found["inputs"]) == 3
    configured = {"margin": 0.05, "margin_unit": "mean_anchor_distance", "p0": 0.3}
    assert found["configured"].items() >= configured.items()


@pytest.mark.parametrize("truth", [True, False])
def test_the_tables_fit_a_terminal_and_name_every_category(kept: Miniature, capsys: Said, truth: bool) -> None:
    if not truth:
        (kept.folder / "config.json").unlink()
    text = told(capsys, store_of(kept), "--margin", "0.01,0.02,0.03,0.1,0.2", "--p0", "0.2,0.9")
    lines = text.splitlines()
    assert max(len(line) for line in lines if str(kept.folder) not in line) <= 100
    assert text.count("traffic light ") == (5 if truth else 3)  # categories, accuracy, margins in 2 blocks or 1, P0
    assert ("recall" in text) == truth and ("truth is not known: " in text) != truth
    assert "margin 0." in text and "= 0.05 x the anchors' mean distance" in text
    assert "in units of the anchors' mean distance" in text
    found = inspected(capsys, store_of(kept))
    (total,) = re.findall(r"^all +([\d.]+) +([\d.]+)", text, re.MULTILINE)
    assert total == tuple(f"{100 * found['share'][rule]:.2f}" for rule in ("anchor", "probability"))


def test_what_changed_or_is_missing_is_said_in_one_line(kept: Miniature, capsys: Said, tmp_path: Path) -> None:
    kept.manifest.write_text(kept.manifest.read_text() + " ")
    (kept.folder / "labels" / "anchors.h5").unlink()
    found = inspected(capsys, store_of(kept), "--plot", str(tmp_path / "plots"))
    assert sorted(found["inputs"].values()) == ["changed since", "missing", "unchanged"]
    assert found["no_truth"] == f"{kept.manifest}: changed since, so it is not what the label store was made of"
    assert found["accuracy"] is None and found["images_with_truth"] == 0
    left_out = {name: why for name, why in found["pictures"].items() if why}
    assert left_out.keys() == {"precision_coverage.png", "anchors.png", "projection.png"}
    assert left_out["anchors.png"].startswith(f"{kept.folder / 'labels' / 'anchors.h5'}: missing")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == PICTURES - left_out.keys()
    text = told(capsys, store_of(kept), "--plot", str(tmp_path / "plots"))
    assert text.count(str(kept.manifest)) == 3 and f"anchors.png: {left_out['anchors.png']}" in text


def test_frames_or_classes_that_are_gone_leave_no_truth(kept: Miniature, capsys: Said, tmp_path: Path) -> None:
    config = kept.folder / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "classes": content["classes"][:-1]}))
    assert "the classes must be those of the label store" in inspected(capsys, store_of(kept))["no_truth"]
    config.write_text(json.dumps(content))
    frames = open_origin(store_of(kept)).frames
    labels = [frame.label for frame in frames if frame.label is not None]
    hidden = [path.rename(path.with_suffix(".away")) for path in labels]
    try:
        assert "none of the target frames has a label" in inspected(capsys, store_of(kept))["no_truth"]
        hidden[0].rename(labels[0])
        assert inspected(capsys, store_of(kept))["images_with_truth"] == 1
    finally:
        for away, path in zip(hidden, labels, strict=True):
            if away.exists():
                away.rename(path)


def test_images_that_are_not_written_are_left_out_and_damaged_ones_refused(kept: Miniature, capsys: Said) -> None:
    (store_of(kept) / "margin" / "c.3.0.0").unlink()
    found = inspected(capsys, store_of(kept))
    assert (found["missing"], found["images"], found["images_with_truth"]) == (1, 8, 7)
    assert found["pixels"] == 7 * found["height"] * found["width"]
    assert "INCOMPLETE: 1 images" in told(capsys, store_of(kept))
    shutil.copy(store_of(kept) / "predicted" / "c.1.0.0", store_of(kept) / "nearest_anchor" / "c.1.0.0")
    assert main(["inspect", str(store_of(kept))]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and open_label_store(store_of(kept)).image_ids[1] in error


@pytest.mark.parametrize("options", [["--margin", "-1"], ["--p0", "1.5"]])
def test_thresholds_that_cannot_be_are_refused(kept: Miniature, capsys: Said, options: list[str]) -> None:
    assert main(["inspect", str(store_of(kept)), *options]) == 2
    assert "--margin must be 0 or more" in capsys.readouterr().err


def test_what_is_no_finished_store_is_refused(tmp_path: Path, capsys: Said) -> None:
    assert main(["inspect", str(tmp_path / "none")]) == 2
    create_label_store(tmp_path / "a.zarr", ["one"], 2, 2, CITYSCAPES_19, {})
    assert main(["inspect", str(tmp_path / "a.zarr")]) == 2
    create_label_store(tmp_path / "a.zarr", ["one"], 2, 2, CITYSCAPES_19, {"margin": 1.0, "p0": 0.9})
    assert main(["inspect", str(tmp_path / "a.zarr")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [re.sub(r".*found ", "", error) for error in errors] == [
        "no zarr group; make it first, or name the folder labels.zarr", "neither; make it again", "none; make the label store first"]  # fmt: skip


def test_a_store_that_does_not_say_where_it_came_from(tmp_path: Path, capsys: Said) -> None:
    store = tmp_path / "a.zarr"
    create_label_store(store, ["one"], 6, 9, TABLE, {"margin": 1.0, "p0": 0.9})
    write_labels(open_label_store(store), 0, some_labels(0))
    text = told(capsys, store, "--margin", "2", "--plot", str(tmp_path / "plots"))
    assert "where it came from is not recorded" in text and "in the unit of d2 - d1" in text
    assert text.count("its provenance names no ") == 4  # truth, and the pictures that need it, anchors or the network
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"margins.png", "categories.png"}


# --- other thresholds


def made_anew(mini: Miniature, folder: Path, **labels: Any) -> Path:
    """A label store of the same network and anchors with other settings of the section `labels`."""
    configuration = mini.configuration(**{f"labels__{key}": value for key, value in labels.items()})
    inputs = (mini.manifest, mini.weights("warmup"), mini.folder / "labels" / "anchors.h5")
    store = folder / "anew.zarr"
    shutil.rmtree(store, ignore_errors=True)
    create_store(configuration, *inputs, store, folder / "created.json")
    write_part(configuration, *inputs, store, 1, 1, folder / "part.json")
    return store


def differing(stored: Path, anew: Path, margin: float, p0: float) -> int:
    """How many labels of a store differ from those recomputed out of another; each must lie at its threshold."""
    stores, found = [open_label_store(path) for path in (stored, anew)], 0
    for index in range(stores[0].count):
        before, expected = (store.read(index) for store in stores)
        recomputed = relabelled(before, margin, p0)
        for label, value, threshold in (("anchor_label", "margin", margin), ("probability_label", "confidence", p0)):
            wrong = getattr(recomputed, label) != getattr(expected, label)
            assert (getattr(before, value)[wrong] == rounded(threshold)).all(), "farther than rounding"
            found += int(wrong.sum())
    return found


@pytest.mark.parametrize(("margin", "p0"), [(0.01, 0.2), (0.02, 0.25), (0.1, 0.45), (0.3, 0.6), (0.0, 0.0)])
def test_labels_made_anew_are_those_recomputed_from_the_store(
    kept: Miniature, tmp_path: Path, capsys: Said, margin: float, p0: float
) -> None:
    """Below and above the stored 0.05 and 0.3, in the configured unit: labels, shares and scores."""
    anew = made_anew(kept, tmp_path, margin=margin, p0=p0)
    found = inspected(capsys, store_of(kept), "--margin", f"{margin}", "--p0", f"{p0}")
    (by_margin,), (by_p0,) = found["margins"], found["p0s"]
    assert by_margin["threshold"] == pytest.approx(open_label_store(anew).attributes["margin"])
    moved = differing(store_of(kept), anew, by_margin["threshold"], p0)
    assert moved <= by_margin["at_threshold"] + by_p0["at_threshold"]
    expected = verify_label_store(anew)
    for trial, rule in ((by_margin, "anchor"), (by_p0, "probability")):
        off = abs(trial["share"][rule] - expected["share"][rule]) * expected["pixels"]
        assert off <= trial["at_threshold"] + 1e-6
        assert (trial["share"][rule] < found["share"][rule]) == (trial["value"] > (0.05 if rule == "anchor" else 0.3))
        assert trial["accuracy"][rule]["coverage"] is not None and trial["per_category"][0]["name"] == "road"


def test_pixels_at_the_threshold_are_counted_and_the_only_ones_that_differ(kept: Miniature, tmp_path: Path) -> None:
    """With the most frequent stored margins as thresholds, rounding does move pixels."""
    store = open_label_store(store_of(kept))
    margins = np.concatenate([store.read_array(index, "margin").ravel() for index in range(store.count)])
    values, counts = np.unique(margins[margins > 0], return_counts=True)
    moved = 0
    for place in counts.argsort()[-3:]:
        margin = float(values[place])
        anew = made_anew(kept, tmp_path, margin=margin, margin_unit="absolute")
        moved += differing(store_of(kept), anew, margin, 0.3)
    assert moved > 0


def test_an_absolute_margin_is_compared_as_it_is(kept: Miniature, tmp_path: Path, capsys: Said) -> None:
    anew = made_anew(kept, tmp_path, margin=0.25, margin_unit="absolute")
    found = inspected(capsys, anew, "--margin", "0.5")
    assert (found["margin"], found["margins"][0]["threshold"]) == (0.25, 0.5)
    assert "in the unit of d2 - d1" in told(capsys, anew, "--margin", "0.5")
    zero = made_anew(kept, tmp_path, margin=0.0)
    assert main(["inspect", str(zero), "--margin", "0.5"]) == 2
    assert "does not tell its unit" in capsys.readouterr().err


# --- pictures


def test_all_pictures_are_drawn_in_the_colours_of_the_categories(kept: Miniature, tmp_path: Path, capsys: Said) -> None:
    found = inspected(capsys, store_of(kept), "--plot", str(tmp_path / "plots"), "--margin", "0.1", "--p0", "0.5")
    assert found["pictures"] == dict.fromkeys(sorted(PICTURES))
    for name in PICTURES:
        pixels = np.asarray(Image.open(tmp_path / "plots" / name).convert("RGB"))
        assert pixels.shape[1] == 1440 and (pixels != 255).any(axis=2).mean() > 0.02
    drawn = np.asarray(Image.open(tmp_path / "plots" / "categories.png").convert("RGB")).reshape(-1, 3)
    present = [i for i, row in enumerate(found["per_category"]) if row["anchor"] > 0.02]
    for color in np.array(CITYSCAPES_19.colors)[present]:
        assert (drawn == color).all(axis=1).any()
