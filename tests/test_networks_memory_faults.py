"""No layer writes beyond its memory: each group of widths trains in a process of its own, which would be killed."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from caguda.networks.layers.encoders import Pointwise
from caguda.networks.small import SmallNetwork

TRAINING = """
import sys
import torch
from caguda.networks.layers.discriminator import discriminator
from caguda.networks.small import SmallNetwork

torch.set_num_threads(1)
for width in map(int, sys.argv[1:]):
    for size in ((96, 192), (61, 171), (33, 65)):
        settings = SmallNetwork(name="small", width=width, blocks=(1, 1, 1, 1), feature_channels=width)
        network = settings.build(3).to(memory_format=torch.channels_last)
        judge = discriminator(3, width).to(memory_format=torch.channels_last)
        images = torch.rand(2, 3, *size).contiguous(memory_format=torch.channels_last)
        for _ in range(2):
            logits = network(images)[1]
            (logits.square().mean() + judge(logits.softmax(1)).mean()).backward()
            kept = [torch.empty(count) for count in (7, 100, 1000, 5000)]
"""


@pytest.mark.parametrize(
    "widths",
    [
        range(1, 9),
        pytest.param(range(9, 17), marks=pytest.mark.slow),
        pytest.param(range(17, 33, 3), marks=pytest.mark.slow),
    ],
)
def test_networks_of_any_width_train_without_a_crash(widths: range) -> None:
    command = [sys.executable, "-c", TRAINING, *map(str, widths)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize("inputs", [3, 8, 15])
def test_few_channels_give_what_the_convolution_of_a_stride_gives(inputs: int) -> None:
    ours, plain = Pointwise(inputs, 7, 2), nn.Conv2d(inputs, 7, 1, 2, bias=False)
    plain.load_state_dict(ours.state_dict())
    images = torch.randn(2, inputs, 9, 13)
    torch.testing.assert_close(ours(images), plain(images))


def test_the_demos_width_keeps_the_kernel_and_the_bits_of_the_convolution_of_a_stride() -> None:
    settings = SmallNetwork(name="small", width=16, blocks=(1, 1, 2, 1), feature_channels=64)
    shortcuts = [layer for layer in settings.build(19).modules() if isinstance(layer, Pointwise)]
    assert len(shortcuts) == 3
    for ours in shortcuts:
        plain = nn.Conv2d(ours.in_channels, ours.out_channels, 1, ours.stride, bias=False)
        plain.load_state_dict(ours.state_dict())
        for layer in (ours, plain):
            layer.to(memory_format=torch.channels_last)
        images = torch.randn(2, ours.in_channels, 48, 96).contiguous(memory_format=torch.channels_last)
        for layer in (ours, plain):
            layer(images).square().sum().backward()
        assert ours.weight.grad is not None and plain.weight.grad is not None
        assert torch.equal(ours.weight.grad, plain.weight.grad)
