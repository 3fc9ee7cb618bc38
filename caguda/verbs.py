"""The verbs of the command line: each calls a function, and has an option for each of its arguments."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Option:
    """An option of a verb: its flag, the function's argument for its value, and the settings of argparse.

    A flag without dashes is a positional. An option with a `default` in its settings may be left out.
    """

    flag: str
    argument: str
    help: str
    settings: Mapping[str, Any]

    @property
    def is_required(self) -> bool:
        """Whether every call must have the option."""
        return "default" not in self.settings

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add the option to a parser."""
        if self.flag.startswith("-"):
            parser.add_argument(
                self.flag, dest=self.argument, required=self.is_required, help=self.help, **self.settings
            )
        else:
            parser.add_argument(self.flag, help=self.help, **self.settings)


@dataclass(frozen=True)
class Verb:
    """A verb: MODULE:FUNCTION in `caguda`, a short help, and its options."""

    function: str
    help: str
    options: tuple[Option, ...]


def _option(flag: str, help_text: str, settings: Mapping[str, Any], argument: str = "") -> Option:
    """An option; by default the argument has the name of the flag."""
    return Option(flag, argument or flag.removeprefix("--").replace("-", "_"), help_text, settings)


def _whole_number(least: int) -> Callable[[str], int]:
    """A function that parses a whole number from `least` to the largest seed."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, found {text!r:.60}")
        if value > _LARGEST_SEED:
            raise argparse.ArgumentTypeError(f"must be at most {_LARGEST_SEED}, found {text!r:.60}")
        return value

    return read


def _finite_numbers(text: str) -> list[float]:
    """The numbers in a list separated by commas."""
    numbers = []
    for part in text.split(","):
        try:
            numbers.append(float(part))
        except ValueError:
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            raise argparse.ArgumentTypeError(f"must be a finite number, found {part!r}")
    return numbers


def _number_above_0(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a finite number above 0, found {text!r:.60}")
    return value


_LARGEST_SEED = 2**32 - 1
_NAME: dict[str, Any] = {"metavar": "NAME"}


def _path(text: str) -> Path:
    """A path with a name: `.` and `..` become the paths of their folders, since other files are named after an argument."""
    return Path(text) if Path(text).name not in ("", "..") else Path(os.path.abspath(text))


_FILE: dict[str, Any] = {"type": _path, "metavar": "FILE"}
_FILES = _FILE | {"nargs": "+"}
_FILE_IF_ANY = _FILE | {"nargs": "?", "default": None}
"""A rule of the workflow writes the flag alone where there is no file."""
_FILES_IF_ANY = _FILE | {"nargs": "*", "default": ()}
_SWITCH: dict[str, Any] = {"action": "store_true", "default": False}
_FROM_0, _FROM_1 = ({"type": _whole_number(least), "metavar": "N"} for least in (0, 1))
_NUMBERS: dict[str, Any] = {"type": _finite_numbers, "default": ()}
_LABELS = "MODEL/labels/RULE+RULE.json, or MODEL/labels/RULE/labels.json, or the evidence: MODEL/evidence/evidence.zarr"

CONFIG = _option("--config", "the experiment: a YAML, or the config.json of the workflow", _FILE, "configuration")
MANIFEST = _option("--manifest", "the checked frames, written by `check`", _FILE)
MANIFESTS = _option(
    "--manifest", "the checked frames, and those of `check-translated` where a run reads them", _FILES, "manifests"
)
SEED = _option("--seed", "the seed of weights and data order", _FROM_0)
MODEL = _option("--model", "which model: a key of `runs`, or RUN/stageK", {"metavar": "MODEL"})
CHECKPOINT = _option("--checkpoint", "the frozen network", _FILE)
CHECKPOINTS = _option("--checkpoints", "checkpoints, in order", _FILES)
TRAINED = _option("--checkpoints", "checkpoints that were trained here, in order", _FILES_IF_ANY)
START = _option("--start", "the checkpoint to start from", _FILE_IF_ANY)
ANCHORS = _option("--anchors", "the category anchors", _FILE)
ANCHORS_IF_ANY = _option("--anchors", "the category anchors, where the method needs them", _FILE_IF_ANY)
EVIDENCE = _option("--evidence", "the JSON of a verified evidence store", _FILE)
EVIDENCE_IF_ANY = _option("--evidence", "the JSON of the evidence that pseudo-labels are shown of", _FILE_IF_ANY)
LABELS = _option("--labels", "label store JSONs, of every rule", _FILES)
LABELS_IF_ANY = _option("--labels", "label store JSONs, of every rule", _FILES_IF_ANY)
LABEL_REPORTS = _option("--label-reports", "what `diagnose` wrote, one for each evaluation", _FILES)
LABEL_REPORTS_IF_ANY = _option("--label-reports", "what `diagnose` wrote, of every model and seed", _FILES_IF_ANY)
RULE = _option("--rule", "the folder of a rule, such as anchor-0.15-mean_anchor_distance", _NAME)
STORE = _option("--store", "the store, a folder", _FILE)
PACKED = _option("--packed", "packed caches to read frames from", _FILES_IF_ANY)
STATE = _option("--state", "the folder of the state to resume from", _FILE)
DOMAIN = _option("--domain", "which frames", {"choices": ("source", "target", "translated")})
SET = _option("--set", "which set of frames", {"choices": ("source", "target", "evaluation", "test")}, "name")
PART = _option("--part", "which part, from 1", _FROM_1)
PARTS = _option("--parts", "of how many", _FROM_1)
PART_FILES = _option("--part-files", "what all parts have made", _FILES)
INPUT = _option("--input", "the file that comes from elsewhere", _FILE)
OUTPUT = _option("--output", "the artifact to write", _FILE)
FOLDER = _option("--folder", "the folder of the predictions' PNG files", _FILE)
PREDICTIONS = _option("--predictions", "the JSON of finished predictions", _FILE)
REPORT = _option("--report", "which report, a key of `reports`", _NAME)
NUMBER = _option("--number", "which table of the paper", {"type": int, "choices": (1, 2, 3, 4)})
EVALUATIONS = _option("--evaluations", "evaluation JSONs", _FILES)
CSV = _option("--output-csv", "the table as CSV", _FILE, "csv")
MARKDOWN = _option("--output-md", "the table as Markdown", _FILE, "markdown")
TABLE = _option("--table", "the table as CSV", _FILE)
FIGURE = _option("--figure", "the predictions and pseudo-labels of some frames, a picture", _FILE)
CURVES = _option("--curves", "the loss curves", _FILE)
JSON = _option("--json", "print JSON", _SWITCH, "as_json")
PLOT = _option("--plot", "draw pictures into this folder", {"type": _path, "default": None, "metavar": "FOLDER"})
MARGINS = _option("--margin", "what other margins give, of one labelling", _NUMBERS | {"metavar": "M,M,..."}, "margins")
P0S = _option("--p0", "what other P0 give, of one labelling", _NUMBERS | {"metavar": "P,P,..."}, "p0s")
FRAMES = _option("--frames", "the frames of these ids", {"default": None, "metavar": "ID,..."})
WORST = _option(
    "--worst",
    "the N frames that are least right, or of two columns those that differ most",
    _FROM_1 | {"default": None},
)
RANDOM = _option("--random", "N frames at random", _FROM_1 | {"default": None})
HTML = _option("--html", "a page instead of pictures", _SWITCH)
ARTIFACT = _option("artifact", "a file, or a label store", {"type": _path, "metavar": "ARTIFACT"})
PATHS = _option("paths", "artifacts, or folders with some", _FILES | {"metavar": "PATH"})
YAMLS = _option("files", "YAMLs, a later one above those before it", _FILES)
LABELLINGS = _option("labellings", _LABELS, {"type": _path, "nargs": "+", "metavar": "LABELS"})
SHOWN = _option("shown", f"{_LABELS}; predictions/SET.json, or checkpoints; a column for each rule or model of several",
                {"type": _path, "nargs": "+", "metavar": "LABELS"})  # fmt: skip
YAML = _option("file", "the experiment: a YAML", {"type": _path, "metavar": "CONFIG"})
PLANNED = _option("words", "YAMLs above it; models, runs or targets of the workflow, by default all runs",
                  {"nargs": "*", "default": (), "metavar": "MODEL"})  # fmt: skip
TFLOPS = _option(
    "--tflops",
    "the TFLOP/s that a device sustains, for hours",
    {"type": _number_above_0, "default": None, "metavar": "N"},
)
MEASURE = _option("--measure", "measure some steps on this machine, for hours", _SWITCH)

_ON_CHECKPOINT = (CONFIG, MANIFEST, CHECKPOINT)
VERBS: Mapping[str, Verb] = {
    "generate": Verb("stages.generate:generate", "write the street scenes", (CONFIG, OUTPUT)),
    "check": Verb("stages.check:check", "open, measure and hash every frame", (CONFIG, OUTPUT)),
    "check-test": Verb("stages.check:check_test", "the same for the test set", (CONFIG, OUTPUT)),
    "check-translated": Verb("stages.check:check_translated", "the same for translated source frames", (CONFIG, MANIFEST, OUTPUT)),
    "pack": Verb("stages.pack:pack", "decode the frames of a domain into one file", (CONFIG, MANIFEST, DOMAIN, OUTPUT)),
    "train": Verb("stages.train:train_model", "train one model of a run",
                  (CONFIG, SEED, MODEL, MANIFESTS, START, ANCHORS_IF_ANY, LABELS_IF_ANY, OUTPUT, STATE, PACKED)),
    "anchor-part": Verb("stages.anchors:sum_part", "CAC: sums over one part of the source", (*_ON_CHECKPOINT, PART, PARTS, OUTPUT)),
    "anchors": Verb("stages.anchors:construct_anchors", "CAC: category anchors from the sums of all parts",
                    (*_ON_CHECKPOINT, PART_FILES, OUTPUT)),
    "evidence-store": Verb("stages.evidence_store:create_evidence", "create an empty evidence store",
                           (*_ON_CHECKPOINT, ANCHORS, STORE, OUTPUT)),
    "evidence-part": Verb("stages.evidence:write_part", "the outputs of a frozen model for one part of the target",
                          (*_ON_CHECKPOINT, ANCHORS, STORE, PART, PARTS, OUTPUT)),
    "evidence": Verb("stages.evidence_store:verify_evidence", "verify the evidence that all parts have written, and write its JSON", (STORE, PART_FILES, OUTPUT)),
    "labels": Verb("stages.labels:make_labels", "ATI and PLA: the pseudo-labels of one rule, from evidence",
                   (CONFIG, EVIDENCE, RULE, STORE, OUTPUT)),
    "convert-anchors": Verb("stages.convert:convert_anchors", "anchors from elsewhere, the authors' or an anchors file, for this network", (CONFIG, INPUT, OUTPUT)),
    "convert-checkpoint": Verb("stages.convert:convert_checkpoint", "the authors' checkpoint as a checkpoint", (CONFIG, INPUT, OUTPUT)),
    "config": Verb("resolved:print_configuration", "a whole experiment, each value with the YAML that says it", (YAMLS,)),
    "plan": Verb("costs.plan:plan", "what models will cost: FLOPs, hours, disk, frames a second", (YAML, PLANNED, TFLOPS, MEASURE, JSON)),
    "schema": Verb("schema:print_schema", "the JSON schema of an experiment's YAML, for editors", ()),
    "import": Verb("stages.convert:import_checkpoint", "take a checkpoint from elsewhere as the model of a run",
                   (CONFIG, MODEL, SEED, INPUT, OUTPUT)),
    "evaluate": Verb("stages.evaluate:evaluate", "IoU of a checkpoint", (*_ON_CHECKPOINT, OUTPUT)),
    "diagnose": Verb("stages.diagnose:diagnose", "the label report: shares and accuracy of pseudo-labels",
                     (CONFIG, MANIFEST, EVIDENCE, LABELS, OUTPUT)),
    "inspect": Verb("stages.inspect:inspect", "what pseudo-labels there are, of any rules of one evidence store, and what other thresholds would give",
                    (LABELLINGS, JSON, PLOT, MARGINS, P0S)),
    "predict-part": Verb("stages.predict:predict_part", "label ids of one part of a set's frames as PNG files",
                         (*_ON_CHECKPOINT, SET, FOLDER, PART, PARTS, OUTPUT)),
    "predict": Verb("stages.predictions:list_predictions", "verify and list the predictions of all parts",
                    (*_ON_CHECKPOINT, SET, FOLDER, PART_FILES, OUTPUT)),
    "submission": Verb("stages.submission:submission", "predictions as the zip that Cityscapes' test server takes",
                       (MANIFEST, PREDICTIONS, OUTPUT)),
    "verify": Verb("stages.verify:verify", "check artifacts, or a whole tree of results, to the last bit", (PATHS,)),
    "provenance": Verb("stages.provenance:print_provenance", "what an artifact was made of, back to the frames", (ARTIFACT, JSON)),
    "view": Verb("stages.view:view", "pseudo-labels and predictions, also several beside each other, as pictures or a page",
                 (SHOWN, FRAMES, WORST, RANDOM, HTML, OUTPUT)),
    "table": Verb("paper.table:write_table", "the result table", (CONFIG, REPORT, EVALUATIONS, CSV, MARKDOWN)),
    "paper-table": Verb("paper.tables:write_paper_table", "a table of the paper", (CONFIG, NUMBER, EVALUATIONS, OUTPUT)),
    "sweep": Verb("paper.sweep:write_sweep", "what other thresholds give, as a table and a picture",
                  (CONFIG, EVALUATIONS, LABEL_REPORTS, OUTPUT)),
    "class-chart": Verb("paper.class_charts:write_class_chart", "gains and confusions of every category as a picture",
                        (CONFIG, EVALUATIONS, OUTPUT)),
    "figure": Verb("stages.figure:draw_figure", "frames, predictions and pseudo-labels as a picture",
                   (CONFIG, MANIFEST, REPORT, SEED, CHECKPOINTS, EVIDENCE_IF_ANY, LABELS_IF_ANY, OUTPUT)),
    "curves": Verb("paper.charts:write_curves", "loss curves", (CONFIG, REPORT, TRAINED, OUTPUT)),
    "report": Verb("paper.report:write_report", "one page of all results",
                   (CONFIG, REPORT, TABLE, FIGURE, CURVES, EVALUATIONS, LABEL_REPORTS_IF_ANY, CHECKPOINTS, OUTPUT)),
    "methods-figure": Verb("stages.methods_figure:draw_methods", "the same frames by the last model of every run",
                           (CONFIG, MANIFEST, SEED, CHECKPOINTS, OUTPUT)),
    "methods": Verb("costs.methods:methods", "one page of all runs: scores, costs, labels, and who beats whom",
                    (CONFIG, EVALUATIONS, LABEL_REPORTS_IF_ANY, CHECKPOINTS, FIGURE, OUTPUT)),
}  # fmt: skip
