"""The sweep of thresholds: which there are, what the table and picture tell, and stores made under other thresholds."""

import csv
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from miniature import Miniature
from paper_samples import configuration as settings
from paper_samples import confusion, provenance, score, write_evaluation, write_model

from caguda.ablations import MARGINS, P0S, chains, sweep
from caguda.artifacts.atomic import write_json
from caguda.artifacts.labels import open_label_store
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.sweep import points, sweep_chart, write_sweep
from caguda.stages.labels import create_store, write_part


def test_a_sweep_changes_one_threshold_at_a_time_and_leaves_out_the_configured_pair() -> None:
    labels = settings().labels
    found = sweep(labels)
    assert len(found) == len(MARGINS) + len(P0S)
    assert found["sweep-margin-0.075"] == ("margin", 0.075) and found["sweep-p0-0.99"] == ("p0", 0.99)
    known = labels.model_copy(update={"p0": 0.8, "margin": 0.0})
    assert list(sweep(known)) == [f"sweep-p0-{p0:g}" for p0 in P0S if p0 != 0.8]
    recipes = settings().recipes
    assert all(chains(settings())[name] == recipes["cag"] for name in found)


def written(
    folder: Path, configuration: Configuration, *, truth: bool = True
) -> tuple[list[Path], list[Path], dict[tuple[str, int], list[float]]]:
    """Made-up evaluations and accuracies of every threshold and seed, and the (4 shares, mIoU) in percent of each."""
    names = class_table(configuration).names
    made: dict[tuple[str, int], list[float]] = {}
    evaluations, accuracy = [], []
    for seed in configuration.seeds:
        for place, name in enumerate([*sweep(configuration.labels), "cag"]):
            trained = score(confusion(len(names), 0.3 + 0.03 * place, 10 * seed + place))
            shares = [0.1 + 0.05 * place, 0.9 - 0.02 * place - 0.001 * seed, 0.5, 0.75]
            kinds = {"anchor": shares[:2], "probability": shares[2:]}
            known: dict[str, Any] = {
                kind: dict(zip(("coverage", "accuracy"), pair, strict=True)) for kind, pair in kinds.items()
            }
            labels, model = (folder / f"{seed}-{name}{suffix}" for suffix in ("-labels.json", ".safetensors"))
            known = known if truth else dict.fromkeys(kinds)
            accuracy.append(folder / f"accuracy-{seed}-{name}.json")
            evaluations.append(folder / f"evaluation-{seed}-{name}.json")
            for path in (labels, accuracy[-1]):
                path.unlink(missing_ok=True)
            write_json(labels, {"seed": seed, "place": place, "provenance": provenance("labels", seed, 1.0, labels)})
            origin = provenance("diagnose", seed, 1.0, accuracy[-1], [labels])
            write_json(accuracy[-1], known | {"provenance": origin})
            write_model(model, provenance("stage 1", seed, 1.0, model, [labels], name), [])
            write_evaluation(evaluations[-1], "stage 1", name, seed, (trained, None, list(names)), model)
            made[name, seed] = [100 * value for value in (*shares, trained["miou"])]
    return evaluations, accuracy, made


def test_the_table_has_means_over_seeds_and_gains_over_the_configured_thresholds(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 3))
    evaluations, accuracy, made = written(tmp_path, configuration)
    write_sweep(configuration, evaluations, accuracy, tmp_path / "sweep.csv")
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open(encoding="utf-8")))
    assert [row["row"] for row in rows] == [
        *(f"margin {m:g}, P0 0.95" + " (configured)" * (m == 0.15) for m in (0, 0.075, 0.15, 0.3, 0.6)),
        *(f"margin 0.15, P0 {p0:g}" for p0 in P0S),
    ]
    half = next(row for row in rows if row["row"] == "margin 0.075, P0 0.95")
    for place, column in enumerate(("anchor labels, coverage", "anchor labels, precision")):
        mean = sum(made["sweep-margin-0.075", seed][place] for seed in (0, 3)) / 2
        assert float(half[column]) == pytest.approx(mean, abs=0.0051)
    gain = sum(made["sweep-margin-0.075", seed][-1] - made["cag", seed][-1] for seed in (0, 3)) / 2
    assert float(half["gain"]) == pytest.approx(gain, abs=0.0051)
    assert float(rows[2]["gain"]) == 0.0 and float(rows[2]["mIoU sd"]) > 0
    assert all((tmp_path / f"sweep.{suffix}").stat().st_size for suffix in ("md", "tex", "html", "png"))


