"""The sweep of thresholds: which there are, what the table and picture tell, and labels made under other thresholds."""

import csv
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from miniature import Miniature
from paper_samples import configuration as settings
from paper_samples import confusion, provenance, score, write_evaluation, write_model

from caguda.ablations import MARGINS, P0S, chains, rules_of, sweep, thresholds_of
from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.evidence import EVIDENCE
from caguda.artifacts.labels import LABELS
from caguda.artifacts.vouched import vouched_store
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.sweep import points, sweep_chart, write_sweep
from caguda.stages.adapt import adapt
from caguda.stages.labels import make_labels


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
    """Made-up evaluations and what is told of the labels, of every threshold and seed; (4 shares, mIoU) in percent of each."""
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
            labels = {}
            for kind, rule in rules_of(thresholds_of(configuration, name)).items():
                labels[kind] = folder / f"{seed}-{rule.folder}.json"  # of all chains with this rule
                labels[kind].unlink(missing_ok=True)
                origin = provenance("labels", seed, 1.0, labels[kind])
                write_json(labels[kind], {"seed": seed, "rule": rule.described(), "provenance": origin})
            model = folder / f"{seed}-{name}.safetensors"
            accuracy.append(folder / f"accuracy-{seed}-{name}.json")
            evaluations.append(folder / f"evaluation-{seed}-{name}.json")
            accuracy[-1].unlink(missing_ok=True)
            origin = provenance("diagnose", seed, 1.0, accuracy[-1], list(labels.values()))
            named = {kind: path.name for kind, path in labels.items()}
            write_json(accuracy[-1], {"labels": named, "accuracy": known if truth else None, "provenance": origin})
            write_model(model, provenance("stage 1", seed, 1.0, model, list(labels.values()), name), [])
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


def test_without_a_truth_the_scores_are_told_alone(tmp_path: Path) -> None:
    configuration = settings(seeds=(0,))
    evaluations, accuracy, _ = written(tmp_path, configuration, truth=False)
    write_sweep(configuration, evaluations, accuracy, tmp_path / "sweep.csv")
    assert "Coverage and precision are not known here: the target has no labels." in (tmp_path / "sweep.md").read_text()
    for axes in sweep_chart(points(configuration, evaluations, accuracy), 0.15, 0.95).axes:
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mIoU"]
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open(encoding="utf-8")))
    assert all(row["anchor labels, coverage"] == "" and float(row["mIoU"]) > 0 for row in rows)


def test_what_is_told_of_the_labels_of_every_model_is_needed_once_and_of_no_other(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1))
    evaluations, accuracy, _ = written(tmp_path, configuration)
    needed = "the statistics of just the labels that its model was trained on must be given, found"
    with pytest.raises(UserError, match=rf"evaluation-0-sweep-margin-0\.json: {needed} 0"):
        points(configuration, evaluations, accuracy[1:])
    again = Path(shutil.copy(accuracy[0], tmp_path / "again.json"))
    with pytest.raises(UserError, match=rf"evaluation-0-sweep-margin-0\.json: {needed} 2"):
        points(configuration, evaluations, [*accuracy, again])
    with pytest.raises(
        UserError, match=r"accuracy-1-.*: labels must be those that a model of the table was trained on"
    ):
        points(configuration, evaluations[: len(evaluations) // 2], accuracy)


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


def test_labels_are_made_under_other_thresholds_of_the_same_evidence(elsewhere: Miniature, mini: Miniature) -> None:
    configuration, evidence = mini.configuration(), mini.folder / "labels" / "evidence.json"
    made = {}
    for name in (
        "anchor-0-mean_anchor_distance",
        "anchor-0.05-mean_anchor_distance",
        "probability-0.3",
        "probability-0.5",
    ):
        folder = elsewhere.folder / name
        made[name] = folder / "labels.json"
        make_labels(configuration, evidence, name, folder / "labels.zarr", made[name])
    told = read_json(made["anchor-0-mean_anchor_distance"])
    assert told["rule"] == {"name": "anchor", "margin": 0.0, "unit": "mean_anchor_distance"}
    assert told["provenance"]["settings"] == {"rule": told["rule"]}
    assert {read_json(file)["evidence_digest"] for file in made.values()} == {read_json(evidence)["digest"]}
    seen = vouched_store(evidence, EVIDENCE)
    margin, confidence = (seen.read(0, name) for name in ("margin", "confidence"))
    every, fewer, likely, likelier = (vouched_store(file, LABELS).read(0, "active") == 1 for file in made.values())
    assert (every == (margin > 0)).all() and (fewer <= every).all() and not fewer.all() and (fewer != every).any()
    assert (likelier == (confidence > 0.5)).all() and (likelier <= likely).all() and (likelier != likely).any()


def test_a_rule_that_the_experiment_does_not_have_is_refused(mini: Miniature, tmp_path: Path) -> None:
    evidence, store = mini.folder / "labels" / "evidence.json", tmp_path / "labels.zarr"
    for name in ("probability-2", "anchor", "../probability-0.3"):
        with pytest.raises(UserError, match=r"^--rule .*: the configuration has no such rule, only anchor-0\.05-mean_"):
            make_labels(mini.configuration(), evidence, name, store, tmp_path / "labels.json")
    assert not list(tmp_path.iterdir())


def test_a_chain_trains_on_labels_under_its_own_thresholds_alone(mini: Miniature, elsewhere: Miniature) -> None:
    configuration, evidence = mini.configuration(), mini.folder / "labels" / "evidence.json"
    folder = elsewhere.folder / "anchor-0-mean_anchor_distance"
    make_labels(configuration, evidence, folder.name, folder / "labels.zarr", folder / "labels.json")
    configured, probability = (evidence.parent / rule.folder for rule in rules_of(configuration.labels).values())
    given = {"initial": mini.weights("warmup"), "anchors": evidence.with_name("anchors.h5")}

    def trained(recipe: str, by_anchor: Path) -> Path:
        labels = [rule / "labels.json" for rule in (by_anchor, probability)]
        return elsewhere.train(partial(adapt, recipe=recipe, stage=1), recipe, configuration, labels=labels, **given)

    for recipe, others in (("cag", folder), ("sweep-margin-0", configured)):
        with pytest.raises(UserError, match="the labels must be made with the configured thresholds"):
            trained(recipe, others)
    assert trained("cag", configured).read_bytes() == mini.weights("stage").read_bytes()
    assert trained("sweep-margin-0", folder).read_bytes() != mini.weights("stage").read_bytes()
