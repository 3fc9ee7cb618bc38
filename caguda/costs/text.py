"""A plan as tables in plain text, and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from caguda.costs.formulas import ModelCost, Plan, Work, sum_of_flops, sum_of_hours
from caguda.errors import printable

TRAINING = ("training", "method", "iterations", "TFLOP a step", "PFLOP", "hours", "frames a step", "frames a second")
PASSES = ("passes", "", "frames", "TFLOP a frame", "PFLOP", "hours")
ARTIFACTS = ("checkpoint", "training state", "evidence", "labels", "predictions")
COMPRESSED = {"evidence", "labels", "predictions", "generated frames"}
"""Artifacts that are compressed: their bytes are estimates."""
DISK = ("disk, GB", *(f"{name}, est." if name in COMPRESSED else name for name in ARTIFACTS), "all")


def lines_of(plan: Plan, name: str) -> list[str]:
    """The lines of a plan: trainings, passes and disk of every model, totals of all seeds, and what was assumed."""
    seeds = "1 seed" if plan.seeds == 1 else f"each of {plan.seeds} seeds"
    trainings = [_training_row(cost.model, cost.method, cost.training) for cost in plan.models if cost.training]
    passes = [_pass_row(cost.model, work) for cost in plan.models for work in cost.passes]
    disk = [*chain.from_iterable(map(_disk_rows, plan.models)), *(_shared_row(*item) for item in plan.shared.items())]
    lines = [f"{printable(name)}: {len(plan.models)} models, {seeds}", ""]
    for head, texts, rows in ((TRAINING, 2, trainings), (PASSES, 2, passes), (DISK, 1, disk)):
        if rows:
            lines += [*_aligned([head, *rows], texts), ""]
    return [*lines, *_totals(plan), "", "Assumed:", *(f"- {text}" for text in plan.assumptions)]


def _training_row(model: str, method: str, training: Work) -> list[str]:
    return [
        model, method, f"{training.count:,}", digits(training.flops / 1e12), digits(training.total_flops / 1e15),
        digits(training.hours), f"{training.decoded}", digits(training.frames_per_second),
    ]  # fmt: skip


def _pass_row(model: str, work: Work) -> list[str]:
    flops = (digits(work.flops / 1e12), digits(work.total_flops / 1e15))
    return [model, work.name, f"{work.count:,}", *flops, digits(work.hours)]


def _disk_rows(cost: ModelCost) -> Iterator[list[str]]:
    """The row of a model, and one for its evidence and labels by each file of anchors from elsewhere."""
    by_file = {f"{cost.model} by {file}": disk for file, disk in cost.disk_by_given_anchors.items()}
    for title, disk in {cost.model: cost.disk, **by_file}.items():
        yield [title, *(_gigabytes(disk.get(name, 0)) for name in ARTIFACTS), _gigabytes(sum(disk.values()))]


def _shared_row(name: str, size: int) -> list[str]:
    title = f"{name}, est." if name in COMPRESSED else name
    return [title, *[""] * len(ARTIFACTS), _gigabytes(size)]


def _totals(plan: Plan) -> Iterator[str]:
    """The totals of all seeds."""
    yield f"Total of {'1 seed' if plan.seeds == 1 else f'all {plan.seeds} seeds'}:"
    rows = [["", "PFLOP", "hours"]]
    for title, works in (("trainings", plan.trainings), ("passes", plan.passes), ("all", plan.trainings + plan.passes)):
        hours = sum_of_hours(works)
        flops = plan.seeds * sum_of_flops(works) / 1e15
        rows.append([title, digits(flops), digits(None if hours is None else plan.seeds * hours)])
    yield from _aligned(rows, 1)
    yield f"disk: {digits(plan.bytes / 1e9)} GB"
    if plan.unknown:
        yield f"not in it: passes over frames of {', '.join(plan.unknown)}, and what is stored of them: their number or size is unknown"


def _aligned(rows: Sequence[Sequence[str]], texts: int) -> list[str]:
    """The rows with columns of one width: the first `texts` to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        padded = [
            cell.ljust(width) if column < texts else cell.rjust(width) for column, (cell, width) in enumerate(cells)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def digits(value: float | None) -> str:
    """A number with three significant digits; a dash if it is unknown."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def _gigabytes(size: int) -> str:
    return digits(size / 1e9) if size else ""


def as_json(plan: Plan, name: str) -> dict[str, Any]:
    """The plan as JSON values: FLOPs, seconds, bytes. Models are of one seed, totals of all."""
    hours = {title: sum_of_hours(works) for title, works in (("training", plan.trainings), ("passes", plan.passes))}
    return {
        "configuration": name,
        "seeds": plan.seeds,
        "models": [
            {
                "model": cost.model,
                "method": cost.method,
                "training": None if cost.training is None else _work(cost.training),
                "passes": [_work(work) for work in cost.passes],
                "bytes": dict(cost.disk),
                "bytes_by_given_anchors": {file: dict(disk) for file, disk in cost.disk_by_given_anchors.items()},
            }
            for cost in plan.models
        ],
        "shared_bytes": dict(plan.shared),
        "totals": {
            "training_flops": plan.seeds * sum_of_flops(plan.trainings),
            "passes_flops": plan.seeds * sum_of_flops(plan.passes),
            **{f"{title}_hours": None if value is None else plan.seeds * value for title, value in hours.items()},
            "bytes": plan.bytes,
        },
        "unknown": list(plan.unknown),
        "assumptions": list(plan.assumptions),
    }


def _work(work: Work) -> dict[str, Any]:
    return {
        "name": work.name, "count": work.count, "flops_of_one": work.flops, "seconds_of_one": work.seconds,
        "flops": work.total_flops, "hours": work.hours, "frames_of_one": work.decoded,
        "frames_per_second": work.frames_per_second,
    }  # fmt: skip
