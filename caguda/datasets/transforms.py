"""Augmentation of training frames; an image and its label maps go through the same geometry.

The geometry of a sample is drawn before any pixel is read, so that only the needed part of a frame is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from caguda.classes import IGNORE
from caguda.config_frames import BLUR_KERNEL, Augmentation
from caguda.equations.grid import centre_pixels

_SPARE_ROWS = 2  # read beyond the reach of the bilinear weights, against rounding


class Pixels(Protocol):
    """An image (3, H, W) or a label map (H, W), uint8, that can be sliced: a tensor, or a reader of a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, part: tuple[EllipsisType, slice, slice], /) -> Tensor: ...


@dataclass(frozen=True)
class Geometry:
    """The geometry of a sample: a frame of size `frame` is flipped or not, resized to `size`, and cropped.

    Sizes are (height, width); the crop of size `crop` begins at (top, left) of the resized frame.
    """

    frame: tuple[int, int]
    flip: bool
    size: tuple[int, int]
    top: int
    left: int
    crop: tuple[int, int]

    @property
    def rows(self) -> slice:
        """The rows of the frame that the sample needs."""
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
        """The columns of the frame that the sample needs; all of them if it is resized."""
        width = self.frame[1]
        if self.frame != self.size:
            return slice(0, width)
        right = min(self.left + self.crop[1], width)
        return slice(width - right, width - self.left) if self.flip else slice(self.left, right)


def draw_geometry(augmentation: Augmentation, height: int, width: int) -> Geometry:
    """A random geometry: flip, size, top and left of the crop, drawn from torch's generator in this order."""
    frame = (height, width)
    flip = augmentation.flip and bool(torch.rand(1) < 0.5)
    if augmentation.crop is None and augmentation.scale == (1.0, 1.0):
        return Geometry(frame, flip, frame, 0, 0, frame)
    factor = float(torch.empty(()).uniform_(*augmentation.scale))
    size = (max(round(height * factor), 1), max(round(width * factor), 1))
    crop = augmentation.crop or frame
    last_starts = [max(length - window, 0) for length, window in zip(size, crop, strict=True)]
    top, left = (int(torch.randint(0, last + 1, ())) for last in last_starts)
    return Geometry(frame, flip, size, top, left, crop)


def cut(pixels: Pixels, geometry: Geometry, *, label: bool) -> Tensor:
    """The crop of an image or a label map; pixels outside the frame are black, or IGNORE in a `label` map.

    The same, bit for bit, as resizing the whole frame and then cropping it, of fewer pixels. Images are resized
    bilinearly with antialiasing, labels by nearest neighbour: both with pixel i of n at (i + 1/2) / n of a side.
    """
    values = pixels[..., geometry.rows, geometry.columns]
    if geometry.flip:
        values = values.flip(-1)
    height, width = geometry.crop
    if geometry.frame != geometry.size:
        values = _resized_labels(values, geometry) if label else _resized_image(values, geometry)
    window = values[..., :height, :width]
    missing = (0, width - window.shape[-1], 0, height - window.shape[-2])
    padded = pad(window, missing, value=IGNORE if label else 0)
    return padded.contiguous()  # the last bits of a blur may depend on the order in memory


def _resized_image(values: Tensor, geometry: Geometry) -> Tensor:
    """The resized frame from the crop's corner on, of the rows `geometry.rows`; rows without influence are 0 instead."""
    # Channels last in memory, for which torchvision's kernel is five times faster.
    frame = values.new_zeros((*geometry.frame, *values.shape[:-2])).movedim((0, 1), (-2, -1))
    frame[..., geometry.rows, :] = values
    resized: Tensor = functional.resize(tv_tensors.Image(frame), list(geometry.size)).as_subclass(Tensor)
    return resized[..., geometry.top :, geometry.left :]


def _resized_labels(values: Tensor, geometry: Geometry) -> Tensor:
    """The crop of the resized label map, of the rows `geometry.rows`: every pixel has the label at its centre."""
    (height, width), (new_height, new_width) = geometry.frame, geometry.size
    rows = torch.arange(geometry.top, min(geometry.top + geometry.crop[0], new_height))
    columns = torch.arange(geometry.left, min(geometry.left + geometry.crop[1], new_width))
    rows = centre_pixels(rows, height, new_height) - geometry.rows.start
    return values[..., rows[:, None], centre_pixels(columns, width, new_width)]


def colour_transform(augmentation: Augmentation) -> v2.Transform:
    """The random transform of an image's colours and sharpness."""
    steps: list[v2.Transform] = []
    if augmentation.color_jitter > 0:
        amount = augmentation.color_jitter
        steps.append(v2.ColorJitter(brightness=amount, contrast=amount, saturation=amount))
    if augmentation.blur > 0:
        steps.append(v2.RandomApply([v2.GaussianBlur(BLUR_KERNEL, sigma=(0.1, augmentation.blur))], p=0.5))
    return v2.Compose(steps or [v2.Identity()])


def recoloured(images: Tensor, augmentation: Augmentation, generators: Sequence[torch.Generator]) -> Tensor:
    """Images (n, 3, H, W), uint8, with other colours and sharpness, each drawn from a generator on the CPU."""
    transform, changed = colour_transform(augmentation), []
    with torch.random.fork_rng(devices=[]):
        for image, generator in zip(images, generators, strict=True):
            torch.default_generator.set_state(generator.get_state())
            changed.append(transform(image))
    return torch.stack(changed)


def augmented(augmentation: Augmentation, image: Pixels, label_maps: Mapping[str, Pixels]) -> dict[str, Tensor]:
    """A random training sample: the `image` and the label maps by name, which have its size (H, W).

    It is drawn from torch's generator.
    """
    geometry = draw_geometry(augmentation, *image.shape[-2:])
    window: Any = tv_tensors.Image(cut(image, geometry, label=False))
    coloured: Tensor = colour_transform(augmentation)(window).as_subclass(Tensor)
    return {"image": coloured, **{name: cut(values, geometry, label=True) for name, values in label_maps.items()}}
