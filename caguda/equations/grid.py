"""The grid of f_D beside that of the image: labels are reduced to it and come back, logits are enlarged from it.

There are two conventions of where a cell of f_D lies, and a network has one of them, its `align_corners`:

- false: cell i of h covers the pixels from i H / h to (i + 1) H / h, and lies at their centre;
- true, as in the authors' code: the centres of the outermost cells and pixels coincide when logits are enlarged, and a
  cell is labelled by its first pixel. That is the centre of the window of the strided convolutions if the side is a
  multiple of the stride.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import interpolate


def enlarged_logits(
    logits: Float[Tensor, "n c h w"], size: Sequence[int], align_corners: bool = False
) -> Float[Tensor, "n c H W"]:
    """Logits enlarged bilinearly to the size (H, W) of their image, with or without aligned corners."""
    return interpolate(logits, tuple(size), mode="bilinear", align_corners=align_corners)


def labels_at(
    labels: Integer[Tensor, "n H W"], size: Sequence[int], align_corners: bool = False
) -> Integer[Tensor, "n h w"]:
    """Labels at another resolution (h, w), by nearest neighbour: every cell has the label of the pixel at its centre.

    See `centre_pixels`. With `align_corners` cell i of h takes its first pixel, floor(i H / h). The size may also be larger.
    """
    indices = []
    for pixels, cells in zip(labels.shape[1:], size, strict=True):
        cell = torch.arange(cells, device=labels.device)
        indices.append(cell * pixels // cells if align_corners else centre_pixels(cell, pixels, cells))
    rows, columns = indices
    return labels[:, rows[:, None], columns]


def centre_pixels(cell: Integer[Tensor, " k"], pixels: int, cells: int) -> Integer[Tensor, " k"]:
    """The pixels at the centres of some of the `cells` that a side of `pixels` is divided into.

    Cell i takes pixel floor((2 i + 1) pixels / (2 cells)). Where the centre lies between two pixels, as with every even
    stride, even cells take the first of them and odd cells the second, so that labels are not shifted to one side.
    """
    return ((2 * cell + 1) * pixels - 1 + cell % 2) // (2 * cells)


def enlarged_labels(
    labels: Integer[Tensor, "*n h w"], size: Sequence[int], align_corners: bool = False
) -> Integer[Tensor, "*n H W"]:
    """Labels enlarged to the size (H, W) of their image by nearest neighbour, so that `labels_at` gives them back.

    This holds for every H >= h and W >= w: a pseudo-label returns to the cell of f_D that it came from. Pixel p takes the
    cell that its centre lies in, floor((2 p + 1) h / (2 H)); with `align_corners` the cell whose first pixel is nearest,
    of two equally near ones the even cell. So the label of a pixel comes
    from at most half a cell away, behind the last first pixel from less than a whole cell.
    """
    (h, w), (height, width) = labels.shape[-2:], size
    rows, columns = (_cells(pixels, cells, align_corners, labels.device) for cells, pixels in ((h, height), (w, width)))
    return labels[..., columns][..., rows, :]


def _cells(pixels: int, cells: int, align_corners: bool, device: torch.device) -> Integer[Tensor, " pixels"]:
    """The cell that each of some pixels takes its label from, along one side of an image."""
    pixel, cell = torch.arange(pixels, device=device), torch.arange(cells, device=device)
    if not align_corners:
        return (2 * pixel + 1) * cells // (2 * pixels)
    first = cell * pixels // cells
    twice_the_middle = first[:-1] + first[1:] - cell[:-1] % 2
    return torch.searchsorted(twice_the_middle, 2 * pixel)
