"""The paper's tables: the printed numbers, our rows among them, and the four formats."""

import csv
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paper_samples import configuration as settings
from paper_samples import confusion, provenance, score

from caguda.ablations import ablations, chains
from caguda.artifacts.atomic import write_json
from caguda.classes import CITYSCAPES_19, class_table
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.class_charts import class_chart, write_class_chart
from caguda.paper.formats import Line, PrintedTable, to_csv, to_html, to_latex, to_markdown
from caguda.paper.published import Published, published
from caguda.paper.table import Statistic
from caguda.paper.tables import write_paper_table

THIRTEEN = {"wall", "fence", "pole"}
SIXTEEN = [name for name in CITYSCAPES_19.names if name not in ("terrain", "truck", "train")]


def printed_mean(row: Published, name: str) -> float:
    """The mean of the printed columns that a printed mean is of."""
    among = [c for c in CITYSCAPES_19.names if c in row.values and not (name == "mIoU*" and c in THIRTEEN)]
    return sum(row.values[c] for c in among) / len(among)


def test_every_table_has_the_columns_of_cityscapes_and_its_rows() -> None:
    shapes = {1: (19, 13), 2: (19, 1), 3: (16, 8), 4: (19, 11)}
    for number, (categories, rows) in shapes.items():
        columns, found = published(number)
        expected = list(CITYSCAPES_19.names) if categories == 19 else SIXTEEN
        assert list(columns[:categories]) == expected and len(found) == rows
        assert all(0 <= value <= 100 for row in found for name, value in row.values.items() if name != "gain")


def test_printed_means_are_those_of_the_printed_columns_but_for_one_number() -> None:
    off = []
    for number in (1, 2, 3, 4):
        for row in published(number)[1]:
            for name in {"mIoU", "mIoU*"} & row.values.keys():
                if abs(printed_mean(row, name) - row.values[name]) > 0.05 + 1e-9:
                    off.append((number, row.label, row.values[name], round(printed_mean(row, name), 2)))
    assert off == [(1, "CAG-UDA", 50.2, 50.09), (4, "stage 3", 50.2, 50.09)]


def test_printed_gains_and_repeated_rows_agree() -> None:
    rows = {row.label: row.values for row in published(4)[1]}
    base = rows["source only"]["mIoU"]
    for label, values in rows.items():
        assert label == "source only" or values["gain"] == pytest.approx(values["mIoU"] - base, abs=0.051)
    first = {row.label: row.values for row in published(1)[1]}
    assert first["CAG-UDA"] == {k: v for k, v in rows["stage 3"].items() if k != "gain"}
    assert first["Source only of CAG-UDA"] == rows["source only"]


def test_ablations_are_the_recipe_with_losses_left_out() -> None:
    configuration = settings(seeds=(0,))
    found = ablations(configuration.recipes["cag"])
    weights = {
        name: (r.distance, r.anchor_cross_entropy, r.probability_cross_entropy, r.distance_labels)
        for name, r in found.items()
    }
    assert list(weights.values()) == [
        (0.0, 0.0, 0.7, "anchor"),
        (0.0, 0.7, 0.0, "anchor"),
        (0.3, 0.0, 0.0, "probability"),
        (0.3, 0.0, 0.0, "anchor"),
        (0.3, 0.7, 0.0, "anchor"),
        (0.0, 0.7, 0.7, "anchor"),
        (0.3, 0.7, 0.7, "anchor"),
        (0.3, 0.7, 0.7, "anchor"),
    ]
    ways = [(r.start, r.renewed) for r in found.values()]
    assert ways == [("warmup", "stage")] * 6 + [("pretrain", "stage"), ("warmup", "iteration")]
    assert list(chains(configuration))[: 1 + len(found)] == ["cag", *found]


