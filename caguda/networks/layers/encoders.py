"""The residual encoder of `small`, which is trained from scratch."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

SAFE_CHANNELS = 16


class Pointwise(nn.Conv2d):
    """A 1x1 convolution with a stride and without bias.

    With fewer than SAFE_CHANNELS inputs, oneDNN writes the gradient of its weights beyond the end of a buffer. Such an
    input is subsampled first, and the convolution has stride 1. Others keep torch's kernel, since another changes last bits.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_channels >= SAFE_CHANNELS:
            return super().forward(x)
        rows, columns = self.stride
        return functional.conv2d(x[:, :, ::rows, ::columns], self.weight)


def _convolution(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False),
        nn.BatchNorm2d(outputs),
    )


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(Pointwise(inputs, outputs, stride), nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """The basic block of a residual network: two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, stride=stride, dilation=dilation)
        self.second = _convolution(outputs, outputs, dilation=dilation)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(functional.relu(self.first(x))) + self.shortcut(x))


def _layer(inputs: int, outputs: int, blocks: int, stride: int, dilation: int) -> nn.Sequential:
    first = Residual(inputs, outputs, stride, dilation)
    return nn.Sequential(first, *(Residual(outputs, outputs, 1, dilation) for _ in range(blocks - 1)))


class Encoder(nn.Module):
    """Enc of the paper: features at output stride 8, and those at stride 4 for the skip."""

    def __init__(self, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, width, stride=2), nn.ReLU())
        self.layer1 = _layer(width, width, blocks[0], 2, 1)
        self.layer2 = _layer(width, 2 * width, blocks[1], 2, 1)
        self.layer3 = _layer(2 * width, 4 * width, blocks[2], 1, 2)
        self.layer4 = _layer(4 * width, 4 * width, blocks[3], 1, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.layer1(self.stem(images))
        return self.layer4(self.layer3(self.layer2(skip))), skip
