"""The command line: each call runs one verb."""

import argparse
import errno
import importlib
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from caguda.configfile import load_configuration
from caguda.errors import UserError, printable
from caguda.launch import Outcome, end_with, launch
from caguda.verbs import VERBS

STDOUT = 1  # the file descriptor
NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
_TOO_LITTLE_MEMORY = re.compile("out of memory|not enough memory|can't allocate memory", re.IGNORECASE)
"""In messages of torch about a GPU and about the CPU."""
NO_FOLDER = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns 0, or after an error, which is one line on stderr, its exit code."""
    options = vars(_options_of(sys.argv[1:] if arguments is None else arguments))
    verb = options.pop("verb")
    outcome = _outcome_of(_start, verb, options)
    if outcome.message:
        with suppress(BrokenPipeError):  # the reader of stdout has ended
            sys.stdout.flush()  # stdout comes before stderr, in a log too
        print(outcome.message, file=sys.stderr)
    return outcome.code


def _start(verb: str, options: dict[str, Any]) -> Outcome:
    """Call a verb in this process, or in several new processes that share its training."""
    from caguda.artifacts.outputs import outputs_of, refuse_other_outputs, refuse_outputs  # h5py is slow to import

    end_with(os.environ.get("CAGUDA_WORKFLOW"))
    outputs = outputs_of(verb, options)
    refuse_outputs(options, outputs)
    configuration = load_configuration(options["configuration"]) if "configuration" in options else None
    refuse_other_outputs(verb, options, outputs, configuration)
    if configuration is not None:
        options["configuration"] = configuration
        if "state" in options and (processes := configuration.compute.processes) > 1:
            return launch(processes, partial(_outcome_of, _call, verb, options))
    return _call(verb, options)


def _call(verb: str, options: dict[str, Any]) -> Outcome:
    module, function = VERBS[verb].function.split(":")
    getattr(importlib.import_module(f"caguda.{module}"), function)(**options)
    sys.stdout.flush()
    return Outcome(0)


def _outcome_of(call: Callable[[str, dict[str, Any]], Outcome], verb: str, options: dict[str, Any]) -> Outcome:
    """The outcome of calling a verb; a fault of the program is raised."""
    try:
        return call(verb, options)
    except UserError as error:
        return Outcome(error.exit_code, printable(f"caguda: error: {error}"))
    except (OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, BrokenPipeError) and _reader_has_ended():
            return Outcome(128 + signal.SIGPIPE)
        message = _message_of_machine_fault(error, options)
        if message is None:
            raise
        return Outcome(UserError.exit_code, printable(f"caguda: error: {message}"))
    except KeyboardInterrupt:
        return Outcome(128 + signal.SIGINT, "caguda: interrupted")


def _reader_has_ended() -> bool:
    """Whether the reader of stdout has ended, as in `| head`; if so, the rest of the output goes to /dev/null."""
    poll = select.poll()
    poll.register(STDOUT, select.POLLOUT)
    if ended := any(event & select.POLLERR for _, event in poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    return ended


def _message_of_machine_fault(error: OSError | RuntimeError | MemoryError, options: dict[str, Any]) -> str | None:
    """The message about a fault of the machine; None for a fault of the program."""
    if isinstance(error, OSError) and error.errno in NOT_WRITABLE | NO_FOLDER:
        path = error.filename or options.get("output", options.get("csv", Path())).parent
        return (
            f"{path}: must be readable and writable, found: {os.strerror(error.errno)}; put that right and give the same "
            "command again: what was finished is still there"
        )
    if isinstance(error, MemoryError) or _TOO_LITTLE_MEMORY.search(str(error)):
        return (
            f"the memory must hold a batch, found too little ({str(error).partition(chr(10))[0]:.150}); lower batch_size, "
            "augmentation.crop or compute.inference_batch_size, set compute.recompute_activations, or take a larger machine; "
            "what was finished is still there"
        )
    if isinstance(error, ConnectionError) or str(error).startswith("DataLoader worker"):
        return "a process that loads frames was killed, often for want of memory; the same command goes on from there"
    return None


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """End with that line."""
        line = printable(f"caguda: error: {message}; `python -m {self.prog} --help` tells what it takes")
        self.exit(UserError.exit_code, f"{line}\n")


def _options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """The verb of a call and its options. Options may stand before, between and after the verb's other words."""
    parser, by_verb = _parsers()
    if arguments and arguments[0] in by_verb:
        return by_verb[arguments[0]].parse_intermixed_args(arguments[1:])
    return parser.parse_args(arguments)


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the command line, and that of each verb."""
    parser = _Parser("caguda", description="Category anchor-guided unsupervised domain adaptation.")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        sub = verbs.add_parser(name, help=verb.help, description=verb.help)
        for option in verb.options:
            option.add_to(sub)
        sub.set_defaults(verb=name)
    return parser, dict(verbs.choices)
