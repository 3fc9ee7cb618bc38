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
from test_artifacts_maps import TABLE, shard_of

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.evidence import EVIDENCE, create_evidence_store
from caguda.artifacts.maps import MapStore, open_store, write_shard
from caguda.classes import CITYSCAPES_19
from caguda.cli import main
from caguda.stages.diagnose import diagnose
from caguda.stages.labelling import open_labelling
from caguda.stages.traced_labelling import TracedLabelling

PICTURES = {"margins.png", "categories.png", "precision_coverage.png", "anchors.png", "projection.png"}
LABELS = "runs__cag__pseudo_labels"
Said = pytest.CaptureFixture[str]


@pytest.fixture
def kept(mini: Miniature, tmp_path: Path) -> Miniature:
    """The miniature's artifacts in a folder of their own, with the config.json of the workflow."""
    folder = shutil.copytree(mini.folder, tmp_path / "results")
    edit_store(folder / "labels" / "evidence.zarr", EVIDENCE, lambda text: text.replace(f"{mini.folder}/", "results/"))
    write_json(folder / "config.json", mini.configuration().model_dump(mode="json"))
    return replace(mini, folder=folder)


def store_of(mini: Miniature) -> Path:
    """The evidence; what it labels is told by the thresholds of the config.json."""
    return mini.folder / "labels" / "evidence.zarr"


def labels_of(mini: Miniature) -> Path:
    """What `diagnose` wrote of the label stores of both rules."""
    return mini.folder / "labels" / "labels.json"


@pytest.fixture
def sharded(kept: Miniature) -> MapStore:
    """The same evidence in three shards, and no JSON that vouches for it, as while parts are at work."""
    batches = kept.configuration(compute__inference_batch_size=3)
    vouching = kept.evidence("shards", batches, kept.weights("warmup"))
    vouching.unlink()
    return open_store(vouching.with_name("evidence.zarr"), EVIDENCE)


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


def refusal(said: Said, store: Path, *options: str) -> str:
    """The line that the verb refuses with."""
    said.readouterr()
    assert main(["inspect", str(store), *options]) == 2
    error = said.readouterr().err
    assert error.count("\n") == 1
    return error


def test_it_tells_what_verification_and_diagnosis_find(kept: Miniature, capsys: Said) -> None:
    found = inspected(capsys, labels_of(kept))
    for evidence in (store_of(kept), store_of(kept).with_suffix(".json")):
        assert inspected(capsys, evidence) == found | {"store": str(evidence)}
    verified, diagnosed = read_json(store_of(kept).with_suffix(".json")), read_json(labels_of(kept))
    assert {key: found[key] for key in ("images", "height", "width")} == {
        key: verified[key] for key in ("images", "height", "width")
    }
    told_by_both = ("images", "pixels", "share", "per_category", "margin_quantiles", "margin", "p0")
    assert {key: found[key] for key in told_by_both} == {key: diagnosed[key] for key in told_by_both}
    assert found["accuracy"] == {kind: diagnosed["accuracy"][kind] for kind in found["accuracy"]}
    assert {"anchor", "probability", "both"} <= found["accuracy"].keys()
    assert (found["images_with_truth"], found["no_truth"], found["missing"]) == (8, None, 0)
    assert set(found["inputs"].values()) == {"unchanged"} and len(found["inputs"]) == 3
    configured = {"margin": 0.05, "margin_unit": "mean_anchor_distance", "p0": 0.3}
    assert found["configured"] == configured


def test_evidence_is_told_by_the_thresholds_that_the_experiment_has_now(kept: Miniature, capsys: Said) -> None:
    """The labels are those of their own rules, whatever has become of the configuration."""
    labelled = inspected(capsys, labels_of(kept))
    changed = kept.configuration(**{f"{LABELS}__anchor__margin": 0.5, f"{LABELS}__probability__p0": 0.6})
    write_json(kept.folder / "config.json", changed.model_dump(mode="json"))
    assert inspected(capsys, labels_of(kept)) == labelled
    found = inspected(capsys, store_of(kept))
    assert (found["configured"]["margin"], found["p0"]) == (0.5, 0.6)
    assert found["margin"] == pytest.approx(10 * labelled["margin"])
    assert all(found["share"][rule] < labelled["share"][rule] for rule in ("anchor", "probability"))


@pytest.mark.parametrize("truth", [True, False])
def test_the_tables_fit_a_terminal_and_name_every_category(kept: Miniature, capsys: Said, truth: bool) -> None:
    if not truth:
        (kept.folder / "config.json").unlink()
    text = told(capsys, labels_of(kept), "--margin", "0.01,0.02,0.03,0.1,0.2", "--p0", "0.2,0.9")
    lines = text.splitlines()
    assert max(len(line) for line in lines if str(kept.folder) not in line) <= 100
    assert text.count("traffic light ") == (5 if truth else 3)  # categories, accuracy, margins in 2 blocks or 1, P0
    assert ("recall" in text) == truth and ("truth is not known: " in text) != truth
    assert "margin 0." in text and "= 0.05 x the anchors' mean distance" in text
    assert "in units of the anchors' mean distance" in text
    found = inspected(capsys, labels_of(kept))
    (total,) = re.findall(r"^all +([\d.]+) +([\d.]+)", text, re.MULTILINE)
    assert total == tuple(f"{100 * found['share'][rule]:.2f}" for rule in ("anchor", "probability"))


