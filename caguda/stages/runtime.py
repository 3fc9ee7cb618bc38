"""The set-up of torch on this machine, and networks from and to checkpoints."""

import ctypes
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from caguda.artifacts.checkpoint import load_checkpoint, save_checkpoint
from caguda.artifacts.checks import refuse_other_checkpoint
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration
from caguda.config_network import NetworkSettings
from caguda.config_run import DomainName
from caguda.configfile import network_settings
from caguda.datasets.image_batches import read_ahead, scaled
from caguda.datasets.manifest import Manifest
from caguda.errors import UserError
from caguda.networks.layers.batch_norm import estimate_statistics
from caguda.networks.layers.network import SegmentationNetwork
from caguda.stages.parallel import rank

M = TypeVar("M", bound=nn.Module)
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def configure_torch(threads: int, *, tf32: bool = False) -> torch.device:
    """Set torch up and return the device of this process; on a CPU, results depend on the number of threads.

    `tf32` lets a GPU round the factors of matrix products and convolutions to 10 bits. (Torch does it by default in
    convolutions.)
    """
    torch.set_num_threads(threads)
    _keep_freed_memory()
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    # The same as use_deterministic_algorithms(True, warn_only=True), which also imports the compiler, for seconds.
    torch.set_deterministic_debug_mode("warn")
    # A debugging aid that takes a tenth of a step:
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if not torch.cuda.is_available():
        return torch.device("cpu")
    gpus = torch.cuda.device_count()
    if rank() >= gpus:
        raise UserError(f"compute.processes: each process needs a GPU of its own, found {gpus}; set it to {gpus}")
    torch.cuda.set_device(rank())
    return torch.device("cuda", torch.cuda.current_device())


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next tensor; other C libraries stay as they are.

    Memory that is returned to the system comes back as pages to be zeroed: a fifth of a small network's step. Peaks are
    up to 3 % higher.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def to_device(network: M, device: torch.device) -> M:
    """The network on the device, in channels-last memory format."""
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def build_network(settings: NetworkSettings, categories: int) -> SegmentationNetwork:
    """The network of some settings with fresh weights from torch's random numbers, on the CPU."""
    network = settings.build(categories)
    network.align_corners = settings.align_corners
    return network


def restore_network(
    path: Path,
    device: torch.device,
    table: ClassTable,
    configuration: Configuration | None = None,
    manifest: Path | None = None,
) -> tuple[SegmentationNetwork, dict[str, Any]]:
    """The network of a checkpoint in evaluation mode, and the checkpoint's description.

    UserError if the checkpoint is damaged, and by refuse_other_checkpoint.
    """
    weights, description = load_checkpoint(path)
    refuse_other_checkpoint(path, description, table, configuration, manifest)
    settings = network_settings(description["architecture"], path.with_suffix(".json"))
    network = build_network(settings, len(description["classes"]))
    network.load_state_dict(weights)
    return to_device(network, device).eval(), description


@torch.inference_mode()
def refuse_other_sizes(
    network: SegmentationNetwork, settings: NetworkSettings, size: tuple[int, int], device: torch.device
) -> None:
    """UserError unless features and logits have the size that the settings of a network give for an image of `size`.

    The network runs on a small black image whose size has the same remainders as `size`; it is left in evaluation mode.
    """
    stride = settings.coarsest_stride
    height, width = (4 * stride + length % stride for length in size)
    outputs = network.eval()(torch.zeros(1, 3, height, width, device=device))
    expected = settings.feature_size((height, width))
    for name, values in ("features", outputs.features), ("logits", outputs.logits):
        if (found := tuple(values.shape[-2:])) != expected:
            raise UserError(
                f"network {settings.name}: the {name} of an image of {height}x{width} must be of {expected}, as its "
                f"feature_stride of {settings.feature_stride} says, found {found}; correct feature_stride, or define feature_size"
            )


def save_network(
    path: Path,
    network: nn.Module,
    configuration: Configuration,
    provenance: Mapping[str, Any],
    *,
    target_statistics: bool = False,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write the checkpoint of the configured network."""
    description = {
        "architecture": configuration.network.model_dump(mode="json"),
        "classes": list(class_table(configuration).names),
        "target_statistics": target_statistics,
        "metrics": metrics or {},
        "provenance": provenance,
    }
    save_checkpoint(path, network.state_dict(), description)


def estimate_domain_statistics(
    network: nn.Module, manifest: Manifest, domain: DomainName, batch_size: int, device: torch.device
) -> None:
    """Estimate the statistics of batch normalisation anew on the images of a domain (AdaBN)."""
    batches = read_ahead(manifest.frames(domain), manifest.batches(domain, batch_size))
    estimate_statistics(network, (scaled(images, device) for _, images in batches))
