"""The verb `methods`: every run of an experiment on one page, with the FLOPs of its training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from caguda.config import Configuration
from caguda.costs.models import passes_of, plan_of
from caguda.costs.rates import NoRate
from caguda.errors import UserError
from caguda.paper.methods_page import write_methods


def methods(
    configuration: Configuration,
    evaluations: Sequence[Path],
    checkpoints: Sequence[Path],
    figure: Path,
    output: Path,
    label_reports: Sequence[Path] = (),
) -> None:
    """Write the page of all runs of an experiment, see write_methods; it lies in a folder of the experiment's."""
    write_methods(
        configuration,
        training_flops(configuration, output.absolute().parents[1]),
        evaluations=evaluations,
        checkpoints=checkpoints,
        label_reports=label_reports,
        figure=figure,
        output=output,
    )


def training_flops(configuration: Configuration, results: Path) -> dict[str, float]:
    """The FLOPs of the training of each model by a plan; empty, with a line in the log, where none can be made."""
    try:
        plan = plan_of(configuration, ["runs"], NoRate(), results, passes_of(configuration))
    except UserError as error:
        print(f"FLOPs are unknown: {error}", file=sys.stderr)
        return {}
    return {cost.model: cost.training.total_flops for cost in plan.models if cost.training is not None}
