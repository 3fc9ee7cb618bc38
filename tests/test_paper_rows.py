"""The rows of reports and tables: what they are called, what they have seen, and which of them pictures are of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from paper_samples import configuration, runs

from caguda.config import Configuration
from caguda.errors import UserError
from caguda.paper.rows import (
    ModelRow,
    main_model,
    models_of_curves,
    models_of_figure,
    notes_of,
    rows_of,
    table_models,
)
from caguda.paper.table import note, report_rows
from caguda.runs import models_listed, reports


def sample(*, reports: dict[str, Any] | None = None, stages: int = 2, **others: Any) -> Configuration:
    """A sample with further runs; without reports of its own, there is one of all."""
    return configuration(stages=stages, runs=runs(stages, **others), reports=reports or {})


def named(config: Configuration, *listed: str) -> list[ModelRow]:
    return rows_of(config, models_listed(config, listed))


SECOND = {"like": "cag", "title": "CAG, twice"}
ONE = {"like": "cag", "stages": None}


def test_a_stage_is_called_by_its_number_and_by_its_run_where_there_are_several_chains() -> None:
    config = sample(cag_2=SECOND)
    assert [row.name for row in named(config, "source_only", "cag")] == ["source only", "stage 1", "stage 2"]
    assert [row.name for row in named(config, "cag_2/stage2")] == ["stage 2"]
    rows = named(config, "cag", "cag_2/stage2")
    assert [row.name for row in rows] == ["cag stage 1", "cag stage 2", "cag 2 stage 2"]
    assert [row.title for row in rows] == ["cag stage 1", "cag stage 2", "CAG, twice stage 2"]


def test_a_run_has_its_title_in_full_and_its_own_name_in_short() -> None:
    config = sample(cag_once=ONE | {"title": "CAG, one stage", "note": "One stage alone."})
    rows = named(config, "warm-up", "cag_once")
    assert [(row.name, row.title) for row in rows] == [("warm-up", "warm-up"), ("cag once", "CAG, one stage")]
    assert rows[1].about == "anchors and pseudo-labels"
    assert notes_of(config, [*rows, *rows]) == ["One stage alone."]
    assert "One stage alone." in note(config, rows) and "One stage alone." not in note(config, rows[:1])


def test_no_two_rows_are_called_the_same() -> None:
    config = sample(stage_1=ONE, a=ONE | {"title": "T"}, b=ONE | {"title": "T"}, c=ONE | {"title": "warm-up"})
    rows = named(config, "warm-up", "cag", "stage_1", "a", "b", "c")
    assert [row.name for row in rows] == ["warm-up", "cag/stage1", "stage 2", "stage_1", "a", "b", "c"]
    assert [row.title for row in rows] == ["warm-up", "cag/stage1", "stage 2", "stage_1", "a", "b", "c"]


def test_no_row_of_a_run_is_called_as_a_row_or_column_of_no_run() -> None:
    """AdaBN is the row of re-estimated statistics; the figure has columns for the input, the truth and the last stage."""
    config = sample(a=ONE | {"title": "AdaBN"}, AdaBN=ONE, input=ONE, truth=ONE | {"title": "T"}, last_stage=ONE)
    rows = named(config, "source_only", "cag", "a", "AdaBN", "input", "truth", "last_stage")[3:]
    assert [row.name for row in rows] == ["a", "AdaBN (run)", "input (run)", "truth (run)", "last_stage"]
    assert [row.title for row in rows] == ["a", "AdaBN (run)", "input", "T", "last stage"]
    assert [row.model for row in rows] == ["a", "AdaBN", "input", "truth", "last_stage"]


def seen(config: Configuration, *listed: str) -> dict[str, str]:
    return {
        row.model: "reference" if row.is_reference else "adapted" if row.adapts else "source only"
        for row in named(config, *listed)
    }


def test_what_a_model_has_seen_is_what_all_runs_that_led_to_it_have() -> None:
    config = sample(
        longer={"method": "supervised", "start": "source_only"},
        statistics={"like": "source_only", "target_statistics": True},
        after={"like": "control", "start": "statistics"},
        spoilt={"like": "cag", "start": "oracle"},
    )
    assert seen(config, "source_only", "longer", "warm-up", "control", "cag/stage2", "oracle") == {
        "source_only": "source only",
        "longer": "source only",
        "warm-up": "adapted",
        "control": "adapted",
        "cag/stage2": "adapted",
        "oracle": "reference",
    }
    assert seen(config, "statistics", "after", "spoilt/stage1") == {
        "statistics": "adapted",
        "after": "adapted",
        "spoilt/stage1": "reference",
    }
    rows = named(config, "source_only", "spoilt/stage1", "oracle")
    assert "The oracle trains on target labels" in note(config, rows) and "The stage 1 has seen" in note(config, rows)


@pytest.mark.parametrize(
    ("listed", "main"),
    [
        (["source_only", "warm-up", "control", "cag", "oracle"], "cag/stage2"),
        (["source_only", "cag", "control", "oracle"], "control"),
        (["source_only", "oracle"], "source_only"),
        (["source_only", "longer", "oracle"], "longer"),
        (["oracle"], "oracle"),
        (["cag/stage1", "source_only"], "cag/stage1"),
    ],
)
def test_a_report_is_about_the_last_row_that_is_adapted(listed: Sequence[str], main: str) -> None:
    config = sample(longer={"method": "supervised", "start": "source_only"})
    assert main_model(named(config, *listed)).model == main


EVERY = ["source_only", "warm-up", "control", "cag", "oracle"]


@pytest.mark.parametrize(
    ("listed", "curves", "figure"),
    [
        (EVERY, ["source_only", "warm-up", "cag/stage1", "cag/stage2"], ["source_only", "warm-up", "cag/stage2"]),
        (["cag/stage2", "source_only"], ["source_only", "cag/stage2"], ["source_only", "cag/stage2"]),
        ([*EVERY, "after"], ["source_only", "warm-up", "cag/stage1", "after"],
         ["source_only", "warm-up", "cag/stage1", "after"]),
        (["source_only", "cag", "other"], ["source_only", "other/stage1", "other/stage2"],
         ["source_only", "other/stage2"]),
        (["source_only", "oracle"], ["source_only"], ["source_only"]),
        (["brought", "onward"], ["onward"], ["brought", "onward"]),
        (["brought"], [], ["brought"]),
    ],
)  # fmt: skip
def test_pictures_are_of_the_models_that_led_to_the_main_one(listed: Any, curves: Any, figure: Any) -> None:
    """The curves of all that were trained here, the predictions of the last of each run, as far as the report has them."""
    config = sample(
        after=ONE | {"start": "cag/stage1"},
        other={"like": "cag", "start": "source_only"},
        brought={"method": "imported", "file": "theirs.safetensors"},
        onward={"like": "warm-up", "start": "brought"},
    )
    rows = named(config, *listed)
    assert models_of_curves(config, rows) == curves
    assert models_of_figure(config, rows) == figure


def test_what_is_left_out_or_brought_is_told() -> None:
    config = sample(control=None, brought={"method": "imported", "file": "theirs.safetensors"})
    told = note(config, named(config, "source_only", "control", "brought", "cag"))
    assert "Left out: control (runs.control is null)." in told
    assert "Not trained here: the model of brought is theirs.safetensors." in told
    assert "Not trained here" not in note(config, named(config, "source_only", "cag"))


def test_a_report_without_the_key_is_of_all_runs_and_one_of_nothing_is_none() -> None:
    every = ["source_only", "warm-up", "control", "cag/stage1", "cag/stage2", "oracle"]
    assert reports(sample()) == {"runs": every}
    unlabelled = {"layout": "cityscapes", "split": "train", "labels": None}
    listed = {"bounds": ["oracle"], "short": ["source_only", "oracle"]}
    config = configuration(target=unlabelled, reports=listed)
    assert reports(config) == {"short": ["source_only"]}
    with pytest.raises(UserError, match=r"--report bounds: the configuration has no such report, only short"):
        report_rows(config, "bounds")
    with pytest.raises(UserError, match=r"reports: at least one run must be made, found only .* left out: oracle"):
        configuration(target=unlabelled, reports={"bounds": ["oracle"]})
    with pytest.raises(UserError, match=r"runs: at least one run must be made, found only .* left out: o"):
        configuration(target=unlabelled, runs={"o": {"method": "supervised", "frames": "target"}}, reports={})


def test_a_table_must_be_listed_and_have_a_run_that_is_made() -> None:
    config = configuration(stages=2, tables={"table1": ["source_only", "cag/stage2"], "table3": ["cag"]})
    assert table_models(config, "table1") == ["source_only", "cag/stage2"]
    assert table_models(config, "table3") == ["cag/stage1", "cag/stage2"]
    for table, hint in (
        ("table4", "config/ablations.yaml"),
        ("sweep", "config/sweep.yaml"),
        ("table2", "a YAML that does"),
    ):
        with pytest.raises(UserError, match=rf"tables\.{table}: the runs .* must be listed, .* add {hint} to --config"):
            table_models(config, table)  # type: ignore[arg-type]
    nothing = configuration(runs=runs(control=None), reports={}, tables={"table1": ["control"]})
    with pytest.raises(UserError, match=r"tables\.table1: at least one run that is made must be listed, found none"):
        table_models(nothing, "table1")