@pytest.mark.parametrize("files", [True, False])
def test_without_a_truth_the_scores_are_told_alone(tmp_path: Path, files: bool) -> None:
    configuration = settings(seeds=(0,))
    evaluations, accuracy, _ = written(tmp_path, configuration, truth=False)
    write_sweep(configuration, evaluations, accuracy if files else (), tmp_path / "sweep.csv")
    assert "Coverage and precision are not known here: the target has no labels." in (tmp_path / "sweep.md").read_text()
    for axes in sweep_chart(points(configuration, evaluations, ()), 0.15, 0.95).axes:
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mIoU"]
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open(encoding="utf-8")))
    assert all(row["anchor labels, coverage"] == "" and float(row["mIoU"]) > 0 for row in rows)


def test_a_missing_seed_is_named(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1))
    evaluations, accuracy, _ = written(tmp_path, configuration)
    with pytest.raises(UserError, match=r"cag, seed 1: a sweep needs an evaluation for every seed"):
        points(configuration, evaluations[:-1], accuracy[:-1])


def test_every_panel_draws_the_points_of_its_threshold(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1))
    evaluations, accuracy, made = written(tmp_path, configuration)
    found = points(configuration, evaluations, accuracy)
    margins, p0s = sweep_chart(found, 0.15, 0.95).axes
    for axes, expected in ((margins, [0, 0.075, 0.15, 0.3, 0.6]), (p0s, sorted([*P0S, 0.95]))):
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert lines["mIoU"].get_xdata().tolist() == pytest.approx(expected)
    coverage = next(line for line in margins.get_lines() if line.get_label() == "coverage")
    assert coverage.get_ydata()[0] == pytest.approx(made["sweep-margin-0", 0][0])


def test_a_store_is_made_under_other_thresholds_and_says_so(mini: Miniature, tmp_path: Path) -> None:
    configuration = mini.configuration()
    manifest, checkpoint, anchors = mini.manifest, mini.weights("warmup"), mini.folder / "labels" / "anchors.h5"
    found = {}
    for name, margin, p0 in (("configured", None, None), ("other", 0.0, 0.25)):
        store = tmp_path / f"{name}.zarr"
        create_store(configuration, manifest, checkpoint, anchors, store, tmp_path / f"{name}.json", margin, p0)
        with pytest.raises(UserError, match=r"labels\.margin 0\.0, not 0\.05") if name == "other" else nullcontext():
            write_part(configuration, manifest, checkpoint, anchors, store, 1, 1, tmp_path / "part.json")
        asked = (
            mini.configuration() if name == "configured" else mini.configuration(labels__margin=0.0, labels__p0=0.25)
        )
        write_part(asked, manifest, checkpoint, anchors, store, 1, 1, tmp_path / "part.json")
        found[name] = open_label_store(store)
    configured, other = found["configured"], found["other"]
    assert (other.attributes["margin"], other.attributes["p0"]) == (0.0, 0.25)
    assert other.attributes["provenance"]["settings"]["labels"]["p0"] == 0.25
    assert configured.attributes["margin"] > 0
    first, second = configured.read(0), other.read(0)
    assert (first.nearest_anchor == second.nearest_anchor).all()
    active = first.active & 1 > 0
    assert ((second.active & 1 > 0) | (first.margin == 0)).all() and not active.all()
    with pytest.raises(UserError, match=r"--margin must be 0 or more and --p0 0 to 1, found \{'p0': 2\.0\}"):
        create_store(
            configuration, manifest, checkpoint, anchors, tmp_path / "no.zarr", tmp_path / "no.json", None, 2.0
        )
    assert not (tmp_path / "no.zarr").exists()
