"""Processes that open files on all cores."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process

from caguda.errors import UserError


@contextmanager
def workers(tasks: int, preload: Sequence[str], what: str) -> Iterator[ProcessPoolExecutor]:
    """As many processes as this one may use cores, with modules imported once; UserError when one of them is killed."""
    cores = min(len(os.sched_getaffinity(0)), max(1, tasks))
    context = get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    try:
        with ProcessPoolExecutor(cores, mp_context=context, initializer=_obey_the_verb_alone) as pool:
            yield pool
    except (BrokenProcessPool, EOFError, ConnectionError):  # the latter two when it is the one that forks them
        raise UserError(f"{what}: a process was killed, often for want of memory; try again") from None


def _obey_the_verb_alone() -> None:
    """A worker leaves Ctrl-C to the verb, and ends when that was killed instead of waiting for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    verb = parent_process()
    assert verb is not None

    def wait() -> None:
        verb.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
