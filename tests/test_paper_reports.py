"""Reports of other runs than those of the paper: several chains, none, one rule of pseudo-labels, references alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import paper_samples
import pytest
from paper_samples import RULES, configuration, rewrite, runs, write_experiment, write_model
from test_paper_report import Page, draw, report

from caguda import registry
from caguda.artifacts.atomic import read_json
from caguda.config_run import DomainName, Method, Read
from caguda.errors import UserError
from caguda.files import sha256
from caguda.paper.report import write_report
from caguda.paper.table import report_rows, write_table
from caguda.runs import reports

SECOND = {"like": "cag", "title": "CAG, <b>twice</b>"}


def page(folder: Path, *listed: str, seeds: tuple[int, ...] = (0,), stages: int = 2, **others: Any) -> tuple[str, Any]:
    """The text of the page of a report, white space as one space, and its experiment and paths; its HTML is well-formed."""
    config = configuration(seeds=seeds, stages=stages, runs=runs(stages, **others), reports={"r": list(listed)})
    paths = write_experiment(folder, config, of=reports(config)["r"])
    html = report(config, paths, folder, "r")
    return " ".join(Page(html).text.split()), (config, paths, html)


def markdown(folder: Path, config: Any, paths: Mapping[str, list[Path]]) -> str:
    write_table(config, "r", paths["evaluations"], folder / "r.csv", folder / "r.md")
    return " ".join((folder / "r.md").read_text().split())


def test_several_chains_in_one_report_are_told_apart(tmp_path: Path) -> None:
    text, (config, paths, html) = page(tmp_path, "source_only", "warm-up", "cag", "cag_2", cag_2=SECOND)
    assert "after CAG, <b>twice</b> stage 2 it reaches" in text and "<b>twice" not in html
    assert all(f"cag{name} stage {k} per category" in text for name in ("", " 2") for k in (1, 2))
    assert "cag 2 stage 1: checkpoint" in text and "warm-up: anchor-0.15-mean anchor distance" in text
    table = markdown(tmp_path, config, paths)
    assert "| CAG, \\<b>twice\\</b> stage 2 |" in table and "| cag 2 stage 2 |" in table


def test_labels_that_two_models_were_trained_on_are_told_of_for_each(tmp_path: Path) -> None:
    """Stage 1 of both chains has the labels of the warm-up."""
    text, (_, paths, _) = page(tmp_path, "source_only", "warm-up", "cag/stage1", "cag_2/stage1", cag_2=SECOND)
    assert len(paths["label_reports"]) == 1
    assert "cag stage 1 per category" in text and "cag 2 stage 1 per category" in text


def test_two_models_with_the_same_weights_have_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run `again: {like: source_only}` has them."""
    alike = ("source_only", "again")

    def write_alike(path: Path, made: dict[str, Any], history: Any) -> Path:
        write_model(path, made, history)
        if path.parent.name in alike:
            path.write_text("the same weights")
            rewrite(path.with_suffix(".json"), weights_sha256=sha256(path))
        return path

    monkeypatch.setattr(paper_samples, "write_model", write_alike)
    text, (_, paths, _) = page(tmp_path, "source_only", "again", "warm-up", again={"like": "source_only"})
    assert "after warm-up it reaches" in text and "again: checkpoint" in text
    weights = [read_json(path)["weights_sha256"] for path in paths["checkpoints"] if path.parent.name in alike]
    assert len(weights) == 2 and weights[0] == weights[1]


def test_a_report_without_pseudo_labels_says_so(tmp_path: Path) -> None:
    text, _ = page(tmp_path, "source_only", "warm-up", seeds=(0, 1))
    assert "No model of this report was trained on cached pseudo-labels." in text
    assert "after warm-up it reaches" in text and "without a single target label" in text
    assert "diagnostic only" not in text and "either" not in text


