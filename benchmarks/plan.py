"""What the trainings and passes of every recipe and target need, and the hours of three kinds of GPU, computed.

    python benchmarks/plan.py

Prints the table of docs/reproduce.md in Markdown, which a test compares with the page: run it after a change of a recipe, and
put its rows there. Nothing is measured. Hours are FLOPs over SHARE of the peak that the maker of a GPU publishes for dense
matrices in a precision.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from caguda.costs.formulas import Plan, seconds_of, sum_of_flops
from caguda.costs.models import passes_of, plan_of
from caguda.costs.plan import read_experiment
from caguda.costs.rates import NoRate
from caguda.costs.text import digits

CONFIG = Path(__file__).parents[1] / "config"
NOWHERE = Path("nowhere")
SHARE = 0.4


class Gpu(NamedTuple):
    """A kind of GPU, a precision, and the published peak for dense matrices in it, in TFLOP/s."""

    name: str
    precision: str
    peak: float


GPUS = (
    Gpu("V100", "float32", 15.7),  # NVIDIA V100 SXM2, datasheet
    Gpu("A100", "float32", 19.5),  # NVIDIA A100 SXM4, datasheet
    Gpu("A100", "TF32", 156.0),
    Gpu("H100, H200", "float32", 67.0),  # NVIDIA H100 SXM5 and H200 SXM, datasheets
    Gpu("H100, H200", "TF32", 494.5),  # half of the 989 with sparsity
)
RECIPES: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "gta5_cityscapes_paper": (
        ((), "all"), ((), "table1"), ((), "table2"), (("ablations",), "table4"), (("sweep_paper",), "sweep"),
    ),
    "gta5_cityscapes_official": (((), "all"), ((), "table1"), ((), "table2")),
    "synthia_cityscapes_paper": (((), "all"), ((), "table3")),
    "gta5_cityscapes_methods": (((), "methods"), ((), "table1")),
    "synthia_cityscapes_methods": (((), "methods"), ((), "table3")),
    "street_methods": (((), "methods"),),
    "demo": (((), "all"), (("ablations",), "table4"), (("sweep",), "sweep")),
    "demo_official": (((), "all"),),
}  # fmt: skip
"""The targets of every recipe, each with the YAMLs that are laid above it. Recipes of generated scenes have no hours."""


def plans() -> Iterator[tuple[str, str, bool, Plan]]:
    """The names of files and target of every row, whether its frames are generated, and its plan without frames on disk."""
    for recipe, targets in RECIPES.items():
        passes = passes_of(read_experiment([CONFIG / f"{recipe}.yaml"]))
        for above, target in targets:
            names = [f"{name}.yaml" for name in (recipe, *above)]
            experiment = read_experiment([CONFIG / name for name in names])
            elsewhere = experiment.model_copy(update={"data_root": str(NOWHERE)})
            made = plan_of(elsewhere, [target], NoRate(), NOWHERE, passes)
            yield ", ".join(f"`{name}`" for name in names), target, experiment.street is not None, made


def table() -> list[str]:
    """The lines of the table."""
    heads = [f"{gpu.name}, {gpu.precision}, h" for gpu in GPUS]
    lines = [f"| configuration | target | iterations | PFLOP | disk, GB | {' | '.join(heads)} |"]
    lines.append(f"|---|---|{'---:|' * (3 + len(heads))}")
    for names, target, is_generated, made in plans():
        flops = made.seeds * sum_of_flops(made.trainings + made.passes)
        iterations = made.seeds * sum(training.count for training in made.trainings)
        hours = ["" if is_generated else digits(seconds_of(flops, SHARE * gpu.peak) / 3600) for gpu in GPUS]
        cells = [names, f"`{target}`", f"{iterations:,}", digits(flops / 1e15), digits(made.bytes / 1e9), *hours]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
