"""One training by several processes, started by torchrun: each takes its share of every batch."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


def join() -> None:
    """Meet the other processes, if torchrun started any; tensors on either kind of device can then be added up."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(distributed.destroy_process_group)


def size() -> int:
    """How many processes share a batch; 1 without torchrun."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; the first one holds the lock, speaks and writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def say(text: str) -> None:
    """Print a line, once for all processes."""
    if rank() == 0:
        print(text, flush=True)


def total(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without a gradient."""
    values = values.detach().clone()
    if size() > 1:
        distributed.all_reduce(values)
    return values


def agreed(number: int) -> int:
    """The largest of the numbers that the processes give; all of them go on only when the last has given its own."""
    value = torch.tensor(number)
    if size() > 1:
        distributed.all_reduce(value, distributed.ReduceOp.MAX)
    return int(value)


@contextmanager
def first_one_first() -> Iterator[None]:
    """A block that the first process has left before the others enter it."""
    if rank() > 0:
        agreed(0)
    yield
    if rank() == 0:
        agreed(0)


def shared(module: nn.Module) -> nn.Module:
    """The module as every process must call it, so that its gradients are averaged over all of them."""
    if size() == 1:
        return module
    return DistributedDataParallel(module, broadcast_buffers=False)
