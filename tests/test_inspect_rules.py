"""The verb `inspect` of any rules of one evidence store: figures against the arrays, one picture, and what is refused."""

import json
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from many_rules import RULES, RUN, label_arrays, labelled_by_many_rules, stores_of, truth_array
from miniature import Miniature
from PIL import Image
from test_inspect import Said, inspected, refusal, told

from caguda import registry
from caguda.artifacts.label_statistics import precision_and_coverage
from caguda.classes import IGNORE
from caguda.cli import main
from caguda.stages.diagnose import diagnose
from caguda.stages.labelling import open_labelling
from caguda.viewer.curves import rule_curves


@pytest.fixture
def many(mini: Miniature, tmp_path: Path) -> Miniature:
    return labelled_by_many_rules(mini, tmp_path / "results")


def compared(said: Said, files: list[Path], *options: str) -> dict[str, Any]:
    """What the verb says of several labellings as JSON."""
    return inspected(said, files[0], *map(str, files[1:]), *options)


def test_the_figures_of_every_rule_are_those_of_the_arrays(many: Miniature, capsys: Said) -> None:
    files = stores_of(many)
    found, labels, truth = compared(capsys, files), label_arrays(files), truth_array(many)
    assert "agreement" not in registry.registered("rule"), "the labels of a plugin's rule are told without it"
    assert [row["rule"]["name"] for row in found["rules"].values()] == sorted([*RULES, "anchor", "probability"])
    assert list(found["rules"]) == [file.parent.name for file in files] and found["pixels"] == truth.size
    for name, row in found["rules"].items():
        label, known = labels[name], truth != IGNORE
        active, right = label != IGNORE, (label == truth) & known
        present = [c for c in range(20) if (label == c).any()]
        precisions = [right[label == c].sum() / known[label == c].sum() for c in range(20) if known[label == c].any()]
        recalls = [right[truth == c].mean() for c in range(20) if (truth == c).any()]
        assert row["share"] == active.mean() and row["categories"] == len(present)
        assert row["coverage"] == pytest.approx(active[known].mean())
        assert row["precision"] == pytest.approx(right[active].sum() / known[active].sum())
        assert row["recall"] == pytest.approx(right[known].mean())
        assert row["mean_precision"] == pytest.approx(np.mean(precisions))
        assert row["mean_recall"] == pytest.approx(np.mean(recalls))
        assert [found["per_category"][c][name] for c in range(20)] == [(label == c).mean() for c in range(20)]
    assert len({row["share"] for row in found["rules"].values()}) == 5, "no two of these rules label as much"
    for pair, (first, second) in zip(found["pairs"], combinations(labels, 2), strict=True):
        both = (labels[first] != IGNORE) & (labels[second] != IGNORE)
        assert pair["rules"] == [first, second] and pair["both"] == both.mean()
        assert pair["agreement"] == pytest.approx((labels[first] == labels[second])[both].mean())


def test_reports_stores_and_evidence_name_the_same_rules(many: Miniature, capsys: Said) -> None:
    """A rule that several of them have is told once, as `diagnose` and the inspection of one labelling tell it."""
    report, evidence = many.folder / "labels" / "labels.json", many.folder / "labels" / "evidence.zarr"
    one, files = inspected(capsys, report), stores_of(many)
    papers = [file for file in files if file.parent.name.startswith(("anchor", "probability"))]
    for names in ([report, evidence], [evidence, report], papers, [evidence, *papers], [*papers, report]):
        found = compared(capsys, names)
        assert sorted(found["rules"]) == [file.parent.name for file in papers]
        for name, row in found["rules"].items():
            kind = row["rule"]["name"]
            assert (row["share"], row["precision"]) == (one["share"][kind], one["accuracy"][kind]["accuracy"])
            assert found["accuracy"][name] == one["accuracy"][kind]
        assert (found["pairs"][0]["both"], found["pairs"][0]["agreement"]) == (
            one["share"]["both"],
            one["share"]["agreement"],
        )
    alone = inspected(capsys, files[0])
    assert alone["pairs"] == [] and list(alone["rules"]) == [files[0].parent.name]


def test_a_report_of_any_rules_is_told(many: Miniature, capsys: Said) -> None:
    files = [file for file in stores_of(many) if file.parent.name.startswith("class")]
    report, evidence = many.folder / "labels" / "others.json", many.folder / "labels" / "evidence.json"
    rules = {name: RULES[name] for name in ("class_balanced", "class_quantile")}
    configuration = many.configuration(runs__many=RUN | {"pseudo_labels": rules})
    diagnose(configuration, many.manifest, evidence, files, report)
    found, written = inspected(capsys, report), json.loads(report.read_text())
    short = {row["rule"]["name"]: name for name, row in found["rules"].items()}
    assert set(short) == {"class_balanced", "class_quantile"}
    assert {kind: found["share"][name] for kind, name in short.items()} == written["share"]
    assert {kind: found["accuracy"][name] for kind, name in short.items()} == written["accuracy"]
    assert found["rules"] == compared(capsys, files)["rules"]


