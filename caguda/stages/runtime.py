"""How a verb uses the machine: threads, determinism, device, memory format."""

import ctypes
import os
import platform
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from caguda.artifacts.checkpoint import load_checkpoint
from caguda.artifacts.identity import refuse_other_checkpoint
from caguda.classes import ClassTable
from caguda.config import Configuration
from caguda.configfile import network_settings
from caguda.errors import UserError
from caguda.networks.layers.network import SegmentationNetwork
from caguda.stages.parallel import rank
from caguda.version import METHOD_VERSION

M = TypeVar("M", bound=nn.Module)
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def prepare(threads: int, *, tf32: bool = False) -> torch.device:
    """The device to compute on, one for each process; on a CPU the results depend on `threads`, hence a configured one.

    With `tf32`, GPUs that can round the factors of products and convolutions to 10 bits; torch's own default is to do so
    in convolutions.
    """
    torch.set_num_threads(threads)
    _keep_freed_memory()
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A debugging aid that costs a tenth of a step:
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if not torch.cuda.is_available():
        return torch.device("cpu")
    there = torch.cuda.device_count()
    if rank() >= there:
        raise UserError(f"compute.processes: each process needs a GPU of its own, found {there}; set it to {there}")
    torch.cuda.set_device(rank())
    return torch.device("cuda", torch.cuda.current_device())


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensor: handed back, it would come again as pages to be zeroed.

    A fifth of a small network's step went into that. Peaks are up to 3 % higher. Other C libraries stay as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def to_device(network: M, device: torch.device) -> M:
    """The network on the device, its convolutions in channels-last order."""
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def restore_network(
    path: Path,
    device: torch.device,
    table: ClassTable,
    configuration: Configuration | None = None,
    manifest: Path | None = None,
) -> tuple[SegmentationNetwork, dict[str, Any]]:
    """The network of a checkpoint in evaluation mode, and the checkpoint's description.

    UserError if it is damaged, of another version of the method, made for other categories than those of `table`, with
    other settings than the configuration's, or of other frames than the manifest's, where these are given, in the folder of
    another seed or run, or of other files than those that are there.
    """
    weights, description = load_checkpoint(path)
    made = description["provenance"]
    if made.get("method_version") != METHOD_VERSION:
        raise UserError(
            f"{path}: the checkpoint must be of version {METHOD_VERSION} of the method, found {made.get('method_version')}; train it "
            "again, or bring it by a run whose method is imported"
        )
    refuse_other_checkpoint(path, configuration, manifest)
    if description["classes"] != list(table.names):
        raise UserError(
            f"{path}: the checkpoint must be for the configured categories, {table.count} of them, found one for "
            f"{len(description['classes'])} other or otherwise ordered ones; train it again"
        )
    settings = network_settings(description["architecture"], path.with_suffix(".json"))
    network = settings.build(len(description["classes"]))
    network.load_state_dict(weights)
    return to_device(network, device).eval(), description
