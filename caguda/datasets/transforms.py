"""What happens to a frame between the disk and the network; images and label maps go through the same geometry.

What a sample shows is drawn before any pixel is read, so that only the part of a frame that is needed has to be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import pad
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from caguda.classes import IGNORE
from caguda.config_frames import Augmentation

_SPARE_ROWS = 2  # beyond what bilinear weights reach, against rounding


class Pixels(Protocol):
    """An image (3, H, W) or a label map (H, W), uint8, of which a part can be taken; every tensor is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, part: tuple[EllipsisType, slice, slice], /) -> Tensor: ...


@dataclass(frozen=True)
class Geometry:
    """A frame of `frame` (height, width) is flipped or not, resized to `size`, and cut to `crop` from (top, left) on."""

    frame: tuple[int, int]
    flip: bool
    size: tuple[int, int]
    top: int
    left: int
    crop: tuple[int, int]

    @property
    def rows(self) -> slice:
        """The rows of the frame that the sample is made from."""
        (height, _), (new_height, _) = self.frame, self.size
        bottom = min(self.top + self.crop[0], new_height)
        if height == new_height:
            return slice(self.top, bottom)
        scale = height / new_height
        reach = max(scale, 1.0) + _SPARE_ROWS
        first, last = scale * (self.top + 0.5) - reach, scale * (bottom - 0.5) + reach
        return slice(max(int(first), 0), min(int(last) + 1, height))

    @property
    def columns(self) -> slice:
        """The columns of the frame that the sample is made from; where it is resized, all of them."""
        width = self.frame[1]
        if self.frame != self.size:
            return slice(0, width)
        right = min(self.left + self.crop[1], width)
        return slice(width - right, width - self.left) if self.flip else slice(self.left, right)


def draw_geometry(augmentation: Augmentation, height: int, width: int) -> Geometry:
    """The random geometry of a sample: flip, size, place of the window, drawn from torch's generator in this order."""
    frame = (height, width)
    flip = augmentation.flip and bool(torch.rand(1) < 0.5)
    if augmentation.crop is None and augmentation.scale == (1.0, 1.0):
        return Geometry(frame, flip, frame, 0, 0, frame)
    factor = float(torch.empty(()).uniform_(*augmentation.scale))
    size = (round(height * factor), round(width * factor))
    crop = augmentation.crop or frame
    room = [max(have - want, 0) for have, want in zip(size, crop, strict=True)]
    top, left = (int(torch.randint(0, r + 1, ())) for r in room)
    return Geometry(frame, flip, size, top, left, crop)


def cut(pixels: Pixels, geometry: Geometry, *, label: bool) -> Tensor:
    """The window of an image or a label map; what lies outside the frame is black, or IGNORE in a `label` map.

    Bit for bit what resizing the whole frame and cutting then would give: where a frame is resized, the rows that do
    not matter are 0 instead of being read. Labels are resized by nearest neighbour, images bilinearly, antialiased.
    """
    values = pixels[..., geometry.rows, geometry.columns]
    if geometry.flip:
        values = values.flip(-1)
    (height, width), top, left = geometry.crop, 0, 0
    if geometry.frame != geometry.size:
        # Rows, columns, then channels in memory, for which torchvision's kernel is five times faster.
        whole = values.new_zeros((*geometry.frame, *values.shape[:-2])).movedim((0, 1), (-2, -1))
        whole[..., geometry.rows, :] = values
        kind = tv_tensors.Mask if label else tv_tensors.Image
        values = functional.resize(kind(whole), list(geometry.size)).as_subclass(Tensor)
        top, left = geometry.top, geometry.left
    window = values[..., top : top + height, left : left + width]
    missing = (0, width - window.shape[-1], 0, height - window.shape[-2])
    return pad(
        window, missing, value=IGNORE if label else 0
    ).contiguous()  # one order in memory, on which the last bits of a blur may depend


def colour_transform(augmentation: Augmentation) -> v2.Transform:
    """The random change of an image's colours and sharpness."""
    steps: list[v2.Transform] = []
    if augmentation.color_jitter > 0:
        amount = augmentation.color_jitter
        steps.append(v2.ColorJitter(brightness=amount, contrast=amount, saturation=amount))
    if augmentation.blur > 0:
        steps.append(v2.RandomApply([v2.GaussianBlur(5, sigma=(0.1, augmentation.blur))], p=0.5))
    return v2.Compose(steps or [v2.Identity()])


def augmented(augmentation: Augmentation, image: Pixels, label_maps: Mapping[str, Pixels]) -> dict[str, Tensor]:
    """A training sample, drawn from torch's generator: the `image` and the label maps by name.

    All maps have the height and width of the image.
    """
    geometry = draw_geometry(augmentation, *image.shape[-2:])
    window: Any = tv_tensors.Image(cut(image, geometry, label=False))
    coloured: Tensor = colour_transform(augmentation)(window).as_subclass(Tensor)
    return {"image": coloured, **{name: cut(values, geometry, label=True) for name, values in label_maps.items()}}


def scaled(images: UInt8[Tensor, "n 3 H W"], device: torch.device) -> Float[Tensor, "n 3 H W"]:
    """The network's input: RGB scaled to 0..1, channels last."""
    values = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    return values.float().div_(255)
