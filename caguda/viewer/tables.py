"""The tables of `inspect` as text for a terminal of 100 columns; shares are in percent."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from caguda.artifacts.label_statistics import mean_score, recall_of_pixels

WIDTH = 100
RULES = ("anchor", "probability", "both")
QUANTILES = ("0.05", "0.25", "0.5", "0.75", "0.95")
Inspection = Mapping[str, Any]
"""The JSON of `inspect`, or an object in it."""


def inspection_text(inspection: Inspection) -> str:
    """All tables: the store and its origin, the categories, their accuracy, other thresholds, and the pictures."""
    column = max(10, *(len(row["name"]) for row in inspection["per_category"]))
    parts = [list(head(inspection)), list(_categories(inspection, column))]
    if inspection["accuracy"]:
        parts.append(list(_accuracy(inspection["accuracy"], column)))
    for key, rule in (("margins", "anchor"), ("p0s", "probability")):
        if inspection[key]:
            parts += [list(_trials(inspection, key, rule)), *_trials_by_category(inspection, key, rule, column)]
    if "pictures" in inspection:
        parts.append([f"{name}: {reason or 'drawn'}" for name, reason in inspection["pictures"].items()])
    return "\n\n".join("\n".join(lines) for lines in parts)


def margin_text(inspection: Inspection) -> str:
    """The margin of Eq. 6 in the unit of the features, and as it is configured."""
    configured, text = inspection["configured"], f"margin {inspection['margin']:.4g}"
    if configured.get("margin_unit") == "mean_anchor_distance":
        text += f" = {configured['margin']:g} x the anchors' mean distance"
    return text


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent; `-` for None, `<0.1` for a share above 0 that would be rounded to 0.0."""
    if value is None:
        return "-"
    least = 10.0**-digits
    return f"<{least:.{digits}f}" if 0 < 100 * value < least / 2 else f"{100 * value:.{digits}f}"


def head(inspection: Inspection) -> Iterator[str]:
    """The lines of the store, its thresholds if it has any, the files that it was made of, and its truth."""
    yield inspection["store"]
    size = f"{inspection['height']}x{inspection['width']}"
    yield f"  {inspection['images']:,} images of {size} (h x w), {inspection['pixels']:,} pixels, {len(inspection['per_category'])} categories"
    if inspection["missing"]:
        yield f"  INCOMPLETE: {inspection['missing']:,} images are not written yet and left out below"
    if "p0" in inspection:
        yield f"  {margin_text(inspection)}; P0 {inspection['p0']:g}"
    if provenance := inspection["provenance"]:
        torch, created = provenance["libraries"].get("torch", "unknown"), provenance["created"]
        yield f"  made {created} by caguda {provenance['caguda']}, method {provenance['method_version']}, torch {torch}"
    else:
        yield "  where it came from is not recorded"
    width = max(map(len, inspection["inputs"]), default=0)
    for number, (name, state) in enumerate(inspection["inputs"].items()):
        yield f"  {'  ' if number else 'of'} {name:<{width}}  {state}"
    if inspection["no_truth"]:
        yield f"  truth is not known: {inspection['no_truth']}"
    else:
        yield f"  truth is known of {inspection['images_with_truth']:,} images"


def table_row(name: str, column: int, cells: Sequence[str], widths: Sequence[int]) -> str:
    """A line of a table: a name in a column of some letters, then right-aligned cells."""
    padded = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
    return f"{name:<{column}}{''.join(padded)}".rstrip()


def group_titles(column: int, groups: Sequence[tuple[str, int]]) -> str:
    """A line of titles, each centred over a group of columns; `groups` has titles and widths."""
    titles = [f" {text} ".center(width - 3, "-") if text else " " * (width - 3) for text, width in groups]
    return " " * column + "".join(f"   {title}" for title in titles)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _quantiles(values: Mapping[str, float | None] | None) -> list[str]:
    if values is None:
        return ["-"] * len(QUANTILES)
    return ["inf" if values[q] is None else f"{values[q]:.2f}" for q in QUANTILES]


