"""The paper's tables: the printed numbers, our rows among them, and the four formats."""

import csv
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from paper_samples import configuration, confusion, provenance, runs, score

from caguda.artifacts.atomic import read_json, write_json
from caguda.classes import CITYSCAPES_19, class_table
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.class_charts import class_chart, write_class_chart
from caguda.paper.formats import Line, PrintedTable, Statistic, to_csv, to_html, to_latex, to_markdown
from caguda.paper.published import Published, published
from caguda.paper.tables import write_paper_table
from caguda.runs import models, rules_by_folder, run_of

ADDED: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "config" / "ablations.yaml").read_text())
TABLES = {"table1": ["source_only", "warm-up", "cag/stage3"], "table3": ["source_only", "warm-up", "cag/stage3"]}
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


def settings(**changes: Any) -> Configuration:
    """A sample with the runs of Table 4, as config/ablations.yaml adds them."""
    known = {"runs": runs() | ADDED["runs"], "tables": TABLES | ADDED["tables"]}
    return configuration(**(known | changes))


def test_ablations_are_one_stage_of_the_method_with_losses_left_out() -> None:
    config = settings(seeds=(0,))
    found = {name: run_of(config, name) for name in ADDED["runs"]}
    weights = [
        (*(getattr(run.weights, term) for term in ("distance", "anchor_cross_entropy", "probability_cross_entropy")),
         run.distance.target_labels)
        for run in found.values()
    ]  # fmt: skip
    assert weights == [
        (0.0, 0.0, 0.7, "anchor"),
        (0.0, 0.7, 0.0, "anchor"),
        (0.3, 0.0, 0.0, "anchor"),
        (0.3, 0.0, 0.0, "probability"),
        (0.3, 0.7, 0.0, "anchor"),
        (0.0, 0.7, 0.7, "anchor"),
        *3 * [(0.3, 0.7, 0.7, "anchor")],
    ]
    ways = {name: (run.start, run.method) for name, run in found.items() if not name.startswith("ablation-")}
    assert ways == {
        "stage4": ("cag", "cag"),
        "no-warm-up": ("source_only", "cag"),
        "every-iteration": ("warm-up", "cag_every_iteration"),
    }
    assert {run.start for name, run in found.items() if name not in ways} == {"warm-up"}
    assert {run.stages for run in found.values()} == {None}
    assert len(rules_by_folder(config)) == 2, "all are labelled by the same rules"
    assert set(config.tables["table4"]) == {"source_only", "warm-up", "cag", *found}


def experiment(root: Path, config: Configuration) -> tuple[list[Path], dict[tuple[str, int], Any]]:
    """Random evaluations of every model; their files, and their scores by model and seed."""
    names, paths, scores = class_table(config).names, [], {}
    for seed in config.seeds:
        for place, model in enumerate(models(config)):
            trained = score(confusion(len(names), 0.3 + 0.04 * place, 100 * seed + place))
            content = {"model": model, "seed": seed, "frames": 8, "classes": list(names)}
            path = root / f"{seed}-{model.replace('/', '-')}.json"
            path.unlink(missing_ok=True)
            made = provenance("evaluate", seed, 1.0, path)
            write_json(path, content | {"as_trained": trained, "target_statistics": None, "provenance": made})
            paths.append(path)
            scores[model, seed] = trained
    return paths, scores


def of(paths: list[Path], *listed: str) -> list[Path]:
    """The evaluations of some models."""
    return [path for path in paths if path.stem.partition("-")[2] in [name.replace("/", "-") for name in listed]]


def fourth(paths: list[Path]) -> list[Path]:
    """Those of Table 4."""
    return of(paths, *ADDED["tables"]["table4"], *(f"cag/stage{k}" for k in (1, 2, 3)))


def chain(paths: list[Path]) -> list[Path]:
    """Those of Tables 1 and 3."""
    return of(paths, *TABLES["table1"])


