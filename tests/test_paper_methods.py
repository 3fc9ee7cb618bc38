"""The page of all runs and its tables, from a made-up experiment."""

from __future__ import annotations

import csv
import html
import itertools
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
from paper_samples import configuration, rewrite, runs, write_experiment

from caguda.artifacts.atomic import read_json
from caguda.classes import CITYSCAPES_19
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.figures import Block, write_figure
from caguda.paper.methods import costs_of_rows, sentence_about_p, tera
from caguda.paper.methods_page import MADE_BY, write_methods
from caguda.paper.pictures import description
from caguda.paper.rows import rows_of_runs
from caguda.runs import last_models, models_before, run_of

LAST = ["source_only", "warm-up", "control", "cag/stage2", "oracle", "mine"]
FLOPS = dict.fromkeys(["source_only", "warm-up", "control", "cag/stage1", "cag/stage2", "oracle", "mine"], 1.5e13)
SEEDS = (0, 1, 2)


def sample(folder: Path, seeds: tuple[int, ...] = SEEDS) -> tuple[Configuration, dict[str, list[Path]]]:
    """An experiment with one run more than its report has."""
    added = {
        "method": "self_training",
        "start": "warm-up",
        "pseudo_labels": {"probability": {"p0": 0.95}},
    }
    config = configuration(seeds=seeds, stages=2, runs=runs(2, mine=added))
    return config, write_experiment(folder, config)


def drawn(folder: Path, checkpoints: list[Path], made_by: str = MADE_BY) -> Path:
    frame = {"input": np.full((8, 16, 3), 90, np.uint8)}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "frames.png"
    write_figure([Block("input", ("input",), [frame])], CITYSCAPES_19, path, description(made_by, checkpoints))
    return path


@pytest.fixture
def written(tmp_path: Path) -> tuple[Configuration, dict[str, list[Path]], Path]:
    config, paths = sample(tmp_path)
    folder = tmp_path / "sample" / "methods"
    write_methods(config, FLOPS, **paths, figure=drawn(folder, paths["checkpoints"]), output=folder / "methods.html")
    return config, paths, folder


def scores(paths: dict[str, list[Path]], model: str, kind: str) -> list[float]:
    """The mIoU of a model in percent, seed by seed."""
    contents = [read_json(path) for path in paths["evaluations"]]
    mine = sorted((content["seed"], 100 * content[kind]["miou"]) for content in contents if content["model"] == model)
    return [score for _, score in mine]


def test_every_run_has_a_row_by_its_last_model_whichever_report_lists_it(
    written: tuple[Configuration, dict[str, list[Path]], Path],
) -> None:
    config, paths, folder = written
    assert last_models(config) == LAST
    rows = list(csv.DictReader((folder / "table.csv").open(encoding="utf-8")))
    trained = [row for row in rows if row["statistics"] == "as trained"]
    names = ["source only", "warm-up", "control", "cag stage 2", "oracle", "mine"]
    assert [row["row"] for row in trained] == [name for name in names for _ in SEEDS]
    for model, name in zip(LAST, names, strict=True):
        mine = [float(row["mIoU"]) for row in trained if row["row"] == name]
        assert mine == [round(score, 1) for score in scores(paths, model, "as_trained")]
    page = (folder / "methods.html").read_text(encoding="utf-8")
    assert re.search(r"<tr class=\"adapted\"><td>mine<small>pseudo-labels</small>", page)
    assert "stage 1" not in page, "a row is the last model of a run"