def _categories(inspection: Inspection, column: int) -> Iterator[str]:
    widths = (9, 7, 7, 9, 8, 7, 8, 7, 7, 7, 7)
    yield group_titles(column, [("labelled, %", 23), ("active, %", 17), ("", 7), ("d2 - d1", 36)])
    heads = ("anchors", "prob.", "both", "closest", "argmax", "agree", "5%", "25%", "50%", "75%", "95%")
    yield table_row("", column, heads, widths)
    for row in inspection["per_category"]:
        shares = [percent(row[rule], 2) for rule in RULES]
        active = [percent(_ratio(row["anchor"], row["nearest"])), percent(_ratio(row["probability"], row["predicted"]))]
        cells = (*shares, *active, percent(row["agreement"]), *_quantiles(row["margin_quantiles"]))
        yield table_row(row["name"], column, cells, widths)
    share = inspection["share"]
    same_label = sum(row["both"] for row in inspection["per_category"])
    total = [percent(value, 2) for value in (share["anchor"], share["probability"], same_label)]
    total += [percent(share[rule]) for rule in ("anchor", "probability", "agreement")]
    yield table_row("all", column, (*total, *_quantiles(inspection["margin_quantiles"])), widths)
    yield f"active by both rules {percent(share['both'])}%, by either {percent(share['either'])}% of all pixels"
    yield "labelled: of all pixels. active: of the pixels whose closest anchor or argmax is this category."
    yield "agree: over pixels active by both rules, Jaccard index of their labels; all: share of equal labels."


def _accuracy(accuracy: Inspection, column: int) -> Iterator[str]:
    widths = (10, 8, 8) * 2
    yield group_titles(column, [("precision, %", 26), ("recall, %", 26)])
    yield table_row("", column, ("anchors", "prob.", "both") * 2, widths)
    by_rule = [accuracy[rule]["per_category"] for rule in RULES]
    for category in zip(*by_rule, strict=True):
        cells = [percent(row[score]) for score in ("precision", "recall") for row in category]
        yield table_row(category[0]["name"], column, cells, widths)
    means = [percent(mean_score(accuracy[rule], score)) for score in ("precision", "recall") for rule in RULES]
    yield table_row("mean", column, means, widths)
    total = [percent(accuracy[rule]["accuracy"]) for rule in RULES]
    total += [percent(recall_of_pixels(accuracy[rule])) for rule in RULES]
    yield table_row("all pixels", column, total, widths)


def _with_stored(inspection: Inspection, key: str) -> list[tuple[str, Inspection]]:
    """The name and the statistics of the labels as stored, marked by a star, and of those under every other threshold."""
    name = "margin" if key == "margins" else "p0"
    stored = {**inspection, "threshold": inspection[name]}
    value = inspection["configured"].get(name, inspection[name])
    return [(f"{value:g} *", stored), *((f"{trial['value']:g}", trial) for trial in inspection[key])]


def _trials(inspection: Inspection, key: str, rule: str) -> Iterator[str]:
    """A row for each threshold: shares and, if a truth is known, precision and recall."""
    relative = inspection["configured"].get("margin_unit") == "mean_anchor_distance"
    unit = "in units of the anchors' mean distance" if relative else "in the unit of d2 - d1"
    by_margin = f"Other margins, {unit}, probability labels as configured"
    yield "Other P0, anchor labels as configured" if key == "p0s" else by_margin
    yield "* as configured"
    widths, heads = [12, 10, 9, 8], ["compared", "labelled", "by both", "agree"]
    if inspection["accuracy"]:
        widths, heads = widths + [12, 7] * 2, heads + ["pixels", "mean"] * 2
        yield group_titles(10, [("", 12), ("% of all", 19), ("", 8), ("precision, %", 19), ("recall, %", 19)])
    yield table_row("", 10, heads, widths)
    for name, trial in _with_stored(inspection, key):
        share = trial["share"]
        cells = [f"{trial['threshold']:.4g}", *(percent(share[part]) for part in (rule, "both", "agreement"))]
        if inspection["accuracy"]:
            scores = trial["accuracy"][rule]
            cells += [percent(scores["accuracy"]), percent(mean_score(scores, "precision"))]
            cells += [percent(recall_of_pixels(scores)), percent(mean_score(scores, "recall"))]
        yield table_row(name, 10, cells, widths)


def _trials_by_category(inspection: Inspection, key: str, rule: str, column: int) -> Iterator[list[str]]:
    """Tables of a row for each category, with as many thresholds side by side as fit into WIDTH."""
    heads = ("label", "prec.", "recall") if inspection["accuracy"] else ("label",)
    widths = (8, 6, 7) if inspection["accuracy"] else (10,)
    fit = max(1, (WIDTH - column) // sum(widths))
    trials = _with_stored(inspection, key)
    for block in (trials[start : start + fit] for start in range(0, len(trials), fit)):
        lines = [group_titles(column, [(name, sum(widths)) for name, _ in block])]
        lines.append(table_row("", column, heads * len(block), widths * len(block)))
        for i, row in enumerate(inspection["per_category"]):
            cells = []
            for _, trial in block:
                cells.append(percent(trial["per_category"][i][rule], 2))
                if inspection["accuracy"]:
                    scores = trial["accuracy"][rule]["per_category"][i]
                    cells += [percent(scores["precision"]), percent(scores["recall"])]
            lines.append(table_row(row["name"], column, cells, widths * len(block)))
        yield lines