def test_table_4_holds_the_means_and_deviations_over_seeds_and_the_published_numbers(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1, 2))
    paths, scores = experiment(tmp_path, configuration)
    write_paper_table(configuration, 4, fourth(paths), tmp_path / "table4.csv")
    rows = {row["row"]: row for row in csv.DictReader((tmp_path / "table4.csv").open(encoding="utf-8"))}
    expected = {"source only": "source_only", "stage 4": "stage4", "'+ CE(t)": "ablation-anchor"}
    for label, key in expected.items():
        values = [100 * scores[key, seed]["miou"] for seed in (0, 1, 2)]
        base = [100 * scores["source_only", seed]["miou"] for seed in (0, 1, 2)]
        gains = [value - start for value, start in zip(values, base, strict=True)]
        assert float(rows[label]["mIoU"]) == pytest.approx(sum(values) / 3, abs=0.0051)
        spread = math.sqrt(sum((value - sum(values) / 3) ** 2 for value in values) / 2)
        assert float(rows[label]["mIoU sd"]) == pytest.approx(spread, abs=0.0051)
        if label == "source only":
            assert rows[label]["gain"] == ""
        else:
            assert float(rows[label]["gain"]) == pytest.approx(sum(gains) / 3, abs=0.0051)
    assert [rows[label]["published mIoU"] for label in ("'+ CE(t)", "stage 1", "stage 4")] == ["46.10", "47.20", ""]
    published_rows = [row.label for row in published(4)[1]]
    labels = [label.removeprefix("'") for label in rows]  # no spreadsheet takes "+ CE(t)" for a formula
    assert labels[: len(published_rows)] == published_rows and len(rows) == len(published_rows) + 3
    assert [row["published mIoU"] for row in list(rows.values())[-3:]] == [""] * 3
    assert "Gain in points over source only, paired by seed." in (tmp_path / "table4.md").read_text()