@pytest.mark.parametrize("truth", [True, False])
def test_the_tables_have_a_row_for_each_rule_and_each_pair(many: Miniature, capsys: Said, truth: bool) -> None:
    if not truth:
        (many.folder / "config.json").unlink()
    files = stores_of(many)
    text, found = told(capsys, files[0], *map(str, files[1:])), compared(capsys, files)
    rows = {name: [line.split() for line in text.splitlines() if f" {name} " in line] for name in found["rules"]}
    for number, (name, row) in enumerate(found["rules"].items(), 1):
        figures, *pairs = rows[name]
        assert figures[:4] == [str(number), name, f"{100 * row['share']:.2f}", str(row["categories"])]
        scores = [row[key] for key in ("precision", "mean_precision", "recall", "mean_recall")]
        assert figures[4:] == ([f"{100 * score:.1f}" for score in scores] if truth else [])
        (cells,) = pairs or [[]]
        assert cells[2::3] == [f"{100 * pair['both']:.2f}" for pair in found["pairs"] if pair["rules"][1] == name]
    assert ("recall" in text) == truth and ("truth is not known: " in text) != truth
    if not truth:
        assert found["accuracy"] is None and {row["precision"] for row in found["rules"].values()} == {None}


def test_one_picture_has_both_curves_and_a_marker_for_every_rule(
    many: Miniature, capsys: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        "caguda.stages.compared_rules.rule_curves", lambda *given: drawn.append(rule_curves(*given)) or drawn[-1]
    )
    found = compared(capsys, stores_of(many), "--plot", str(tmp_path / "plots"))
    assert found["pictures"] == {"precision_coverage.png": None}
    with Image.open(tmp_path / "plots" / "precision_coverage.png") as picture:
        colors = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0).tolist()
    assert all(list(bytes.fromhex(color)) in colors for color in ("2466a8", "e39a3b", "be185d", "65a30d", "0891b2"))
    axes = drawn[0].axes[0]
    marked = {text.get_text(): text.xy for text in axes.texts}
    assert marked.keys() == found["rules"].keys()
    for name, row in found["rules"].items():
        assert marked[name] == pytest.approx((100 * row["coverage"], 100 * row["precision"]))
    stored = open_labelling(many.folder / "labels" / "labels.json")
    curves = {line.get_label(): line.get_xydata() for line in axes.lines}
    assert list(curves) == ["by anchors, another margin", "by probability, another P0"]
    maps, truth = [stored.maps(index) for index in range(stored.count)], truth_array(many)
    known = truth != IGNORE
    for curve, (category, values) in zip(
        curves.values(), (("nearest_anchor", "margin"), ("predicted", "confidence")), strict=True
    ):
        right, value = (np.stack([image[name] for image in maps]) for name in (category, values))
        halves, hits = np.float16(value[known]), (right == truth)[known]
        for coverage, precision in curve[:: len(curve) // 7]:
            above = halves >= np.sort(halves)[::-1][round(coverage / 100 * halves.size) - 1]
            assert (100 * above.mean(), 100 * hits[above].mean()) == pytest.approx((coverage, precision))
    assert precision_and_coverage(np.array([1, 0]), np.array([0, 3]))[1][0] == 0.75
    (many.folder / "config.json").unlink()
    found = compared(capsys, stores_of(many), "--plot", str(tmp_path / "plots"))
    assert (
        "no truth is known" in found["pictures"]["precision_coverage.png"]
        and list((tmp_path / "plots").iterdir()) == []
    )


def test_a_picture_replaces_those_of_an_inspection_in_detail(many: Miniature, capsys: Said, tmp_path: Path) -> None:
    inspected(capsys, many.folder / "labels" / "labels.json", "--plot", str(tmp_path / "plots"))
    assert len(list((tmp_path / "plots").iterdir())) > 1
    compared(capsys, stores_of(many), "--plot", str(tmp_path / "plots"))
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["precision_coverage.png"]


def test_labels_of_other_evidence_are_refused_by_both_names(many: Miniature, capsys: Said) -> None:
    many.evidence("other", many.configuration(), many.weights("pretrain"))
    (first, *_), other = stores_of(many), many.folder / "other" / "evidence.json"
    error = refusal(capsys, first, str(other))
    assert str(many.folder / "labels" / "evidence.zarr") in error and str(other.with_suffix(".zarr")) in error
    copy = Path(shutil.copytree(many.folder / "labels", many.folder / "copy")) / first.parent.name / "labels.json"
    assert list(compared(capsys, [first, copy])["rules"]) == [first.parent.name], "a copy is of the same evidence"


def test_what_cannot_be_compared_is_refused_in_one_line(many: Miniature, capsys: Said) -> None:
    first, second, *_ = stores_of(many)
    for options in (["--margin", "0.1"], ["--p0", "0.5"]):
        assert "must come with one labelling, by anchor and by probability" in refusal(
            capsys, first, str(second), *options
        )
    moved = second.parents[1] / "elsewhere" / first.parent.name
    shutil.copytree(second.parent, moved)
    shutil.copy(many.folder / "labels" / "evidence.json", moved.parent)
    shutil.copytree(many.folder / "labels" / "evidence.zarr", moved.parent / "evidence.zarr")
    error = refusal(capsys, first, str(moved / "labels.json"))
    assert str(first.with_suffix(".zarr")) in error and str(moved / "labels.zarr") in error
    assert main(["inspect", str(first), str(first)]) == 2
    assert "must be named once" in capsys.readouterr().err
    (many.folder / "labels" / "evidence.json").unlink()
    assert str(many.folder / "labels" / "evidence.json") in refusal(capsys, first)
