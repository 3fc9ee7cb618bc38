"""Pools of worker processes, and background threads that overlap reading and writing with computing."""

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
_BLOCKED_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_LONGEST_FOLDER = 70


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """Yields the items; a background thread computes the next one, and none beyond it, while the caller uses one."""
    with ThreadPoolExecutor(1) as thread:
        end = object()
        following = thread.submit(next, items, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, items, end)
            yield item  # type: ignore[misc]


def in_background(items: Iterable[T], work: Callable[[T], R]) -> Iterator[R]:
    """Yields work(item) in order; runs it in one background thread while the caller's thread computes the next item.

    An error of `work` is raised in place of its result. Work that has begun is finished even if the next item fails.
    """
    with ThreadPoolExecutor(1) as thread:
        running: Future[R] | None = None
        for item in items:
            if running is not None:
                yield running.result()
            running = thread.submit(work, item)
        if running is not None:
            yield running.result()


def fork_server(preload: Sequence[str]) -> ForkServerContext:
    """The context of a fork server: a process that imports the modules `preload` and then forks the workers.

    It never computes: a fork of a process that has computed with OpenMP threads hangs. SIGTERM and SIGINT are blocked in
    the workers from their first instruction on. Must be called in the main thread.
    """
    _choose_socket_folder()
    context = get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    resource_tracker.ensure_running()  # before the signals are blocked: its start would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED_SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _choose_socket_folder() -> None:
    """Sets the folder for temporary files to one with a short path; UserError if there is none.

    The fork server has a socket in that folder, and the path of a socket has at most 107 bytes.
    """
    try:
        default = tempfile.gettempdir()
    except FileNotFoundError:
        default = None
    if default is None or len(os.fsencode(default)) > _LONGEST_FOLDER:
        short = [folder for folder in ("/tmp", "/var/tmp", "/dev/shm") if os.access(folder, os.W_OK | os.X_OK)]
        if not short:
            raise UserError(
                f"TMPDIR: must be a writable folder with a path of at most {_LONGEST_FOLDER} bytes, found "
                f"{default or 'none that is writable'}; set it to such a folder"
            )
        tempfile.tempdir = short[0]


@contextmanager
def workers(tasks: int, preload: Sequence[str], what: str) -> Iterator[ProcessPoolExecutor]:
    """A pool of one process per core that this one may use, at most one per task; UserError if one of them is killed.

    `preload` are modules that are imported once for all processes; `what` names the pool in the message.
    """
    cores = min(len(os.sched_getaffinity(0)), max(1, tasks))
    context = fork_server(preload)
    try:
        with ProcessPoolExecutor(cores, mp_context=context, initializer=_obey_only_the_verb) as pool:
            yield pool
    except (BrokenProcessPool, EOFError, ConnectionError):  # the latter two if it is the fork server
        raise UserError(f"{what}: a process was killed, often for want of memory; try again") from None


def _obey_only_the_verb() -> None:
    """Makes a worker ignore Ctrl-C, which the verb handles, and exit if the verb is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED_SIGNALS)
    exit_with_parent()


def exit_with_parent() -> None:
    """Makes this process exit as soon as its parent has ended, for whatever reason."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