@pytest.mark.parametrize(("layout", "number", "lines"), [("gta5", 1, 13 + 3), ("gta5", 3, 3), ("synthia", 3, 8 + 3)])
def test_published_rows_stand_beside_results_of_their_own_scenario_alone(
    tmp_path: Path, layout: str, number: int, lines: int
) -> None:
    configuration = settings(seeds=(0,), source={"layout": layout})
    paths, _ = experiment(tmp_path, configuration)
    write_paper_table(configuration, number, chain(paths), tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8")))
    assert len(rows) == lines and [row["origin"] for row in rows[-3:]] == ["measured"] * 3
    assert all(row["origin"].startswith("published, ") for row in rows[:-3])


def test_table_3_has_the_means_of_16_and_of_13_categories(tmp_path: Path) -> None:
    configuration = settings(seeds=(0,))
    paths, scores = experiment(tmp_path, configuration)
    write_paper_table(configuration, 3, chain(paths), tmp_path / "t.csv")
    row = list(csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8")))[-1]
    iou = dict(zip(CITYSCAPES_19.names, scores["cag/stage3", 0]["iou"], strict=True))
    sixteen = sum(iou[name] for name in SIXTEEN) / 16
    thirteen = sum(iou[name] for name in SIXTEEN if name not in THIRTEEN) / 13
    assert float(row["mIoU"]) == pytest.approx(100 * sixteen, abs=0.0051)
    assert float(row["mIoU*"]) == pytest.approx(100 * thirteen, abs=0.0051)


def test_a_missing_seed_and_an_evaluation_of_no_row_are_one_line(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1))
    paths, _ = experiment(tmp_path, configuration)
    kept = [path for path in fourth(paths) if path.name != "1-warm-up.json"]
    for given, message in (
        (kept, r"^warm-up: an evaluation of every seed \(0, 1\) must be given, missing seed 1, found"),
        (paths, r"0-control\.json: the model must be one of source_only, warm-up, .*, found 'control'"),
    ):
        with pytest.raises(UserError, match=message):
            write_paper_table(configuration, 4, given, tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(("number", "table"), [(1, "table1"), (2, "table2"), (3, "table3"), (4, "table4")])
def test_a_table_that_is_not_listed_is_asked_for(tmp_path: Path, number: int, table: str) -> None:
    config = settings(tables={})
    paths = chain(experiment(tmp_path, config)[0])
    with pytest.raises(UserError, match=rf"^tables\.{table}: the runs of this table must be listed, found no such key"):
        write_paper_table(config, number, paths, tmp_path / "t.csv")


def test_the_table_of_the_test_set_is_of_one_model(tmp_path: Path) -> None:
    config = settings(tables={"table2": ["cag"]})
    message = r"^tables\.table2: .* of one model, found cag/stage1, cag/stage2, cag/stage3; list"
    with pytest.raises(UserError, match=message):
        write_paper_table(config, 2, experiment(tmp_path, config)[0][:1], tmp_path / "t.csv")


def test_a_title_is_shown_letter_by_letter_and_the_baseline_is_never_bold(tmp_path: Path) -> None:
    odd = {"source_only": {"method": "supervised", "title": "a|b <i>_$x$ &"}}
    config = settings(seeds=(0,), runs=runs() | odd, tables=TABLES)
    paths, _ = experiment(tmp_path, config)
    write_paper_table(config, 1, chain(paths), tmp_path / "t.csv")
    markdown, latex, html = ((tmp_path / f"t.{suffix}").read_text() for suffix in ("md", "tex", "html"))
    assert "| a\\|b \\<i>\\_\\$x\\$ \\& " in markdown and "over our own a\\|b \\<i>" in markdown
    assert r"a\textbar{}b \textless{}i\textgreater{}\_\$x\$ \&" in latex
    assert "<i>" not in html and "a|b &lt;i&gt;_$x$ &amp;" in html
    line = next(line for line in markdown.splitlines() if line.startswith("| a"))
    assert "**" not in line and "**" in markdown


def sample() -> PrintedTable:
    """Two lines and a baseline with all that the formats have to escape."""
    nan = Statistic(math.nan, None)
    lines = (
        Line("Source only of A&B", "published, [1]", (Statistic(90.0, None), nan, nan), adapts=False),
        Line("<x>", "measured", (Statistic(50.04, 1.0), Statistic(40.0, 0.25), Statistic(-3.0, 0.5)), latex="$x$"),
        Line("y", "measured", (Statistic(50.0, 1.0), Statistic(41.0, 0.25), Statistic(2.0, 0.5))),
    )
    return PrintedTable("A -> B, 100 %", "± is a deviation of a_b.", ("road & all", "mIoU", "gain"), 1, lines)


def test_the_formats_say_the_same() -> None:
    table = sample()
    assert table.best() == [[False, False, False], [True, False, False], [True, True, True]]
    markdown, latex, html = to_markdown(table), to_latex(table), to_html(table)
    assert "**50.0**" in markdown and "| **41.0 ± 0.2** | **+2.0 ± 0.5** |" in markdown
    assert r"\textbf{50.0} & \textbf{41.0 $\pm$ 0.2} & \textbf{+2.0 $\pm$ 0.5} \\" in latex and r"$-$3.0" in latex
    assert r"\rotatebox{90}{road \& all}" in latex and r"A $\rightarrow$ B, 100 \%" in latex and r"a\_b" in latex
    assert "\n$x$ & measured" in latex and r"Source only of A\&B" in latex
    assert "&lt;x&gt;" in html and "<b>+2.0 ± 0.5</b>" in html and "http" not in html
    read = list(csv.reader(to_csv(table).splitlines()))
    assert read[0] == ["row", "origin", "road & all", "road & all sd", "mIoU", "mIoU sd", "gain", "gain sd"]
    assert read[2] == ["<x>", "measured", "50.04", "1.00", "40.00", "0.25", "-3.00", "0.50"]


def test_the_chart_of_categories_has_the_gains_of_all_seeds_and_all_confusions(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1))
    paths, _ = experiment(tmp_path, configuration)
    chosen = of(paths, "source_only", "cag/stage2")
    drawn = set()
    for given in (chosen, chosen[::-1]):  # gains are over the one that led to the other
        write_class_chart(configuration, given, tmp_path / "classes.png")
        drawn.add((tmp_path / "classes.png").read_bytes())
    assert len(drawn) == 1 and drawn.pop().startswith(b"\x89PNG")
    mixed = [*chosen[:2], *of(paths, "warm-up")]
    unknown = tmp_path / "unknown.json"
    write_json(unknown, read_json(chosen[0]) | {"model": ""})
    for others, message in (
        (mixed, "must be of two models, found source_only, cag/stage2, warm-up"),
        (chosen[:1], "must be of two models, found source_only"),
        ([*chosen, chosen[0]], "source_only, seed 0 is already in"),
        (chosen[:3], "cag/stage2: an evaluation of every seed .* missing seed 1"),
        ([chosen[1], unknown], r"unknown\.json: the model must be one of the configuration, found another"),
    ):
        with pytest.raises(UserError, match=message):
            write_class_chart(configuration, others, tmp_path / "classes.png")
    names = class_table(configuration).names
    gains = np.array([[10.0, np.nan, -2.0], [20.0, np.nan, -4.0]])
    left, right = class_chart(names[:3], gains, np.array([[8, 2, 0], [0, 0, 0], [1, 0, 1]]), "stage 3", "mine").axes
    assert left.get_title("left") == "gain of stage 3 over mine, points of IoU"
    assert right.get_title("left") == "stage 3: predictions by truth, percent"
    bars = [
        (bar.get_width(), label.get_text()) for bar, label in zip(left.patches, left.get_yticklabels(), strict=True)
    ]
    assert bars == [(15.0, "road"), (0.0, "sidewalk (absent)"), (-3.0, "building")]
    assert [text.get_text() for text in right.texts] == ["80", "20", "50", "50"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_compiles(tmp_path: Path) -> None:
    configuration = settings(seeds=(0, 1))
    paths, _ = experiment(tmp_path, configuration)
    write_paper_table(configuration, 4, fourth(paths), tmp_path / "table4.csv")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\\input{table4.tex}\\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (tmp_path / "paper.pdf").exists(), done.stdout
