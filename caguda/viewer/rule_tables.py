"""The tables of `inspect` for several rules as text for a terminal; shares are in percent."""

from collections.abc import Iterator

from caguda.viewer.tables import Inspection, group_titles, head, percent, table_row


def rules_text(inspection: Inspection) -> str:
    """All tables: the store and its origin, a row for each rule, the pairs of rules, and the picture."""
    parts = [list(head(inspection)), list(_rules(inspection))]
    if inspection["pairs"]:
        parts.append(list(_pairs(inspection)))
    if "pictures" in inspection:
        parts.append([f"{name}: {reason or 'drawn'}" for name, reason in inspection["pictures"].items()])
    return "\n\n".join("\n".join(lines) for lines in parts)


def _numbered(inspection: Inspection) -> list[str]:
    """The names of the rules, each with its number, from 1."""
    return [f"{number:2} {name}" for number, name in enumerate(inspection["rules"], 1)]


def _rules(inspection: Inspection) -> Iterator[str]:
    """A row for each rule: its share of labelled pixels, its categories and, if a truth is known, precision and recall."""
    names, rows = _numbered(inspection), inspection["rules"].values()
    column = max(map(len, names))
    widths, heads = [10, 12], ["labelled", "categories"]
    if inspection["accuracy"]:
        widths, heads = widths + [11, 8] * 2, heads + ["pixels", "mean"] * 2
        yield group_titles(column, [("", 22), ("precision, %", 19), ("recall, %", 19)])
    yield table_row("", column, heads, widths)
    for name, row in zip(names, rows, strict=True):
        cells = [percent(row["share"], 2), str(row["categories"])]
        if inspection["accuracy"]:
            cells += [percent(row[key]) for key in ("precision", "mean_precision", "recall", "mean_recall")]
        yield table_row(name, column, cells, widths)
    yield "labelled: % of all pixels. categories: those that get any label."
    if inspection["accuracy"]:
        yield "pixels: over pixels with a truth. mean: over categories."


def _pairs(inspection: Inspection) -> Iterator[str]:
    """A row for each rule and a column for each earlier one: how much both label, and how far they agree."""
    names = list(inspection["rules"])
    numbered = _numbered(inspection)
    column = max(map(len, numbered))
    pairs = {tuple(pair["rules"]): pair for pair in inspection["pairs"]}
    widths = [16] * (len(names) - 1)
    yield "Pairs of rules: labelled by both, % of all pixels / same label, % of these"
    yield table_row("", column, [str(number) for number in range(1, len(names))], widths)
    for i in range(1, len(names)):
        found = [pairs[first, names[i]] for first in names[:i]]
        cells = [f"{percent(pair['both'], 2)} / {percent(pair['agreement'])}" for pair in found]
        yield table_row(numbered[i], column, cells, widths[: len(cells)])