def test_pairs_are_compared_seed_by_seed(written: tuple[Configuration, dict[str, list[Path]], Path]) -> None:
    _, paths, folder = written
    titles = dict(zip(LAST, ["source only", "warm-up", "control", "cag stage 2", "oracle", "mine"], strict=True))
    lines = list(csv.DictReader((folder / "pairs.csv").open(encoding="utf-8")))
    for heading, kind in (("as trained", "as_trained"), ("with target statistics", "target_statistics")):
        found = {(line["first"], line["second"]): line for line in lines if line["statistics"] == heading}
        names = titles if kind == "as_trained" else titles | {"source_only": "AdaBN"}
        assert len(found) == len(LAST) * (len(LAST) - 1)
        for first, second in itertools.permutations(LAST, 2):
            line = found[names[first], names[second]]
            pairs = zip(scores(paths, first, kind), scores(paths, second, kind), strict=True)
            differences = [a - b for a, b in pairs]
            assert line["difference"] == f"{statistics.mean(differences):.2f}"
            assert line["difference sd"] == f"{statistics.stdev(differences):.2f}"
            assert (int(line["seeds won"]), int(line["seeds"])) == (sum(d > 0 for d in differences), 3)
            signs = [
                sum(s * d for s, d in zip(choice, differences, strict=True))
                for choice in itertools.product((1, -1), repeat=3)
            ]
            assert float(line["p"]) == sum(abs(value) >= abs(sum(differences)) - 1e-9 for value in signs) / 8