class ByOneRule(Method):
    """A method whose pseudo-labels are of the rule that it is given, whichever that is."""

    method: Literal["by_one_rule"]

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        return {"target": "pseudo-labels"}

    def step(self, session: Any, batch: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def _by_one_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.registered("method")
    monkeypatch.setitem(registry._REGISTERED["method"], "by_one_rule", ByOneRule)


def one_rule(rule: str) -> dict[str, Any]:
    return {"method": "by_one_rule", "start": "warm-up", "pseudo_labels": {rule: RULES[rule]}}


@pytest.mark.usefixtures("_by_one_rule")
@pytest.mark.parametrize("rule", ["anchor", "probability"])
def test_pseudo_labels_of_one_rule_alone_have_their_share_and_accuracy(tmp_path: Path, rule: str) -> None:
    text, _ = page(tmp_path, "source_only", "own", seeds=(0, 1), own=one_rule(rule))
    share, precision = {"anchor": ("82.0", "97.1"), "probability": ("73.0", "98.8")}[rule]
    for seed in (0, 1):
        assert f"own, seed {seed}{rule}{share}{precision}80.0" in text.replace(" ", "").replace(
            "own,seed", "own, seed "
        )
    assert "Precision and coverage are diagnostic only" in text
    assert "anchors only" not in text and "per category" not in text


@pytest.mark.usefixtures("_by_one_rule")
def test_labels_of_one_rule_are_not_those_of_a_model_that_was_trained_on_two(tmp_path: Path) -> None:
    """Both have the same labels by anchors, and each is told of by its own statistics."""
    text, (config, paths, _) = page(tmp_path, "source_only", "own", "cag/stage1", own=one_rule("anchor"))
    assert len(paths["label_reports"]) == 2
    assert "stage 1 per category" in text and "own per category" not in text
    of_own = [path for path in paths["label_reports"] if "+" not in path.name]
    with pytest.raises(UserError, match=r"cag/stage1/checkpoint\.json: the statistics of the labels .* found none"):
        report(config, paths | {"label_reports": of_own}, tmp_path, "r")


@pytest.mark.parametrize("listed", [["source_only", "oracle"], ["source_only"], ["oracle"]])
def test_what_adapts_nothing_claims_nothing(tmp_path: Path, listed: list[str]) -> None:
    text, (config, paths, _) = page(tmp_path, *listed)
    first = "After oracle" if listed == ["oracle"] else "Trained on the source alone"
    assert re.search(rf"{first}, the network reaches \d\d\.\d % mIoU on 150 target frames\. One seed: 0\.", text)
    assert "it reaches" not in text and "without a single" not in text and "closed" not in text and "→" not in text
    assert "**" not in markdown(tmp_path, config, paths).partition("AdaBN")[0]


def test_only_a_reference_that_comes_last_is_no_result_without_target_labels(tmp_path: Path) -> None:
    text, _ = page(tmp_path, "oracle", "finer", finer={"like": "control", "start": "oracle"})
    assert "after finer it reaches" in text and "without a single target label" not in text and "closed" not in text


def test_gains_may_be_over_a_row_that_did_not_lead_to_the_main_one(tmp_path: Path) -> None:
    text, (_, _, html) = page(tmp_path, "other-source", "cag", other__source={"like": "source_only"})
    assert "points over other-source" in text and "after stage 2 it reaches" in text
    chart = html[html.index('<div class="chart">') : html.index("Every row, as trained")]
    assert len(re.findall(r'<span class="(?:up|down)">[+-]\d+\.\d</span>', chart)) == 18 + 1, "none of the absent one"


def test_target_statistics_of_the_first_row_stand_once_whatever_it_is_called(tmp_path: Path) -> None:
    _, (_, _, html) = page(tmp_path, "pretrain", "cag", pretrain={"like": "source_only", "title": "CAG without"})
    heads = re.findall(r"<summary>Every row, (.*?)</summary>.*?<thead>(.*?)</thead>", html, re.DOTALL)
    found = {which: re.findall(r"<th>(.*?)</th>", head)[1:] for which, head in heads}
    assert found == {
        "as trained": ["CAG without", "stage 1", "stage 2"],
        "with target statistics": ["AdaBN", "stage 1", "stage 2"],
    }
    assert "CAG without to stage 2" in html, "a title keeps its letters"


def test_curves_must_be_of_all_that_led_to_the_main_model(tmp_path: Path) -> None:
    _, (config, paths, _) = page(tmp_path, "source_only", "warm-up", "control", "cag")
    files = {name: tmp_path / f"{name}.png" for name in ("figure", "curves")} | {"table": tmp_path / "table.csv"}
    some = [path for path in paths["checkpoints"] if "stage1" not in path.parts]
    draw(files["curves"], "curves", some)
    with pytest.raises(
        UserError,
        match=r"curves\.png: the curves must be of all .* led to cag/stage2, found none of cag/stage1",
    ):
        write_report(config, "r", **files, **paths, output=tmp_path / "again.html")
    assert not (tmp_path / "again.html").exists()


def test_a_report_of_a_model_that_was_brought_has_no_curves(tmp_path: Path) -> None:
    text, (config, paths, _) = page(tmp_path, "brought", brought={"method": "imported", "file": "theirs.safetensors"})
    assert "Not trained here: the model of brought is theirs.safetensors." in text
    assert read_json(paths["checkpoints"][0])["metrics"] == {}
    assert [row.name for row in report_rows(config, "r")] == ["brought"]
    _, (config, paths, _) = page(tmp_path / "trained", "source_only")
    files = {name: tmp_path / "trained" / f"{name}.png" for name in ("figure", "curves")}
    draw(files["curves"], "curves", [])
    with pytest.raises(
        UserError, match=r"curves\.png: the picture must show the models and labels of the report, found others"
    ):
        write_report(
            config, "r", table=tmp_path / "trained" / "table.csv", **files, **paths, output=tmp_path / "again.html"
        )
