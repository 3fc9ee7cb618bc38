"""Figures and the report, from a made-up experiment."""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from miniature import label_files
from numpy.typing import NDArray
from paper_samples import configuration, rewrite, runs, write_experiment, write_labels

from caguda.artifacts.atomic import read_json, write_json
from caguda.classes import CITYSCAPES_19
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper import charts
from caguda.paper.evaluations import label_contents, read_evaluations
from caguda.paper.figures import Block, side_by_side, write_figure
from caguda.paper.formats import show
from caguda.paper.pictures import description
from caguda.paper.report import artifact, duration, labels_of_rows, names_of_artifacts, times_by_verb, write_report
from caguda.paper.report_files import label_reports_of
from caguda.paper.rows import models_of_curves, models_of_figure
from caguda.paper.table import report_rows, table_rows, to_csv

FILES = ("figure.png", "curves.png", "table.csv")
VOID = {"meta", "br", "hr", "img", "input", "link"}


@pytest.fixture
def three(tmp_path: Path) -> tuple[Configuration, dict[str, list[Path]]]:
    config = configuration(seeds=(0, 1, 2), stages=2)
    return config, write_experiment(tmp_path, config)


def pixels(figure: Figure) -> NDArray[np.uint8]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def test_qualitative_paints_known_pixels(tmp_path: Path) -> None:
    image = np.full((40, 80, 3), (10, 200, 30), np.uint8)
    truth = np.full((40, 80), 11, np.uint8)
    anchors = np.full((10, 20), 255, np.uint8)
    anchors[:, 10:] = 0
    blocks = [
        Block(
            "evaluation",
            ("input", "ground truth", "stage 1"),
            [{"input": image, "ground truth": truth, "stage 1": truth}],
        ),
        Block("training", ("input", "anchors"), [{"input": image, "anchors": anchors}, {"input": image}]),
    ]
    figure = side_by_side(blocks, CITYSCAPES_19)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 1, 0]
    picture = pixels(figure)

    def at(panel: int, x: float, y: float) -> tuple[int, ...]:
        box = figure.axes[panel].get_position()
        row = (1 - (box.y0 + (1 - y) * box.height)) * picture.shape[0]
        return tuple(picture[int(row), int((box.x0 + x * box.width) * picture.shape[1])].tolist())

    assert at(0, 0.5, 0.5) == (10, 200, 30)
    assert at(1, 0.5, 0.5) == (220, 20, 60)
    assert [at(5, x, 0.5) for x in (0.25, 0.75)] == [(0, 0, 0), (128, 64, 128)]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["road", "person", "ignored or not assigned"]
    write_figure(blocks, CITYSCAPES_19, tmp_path / "a.png", description("figure"))
    write_figure(blocks, CITYSCAPES_19, tmp_path / "b.png", description("figure"))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_loss_curves_have_a_panel_per_job(three: Any, tmp_path: Path) -> None:
    config, paths = three
    names = {row.model: row.name for row in report_rows(config, "cag")}
    read = [read_json(path) for path in paths["checkpoints"]]
    jobs = [(names[each["provenance"]["settings"]["run"]["name"]], each["metrics"]["history"]) for each in read]
    figure = charts.loss_curves(jobs)
    assert [axes.get_title("left") for axes in figure.axes] == [
        "source only", "warm-up", "control", "stage 1", "stage 2", "oracle"
    ]  # fmt: skip
    assert [len(axes.lines) for axes in figure.axes] == [3, 9, 3, 15, 15, 3]
    assert to_hex(figure.axes[0].lines[0].get_color()) == charts.TERM_COLORS["source cross entropy"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list(charts.TERM_COLORS)
    assert charts.scale([0.01, 1.0]) == "log"
    assert charts.scale([0.0, 1.0]) == charts.scale([0.5, 1.0]) == charts.scale([]) == "linear"
    charts.write_curves(config, "cag", paths["checkpoints"], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_curves_are_drawn_in_the_order_of_rows_and_of_the_report_alone(
    three: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    config, paths = three
    drawn: list[list[str]] = []
    monkeypatch.setattr(charts, "loss_curves", lambda jobs: drawn.append([title for title, _ in jobs]) or Figure())
    first = [path for path in paths["checkpoints"] if "seed0" in path.parts]
    charts.write_curves(config, "cag", first[::-1], tmp_path / "curves.png")
    assert drawn == [["source only", "warm-up", "control", "stage 1", "stage 2", "oracle"]]
    short = config.model_copy(update={"reports": {"short": ("source_only", "cag")}})
    with pytest.raises(
        UserError, match=r"warm-up/checkpoint\.json: the curves must be of models of the report short, found warm-up"
    ):
        charts.write_curves(short, "short", first, tmp_path / "curves.png")
    with pytest.raises(UserError, match=r"--report other: the configuration has no such report, only short"):
        charts.write_curves(short, "other", first, tmp_path / "curves.png")


class Page(HTMLParser):
    """A page's text, links and pictures; a tag that is not closed in order fails."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def draw(path: Path, verb: str, shows: list[Path]) -> None:
    path.unlink(missing_ok=True)
    charts.save(Figure(figsize=(1, 1)), path, description(verb, shows))


def report(config: Configuration, paths: Mapping[str, list[Path]], folder: Path, name: str = "cag") -> str:
    figure, curves, table = (folder / file for file in FILES)
    rows = report_rows(config, name)
    shown = label_files(paths["label_reports"][-1]) if paths["label_reports"] else []
    pictured = models_of_figure(config, rows)
    draw(figure, "figure", [*(path for path in paths["checkpoints"] if model(path) in pictured), *shown])
    story = models_of_curves(config, rows)
    draw(curves, "curves", [path for path in paths["checkpoints"] if model(path) in story])
    table.write_text(to_csv(read_evaluations(config, [row.model for row in rows], paths["evaluations"]), rows))
    write_report(config, name, table=table, figure=figure, curves=curves, **paths, output=folder / "report.html")
    return (folder / "report.html").read_text()


def model(path: Path) -> str:
    """The model that a file beside its weights is of."""
    seed = next(number for number, part in enumerate(path.parts) if part.startswith("seed"))
    return "/".join(path.parts[seed + 1 : -1])


def test_report_is_self_contained_and_lists_every_artifact(three: Any, tmp_path: Path) -> None:
    config, paths = three
    html = report(config, paths, tmp_path)
    page = Page(html)
    assert "script" not in page.tags
    assert "url(" not in html
    assert "http" not in html
    assert len([link for link in page.links if link.startswith("data:image/png;base64,")]) == 2
    linked = {tmp_path / unquote(link) for link in page.links if not link.startswith(("data:", "#"))}
    assert linked == {path for kind in paths.values() for path in kind} | {
        tmp_path / name for name in ("table.csv", "figure.png", "curves.png")
    }
    assert all(f'id="{link[1:]}"' in html for link in page.links if link.startswith("#"))
    model_rows = report_rows(config, "cag")
    evaluations = read_evaluations(config, [row.model for row in model_rows], paths["evaluations"])
    rows = table_rows(evaluations, model_rows)
    assert all(show(row.target_statistics.miou) in page.text for row in rows if row.target_statistics)
    assert "diagnostic only: uses target labels" in page.text
    assert "unit: mean_anchor_distance" in page.text
    reports = label_reports_of(config, paths["label_reports"], paths["checkpoints"])
    names = names_of_artifacts(config, model_rows, paths["checkpoints"], evaluations, reports)
    assert {names[path].partition(": ")[2] for path in paths["evaluations"]} == {"evaluation"}
    items = [artifact(path, names[path], tmp_path) for path in (*paths["checkpoints"], *paths["label_reports"])]
    verbs = {verb: (jobs, seconds) for verb, jobs, seconds in times_by_verb(items)}
    assert list(verbs)[-1] == "diagnose" and verbs["diagnose"] == (6, 6 * 8.5) and verbs["train"] == (18, 18 * 75.0)
    assert len({(item.name, item.provenance["seed"]) for item in items}) == len(items), (
        "the labels of each stage have a name of their own"
    )
    assert {item.name.partition(": ")[0] for item in items[18:]} == {"warm-up", "stage 1"}, "whose labels they are"
    assert html == report(config, paths, tmp_path)


def test_report_escapes_names_and_does_without_oracle_and_truth(tmp_path: Path) -> None:
    entries = [
        {"id": i, "name": name, "color": (i, 50, 60)} for i, name in enumerate(("<b>road</b>", "a & b", "c", '"d"'))
    ]
    config = configuration(stages=1, classes=entries, reports={"cag": ["source_only", "warm-up", "cag"]})
    paths = write_experiment(tmp_path, config, truth=False, of=["source_only", "warm-up", "cag/stage1"])
    for path in paths["evaluations"]:
        rewrite(path, target_statistics=None)
    html = report(config, paths, tmp_path)
    page = Page(html)
    assert "<b>road" not in html
    assert "<b>road</b>" in page.text
    assert "a & b" in page.text
    assert "closed" not in page.text
    assert labels_of_report(config, paths)[0].score("anchor") is None


def test_labels_of_a_model_are_told_of_once_and_by_what_it_was_trained_on(three: Any, tmp_path: Path) -> None:
    """The statistics lie beside the model before the stage; those of a sweep may lie there too."""
    config, paths = three
    found = labels_of_report(config, paths)
    assert [(item.name, item.seed) for item in found] == [(f"stage {k}", seed) for k in (1, 2) for seed in range(3)]
    shares = {item.name: item.report["share"]["anchor"] for item in found}
    assert shares == {"stage 1": pytest.approx(0.82), "stage 2": pytest.approx(0.84)}
    for labels, message in (
        (paths["label_reports"][1:], r"stage1/checkpoint\.json: the statistics of the labels .* found none"),
        (
            [*paths["label_reports"], twin(paths["label_reports"][0])],
            r"stage1/checkpoint\.json: the statistics .* the same twice",
        ),
        (
            [*paths["label_reports"], swept(paths["label_reports"][0])],
            r"labels must be those that a model was trained on",
        ),
    ):
        with pytest.raises(UserError, match=message):
            report(config, paths | {"label_reports": labels}, tmp_path)


def test_of_equal_labels_each_model_has_the_report_on_its_own_files(three: Any) -> None:
    """Labels of two stages are equal, for instance, if neither labels a pixel."""
    config, paths = three
    expected = label_reports_of(config, paths["label_reports"], paths["checkpoints"])

    def with_equal_labels(made: Mapping[str, Any]) -> dict[str, Any]:
        equal = {path: {"content": Path(path).parent.name} for path in made["inputs"] if "/labels/" in path}
        return {**made, "inputs": {path: recorded | equal.get(path, {}) for path, recorded in made["inputs"].items()}}

    for path in (*paths["label_reports"], *paths["checkpoints"]):
        rewrite(path, provenance=with_equal_labels(read_json(path)["provenance"]))
    assert len({frozenset(label_contents(path)) for path in paths["label_reports"]}) == 1
    assert label_reports_of(config, paths["label_reports"], paths["checkpoints"]) == expected


def labels_of_report(config: Configuration, paths: Mapping[str, list[Path]]) -> list[Any]:
    reports = label_reports_of(config, paths["label_reports"], paths["checkpoints"])
    return labels_of_rows(report_rows(config, "cag"), reports)


def twin(told: Path) -> Path:
    """What is told of the same labels, once more."""
    path = told.with_stem("again")
    write_json(path, read_json(told))
    return path


def swept(told: Path) -> Path:
    """What is told of the labels of the same evidence under another margin, on which no model was trained."""
    other = configuration(
        seeds=(0, 1, 2), runs=runs(2, other={"like": "cag", "pseudo_labels": {"anchor": {"margin": 0.3}}})
    )
    return write_labels(told.parents[1] / "checkpoint.safetensors", other, 0, "other/stage1", True)[1]


@pytest.mark.parametrize("name", FILES)
def test_report_refuses_a_part_of_a_file(three: Any, tmp_path: Path, name: str) -> None:
    config, paths = three
    report(config, paths, tmp_path)
    files = {kind: tmp_path / file for kind, file in zip(("figure", "curves", "table"), FILES, strict=True)}
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    with pytest.raises(UserError, match=f"{name}: .* move it away"):
        write_report(config, "cag", **files, **paths, output=tmp_path / "again.html")
    assert not (tmp_path / "again.html").exists()


def test_words_for_times() -> None:
    assert [duration(s) for s in (None, 3.25, 59.9, 60, 7325)] == ["-", "3.2 s", "1 min 0 s", "1 min 0 s", "2 h 2 min"]