def test_the_page_shows_each_pair_once_with_its_difference(
    written: tuple[Configuration, dict[str, list[Path]], Path],
) -> None:
    _, paths, folder = written
    page = html.unescape((folder / "methods.html").read_text(encoding="utf-8"))
    cells = re.findall(r'<td class="(won|lost|)" title="([^":]+): ([^"]+)">(\d)</td>', page)
    assert len(cells) == 2 * len(LAST) * (len(LAST) - 1)
    shown = {title: (verdict, text, int(won)) for verdict, title, text, won in cells[: len(cells) // 2]}
    a, b = scores(paths, "oracle", "as_trained"), scores(paths, "source_only", "as_trained")
    mean = statistics.mean(x - y for x, y in zip(a, b, strict=True))
    assert shown["oracle against source only"][0] == "won" and shown["oracle against source only"][2] == 3
    assert shown["oracle against source only"][1].startswith(f"{mean:+.1f} ± ")
    assert shown["oracle against source only"][1].endswith(", p 0.25")
    assert shown["source only against oracle"][0] == "lost" and shown["source only against oracle"][2] == 0


def test_costs_are_those_of_all_trainings_from_fresh_weights_on(tmp_path: Path) -> None:
    config, paths = sample(tmp_path)
    for number, path in enumerate(paths["checkpoints"]):
        rewrite(path, metrics={**read_json(path)["metrics"], "seconds": 2.0**number})
    rows = rows_of_runs(config)
    costs = costs_of_rows(config, rows, paths["checkpoints"], FLOPS)
    seconds: dict[str, list[float]] = {}
    for path in paths["checkpoints"]:
        content = read_json(path)
        seconds.setdefault(content["provenance"]["settings"]["run"]["name"], []).append(content["metrics"]["seconds"])
    for row in rows:
        lineage = [row.model, *models_before(config, row.model)]
        cost = costs[row.model]
        assert cost.iterations == sum(run_of(config, model).iterations for model in lineage)
        assert cost.seconds is not None
        assert cost.seconds.mean == pytest.approx(
            statistics.mean(map(sum, zip(*(seconds[m] for m in lineage), strict=True)))
        )
        assert cost.flops == 1.5e13 * len(lineage)
    assert costs["cag/stage2"].iterations == 400 and costs["source_only"].iterations == 100


def test_a_cost_that_is_unknown_in_part_is_unknown(tmp_path: Path) -> None:
    config, paths = sample(tmp_path, seeds=(0,))
    first = next(path for path in paths["checkpoints"] if "source_only" in path.parts)
    rewrite(first, metrics={})
    costs = costs_of_rows(config, rows_of_runs(config), paths["checkpoints"], {"oracle": 1e12})
    assert costs["cag/stage2"].seconds is None and costs["cag/stage2"].flops is None
    assert costs["oracle"].seconds is not None and costs["oracle"].flops == 1e12


def test_tables_and_page_have_costs_and_labels(written: tuple[Configuration, dict[str, list[Path]], Path]) -> None:
    _, _, folder = written
    text = (folder / "table.md").read_text(encoding="utf-8")
    (cag,) = re.findall(
        r"^\| cag stage 2 +\| +(400) \| +(\S.*?) \| +(60) \| +(\S.*?) \| +(\S.*?) \|$", text, re.MULTILINE
    )
    assert cag[3:] == ("anchor: 84.0 ± 0.0, probability: 76.0 ± 0.0", "97.1 ± 0.0, 98.8 ± 0.0")
    page = (folder / "methods.html").read_text(encoding="utf-8")
    assert "<td>anchor<br>probability</td>" in page and "<td>84.0 ± 0.0<br>76.0 ± 0.0</td>" in page
    assert "none below 0.25" in text and "none below 0.25" in page


def test_the_best_adapted_value_is_bold(written: tuple[Configuration, dict[str, list[Path]], Path]) -> None:
    _, paths, folder = written
    page = (folder / "methods.html").read_text(encoding="utf-8")
    adapted = {name: statistics.mean(scores(paths, model, "as_trained")) for name, model in
               (("warm-up", "warm-up"), ("control", "control"), ("cag stage 2", "cag/stage2"), ("mine", "mine"))}  # fmt: skip
    best = [name for name, value in adapted.items() if round(value, 1) == round(max(adapted.values()), 1)]
    rows = re.findall(r'<tr class="\w+"><td>([^<]+)<small>.*?</small></td>\n<td class="(best|)">', page)
    assert [name for name, mark in rows if mark] == best


def test_the_same_inputs_give_the_same_bytes_and_take_the_place_of_the_earlier_files(
    written: tuple[Configuration, dict[str, list[Path]], Path],
) -> None:
    config, paths, folder = written
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_methods(config, FLOPS, **paths, figure=folder / "frames.png", output=folder / "methods.html")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_file_of_a_person_is_not_replaced(tmp_path: Path) -> None:
    config, paths = sample(tmp_path, seeds=(0,))
    folder = tmp_path / "sample" / "methods"
    figure = drawn(folder, paths["checkpoints"])
    (folder / "pairs.csv").write_text("my own pairs\n", encoding="utf-8")
    with pytest.raises(UserError, match="pairs.csv: only a file that caguda wrote is replaced"):
        write_methods(config, FLOPS, **paths, figure=figure, output=folder / "methods.html")
    assert sorted(path.name for path in folder.iterdir()) == ["frames.png", "pairs.csv"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("evaluations", "an evaluation of every seed"),
        ("checkpoints", "the checkpoint that was evaluated must be given too"),
        ("label_reports", "the statistics of the labels that a model was trained on must be given once, found none"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, kind: str, message: str) -> None:
    config, paths = sample(tmp_path, seeds=(0,))
    figure = drawn(tmp_path / "methods", paths["checkpoints"])
    short = {**paths, kind: paths[kind][:-1]}
    with pytest.raises(UserError, match=message):
        write_methods(config, FLOPS, **short, figure=figure, output=tmp_path / "methods" / "methods.html")


def test_another_picture_is_refused(tmp_path: Path) -> None:
    config, paths = sample(tmp_path, seeds=(0,))
    figure = drawn(tmp_path / "methods", paths["checkpoints"], "figure")
    with pytest.raises(UserError, match="this must be a picture that `methods-figure` drew"):
        write_methods(config, FLOPS, **paths, figure=figure, output=tmp_path / "methods" / "methods.html")


@pytest.mark.parametrize(("flops", "text"), [(1.5e12, "1.5"), (123.4e12, "123"), (5e9, "0.005"), (2.3e18, "2,300,000")])
def test_flops_are_printed_with_three_digits(flops: float, text: str) -> None:
    assert tera(flops) == text


@pytest.mark.parametrize(
    ("seeds", "said"),
    [(1, "One seed gives none below 1."), (6, "6 seeds give none below 0.031."), (17, "for at most 16 seeds.")],
)
def test_the_sentence_about_the_test_says_what_it_can_show(seeds: int, said: str) -> None:
    assert sentence_about_p(seeds).endswith(said)


def test_the_runs_that_have_seen_the_source_alone_are_the_first_rows(tmp_path: Path) -> None:
    config, _ = sample(tmp_path, seeds=(0,))
    turned = config.model_copy(update={"runs": dict(reversed(config.runs.items()))})
    assert [row.model for row in rows_of_runs(turned)] == [
        "source_only",
        "mine",
        "oracle",
        "cag/stage2",
        "control",
        "warm-up",
    ]
