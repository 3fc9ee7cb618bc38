"""The sweep of thresholds: which there are, what the table and picture tell, and labels made under other thresholds."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from miniature import Miniature
from paper_samples import configuration, confusion, provenance, runs, score, write_evaluation, write_model

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.evidence import EVIDENCE
from caguda.artifacts.labels import LABELS
from caguda.artifacts.vouched import vouched_store
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.configfile import read_merged
from caguda.errors import UserError
from caguda.paper.rows import table_models
from caguda.paper.sweep import sweep_chart, sweep_points, thresholds_of, write_sweep
from caguda.runs import deciding_settings, rules_of
from caguda.stages.labels import make_labels

CONFIG = Path(__file__).parents[1] / "config"
MARGINS, P0S = (0, 0.075, 0.3, 0.6), (0, 0.5, 0.8, 0.9, 0.99)


def settings(seeds: tuple[int, ...] = (0,), added: str = "sweep", **changes: Any) -> Configuration:
    """A sample with the runs of the sweep, as a file of config/ adds them."""
    values = read_merged(CONFIG / f"{added}.yaml").values
    return configuration(seeds, **{"runs": runs() | values["runs"], "tables": values["tables"]} | changes)


@pytest.mark.parametrize(("added", "configured"), [("sweep", 0.15), ("sweep_paper", 2.5)])
def test_a_sweep_changes_one_threshold_at_a_time_of_one_stage(added: str, configured: float) -> None:
    config = settings(added=added)
    (first, *others) = table_models(config, "sweep")
    assert first == "cag/stage1"
    margins = [(0, 0.95), *((factor * configured, 0.95) for factor in (0.5, 2, 4))]
    assert [thresholds_of(config, run) for run in others] == [*margins, *((0.15, p0) for p0 in P0S)]
    for run in others:
        same = deciding_settings(config, run) | {"name": first, "pseudo_labels": {}}
        assert same == deciding_settings(config, first) | {"pseudo_labels": {}}, "but for the thresholds"


def written(
    folder: Path, config: Configuration, *, truth: bool = True
) -> tuple[list[Path], list[Path], dict[tuple[str, int], list[float]]]:
    """Made-up evaluations and what is told of the labels, of every threshold and seed; (4 shares, mIoU) in percent of each."""
    names = class_table(config).names
    made: dict[tuple[str, int], list[float]] = {}
    evaluations, accuracy = [], []
    for seed in config.seeds:
        for place, run in enumerate(table_models(config, "sweep")):
            name = run.replace("/", "-")
            trained = score(confusion(len(names), 0.3 + 0.03 * place, 10 * seed + place))
            shares = [0.1 + 0.05 * place, 0.9 - 0.02 * place - 0.001 * seed, 0.5, 0.75]
            kinds = {"anchor": shares[:2], "probability": shares[2:]}
            known: dict[str, Any] = {
                kind: dict(zip(("coverage", "accuracy"), pair, strict=True)) for kind, pair in kinds.items()
            }
            labels = {}
            for kind, rule in rules_of(config, run).items():
                labels[kind] = folder / f"{seed}-{rule.folder}.json"  # of all runs with this rule
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
            write_model(
                model, provenance("train", seed, 1.0, model, list(labels.values()), deciding_settings(config, run)), []
            )
            write_evaluation(evaluations[-1], run, seed, (trained, None, list(names)), model)
            made[run, seed] = [100 * value for value in (*shares, trained["miou"])]
    return evaluations, accuracy, made


def test_the_table_has_means_over_seeds_and_gains_over_the_configured_thresholds(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 3))
    evaluations, accuracy, made = written(tmp_path, configuration)
    write_sweep(configuration, evaluations, accuracy, tmp_path / "sweep.csv")
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open(encoding="utf-8")))
    assert [row["row"] for row in rows] == [
        *(f"margin {m:g}, P0 0.95" + " (configured)" * (m == 0.15) for m in sorted([*MARGINS, 0.15])),
        *(f"margin 0.15, P0 {p0:g}" for p0 in P0S),
    ]
    half = next(row for row in rows if row["row"] == "margin 0.075, P0 0.95")
    for place, column in enumerate(("anchor labels, coverage", "anchor labels, precision")):
        mean = sum(made["margin-half", seed][place] for seed in (0, 3)) / 2
        assert float(half[column]) == pytest.approx(mean, abs=0.0051)
    gain = sum(made["margin-half", seed][-1] - made["cag/stage1", seed][-1] for seed in (0, 3)) / 2
    assert float(half["gain"]) == pytest.approx(gain, abs=0.0051)
    assert float(rows[2]["gain"]) == 0.0 and float(rows[2]["mIoU sd"]) > 0
    assert all((tmp_path / f"sweep.{suffix}").stat().st_size for suffix in ("md", "tex", "html", "png"))


def test_without_a_truth_the_scores_are_told_alone(tmp_path: Path) -> None:
    configuration = settings(seeds=(0,))
    evaluations, accuracy, _ = written(tmp_path, configuration, truth=False)
    write_sweep(configuration, evaluations, accuracy, tmp_path / "sweep.csv")
    assert "Coverage and precision are not known here: the target has no labels." in (tmp_path / "sweep.md").read_text()
    for axes in sweep_chart(sweep_points(configuration, evaluations, accuracy), 0.15, 0.95).axes:
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mIoU"]
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open(encoding="utf-8")))
    assert all(row["anchor labels, coverage"] == "" and float(row["mIoU"]) > 0 for row in rows)


def test_what_is_told_of_the_labels_of_every_model_is_needed_once_and_of_no_other(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1))
    evaluations, accuracy, _ = written(tmp_path, configuration)
    needed = "the statistics of the labels that a model was trained on must be given once, found"
    with pytest.raises(UserError, match=rf"evaluation-0-cag-stage1\.json: {needed} none"):
        sweep_points(configuration, evaluations, accuracy[1:])
    again = Path(shutil.copy(accuracy[0], tmp_path / "again.json"))
    with pytest.raises(UserError, match=rf"evaluation-0-cag-stage1\.json: {needed} the same twice"):
        sweep_points(configuration, evaluations, [*accuracy, again])
    (tmp_path / "other").mkdir()
    others = written(tmp_path / "other", settings(seeds=(0, 1), added="sweep_paper"))[1]
    unused = next(path for path in others if path.stem == "accuracy-0-margin-double")
    with pytest.raises(
        UserError, match=r"accuracy-0-margin-double.*: labels must be those that a model was trained on, found others"
    ):
        sweep_points(configuration, evaluations, [*accuracy, unused])


def test_a_missing_seed_is_named(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1))
    evaluations, accuracy, _ = written(tmp_path, configuration)
    with pytest.raises(
        UserError, match=r"p0-99: an evaluation of every seed \(0, 1\) must be given, missing seed 1, found"
    ):
        sweep_points(configuration, evaluations[:-1], accuracy[:-1])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"like": "margin-half"}, r"every run must have thresholds of its own, found margin-half and odd with the same; leave one out"),
        ({"like": "cag", "stages": None}, r"every run must have thresholds of its own, found cag/stage1 and odd with the same"),
        ({"like": "margin-half", "pseudo_labels": {"anchor": {"unit": "absolute"}}},
         r"all margins must be in the unit mean_anchor_distance, found absolute of odd; leave it out"),
        ({"like": "control"}, r"every run must be labelled by anchors and by probability, found odd; leave it out"),
    ],
)  # fmt: skip
def test_runs_that_are_no_sweep_are_refused(tmp_path: Path, run: dict[str, Any], message: str) -> None:
    config = settings()
    evaluations, accuracy, _ = written(tmp_path, config)
    known = read_merged(CONFIG / "sweep.yaml").values
    listed = {"sweep": [*known["tables"]["sweep"], "odd"]}
    odd = settings(runs=runs() | known["runs"] | {"odd": run}, tables=listed)
    with pytest.raises(UserError, match=rf"^tables\.sweep: {message}"):
        write_sweep(odd, evaluations, accuracy, tmp_path / "sweep.csv")
    assert not list(tmp_path.glob("sweep.*"))


def test_every_panel_draws_the_points_of_its_threshold(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1))
    evaluations, accuracy, made = written(tmp_path, configuration)
    found = sweep_points(configuration, evaluations, accuracy)
    margins, p0s = sweep_chart(found, 0.15, 0.95).axes
    for axes, expected in ((margins, sorted([*MARGINS, 0.15])), (p0s, sorted([*P0S, 0.95]))):
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert lines["mIoU"].get_xdata().tolist() == pytest.approx(expected)
    coverage = next(line for line in margins.get_lines() if line.get_label() == "coverage")
    assert coverage.get_ydata()[0] == pytest.approx(made["margin-none", 0][0])


def swept(mini: Miniature) -> Configuration:
    """The miniature with two runs that are labelled under other thresholds."""
    stage = {"like": "cag", "stages": None}
    return mini.configuration(
        runs__none=stage | {"pseudo_labels": {"anchor": {"margin": 0}}},
        runs__sure=stage | {"pseudo_labels": {"probability": {"p0": 0.5}}},
    )


def test_labels_are_made_under_other_thresholds_of_the_same_evidence(elsewhere: Miniature, mini: Miniature) -> None:
    configuration, evidence = swept(mini), mini.folder / "labels" / "evidence.json"
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


def test_a_run_trains_on_labels_under_its_own_thresholds_alone(mini: Miniature, elsewhere: Miniature) -> None:
    configuration, evidence = swept(mini), mini.folder / "labels" / "evidence.json"
    folder = elsewhere.folder / "anchor-0-mean_anchor_distance"
    make_labels(configuration, evidence, folder.name, folder / "labels.zarr", folder / "labels.json")
    configured, probability = (evidence.parent / rule.folder for rule in rules_of(configuration, "cag/stage1").values())
    given = {"start": mini.weights("warmup"), "anchors": evidence.with_name("anchors.h5")}

    def trained(run: str, by_anchor: Path) -> Path:
        labels = [rule / "labels.json" for rule in (by_anchor, probability)]
        return elsewhere.train(run.replace("/", "-"), run, configuration, labels=labels, **given)

    for run, others in (("cag/stage1", folder), ("none", configured)):
        with pytest.raises(UserError, match="the labels must be made with the configured thresholds"):
            trained(run, others)
    assert trained("cag/stage1", configured).read_bytes() == mini.weights("stage").read_bytes()
    assert trained("none", folder).read_bytes() != mini.weights("stage").read_bytes()
