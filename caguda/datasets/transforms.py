"""What happens to a frame between the disk and the network; images and label maps go through the same geometry."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from caguda.classes import IGNORE
from caguda.config_frames import Augmentation


class RandomScaleCrop(v2.Transform):  # type: ignore[misc]
    """Resize by a random factor, then cut a random window; what lies outside the frame is black and ignored."""

    def __init__(self, scale: tuple[float, float], crop: tuple[int, int] | None) -> None:
        super().__init__()
        self.scale, self.crop = scale, crop

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        factor = float(torch.empty(()).uniform_(*self.scale))
        size = [round(height * factor), round(width * factor)]
        crop = self.crop or (height, width)
        room = [max(have - want, 0) for have, want in zip(size, crop, strict=True)]
        top, left = (int(torch.randint(0, r + 1, ())) for r in room)
        return {"size": size, "box": (top, left, *crop)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        top, left, height, width = params["box"]
        resized = functional.resize(inpt, params["size"])
        missing = [max(top + height - resized.shape[-2], 0), max(left + width - resized.shape[-1], 0)]
        fill = IGNORE if isinstance(inpt, tv_tensors.Mask) else 0
        padded = functional.pad(resized, [0, 0, missing[1], missing[0]], fill=fill) if any(missing) else resized
        return functional.crop(padded, top, left, height, width)


def training_transform(augmentation: Augmentation) -> v2.Transform:
    """The random change of a training frame: flip, scale and crop for image and labels, colours for the image."""
    steps: list[v2.Transform] = []
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.crop is not None or augmentation.scale != (1.0, 1.0):
        steps.append(RandomScaleCrop(augmentation.scale, augmentation.crop))
    if augmentation.color_jitter > 0:
        amount = augmentation.color_jitter
        steps.append(v2.ColorJitter(brightness=amount, contrast=amount, saturation=amount))
    if augmentation.blur > 0:
        steps.append(v2.RandomApply([v2.GaussianBlur(5, sigma=(0.1, augmentation.blur))], p=0.5))
    return v2.Compose(steps or [v2.Identity()])


def scaled(images: UInt8[Tensor, "n 3 H W"], device: torch.device) -> Float[Tensor, "n 3 H W"]:
    """The network's input: RGB scaled to 0..1, channels last."""
    values = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    return values.float().div_(255)
