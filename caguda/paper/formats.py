"""Means over seeds as text, and a table as CSV, Markdown, LaTeX and HTML."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined

from caguda.paper.escapes import in_csv, in_latex, in_markdown

ABSENT = "-"


@dataclass(frozen=True)
class Statistic:
    """A mean over seeds and its sample standard deviation (n - 1); no deviation for one seed, nan for no value."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Line:
    """A line of a table: its label, the origin of its values, and percentages by column, nan for none.

    Only a line that `adapts` can have the best value. `latex` is the label in LaTeX, where escaping is not enough.
    """

    label: str
    origin: str
    values: tuple[Statistic, ...]
    adapts: bool = True
    latex: str = ""


@dataclass(frozen=True)
class PrintedTable:
    """A table for people. The first columns are IoUs of `categories`; the others are means and gains, with deviations."""

    title: str
    note: str
    columns: tuple[str, ...]
    categories: int
    lines: tuple[Line, ...]

    def cells(self, line: Line) -> list[str]:
        """The values of a line in print: one decimal, a gain with its sign."""
        cells = [show(Statistic(value.mean, None)) for value in line.values[: self.categories]]
        means = zip(self.columns[self.categories :], line.values[self.categories :], strict=True)
        return [*cells, *(show(value, sign="gain" in name) for name, value in means)]

    def best(self) -> list[list[bool]]:
        """Whether each value of each line is the best of its column, and above 0; see `best`."""
        adapts = [line.adapts for line in self.lines]
        columns = zip(*(line.values for line in self.lines), strict=True)
        return [list(line) for line in zip(*(best(column, adapts, above=0.0) for column in columns), strict=True)]

    def marked_cells(self, mark: str = "**{}**") -> list[list[str]]:
        """The cells of all lines; see marked."""
        return [marked(self.cells(line), marks, mark) for line, marks in zip(self.lines, self.best(), strict=True)]


def statistic(values: Iterable[float]) -> Statistic:
    """The mean and sample standard deviation of the values that are not nan."""
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        return Statistic(math.nan, None)
    return Statistic(float(np.mean(numbers)), float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None)


def show(value: Statistic | None, sign: bool = False) -> str:
    """The statistic with one decimal, as `12.3` or `12.3 ± 0.4`; "-" for no value."""
    if value is None or math.isnan(value.mean):
        return ABSENT
    mean = f"{value.mean:+z.1f}" if sign else f"{value.mean:z.1f}"
    return mean if value.deviation is None else f"{mean} ± {value.deviation:.1f}"


def best(values: Sequence[Statistic | None], adapts: Sequence[bool], above: float = -math.inf) -> list[bool]:
    """Which values are the largest at the printed precision among those that adapt and are above a bound; ties all are."""
    means = [
        round(value.mean, 1) if is_adapted and value is not None and not math.isnan(value.mean) else -math.inf
        for value, is_adapted in zip(values, adapts, strict=True)
    ]
    top = max(means, default=-math.inf)
    return [mean == top > above for mean in means]


def marked(cells: Sequence[str], best: Sequence[bool], mark: str = "**{}**") -> list[str]:
    """The cells, the best ones formatted by `mark`: bold in Markdown by default."""
    return [
        mark.format(cell) if is_best and cell != ABSENT else cell for cell, is_best in zip(cells, best, strict=True)
    ]


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Cells as CSV, one line for each row."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Cells as a Markdown table with aligned columns, the first to the left."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *body, strict=True)]
    lines = [
        [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
        for cells in (header, *body)
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def to_csv(table: PrintedTable) -> str:
    """One row per line: every column's mean, then its standard deviation if the column has any; percent."""
    spread = [any(line.values[i].deviation is not None for line in table.lines) for i in range(len(table.columns))]
    names = [[in_csv(name), in_csv(f"{name} sd")][: 1 + s] for name, s in zip(table.columns, spread, strict=True)]
    rows = [["row", "origin", *(name for pair in names for name in pair)]]
    for line in table.lines:
        cells = []
        for value, has_deviation in zip(line.values, spread, strict=True):
            numbers = [value.mean, math.nan if value.deviation is None else value.deviation]
            cells += ["" if math.isnan(number) else f"{number:.2f}" for number in numbers[: 1 + has_deviation]]
        rows.append([in_csv(line.label), in_csv(line.origin), *cells])
    return csv_text(rows)


def to_markdown(table: PrintedTable) -> str:
    """Title, table with the best values bold, note."""
    body = [
        [in_markdown(line.label), in_markdown(line.origin), *cells]
        for line, cells in zip(table.lines, table.marked_cells(), strict=True)
    ]
    head = ("row", "origin", *map(in_markdown, table.columns))
    return f"# {in_markdown(table.title)}\n\n{markdown_table(head, body)}\n\n{in_markdown(table.note)}\n"


def to_latex(table: PrintedTable) -> str:
    """A `table` environment for booktabs and graphicx, names of categories upright, best values bold."""
    names = [in_latex(name) for name in table.columns]
    upright = [rf"\rotatebox{{90}}{{{name}}}" for name in names[: table.categories]]
    rows = [["", "origin", *upright, *names[table.categories :]]]
    for line, cells in zip(table.lines, table.marked_cells(r"\textbf{{{}}}"), strict=True):
        numbers = [cell.replace("±", r"$\pm$").replace("-", "$-$") for cell in cells]
        rows.append([line.latex or in_latex(line.label), in_latex(line.origin), *numbers])
    head, *body = (" & ".join(row) + r" \\" for row in rows)
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"\abovecaptionskip=0pt \belowcaptionskip=6pt \renewcommand{\arraystretch}{1.2}",
            rf"\caption{{{in_latex(table.title)}. {in_latex(table.note)}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{ll*{{{len(table.columns)}}}{{r}}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def to_html(table: PrintedTable) -> str:
    """The table as an HTML page."""
    lines = [
        (line, list(zip(table.cells(line), marks, strict=True)))
        for line, marks in zip(table.lines, table.best(), strict=True)
    ]
    return render("table.html.in", {"table": table, "lines": lines})


def render(template: str, context: Mapping[str, Any], **filters: Callable[..., str]) -> str:
    """The HTML of a template of this package; text is escaped, and a name that the context lacks raises."""
    environment = Environment(
        loader=FunctionLoader(lambda name: files("caguda.paper").joinpath(name).read_text(encoding="utf-8")),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(filters)
    return environment.get_template(template).render(context)