def test_what_changed_or_is_missing_is_said_in_one_line(kept: Miniature, capsys: Said, tmp_path: Path) -> None:
    kept.manifest.write_text(kept.manifest.read_text() + " ")
    (kept.folder / "labels" / "anchors.h5").unlink()
    found = inspected(capsys, store_of(kept), "--plot", str(tmp_path / "plots"))
    assert sorted(found["inputs"].values()) == ["changed since", "missing", "unchanged"]
    assert found["no_truth"] == f"{kept.manifest}: changed since, so it is not what the evidence was made of"
    assert found["accuracy"] is None and found["images_with_truth"] == 0
    left_out = {name: why for name, why in found["pictures"].items() if why}
    assert left_out.keys() == {"precision_coverage.png", "anchors.png", "projection.png"}
    assert left_out["anchors.png"].startswith(f"{kept.folder / 'labels' / 'anchors.h5'}: missing")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == PICTURES - left_out.keys()
    text = told(capsys, store_of(kept), "--plot", str(tmp_path / "plots"))
    assert text.count(str(kept.manifest)) == 3 and f"anchors.png: {left_out['anchors.png']}" in text


def test_frames_or_classes_that_are_gone_leave_no_truth(kept: Miniature, capsys: Said, tmp_path: Path) -> None:
    config = kept.folder / "config.json"
    content = read_json(config)
    fewer = {**content, "classes": content["classes"][:-1]}
    write_json(config, fewer)
    for store in (labels_of(kept), store_of(kept)):
        assert f"{kept.manifest}: this must be made with the settings" in inspected(capsys, store)["no_truth"]
    config.write_text(json.dumps(fewer), encoding="utf-8")
    assert "the classes must be those of the evidence" in inspected(capsys, labels_of(kept))["no_truth"]
    config.unlink()
    write_json(config, content)
    frames = TracedLabelling(open_labelling(store_of(kept))).frames
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


def test_images_that_are_not_written_are_left_out_and_damaged_ones_refused(sharded: MapStore, capsys: Said) -> None:
    shard = {name: np.stack([sharded.read(index, name) for index in range(3)]) for name in EVIDENCE.dtypes}
    (sharded.path / "margin" / "c.1.0.0").unlink()
    found = inspected(capsys, sharded.path)
    assert (found["missing"], found["images"], found["images_with_truth"]) == (3, 8, 5)
    assert found["pixels"] == 5 * found["height"] * found["width"]
    assert "INCOMPLETE: 3 images" in told(capsys, sharded.path)
    write_shard(sharded, 0, {**shard, "confidence": shard["confidence"] + 1})
    assert f"image {sharded.image_ids[0]}: confidence must be 0 to 1" in refusal(capsys, sharded.path)
    write_shard(sharded, 0, shard)
    shutil.copy(sharded.path / "predicted" / "c.0.0.0", sharded.path / "margin" / "c.0.0.0")
    assert f"image {sharded.image_ids[0]}: margin is damaged" in refusal(capsys, sharded.path)


def test_what_was_vouched_for_is_read_as_it_was_then(kept: Miniature, capsys: Said) -> None:
    """Maps of another array, of evidence or of the labels of a rule, and none at all."""
    arrays = {store_of(kept) / "nearest_anchor": [labels_of(kept), store_of(kept)]}
    arrays |= {store / "label": [labels_of(kept)] for store in (kept.folder / "labels").glob("*/labels.zarr")}
    assert len(arrays) == 3
    for array, opened_by in arrays.items():
        shard, whole = array / "c.0.0.0", (array / "c.0.0.0").read_bytes()
        shutil.copy(store_of(kept) / "predicted" / "c.0.0.0", shard)
        for path in opened_by:
            assert f"{array.name} is damaged (its chunk is not the one that was verified)" in refusal(capsys, path)
        shard.unlink()
        for path in opened_by:
            assert "must hold all 8 images, found 8 not completely written" in refusal(capsys, path)
        shard.write_bytes(whole)
    assert inspected(capsys, labels_of(kept))["missing"] == 0


@pytest.mark.parametrize("options", [["--margin", "-1"], ["--p0", "1.5"]])
def test_thresholds_that_cannot_be_are_refused(kept: Miniature, capsys: Said, options: list[str]) -> None:
    assert main(["inspect", str(store_of(kept)), *options]) == 2
    assert "--margin must be 0 or more" in capsys.readouterr().err


