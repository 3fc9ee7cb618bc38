"""One training by several processes, which `caguda.launch` starts: each takes its share of every batch."""

import atexit
import os
import socket
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


def join(number: int, processes: int, port: int, listener: socket.socket | None) -> None:
    """Meet the other processes; tensors on either kind of device can then be added up.

    Each has a number from 0. All find each other at a port of this machine, where the first answers by its `listener`.
    """
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    os.environ |= {"GLOO_SOCKET_IFNAME": loopback[0]} if loopback else {}
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1",
        port,
        processes,
        is_master=listener is not None,
        wait_for_workers=False,
        master_listen_fd=listener.detach() if listener else None,
    )
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=number, world_size=processes)
    atexit.register(distributed.destroy_process_group)


def size() -> int:
    """How many processes share a batch; 1 where none have met."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; the first one holds the lock, speaks and writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def print_once(text: str) -> None:
    """Print a line, once for all processes."""
    if rank() == 0:
        print(text, flush=True)


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without a gradient."""
    values = values.detach().clone()
    if size() > 1:
        distributed.all_reduce(values)
    return values


def all_reduce_max(number: int) -> int:
    """The largest of the numbers that the processes give; all of them go on only when the last has given its own."""
    value = torch.tensor(number)
    if size() > 1:
        distributed.all_reduce(value, distributed.ReduceOp.MAX)
    return int(value)


def broadcast(value: T) -> T:
    """The value of the first process, in all of them."""
    values = [value]
    if size() > 1:
        distributed.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def data_parallel(module: nn.Module) -> nn.Module:
    """The module as every process must call it, so that its gradients are averaged over all of them."""
    if size() == 1:
        return module
    return DistributedDataParallel(module, broadcast_buffers=False)
