"""Small graphs of runs, for tests of what they mean and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from miniature import values

from caguda.config import Configuration
from caguda.configfile import parse_configuration
from caguda.errors import UserError

Runs = dict[str, dict[str, Any] | None]
SUPERVISED = {"method": "supervised"}
CAG = {
    "method": "cag",
    "pseudo_labels": {"anchor": {"margin": 0.05, "unit": "absolute"}, "probability": {"p0": 0.5}},
    "weights": {"distance": 1, "anchor_cross_entropy": 1, "probability_cross_entropy": 1},
}
ADVERSARIAL = {"method": "adversarial", "weight": 1, "discriminator": {"learning_rate": 1}}


def keys(runs: Runs, **changes: Any) -> dict[str, Any]:
    """The keys of an experiment with these runs, a report of all of them, and no table."""
    return values(Path("frames"), runs=runs, reports={}) | changes


def experiment(runs: Runs, **changes: Any) -> Configuration:
    return parse_configuration(keys(runs, **changes), Path("own.yaml"))


def refused(runs: Runs, **changes: Any) -> str:
    """The one line that is said of an experiment, without the file's name."""
    with pytest.raises(UserError) as caught:
        experiment(runs, **changes)
    text = str(caught.value)
    assert "\n" not in text and text.startswith("own.yaml: ")
    return text.removeprefix("own.yaml: ")


TREE: Runs = {
    "later": {**CAG, "start": "chain"},
    "source": SUPERVISED,
    "chain": {**CAG, "start": "source", "stages": 3},
    "second": {"like": "chain", "start": "chain/stage2", "stages": 2},
    "control": {**SUPERVISED, "start": "second"},
    "brought": {"method": "imported", "file": "w.safetensors"},
    "third": {**ADVERSARIAL, "start": "brought"},
}