def experiment(root: Path, configuration: Configuration) -> tuple[list[Path], dict[tuple[Any, str, int], Any]]:
    """Random evaluations of every row of Table 4; their files, and their scores by recipe, row and seed."""
    names = class_table(configuration).names
    stages = configuration.stages.count + 1
    rows = [(None, "source only"), (None, "warm-up"), *(("cag", f"stage {k + 1}") for k in range(stages))]
    rows += [(name, "stage 1") for name in ablations(configuration.recipes["cag"])]
    paths, scores = [], {}
    for seed in configuration.seeds:
        for place, (recipe, row) in enumerate(rows):
            trained = score(confusion(len(names), 0.3 + 0.04 * place, 100 * seed + place))
            content = {"row": row, "recipe": recipe, "seed": seed, "frames": 8, "classes": list(names)}
            path = root / f"{seed}-{place}.json"
            path.unlink(missing_ok=True)
            made = provenance("evaluate", seed, 1.0, path)
            write_json(path, content | {"as_trained": trained, "target_statistics": None, "provenance": made})
            paths.append(path)
            scores[recipe, row, seed] = trained
    return paths, scores


def chain(paths: list[Path]) -> list[Path]:
    """Those of source only, warm-up and the three configured stages, without Table 4's further ones."""
    return [path for path in paths if int(path.stem.partition("-")[2]) < 5]


def test_table_4_holds_the_means_and_deviations_over_seeds_and_the_published_numbers(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1, 2))
    paths, scores = experiment(tmp_path, configuration)
    write_paper_table(configuration, 4, paths, tmp_path / "table4.csv")
    rows = {row["row"]: row for row in csv.DictReader((tmp_path / "table4.csv").open(encoding="utf-8"))}
    expected = {
        "source only": (None, "source only"),
        "stage 4": ("cag", "stage 4"),
        "+ CE(t)": ("ablation-anchor", "stage 1"),
    }
    for label, key in expected.items():
        values = [100 * scores[*key, seed]["miou"] for seed in (0, 1, 2)]
        base = [100 * scores[None, "source only", seed]["miou"] for seed in (0, 1, 2)]
        gains = [value - start for value, start in zip(values, base, strict=True)]
        assert float(rows[label]["mIoU"]) == pytest.approx(sum(values) / 3, abs=0.0051)
        spread = math.sqrt(sum((value - sum(values) / 3) ** 2 for value in values) / 2)
        assert float(rows[label]["mIoU sd"]) == pytest.approx(spread, abs=0.0051)
        if label == "source only":
            assert rows[label]["gain"] == ""
        else:
            assert float(rows[label]["gain"]) == pytest.approx(sum(gains) / 3, abs=0.0051)
    assert [rows[label]["published mIoU"] for label in ("+ CE(t)", "stage 1", "stage 4")] == ["46.10", "47.20", ""]
    assert len(rows) == 14


