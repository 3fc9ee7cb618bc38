"""What `inspect` found in a label store, as text for a terminal of 100 columns; shares in percent."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WIDTH = 100
RULES = ("anchor", "probability", "both")
QUANTILES = ("0.05", "0.25", "0.5", "0.75", "0.95")
Found = Mapping[str, Any]


def inspection(found: Found) -> str:
    """The whole report: what the store is, its origin, its categories, their accuracy, and other thresholds."""
    names = [row["name"] for row in found["per_category"]]
    column = max(10, *map(len, names))
    parts = [list(_head(found)), list(_categories(found, column))]
    if found["accuracy"]:
        parts.append(list(_accuracy(found["accuracy"], column)))
    for key, rule in (("margins", "anchor"), ("p0s", "probability")):
        if found[key]:
            parts += [list(_trials(found, key, rule)), *_trials_by_category(found, key, rule, column)]
    if "pictures" in found:
        parts.append([f"{name}: {why or 'drawn'}" for name, why in found["pictures"].items()])
    return "\n\n".join("\n".join(lines) for lines in parts)


def margin_text(found: Found) -> str:
    """The margin of Eq. 6 in the features' unit, and as it was configured."""
    configured, text = found["configured"], f"margin {found['margin']:.4g}"
    if configured.get("margin_unit") == "mean_anchor_distance":
        text += f" = {configured['margin']:g} x the anchors' mean distance"
    return text


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent; `-` where it is not known, `<0.1` where it is not 0 and would read so."""
    if value is None:
        return "-"
    least = 10.0**-digits
    return f"<{least:.{digits}f}" if 0 < 100 * value < least / 2 else f"{100 * value:.{digits}f}"


def _head(found: Found) -> Iterator[str]:
    yield found["store"]
    size = f"{found['height']}x{found['width']}"
    yield f"  {found['images']:,} images of {size} (h x w), {found['pixels']:,} pixels, {len(found['per_category'])} categories"
    if found["missing"]:
        yield f"  INCOMPLETE: {found['missing']:,} images are not written yet and left out below"
    yield f"  {margin_text(found)}; P0 {found['p0']:g}"
    made = found["provenance"]
    if not made:
        yield "  where it came from is not recorded"
    else:
        torch = made["libraries"].get("torch", "unknown")
        yield f"  made {made['created']} by caguda {made['caguda']}, method {made['method_version']}, torch {torch}"
    width = max(map(len, found["inputs"]), default=0)
    for lead, (name, state) in zip(["of", *["  "] * len(found["inputs"])], found["inputs"].items(), strict=False):
        yield f"  {lead} {name:<{width}}  {state}"
    if found["no_truth"]:
        yield f"  truth is not known: {found['no_truth']}"
    else:
        yield f"  truth is known of {found['images_with_truth']:,} images"


def _row(name: str, column: int, cells: Sequence[str], widths: Sequence[int]) -> str:
    return (
        f"{name:<{column}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    ).rstrip()


def _groups(column: int, groups: Sequence[tuple[str, int]]) -> str:
    """The titles of some groups of columns, each over the width of its columns, a little apart."""
    titles = [f" {text} ".center(width - 3, "-") if text else " " * (width - 3) for text, width in groups]
    return " " * column + "".join(f"   {title}" for title in titles)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _quantiles(values: Mapping[str, float | None] | None) -> list[str]:
    if values is None:
        return ["-"] * len(QUANTILES)
    return ["inf" if values[q] is None else f"{values[q]:.2f}" for q in QUANTILES]


def _categories(found: Found, column: int) -> Iterator[str]:
    widths = (9, 7, 7, 9, 8, 7, 8, 7, 7, 7, 7)
    yield _groups(column, [("labelled, %", 23), ("active, %", 17), ("", 7), ("d2 - d1", 36)])
    heads = ("anchors", "prob.", "both", "closest", "argmax", "agree", "5%", "25%", "50%", "75%", "95%")
    yield _row("", column, heads, widths)
    for row in found["per_category"]:
        shares = [percent(row[rule], 2) for rule in RULES]
        active = [percent(_ratio(row["anchor"], row["nearest"])), percent(_ratio(row["probability"], row["predicted"]))]
        cells = (*shares, *active, percent(row["agreement"]), *_quantiles(row["margin_quantiles"]))
        yield _row(row["name"], column, cells, widths)
    share = found["share"]
    same = sum(row["both"] for row in found["per_category"])
    total = [percent(value, 2) for value in (share["anchor"], share["probability"], same)]
    total += [percent(share[rule]) for rule in ("anchor", "probability", "agreement")]
    yield _row("all", column, (*total, *_quantiles(found["margin_quantiles"])), widths)
    yield f"active by both rules {percent(share['both'])}%, by either {percent(share['either'])}% of all pixels"
    yield "labelled: of all pixels. active: of those closest to the anchor, of those whose argmax this is."
    yield "agree: of the pixels active by both rules that either gives this label, those that both give it."


def _accuracy(accuracy: Found, column: int) -> Iterator[str]:
    widths = (10, 8, 8) * 2
    yield _groups(column, [("precision, %", 26), ("recall, %", 26)])
    yield _row("", column, ("anchors", "prob.", "both") * 2, widths)
    rows = [accuracy[rule]["per_category"] for rule in RULES]
    for each in zip(*rows, strict=True):
        cells = [percent(row[what]) for what in ("precision", "recall") for row in each]
        yield _row(each[0]["name"], column, cells, widths)
    means = [percent(_mean(each, what)) for what in ("precision", "recall") for each in rows]
    yield _row("mean", column, means, widths)
    total = [percent(accuracy[rule]["accuracy"]) for rule in RULES] + [
        percent(_recall(accuracy[rule])) for rule in RULES
    ]
    yield _row("all pixels", column, total, widths)


def _mean(rows: Sequence[Found], what: str) -> float | None:
    """The mean over the categories where it is known; None where it is of none."""
    known = [row[what] for row in rows if row[what] is not None]
    return sum(known) / len(known) if known else None


def _recall(scores: Found) -> float | None:
    """Rightly labelled pixels among all with a truth."""
    return None if scores["accuracy"] is None else float(scores["accuracy"] * scores["coverage"])


def _with_stored(found: Found, key: str) -> list[tuple[str, Found]]:
    """The labels as stored, marked by a star, and under every other threshold, each with its name."""
    name = "margin" if key == "margins" else "p0"
    stored = {**found, "threshold": found[name]}
    first = f"{found['configured'].get(name, found[name]):g} *"
    return [(first, stored), *((f"{trial['value']:g}", trial) for trial in found[key])]


def _trials(found: Found, key: str, rule: str) -> Iterator[str]:
    """One line for each threshold: what is labelled, and how right it is."""
    relative = found["configured"].get("margin_unit") == "mean_anchor_distance"
    unit = "in units of the anchors' mean distance" if relative else "in the unit of d2 - d1"
    yield (
        "Other P0, anchor labels as stored" if key == "p0s" else f"Other margins, {unit}, probability labels as stored"
    )
    yield "* as stored"
    widths, heads = [12, 10, 9, 8], ["compared", "labelled", "by both", "agree"]
    if found["accuracy"]:
        widths, heads = widths + [12, 7] * 2, heads + ["pixels", "mean"] * 2
        yield _groups(10, [("", 12), ("% of all", 19), ("", 8), ("precision, %", 19), ("recall, %", 19)])
    yield _row("", 10, heads, widths)
    for name, trial in _with_stored(found, key):
        share = trial["share"]
        cells = [f"{trial['threshold']:.4g}", *(percent(share[part]) for part in (rule, "both", "agreement"))]
        if found["accuracy"]:
            scores = trial["accuracy"][rule]
            rows = scores["per_category"]
            cells += [percent(scores["accuracy"]), percent(_mean(rows, "precision"))]
            cells += [percent(_recall(scores)), percent(_mean(rows, "recall"))]
        yield _row(name, 10, cells, widths)


def _trials_by_category(found: Found, key: str, rule: str, column: int) -> Iterator[list[str]]:
    """Every category under every threshold side by side, as many as fit in a block."""
    heads = ("label", "prec.", "recall") if found["accuracy"] else ("label",)
    widths = (8, 6, 7) if found["accuracy"] else (10,)
    fit = max(1, (WIDTH - column) // sum(widths))
    trials = _with_stored(found, key)
    for block in (trials[start : start + fit] for start in range(0, len(trials), fit)):
        lines = [_groups(column, [(name, sum(widths)) for name, _ in block])]
        lines.append(_row("", column, heads * len(block), widths * len(block)))
        for i, row in enumerate(found["per_category"]):
            cells = []
            for _, trial in block:
                cells.append(percent(trial["per_category"][i][rule], 2))
                if found["accuracy"]:
                    scores = trial["accuracy"][rule]["per_category"][i]
                    cells += [percent(scores["precision"]), percent(scores["recall"])]
            lines.append(_row(row["name"], column, cells, widths * len(block)))
        yield lines
