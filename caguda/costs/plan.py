"""The verb `plan`: what the models of an experiment will cost, before anything is started."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from caguda.config import Configuration
from caguda.configfile import parse_configuration, read_merged
from caguda.costs.models import passes_of, plan_of
from caguda.costs.rates import NoRate, Rate, Sustained
from caguda.costs.selection import select
from caguda.costs.text import as_json as json_values
from caguda.costs.text import lines_of
from caguda.errors import UserError, printable
from caguda.merging import merge_all


def plan(file: Path, words: Sequence[str], tflops: float | None, *, measure: bool, as_json: bool) -> None:
    """Print what the models of an experiment will cost.

    Words with a dot are YAMLs above that of the experiment; the others name what to make, which has no dot.

    Hours are at `tflops` sustained TFLOP/s, or with `measure` at the speed of this machine; without both there are none.
    """
    if measure and tflops is not None:
        raise UserError("--tflops, --measure: one of the two must give the rate, found both; leave one out")
    files = [file, *(Path(word) for word in words if "." in word)]
    asked = [word for word in words if "." not in word]
    configuration, name = read_experiment(files), " + ".join(map(str, files))
    select(configuration, asked)  # a wrong word is refused before torch is imported
    rate = _rate(configuration, tflops, measure=measure)
    made = plan_of(configuration, asked, rate, Path("results", configuration.experiment), passes_of(configuration))
    print(json.dumps(json_values(made, name), indent=2) if as_json else "\n".join(map(printable, lines_of(made, name))))


def read_experiment(files: Sequence[Path]) -> Configuration:
    """The experiment of several YAMLs, a later one above those before it.

    An environment variable in `data_root` need not be set: the folders of frames are then absent.
    """
    merged = merge_all(map(read_merged, files))
    values, root = dict(merged.values), merged.values.get("data_root")
    if isinstance(root, str):
        values["data_root"] = re.sub(r"\$\{?(\w+)\}?", r"(\1 is not set)", os.path.expandvars(root))
    return parse_configuration(values, Path(" + ".join(map(str, files))), merged.layers)


def _rate(configuration: Configuration, tflops: float | None, *, measure: bool) -> Rate:
    if measure:
        from caguda.costs.measured import Measured  # torch and torchvision

        return Measured(configuration)
    return NoRate() if tflops is None else Sustained(tflops)
