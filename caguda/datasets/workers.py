"""Processes that open files on all cores, and threads that read and write beside the one that computes."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from multiprocessing.context import ForkServerContext
from typing import TypeVar

from caguda.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
HELD_BACK = {signal.SIGTERM, signal.SIGINT}
LONGEST_FOLDER = 70


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """The same items; the next one is made in a thread of its own while one is at work, and none beyond it."""
    with ThreadPoolExecutor(1) as thread:
        end = object()
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]


def in_background(items: Iterable[T], work: Callable[[T], R]) -> Iterator[R]:
    """What `work` makes of each item, in order, in a thread of its own while the next item is made.

    One item is worked on at a time, and an error of `work` is raised in place of its result. Work that has begun is
    finished, whatever happens to the next item.
    """
    with ThreadPoolExecutor(1) as thread:
        under_way: Future[R] | None = None
        for item in items:
            if under_way is not None:
                yield under_way.result()
            under_way = thread.submit(work, item)
        if under_way is not None:
            yield under_way.result()


def fork_server(preload: Sequence[str]) -> ForkServerContext:
    """Processes that are forked from one that has imported some modules and has not computed.

    (A fork of a process that has computed with OpenMP threads hangs.) They hold SIGTERM and SIGINT back from their first
    instruction on. Must be called in the main thread.
    """
    _find_room_for_sockets()
    context = get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    resource_tracker.ensure_running()  # which lets through the signals that are held back when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _find_room_for_sockets() -> None:
    """Processes meet at sockets in the folder for temporary files, whose names may have 107 bytes; UserError without one."""
    try:
        usual = tempfile.gettempdir()
    except FileNotFoundError:
        usual = None
    if usual is None or len(os.fsencode(usual)) > LONGEST_FOLDER:
        short = [folder for folder in ("/tmp", "/var/tmp", "/dev/shm") if os.access(folder, os.W_OK | os.X_OK)]
        if not short:
            raise UserError(
                f"TMPDIR: must be a writable folder with a path of at most {LONGEST_FOLDER} bytes, found "
                f"{usual or 'none that is writable'}; set it to such a folder"
            )
        tempfile.tempdir = short[0]


@contextmanager
def workers(tasks: int, preload: Sequence[str], what: str) -> Iterator[ProcessPoolExecutor]:
    """As many processes as this one may use cores, with modules imported once; UserError when one of them is killed."""
    cores = min(len(os.sched_getaffinity(0)), max(1, tasks))
    context = fork_server(preload)
    try:
        with ProcessPoolExecutor(cores, mp_context=context, initializer=_obey_the_verb_alone) as pool:
            yield pool
    except (BrokenProcessPool, EOFError, ConnectionError):  # the latter two when it is the one that forks them
        raise UserError(f"{what}: a process was killed, often for want of memory; try again") from None


def _obey_the_verb_alone() -> None:
    """A worker leaves Ctrl-C to the verb, and ends when that was killed instead of waiting for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
    end_with_the_starter()


def end_with_the_starter() -> None:
    """From now on this process ends as soon as the one that had it started has, whatever that died of."""
    starter = parent_process()
    assert starter is not None

    def wait() -> None:
        starter.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
