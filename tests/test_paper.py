"""The result table, from a made-up experiment."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from paper_samples import configuration, rewrite, runs, write_experiment

from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.evaluations import read_evaluations
from caguda.paper.formats import Statistic, best, show, statistic
from caguda.paper.table import report_rows, table_rows, to_csv, write_table

NAMES = {"source_only": "source only"} | {f"cag/stage{k}": f"stage {k}" for k in (1, 2, 3)}
"""What rows are called, where another name than that of their model."""


def read_report(config: Configuration, paths: list[Path], report: str = "cag") -> list[Any]:
    return read_evaluations(config, [row.model for row in report_rows(config, report)], paths)


def rows_of_report(config: Configuration, paths: list[Path], report: str = "cag") -> tuple[Any, ...]:
    return table_rows(read_report(config, paths, report), report_rows(config, report))


def iou_by_hand(matrix: list[list[int]]) -> list[float | None]:
    result: list[float | None] = []
    for c in range(len(matrix)):
        union = sum(matrix[c]) + sum(row[c] for row in matrix) - matrix[c][c]
        result.append(matrix[c][c] / union if union else None)
    return result


def cells(markdown: str, row: str, table: int = 0) -> list[str]:
    block = [part for part in markdown.split("\n\n") if part.startswith("|")][table]
    line = next(line for line in block.splitlines() if line.split("|")[1].strip() == row)
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


@pytest.fixture
def three(tmp_path: Path) -> tuple[Configuration, dict[str, list[Path]]]:
    config = configuration(seeds=(0, 1, 2), stages=2)
    return config, write_experiment(tmp_path, config)


def markdown(config: Configuration, paths: Mapping[str, list[Path]], folder: Path) -> str:
    write_table(config, "cag", paths["evaluations"], folder / "table.csv", folder / "table.md")
    return (folder / "table.md").read_text()


def test_table_agrees_with_the_confusion_matrices(three: Any, tmp_path: Path) -> None:
    config, paths = three
    text = markdown(config, paths, tmp_path)
    names = {"as trained": "as_trained", "target": "target_statistics"}
    lines = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert len(lines) == 3 * 6 * 2
    for line in lines:
        row = {name: model for model, name in NAMES.items()}.get(line["row"], line["row"])
        row = "source_only" if row == "AdaBN" else row
        entries = [json.loads(path.read_text()) for path in paths["evaluations"]]
        entry = next(e for e in entries if e["model"] == row and e["seed"] == int(line["seed"]))
        iou = iou_by_hand(entry[names[line["statistics"]]]["confusion"])
        assert [line[n] for n in entry["classes"]] == ["" if v is None else f"{100 * v:.1f}" for v in iou]
        assert line["mIoU"] == f"{100 * statistics.mean(v for v in iou if v is not None):.1f}"
    for model in ("source_only", "warm-up", "cag/stage2", "oracle"):
        row = NAMES.get(model, model)
        entries = [json.loads(path.read_text()) for path in paths["evaluations"]]
        chosen = [e for e in entries if e["model"] == model]
        road = [100 * (iou_by_hand(e["as_trained"]["confusion"])[0] or 0) for e in chosen]
        position = ["source only", "warm-up", "control", "stage 1", "stage 2", "oracle"].index(row)
        assert cells(text, "road", 1)[position].strip("*") == f"{statistics.mean(road):.1f}"
        miou = [100 * e["as_trained"]["miou"] for e in chosen]
        expected = f"{statistics.mean(miou):.1f} ± {statistics.stdev(miou):.1f}"
        assert cells(text, row)[0].strip("*") == expected
        assert cells(text, row)[4] == "3"


def test_means_over_fewer_categories(three: Any, tmp_path: Path) -> None:
    config, paths = three
    text = markdown(config, paths, tmp_path)
    entries = [json.loads(path.read_text()) for path in paths["evaluations"]]
    left_out = {"mIoU16": {"terrain", "truck", "train"}}
    left_out["mIoU13"] = left_out["mIoU16"] | {"wall", "fence", "pole"}
    for name, without in left_out.items():
        means = {}
        for entry in entries:
            iou = dict(zip(entry["classes"], iou_by_hand(entry["as_trained"]["confusion"]), strict=True))
            known = [100 * v for c, v in iou.items() if c not in without and v is not None]
            means[NAMES.get(entry["model"], entry["model"]), entry["seed"]] = statistics.mean(known)
        found = {}
        for line in csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())):
            if line["statistics"] == "as trained":
                found[line["row"], int(line["seed"])] = line[name]
        assert found == {key: f"{mean:.1f}" for key, mean in means.items()}
        stage = statistics.mean(mean for (row, _), mean in means.items() if row == "stage 2")
        assert cells(text, name, 1)[4].strip("*") == f"{stage:.1f}"
    assert "one confusion matrix of all trained categories" in " ".join(text.split())


@pytest.mark.parametrize(
    ("classes", "means"),
    [
        ("cityscapes16", ["mIoU", "mIoU13"]),
        ("cityscapes13", ["mIoU"]),
        ([{"id": i, "name": f"c{i}", "color": [i, i, i]} for i in range(16)], ["mIoU"]),
    ],
)
def test_means_over_fewer_categories_where_they_are_told(tmp_path: Path, classes: Any, means: list[str]) -> None:
    config = configuration(classes=classes)
    text = markdown(config, write_experiment(tmp_path, config), tmp_path)
    header = (tmp_path / "table.csv").read_text().splitlines()[0].split(",")
    assert [name for name in header if name.startswith("mIoU")] == means
    assert ("mIoU16 is the mean" in text) == (len(means) > 1)
    assert [name for name in ("mIoU16", "mIoU13") if f"| {name} " in text] == means[1:]


def test_statistic_by_hand() -> None:
    assert statistic([10.0, 12.0, 17.0]) == Statistic(13.0, pytest.approx(math.sqrt(13.0)))  # type: ignore[arg-type]
    assert statistic([10.0]) == Statistic(10.0, None)
    assert statistic([10.0, math.nan]) == Statistic(10.0, None)
    assert math.isnan(statistic([math.nan]).mean)
    assert show(Statistic(12.34, 0.56)) == "12.3 ± 0.6"
    assert show(Statistic(-1.0, None), True) == "-1.0"
    assert show(None) == show(statistic([])) == "-"


def test_gain_is_paired_and_adabn_is_source_only_with_target_statistics(three: Any) -> None:
    rows = rows_of_report(three[0], three[1]["evaluations"])
    assert [row.name for row in rows] == ["source only", "AdaBN", "warm-up", "control", "stage 1", "stage 2", "oracle"]
    entries = [json.loads(path.read_text()) for path in three[1]["evaluations"]]
    score = {(e["model"], e["seed"]): 100 * e["as_trained"]["miou"] for e in entries}
    gains = [score["cag/stage2", seed] - score["source_only", seed] for seed in range(3)]
    last = rows[-2].as_trained
    assert last is not None
    assert last.gain.mean == pytest.approx(statistics.mean(gains))
    assert last.gain.deviation == pytest.approx(statistics.stdev(gains))
    assert rows[1].as_trained is None
    assert rows[1].target_statistics == rows[0].target_statistics


def test_single_seed_absent_class_and_bold(tmp_path: Path) -> None:
    config = configuration()
    paths = write_experiment(tmp_path, config)
    text = markdown(config, paths, tmp_path)
    assert "±" not in text
    assert "one seed" in text
    assert "150 target frames" in text
    assert set(cells(text, "train", 1)) == {"-"}
    assert cells(text, "stage 3")[0].startswith("**")
    assert not cells(text, "oracle")[0].startswith("**")
    assert cells(text, "AdaBN")[:2] == ["-", "-"]
    assert max(len(line) for line in text.splitlines()) <= 120
    assert "no adapted row" in " ".join(text.split())


def test_best_is_of_adapted_rows_at_printed_precision(three: Any) -> None:
    rows = rows_of_report(three[0], three[1]["evaluations"])
    values = [Statistic(v, None) for v in (90.0, 1.0, 50.04, 2.0, 50.01, 3.0, 99.0)]
    adapts = [row.adapts for row in rows]
    assert best(values, adapts) == [False, False, True, False, True, False, False]
    assert best([None] * 7, adapts) == [False] * 7


@pytest.mark.parametrize("changes", [{"x": {"like": "control", "title": "AdaBN"}}, {"AdaBN": {"like": "control"}}])
def test_a_run_that_is_called_adabn_has_a_row_of_another_name(tmp_path: Path, changes: dict[str, Any]) -> None:
    (run,) = changes
    config = configuration(runs=runs(**changes), reports={"cag": ["source_only", run]})
    paths = write_experiment(tmp_path, config, of=["source_only", run])
    text, name = markdown(config, paths, tmp_path), {"x": "x"}.get(run, "AdaBN (run)")
    assert [line.split("|")[1].strip() for line in text.split("\n\n")[3].splitlines()[2:]] == [
        "source only",
        "AdaBN",
        name,
    ]
    lines = list(csv.DictReader((tmp_path / "table.csv").open(encoding="utf-8")))
    assert [line["row"] for line in lines] == ["source only", "AdaBN", name, name]


def test_network_without_batch_norm_has_no_adabn(tmp_path: Path) -> None:
    config = configuration(stages=1)
    paths = write_experiment(tmp_path, config)
    for path in paths["evaluations"]:
        rewrite(path, target_statistics=None)
    text = markdown(config, paths, tmp_path)
    assert "| AdaBN" not in text
    assert "with target statistics" not in text
    assert cells(text, "stage 1")[2] == "-"
    assert ",target," not in to_csv(read_report(config, paths["evaluations"]), report_rows(config, "cag"))


def test_a_report_needs_the_evaluations_of_its_own_rows_and_takes_no_others(three: Any) -> None:
    config, paths = three
    kept = [path for path in paths["evaluations"] if path.parent.name not in ("oracle", "control")]
    short = config.model_copy(update={"reports": config.reports | {"short": ("source_only", "warm-up", "cag")}})
    assert len(rows_of_report(short, kept, "short")) == 5
    with pytest.raises(UserError, match=r"control/evaluation.json: the model must be one of .*, found 'control'"):
        read_report(short, paths["evaluations"], "short")
    one = next(p for p in paths["evaluations"] if p.parent.name == "oracle")
    control = [p for p in paths["evaluations"] if p.parent.name == "control"]
    with pytest.raises(UserError, match=r"oracle: .*missing seed 1, 2.*seed0/oracle/evaluation.json"):
        read_report(config, [*kept, *control, one])
    with pytest.raises(UserError, match=r"oracle: .*missing seed 0, 1, 2, found no file"):
        read_report(config, [*kept, *control])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": [f"c{i}" for i in range(19)]}, "classes must be those of the configuration"),
        ({"frames": 7}, "frames must be those of"),
        ({"model": "best"}, "model must be one of"),
        ({"model": "cag/stage3"}, "model must be one of"),
        ({"model": ""}, "model must be one of"),
        ({"seed": 9}, "seed must be one of 0, 1, 2"),
        ({"seed": 0}, "is already in"),
        ({"classes": ["road"]}, "1 classes but 19 IoU values"),
        ({"as_trained": {}}, "must hold the key 'iou'"),
    ],
)
def test_refusals_name_the_file(three: Any, changes: dict[str, Any], message: str) -> None:
    config, paths = three
    path = next(p for p in paths["evaluations"] if "seed1" in p.parts and p.parent.name == "warm-up")
    rewrite(path, **changes)
    with pytest.raises(UserError, match=message) as caught:
        read_report(config, paths["evaluations"])
    assert str(path) in str(caught.value)


def test_incomplete_seeds_and_stages_are_refused(three: Any) -> None:
    config, paths = three
    without = [p for p in paths["evaluations"] if not ("seed1" in p.parts and p.parent.name == "stage2")]
    with pytest.raises(UserError, match=r"cag/stage2: .*missing seed 1"):
        read_report(config, without)
    with pytest.raises(UserError, match="found none"):
        read_report(config, [])
