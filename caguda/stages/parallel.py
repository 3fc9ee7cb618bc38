"""Data-parallel training: several processes, started by `caguda.launch`, each with its share of every batch."""

import atexit
import os
import socket
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


def join(number: int, processes: int, port: int, listener: socket.socket | None) -> None:
    """Join the process group of one training, on CPUs and GPUs, as rank `number` of `processes`.

    The processes meet at a port of this machine, where rank 0 accepts connections by its `listener`.
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
    """The number of processes that share a batch; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The rank of this process, from 0; rank 0 locks, prints and writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def print_once(text: str) -> None:
    """Print a line in rank 0 alone."""
    if rank() == 0:
        print(text, flush=True)


def all_reduce_sum(values: Tensor) -> Tensor:
    """All-reduce sum of a tensor, without a gradient."""
    values = values.detach().clone()
    if size() > 1:
        distributed.all_reduce(values)
    return values


def all_reduce_max(number: int) -> int:
    """All-reduce maximum of a number; also a barrier."""
    value = torch.tensor(number)
    if size() > 1:
        distributed.all_reduce(value, distributed.ReduceOp.MAX)
    return int(value)


def broadcast(value: T) -> T:
    """The value of rank 0, in all processes."""
    values = [value]
    if size() > 1:
        distributed.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def data_parallel(module: nn.Module) -> nn.Module:
    """The module, wrapped so that its gradients are averaged over all processes."""
    if size() == 1:
        return module
    return DistributedDataParallel(module, broadcast_buffers=False)
