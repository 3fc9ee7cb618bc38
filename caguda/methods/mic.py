"""MIC: what a mean teacher sees in a whole image, the network must see in one with hidden blocks (Hoyer et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from caguda.config_types import Fraction, NonNegative, PixelLength
from caguda.errors import UserError
from caguda.methods.dacs import STRONG
from caguda.methods.daformer import DaFormer
from caguda.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from caguda.stages.session import Objective, Session


@register("method", "mic")
class Mic(DaFormer):
    """Masked image consistency on DAFormer, or on DACS with `feature_weight: 0`.

    Of every target image, with changed colours, the share `mask_ratio` of blocks of `block` x `block` pixels is hidden, on
    average. The network learns the teacher's labels of the whole image from it.
    """

    method: Literal["mic"]  # type: ignore[assignment]
    mask_weight: NonNegative = 1.0
    mask_ratio: Fraction = 0.7
    block: PixelLength = 64
    about: ClassVar[str] = "DAFormer and masked images"

    def target_objectives(
        self, session: Session, source: Mapping[str, Tensor], target: Tensor, label: Tensor, weights: Tensor
    ) -> Iterator[Objective]:
        """The objective of the mixed images, then `mask_weight` times the weighted cross entropy of the masked ones."""
        yield from super().target_objectives(session, source, target, label, weights)
        loss = self.cross_entropy(session, self.masked(session, target), label, weights)
        yield self.mask_weight * loss, {"masked_cross_entropy": loss}

    def masked(self, session: Session, target: Tensor) -> Tensor:
        """Target images (n, 3, H, W) with changed colours, float, whose hidden blocks have the colour that becomes 0."""
        import torch

        from caguda.datasets.transforms import recoloured
        from caguda.equations.mixing import block_mask

        height, width = target.shape[-2:]
        if self.block > min(height, width):
            raise UserError(
                f"method {self.method}: block: must be at most the shorter side of the target's images, {min(height, width)} pixels, "
                f"found {self.block}; lower it"
            )
        generators, blocks = (
            session.generators("mask", len(target)),
            (round(height / self.block), round(width / self.block)),
        )
        noise = torch.stack([torch.rand(blocks, generator=generator) for generator in generators])
        stays = block_mask(noise.to(session.device), self.mask_ratio, (height, width))
        images = recoloured(target, STRONG, generators).float()
        return images.where(stays[:, None], 255 * _mean_colour(session.network.normalisation, images))


def _mean_colour(normalisation: object, images: Tensor) -> Tensor:
    """The colour in 0..1 that a normalisation of images maps to 0, (3, 1, 1); black for one that changes nothing."""
    from caguda.networks.layers.inputs import InputNormalisation

    return normalisation.mean if isinstance(normalisation, InputNormalisation) else images.new_zeros(3, 1, 1)
