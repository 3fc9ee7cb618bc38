"""One table as CSV, Markdown, LaTeX and HTML."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from caguda.paper.escapes import in_csv, in_latex, in_markdown
from caguda.paper.table import ABSENT, Statistic, markdown_table, show


@dataclass(frozen=True)
class Line:
    """A row: its name in plain text and in LaTeX, where its values come from, and percentages by column, nan for none.

    `adapts` where a bold number may be its.
    """

    label: str
    latex: str
    origin: str
    values: tuple[Statistic, ...]
    adapts: bool = True


@dataclass(frozen=True)
class PrintedTable:
    """A table for people. The last `means` columns, among them the gain, are shown with their deviations."""

    title: str
    note: str
    columns: tuple[str, ...]
    means: int
    lines: tuple[Line, ...]

    def cells(self, line: Line) -> list[str]:
        """The values of a line in print: one decimal, a gain with its sign."""
        split = len(self.columns) - self.means
        shown = [show(Statistic(value.mean, None)) for value in line.values[:split]]
        for name, value in zip(self.columns[split:], line.values[split:], strict=True):
            shown.append(show(value, sign="gain" in name))
        return shown

    def best(self) -> list[list[bool]]:
        """Which value of each line is the largest of its column, and above 0, at the printed precision; ties all are."""
        places = []
        for line in self.lines:
            means = [-math.inf if math.isnan(value.mean) else round(value.mean, 1) for value in line.values]
            places.append(means if line.adapts else [-math.inf] * len(means))
        top = [max(column) for column in zip(*places, strict=True)]
        return [[mean == high > 0 for mean, high in zip(means, top, strict=True)] for means in places]


def to_csv(table: PrintedTable) -> str:
    """One row per line: every column's mean, then its standard deviation where there is one; percent, unbold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    spread = [any(line.values[i].deviation is not None for line in table.lines) for i in range(len(table.columns))]
    names = [[in_csv(name), in_csv(f"{name} sd")][: 1 + s] for name, s in zip(table.columns, spread, strict=True)]
    writer.writerow(["row", "origin", *(name for pair in names for name in pair)])
    for line in table.lines:
        cells = []
        for value, wide in zip(line.values, spread, strict=True):
            numbers = [value.mean, math.nan if value.deviation is None else value.deviation]
            cells += ["" if math.isnan(number) else f"{number:.2f}" for number in numbers[: 1 + wide]]
        writer.writerow([line.label, in_csv(line.origin), *cells])
    return text.getvalue()


def to_markdown(table: PrintedTable) -> str:
    """Title, table with the best values bold, note."""
    body = [
        [in_markdown(line.label), in_markdown(line.origin), *_marked(table, i, "**{}**")]
        for i, line in enumerate(table.lines)
    ]
    head = ("row", "origin", *map(in_markdown, table.columns))
    return f"# {in_markdown(table.title)}\n\n{markdown_table(head, body)}\n\n{in_markdown(table.note)}\n"


def to_latex(table: PrintedTable) -> str:
    """A `table` environment for booktabs and graphicx, names of categories upright, best values bold."""
    split = len(table.columns) - table.means
    upright = [rf"\rotatebox{{90}}{{{in_latex(name)}}}" for name in table.columns[:split]]
    head = ["", "origin", *upright, *(in_latex(name) for name in table.columns[split:])]
    body = []
    for i, line in enumerate(table.lines):
        cells = [cell.replace("±", r"$\pm$").replace("-", "$-$") for cell in _marked(table, i, r"\textbf{{{}}}")]
        body.append([line.latex, in_latex(line.origin), *cells])
    rows = [" & ".join(cells) + r" \\" for cells in (head, *body)]
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"\abovecaptionskip=0pt \belowcaptionskip=6pt \renewcommand{\arraystretch}{1.2}",
            rf"\caption{{{in_latex(table.title)}. {in_latex(table.note)}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{ll*{{{len(table.columns)}}}{{r}}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def to_html(table: PrintedTable) -> str:
    """A page of its own."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = files("caguda.paper").joinpath("table.html.in").read_text(encoding="utf-8")
    lines = [(line, list(zip(table.cells(line), table.best()[i], strict=True))) for i, line in enumerate(table.lines)]
    split = len(table.columns) - table.means
    return environment.from_string(template).render(table=table, lines=lines, split=split)


def _marked(table: PrintedTable, index: int, mark: str) -> list[str]:
    """The cells of a line, the best ones in a mark."""
    pairs = zip(table.cells(table.lines[index]), table.best()[index], strict=True)
    return [mark.format(cell) if best and cell != ABSENT else cell for cell, best in pairs]
