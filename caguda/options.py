"""The options of all verbs, and what their numbers may be."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _path(flag: str, destination: str, help_text: str) -> tuple[str, dict[str, Any]]:
    return flag, {"dest": destination, "type": Path, "metavar": "FILE", "help": help_text}


def _optional(flag: str, help_text: str) -> tuple[str, dict[str, Any]]:
    """An option that may be left out, or stand without a file, as in a rule where there is none."""
    return flag, {"type": Path, "nargs": "?", "default": None, "metavar": "FILE", "help": help_text}


_LARGEST = 2**32 - 1


def _number(flag: str, least: int, help_text: str, **settings: Any) -> tuple[str, dict[str, Any]]:
    return flag, {"type": _whole(least), "metavar": "N", "help": help_text} | settings


def _whole(least: int) -> Callable[[str], int]:
    """What reads a whole number from `least` to the largest seed."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, found {text!r:.60}")
        if value > _LARGEST:
            raise argparse.ArgumentTypeError(f"must be at most {_LARGEST}, found {text!r:.60}")
        return value

    return read


def _real(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, found {text!r}")
    return value


def _reals(text: str) -> list[float]:
    """The finite numbers of a list that is separated by commas."""
    return [_real(part) for part in text.split(",")]


LOOKED_AT = "MODEL/labels/RULE+RULE.json, or the evidence: MODEL/evidence/evidence.zarr"

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "paths": ("paths", {"type": Path, "nargs": "+", "metavar": "PATH", "help": "artifacts, or folders with some"}),
    "yamls": (
        "files",
        {"type": Path, "nargs": "+", "metavar": "FILE", "help": "YAMLs, a later one above those before it"},
    ),
    "artifact": ("artifact", {"type": Path, "metavar": "ARTIFACT", "help": "a file, or a label store"}),
    "json": ("--json", {"dest": "as_json", "action": "store_true", "default": False, "help": "print JSON"}),
    "config": _path("--config", "configuration", "the experiment: a YAML, or the config.json of the workflow"),
    "seed": _number("--seed", 0, "the seed of weights and data order"),
    "report": ("--report", {"metavar": "NAME", "help": "which report, a key of `reports`"}),
    "manifest": _path("--manifest", "manifest", "the checked frames, written by `check`"),
    "initial": _optional("--initial", "the checkpoint to start from"),
    "anchors-if-any": _optional("--anchors", "the category anchors, where the method needs them"),
    "evidence-if-any": _optional("--evidence", "the JSON of the evidence that pseudo-labels are shown of"),
    "checkpoint": _path("--checkpoint", "checkpoint", "the frozen network"),
    "anchors": _path("--anchors", "anchors", "the category anchors"),
    "evidence": _path("--evidence", "evidence", "the JSON of a verified evidence store"),
    "rule": ("--rule", {"metavar": "NAME", "help": "the folder of a rule, such as anchor-0.15-mean_anchor_distance"}),
    "store": _path("--store", "store", "the store, a folder"),
    "input": _path("--input", "input", "the file that comes from elsewhere"),
    "run": ("--run", {"metavar": "RUN", "help": "which model: a key of `runs`, or RUN/stageK"}),
    "set": ("--set", {"dest": "name", "choices": ["evaluation", "test"], "help": "which set of frames"}),
    "predictions": _path("--predictions", "predictions", "the JSON of finished predictions"),
    "folder": _path("--folder", "folder", "the folder of the predictions' PNG files"),
    "part": _number("--part", 1, "which part, from 1"),
    "parts": _number("--parts", 1, "of how many"),
    "part-files": ("--part-files", {"type": Path, "nargs": "+", "metavar": "FILE", "help": "what all parts have made"}),
    "output": _path("--output", "output", "the artifact to write"),
    "domain": ("--domain", {"choices": ("source", "target"), "help": "which frames"}),
    "packed": (
        "--packed",
        {"type": Path, "nargs": "*", "default": (), "metavar": "FILE", "help": "packed caches to read frames from"},
    ),
    "state": _path("--state", "state", "the folder of the state to resume from"),
    "number": ("--number", {"type": int, "choices": (1, 2, 3, 4), "help": "which table of the paper"}),
    "csv": _path("--output-csv", "csv", "the table as CSV"),
    "markdown": _path("--output-md", "markdown", "the table as Markdown"),
    "table": _path("--table", "table", "the table as CSV"),
    "figure": _path("--figure", "figure", "the qualitative figure"),
    "curves": _path("--curves", "curves", "the loss curves"),
    "checkpoints": ("--checkpoints", {"type": Path, "nargs": "+", "metavar": "FILE", "help": "checkpoints, in order"}),
    "all-labels": (
        "--labels",
        {"type": Path, "nargs": "+", "metavar": "FILE", "help": "label store JSONs, of every rule"},
    ),
    "labels-if-any": (
        "--labels",
        {"type": Path, "nargs": "*", "default": (), "metavar": "FILE", "help": "label store JSONs, of every rule"},
    ),
    "label-summaries": (
        "--labels",
        {
            "type": Path,
            "nargs": "*",
            "default": (),
            "metavar": "FILE",
            "help": "what `diagnose` wrote, of every model and seed",
        },
    ),
    "checkpoints-if-any": (
        "--checkpoints",
        {
            "type": Path,
            "nargs": "*",
            "default": (),
            "metavar": "FILE",
            "help": "checkpoints that were trained here, in order",
        },
    ),
    "looked-at": ("store", {"type": Path, "metavar": "LABELS", "help": LOOKED_AT}),
    "plot": ("--plot", {"type": Path, "default": None, "metavar": "FOLDER", "help": "draw pictures into this folder"}),
    "margins": (
        "--margin",
        {"dest": "margins", "type": _reals, "default": (), "metavar": "M,M,...", "help": "what other margins give"},
    ),
    "p0s": (
        "--p0",
        {"dest": "p0s", "type": _reals, "default": (), "metavar": "P,P,...", "help": "what other P0 give"},
    ),
    "accuracy": (
        "--accuracy",
        {
            "type": Path,
            "nargs": "+",
            "metavar": "FILE",
            "help": "what `diagnose` wrote, one for each evaluation",
        },
    ),
    "stores": ("stores", {"type": Path, "nargs": "+", "metavar": "LABELS", "help": LOOKED_AT}),
    "frames": ("--frames", {"default": None, "metavar": "ID,...", "help": "the frames of these ids"}),
    "worst": _number("--worst", 1, "the N worst frames", default=None),
    "random": _number("--random", 1, "N frames at random", default=None),
    "html": ("--html", {"action": "store_true", "default": False, "help": "a page instead of pictures"}),
    "evaluations": ("--evaluations", {"type": Path, "nargs": "+", "metavar": "FILE", "help": "evaluation JSONs"}),
}
