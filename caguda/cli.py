"""The command line: one thin verb for every rule of the workflow."""

import argparse
import errno
import importlib
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from caguda.artifacts.ownership import refuse_outputs
from caguda.configfile import load_configuration
from caguda.errors import UserError, printable
from caguda.launch import Outcome, end_with, launch
from caguda.options import OPTIONS

STDOUT = 1  # the number of the open file
NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
NO_PLACE = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of one verb: 0, or what the error asks for after one line that says what was wrong."""
    given = vars(_parser().parse_args(arguments))
    verb = given.pop("verb")
    outcome = _ended(_begin, verb, given)
    if outcome.said:
        with suppress(BrokenPipeError):  # of a reader that has seen enough
            sys.stdout.flush()  # what was printed comes first, in a log too
        print(outcome.said, file=sys.stderr)
    return outcome.code


def _begin(verb: str, given: dict[str, Any]) -> Outcome:
    """Call a verb in this process, or in as many new ones as are to share its training."""
    from caguda.artifacts.identity import outputs_of, refuse_other_outputs  # imports much, which --help has no need of

    end_with(os.environ.get("CAGUDA_WORKFLOW"))
    outputs = outputs_of(verb, given)
    refuse_outputs(given, outputs)
    configuration = load_configuration(given["configuration"]) if "configuration" in given else None
    refuse_other_outputs(verb, given, outputs, configuration)
    if configuration is not None:
        given["configuration"] = configuration
        processes = given["configuration"].compute.processes
        if "state" in given and processes > 1:
            return launch(processes, partial(_ended, _call, verb, given))
    return _call(verb, given)


def _call(verb: str, given: dict[str, Any]) -> Outcome:
    module, function = VERBS[verb][0].split(":")
    getattr(importlib.import_module(f"caguda.{module}"), function)(**given)
    sys.stdout.flush()
    return Outcome(0)


def _ended(call: Callable[[str, dict[str, Any]], Outcome], verb: str, given: dict[str, Any]) -> Outcome:
    """How the call of a verb ended; a fault of the program is raised."""
    try:
        return call(verb, given)
    except UserError as error:
        return Outcome(error.exit_code, printable(f"caguda: error: {error}"))
    except (OSError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and _reader_has_ended():
            return Outcome(128 + signal.SIGPIPE)
        told = _told(error, given)
        if told is None:
            raise
        return Outcome(UserError.exit_code, printable(f"caguda: error: {told}"))
    except KeyboardInterrupt:
        return Outcome(128 + signal.SIGINT, "caguda: interrupted")


def _reader_has_ended() -> bool:
    """Whether nobody reads what is printed any more, as behind `| head`; then what is left of it goes nowhere."""
    poll = select.poll()
    poll.register(STDOUT, select.POLLOUT)
    if ended := any(event & select.POLLERR for _, event in poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    return ended


def _told(error: OSError | RuntimeError, given: dict[str, Any]) -> str | None:
    """What a person can do about a fault of the machine; None for one of the program."""
    if isinstance(error, OSError) and error.errno in NOT_WRITABLE | NO_PLACE:
        place = error.filename or given.get("output", given.get("csv", Path())).parent
        return (
            f"{place}: must be readable and writable, found: {os.strerror(error.errno)}; put that right and give the same "
            "command again: what was finished is still there"
        )
    if isinstance(error, ConnectionError) or str(error).startswith("DataLoader worker"):
        return "a process that loads frames was killed, often for want of memory; the same command goes on from there"
    return None


class _Parser(argparse.ArgumentParser):
    """Says in one line, without the usage, what is wrong with the words of a call."""

    def error(self, message: str) -> NoReturn:
        """End with that line."""
        said = printable(f"caguda: error: {message}; `python -m {self.prog} --help` tells what it takes")
        self.exit(UserError.exit_code, f"{said}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("caguda", description="Category anchor-guided unsupervised domain adaptation.")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for name, (_, help_text, options) in VERBS.items():
        sub = verbs.add_parser(name, help=help_text, description=help_text)
        for option in options.split():
            flags, settings = OPTIONS[option]
            needed = {"required": "default" not in settings} if flags.startswith("-") else {}
            sub.add_argument(flags, **settings | needed)
        sub.set_defaults(verb=name)
    return parser


VERBS: dict[str, tuple[str, str, str]] = {
    "generate": ("stages.generate:generate", "write the street scenes", "config output"),
    "check": ("stages.check:check", "open, measure and map every frame", "config output"),
    "check-test": ("stages.check:check_test", "the same for the test set", "config output"),
    "pack": ("stages.pack:pack", "decode the frames of a domain into one file", "config manifest domain output"),
    "train": (
        "stages.train:train_run",
        "train one model of a run",
        "config seed run manifest initial anchors-if-any labels-if-any output state packed",
    ),
    "anchor-part": (
        "stages.anchors:sum_part",
        "CAC: sums over one part of the source",
        "config manifest checkpoint part parts output",
    ),
    "anchors": (
        "stages.anchors:construct_anchors",
        "CAC: category anchors from the sums of all parts",
        "config manifest checkpoint part-files output",
    ),
    "evidence-store": (
        "stages.evidence:create_evidence",
        "create an empty evidence store",
        "config manifest checkpoint anchors store output",
    ),
    "evidence-part": (
        "stages.evidence:write_part",
        "what a frozen network says of one part of the target",
        "config manifest checkpoint anchors store part parts output",
    ),
    "evidence": ("stages.evidence:verify_evidence", "verify an evidence store", "store part-files output"),
    "labels": (
        "stages.labels:make_labels",
        "ATI and PLA: the pseudo-labels of one rule, from evidence",
        "config evidence rule store output",
    ),
    "convert-anchors": (
        "stages.convert:convert_anchors",
        "the authors' category anchors as an anchors file",
        "config input output",
    ),
    "convert-checkpoint": (
        "stages.convert:convert_checkpoint",
        "the authors' checkpoint as a checkpoint",
        "config input output",
    ),
    "config": ("resolved:print_configuration", "a whole experiment, each value with the YAML that says it", "yamls"),
    "schema": ("schema:print_schema", "the JSON schema of an experiment's YAML, for editors", ""),
    "import": (
        "stages.convert:import_checkpoint",
        "a checkpoint of elsewhere as that of a run",
        "config run seed input output",
    ),
    "evaluate": ("stages.evaluate:evaluate", "IoU of a checkpoint", "config manifest checkpoint output"),
    "diagnose": (
        "stages.diagnose:diagnose",
        "what rules label together, and how right they are",
        "config manifest evidence all-labels output",
    ),
    "inspect": (
        "stages.inspect:inspect",
        "what pseudo-labels there are, and what other thresholds would give",
        "looked-at json plot margins p0s",
    ),
    "predict-part": (
        "stages.predict:predict_part",
        "label ids of one part of a set's frames as PNG files",
        "config manifest checkpoint set folder part parts output",
    ),
    "predict": (
        "stages.predictions:list_predictions",
        "verify and list the predictions of all parts",
        "config manifest checkpoint set folder part-files output",
    ),
    "submission": (
        "stages.submission:submission",
        "predictions as the zip that Cityscapes' test server takes",
        "manifest predictions output",
    ),
    "verify": ("stages.verify:verify", "check artifacts, or a whole tree of results, to the last bit", "paths"),
    "provenance": ("stages.provenance:provenance", "what an artifact was made of, back to the frames", "artifact json"),
    "view": (
        "stages.view:view",
        "pseudo-labels as pictures, or as a page to page through",
        "stores frames worst random html output",
    ),
    "table": ("paper.table:write_table", "the result table", "config report evaluations csv markdown"),
    "paper-table": ("paper.tables:write_paper_table", "a table of the paper", "config number evaluations output"),
    "sweep": (
        "paper.sweep:write_sweep",
        "what other thresholds give, as a table and a picture",
        "config evaluations accuracy output",
    ),
    "class-chart": (
        "paper.class_charts:write_class_chart",
        "gains and confusions of every category as a picture",
        "config evaluations output",
    ),
    "figure": (
        "stages.figure:draw_figure",
        "frames, predictions and pseudo-labels as a picture",
        "config manifest report seed checkpoints evidence-if-any labels-if-any output",
    ),
    "curves": ("paper.charts:write_curves", "loss curves", "config report checkpoints-if-any output"),
    "report": (
        "paper.report:write_report",
        "one page of all results",
        "config report table figure curves evaluations label-summaries checkpoints output",
    ),
}