def test_what_is_no_finished_store_is_refused(kept: Miniature, tmp_path: Path, capsys: Said) -> None:
    empty = kept.folder / "a.zarr"
    create_evidence_store(empty, ["one"], (2, 2), 1, CITYSCAPES_19, {"anchor_distance": 1.0})
    (of_a_rule,) = (kept.folder / "labels").glob("anchor-*/labels.zarr")
    told_of = {
        tmp_path / "none": "No such file or directory",
        empty: "found none; make the evidence first",
        of_a_rule: "found something else",
        kept.manifest: "found something else",
    }
    for path, words in told_of.items():
        assert words in refusal(capsys, path)
    (kept.folder / "config.json").unlink()
    assert "found no config.json of an experiment above it" in refusal(capsys, store_of(kept))


def test_evidence_that_does_not_say_where_it_came_from(kept: Miniature, capsys: Said, tmp_path: Path) -> None:
    store = kept.folder / "a.zarr"
    create_evidence_store(store, ["one"], (6, 9), 1, TABLE, {"anchor_distance": 1.0})
    write_shard(open_store(store, EVIDENCE), 0, shard_of(range(1)))
    text = told(capsys, store, "--margin", "2", "--plot", str(tmp_path / "plots"))
    assert "where it came from is not recorded" in text
    assert text.count("its provenance names no ") == 4  # truth, and the pictures that need it, anchors or the network
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"margins.png", "categories.png"}


# --- other thresholds


def made_anew(kept: Miniature, **changes: Any) -> Path:
    """What `diagnose` tells of labels by other settings of the rules, `anchor__margin` and so on, made of the same evidence."""
    configuration = kept.configuration(**{f"{LABELS}__{key}": value for key, value in changes.items()})
    evidence = store_of(kept).with_suffix(".json")
    output = evidence.with_name("again.json")
    diagnose(configuration, kept.manifest, evidence, kept.labels(configuration, evidence), output)
    return output


@pytest.mark.parametrize(("margin", "p0"), [(0.01, 0.2), (0.02, 0.25), (0.1, 0.45), (0.3, 0.6), (0.0, 0.0)])
def test_labels_made_anew_are_those_that_were_told(kept: Miniature, capsys: Said, margin: float, p0: float) -> None:
    """Below and above the stored 0.05 and 0.3, in the configured unit: every pixel, and shares and scores."""
    anew = made_anew(kept, anchor__margin=margin, probability__p0=p0)
    before, expected, told_anew = open_labelling(labels_of(kept)), open_labelling(anew), read_json(anew)
    for store in (labels_of(kept), store_of(kept)):
        found = inspected(capsys, store, "--margin", f"{margin}", "--p0", f"{p0}")
        (by_margin,), (by_p0,) = found["margins"], found["p0s"]
        assert (by_margin["threshold"], by_p0["threshold"]) == (expected.margin, expected.p0)
        for trial, rule, stored in ((by_margin, "anchor", 0.05), (by_p0, "probability", 0.3)):
            assert trial["share"][rule] == told_anew["share"][rule]
            assert (trial["share"][rule] < found["share"][rule]) == (trial["value"] > stored)
            assert trial["accuracy"][rule] == told_anew["accuracy"][rule] and trial["per_category"][0]["name"] == "road"
    for index in range(before.count):
        again, made = before.read(index).with_thresholds(expected.margin, p0), expected.read(index)
        for name in vars(made):
            np.testing.assert_array_equal(getattr(again, name), getattr(made, name))


def test_a_threshold_that_pixels_hold_is_compared_exactly(kept: Miniature, capsys: Said) -> None:
    """Pixels whose margin or probability is the threshold to the last bit are not active, and the next ones are."""
    before = open_labelling(labels_of(kept))
    rows = [before.read(index) for index in range(before.count)]
    margins, confidences = (np.stack([getattr(row, name) for row in rows]) for name in ("margin", "confidence"))
    margin, p0 = (float(np.sort(values, axis=None)[values.size // 2]) for values in (margins, confidences))
    anew = made_anew(kept, anchor={"margin": margin, "unit": "absolute"}, probability__p0=p0)
    after = open_labelling(anew)
    active = np.stack([after.read(index).active for index in range(after.count)])
    np.testing.assert_array_equal(active & 1 > 0, margins > margin)
    np.testing.assert_array_equal(active & 2 > 0, confidences > p0)
    found = inspected(capsys, anew, "--margin", f"{margin!r}", "--p0", f"{p0!r}")
    for (trial,) in (found["margins"], found["p0s"]):
        assert trial["share"] == found["share"] and trial["per_category"] == found["per_category"]


def test_an_absolute_margin_is_compared_as_it_is(kept: Miniature, capsys: Said) -> None:
    anew = made_anew(kept, anchor={"margin": 0.25, "unit": "absolute"})
    found = inspected(capsys, anew, "--margin", "0.5")
    assert (found["margin"], found["margins"][0]["threshold"]) == (0.25, 0.5)
    assert "in the unit of d2 - d1" in told(capsys, anew, "--margin", "0.5")


def test_labels_of_a_margin_of_0_tell_its_unit(kept: Miniature, capsys: Said) -> None:
    stored = inspected(capsys, labels_of(kept))
    (trial,) = inspected(capsys, made_anew(kept, anchor__margin=0.0), "--margin", "0.05")["margins"]
    assert trial["threshold"] == stored["margin"] and trial["share"] == stored["share"]


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