@pytest.mark.parametrize(("layout", "number", "lines"), [("gta5", 1, 13 + 3), ("gta5", 3, 3), ("synthia", 3, 8 + 3)])
def test_published_rows_stand_beside_results_of_their_own_scenario_alone(
    tmp_path: Path, layout: str, number: int, lines: int
) -> None:
    configuration = settings(seeds=(0,), source={"layout": layout})
    write_paper_table(configuration, number, chain(experiment(tmp_path, configuration)[0]), tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8")))
    assert len(rows) == lines and [row["origin"] for row in rows[-3:]] == ["measured"] * 3
    assert all(row["origin"].startswith("published, ") for row in rows[:-3])


def test_table_3_has_the_means_of_16_and_of_13_categories(tmp_path: Path) -> None:
    configuration = settings(seeds=(0,))
    paths, scores = experiment(tmp_path, configuration)
    write_paper_table(configuration, 3, chain(paths), tmp_path / "t.csv")
    row = list(csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8")))[-1]
    iou = dict(zip(CITYSCAPES_19.names, scores["cag", "stage 3", 0]["iou"], strict=True))
    sixteen = sum(iou[name] for name in SIXTEEN) / 16
    thirteen = sum(iou[name] for name in SIXTEEN if name not in THIRTEEN) / 13
    assert float(row["mIoU"]) == pytest.approx(100 * sixteen, abs=0.0051)
    assert float(row["mIoU*"]) == pytest.approx(100 * thirteen, abs=0.0051)


def test_a_missing_seed_is_one_line(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1))
    paths = [path for path in experiment(tmp_path, configuration)[0] if path.name != "1-1.json"]
    with pytest.raises(UserError, match="warm-up: a table needs an evaluation for every seed, found none for seed 1"):
        write_paper_table(configuration, 4, paths, tmp_path / "t.csv")


def sample() -> PrintedTable:
    """Two lines and a baseline with all that the formats have to escape."""
    nan = Statistic(math.nan, None)
    lines = (
        Line("Source only of A&B", "Source only of A\\&B", "published, [1]", (Statistic(90.0, None), nan, nan)),
        Line("<x>", "$x$", "measured", (Statistic(50.04, 1.0), Statistic(40.0, 0.25), Statistic(-3.0, 0.5))),
        Line("y", "y", "measured", (Statistic(50.0, 1.0), Statistic(41.0, 0.25), Statistic(2.0, 0.5))),
    )
    return PrintedTable("A -> B, 100 %", "± is a deviation of a_b.", ("road & all", "mIoU", "gain"), 2, lines)


def test_the_formats_say_the_same() -> None:
    table = sample()
    assert table.best() == [[False, False, False], [True, False, False], [True, True, True]]
    markdown, latex, html = to_markdown(table), to_latex(table), to_html(table)
    assert "**50.0**" in markdown and "| **41.0 ± 0.2** | **+2.0 ± 0.5** |" in markdown
    assert r"\textbf{50.0} & \textbf{41.0 $\pm$ 0.2} & \textbf{+2.0 $\pm$ 0.5} \\" in latex and r"$-$3.0" in latex
    assert r"\rotatebox{90}{road \& all}" in latex and r"A $\rightarrow$ B, 100 \%" in latex and r"a\_b" in latex
    assert "&lt;x&gt;" in html and "<b>+2.0 ± 0.5</b>" in html and "http" not in html
    read = list(csv.reader(to_csv(table).splitlines()))
    assert read[0] == ["row", "origin", "road & all", "road & all sd", "mIoU", "mIoU sd", "gain", "gain sd"]
    assert read[2] == ["<x>", "measured", "50.04", "1.00", "40.00", "0.25", "-3.00", "0.50"]


def test_the_chart_of_categories_has_the_gains_of_all_seeds_and_all_confusions(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1))
    experiment(tmp_path, configuration)
    chosen = [tmp_path / f"{seed}-{place}.json" for seed in (0, 1) for place in (0, 4)]
    write_class_chart(configuration, chosen, tmp_path / "classes.png")
    assert (tmp_path / "classes.png").read_bytes().startswith(b"\x89PNG")
    mixed = [tmp_path / f"{seed}-{place}.json" for seed, place in ((0, 0), (0, 1), (1, 0), (1, 4))]
    for others, message in ((mixed, "must be of one model, found"), ([*chosen, chosen[0]], "of every seed, found")):
        with pytest.raises(UserError, match=message):
            write_class_chart(configuration, others, tmp_path / "classes.png")
    names = class_table(configuration).names
    gains = np.array([[10.0, np.nan, -2.0], [20.0, np.nan, -4.0]])
    left, right = class_chart(names[:3], gains, np.array([[8, 2, 0], [0, 0, 0], [1, 0, 1]]), "stage 3").axes
    bars = [
        (bar.get_width(), label.get_text()) for bar, label in zip(left.patches, left.get_yticklabels(), strict=True)
    ]
    assert bars == [(15.0, "road"), (0.0, "sidewalk (absent)"), (-3.0, "building")]
    assert [text.get_text() for text in right.texts] == ["80", "20", "50", "50"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_compiles(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1))
    paths, _ = experiment(tmp_path, configuration)
    write_paper_table(configuration, 4, paths, tmp_path / "table4.csv")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\\input{table4.tex}\\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (tmp_path / "paper.pdf").exists(), done.stdout
