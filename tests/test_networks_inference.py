"""Several views of an image: their mean, and that every one comes back to where it was."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2 import functional as v2

from caguda.config import Inference
from caguda.errors import UserError
from caguda.networks.layers import inference as models
from caguda.networks.layers.inference import most_probable
from caguda.networks.small import SmallNetwork


class Pixelwise(nn.Module):
    """Looks at one pixel alone, so that mirroring its input mirrors its output."""

    def __init__(self, categories: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.classifier = nn.Conv2d(3, categories, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, self.classifier(images)


class Coarse(nn.Module):
    """Sees left and right differently, and answers at a quarter of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.classifier = nn.Conv2d(3, 5, 7, stride=4, padding=3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, 5 * self.classifier(images)


class ShiftRight(nn.Module):
    """Category 1 where the pixel to the left is bright, 0 elsewhere, with certainty."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        bright = functional.pad(images[:, :1], (1, 0))[..., :-1]
        return images, 100 * torch.cat([1 - bright, bright], dim=1)


def images(height: int = 21, width: int = 35, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def mean_probabilities(network: nn.Module, given: Tensor, inference: Inference) -> Tensor:
    return models.mean_probabilities(models.views(network, given, inference))


def test_one_view_is_the_largest_logit_to_the_bit() -> None:
    network = Coarse()
    enlarged = functional.interpolate(network(images())[1], (21, 35), mode="bilinear")
    found = most_probable(network, images(), Inference())
    assert found.dtype == torch.uint8
    assert torch.equal(found, enlarged.argmax(dim=1).to(torch.uint8))


def test_one_view_does_not_round_by_a_softmax() -> None:
    """Logits so near to each other that float32 probabilities are equal."""

    class Close(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            logits = torch.tensor([0.0, 1e-9]).view(1, 2, 1, 1).expand(len(images), 2, *images.shape[-2:])
            return images, logits

    assert most_probable(Close(), images(), Inference()).all()


@pytest.mark.parametrize(("height", "width"), [(21, 35), (16, 32), (1, 3), (7, 1)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.75), (2.0,)])
def test_mean_of_all_views_one_by_one(height: int, width: int, flip: bool, scales: tuple[float, ...]) -> None:
    network, given_images = Coarse(), images(height, width)
    views = []
    for scale in scales:
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
        resized = v2.resize(given_images, size, antialias=True)
        for backwards in (False, True) if flip else (False,):
            order = list(range(size[1]))[::-1] if backwards else list(range(size[1]))
            logits = v2.resize(network(resized[..., order])[1], [height, width], antialias=False)
            exponents = (logits - logits.amax(dim=1, keepdim=True)).exp()
            columns = list(range(width))[::-1] if backwards else list(range(width))
            views.append((exponents / exponents.sum(dim=1, keepdim=True))[..., columns])
    expected = torch.stack(views).mean(dim=0)
    inference = Inference(scales=scales, flip=flip)
    found = mean_probabilities(network, given_images, inference)
    assert torch.allclose(found, expected, atol=1e-5)
    if len(views) > 1:
        assert torch.equal(most_probable(network, given_images, inference), found.argmax(dim=1).to(torch.uint8))


def test_the_views_of_the_mean_differ() -> None:
    """What the test above compares would notice a view that is left out."""
    network = Coarse()
    one = mean_probabilities(network, images(), Inference())
    for other in (Inference(flip=True), Inference(scales=(0.5, 1.0)), Inference(scales=(2.0,))):
        assert not torch.allclose(mean_probabilities(network, images(), other), one, atol=1e-3)


@given(height=st.integers(1, 19), width=st.integers(1, 19))
def test_a_network_that_mirrors_with_its_input_gives_the_same(height: int, width: int) -> None:
    network, given_images = Pixelwise(), images(height, width)
    one = network(given_images)[1].softmax(dim=1)
    assert torch.allclose(mean_probabilities(network, given_images, Inference(flip=True)), one, atol=1e-6)


@given(height=st.integers(1, 19), width=st.integers(1, 19), scale=st.floats(0.3, 2.5))
def test_a_network_of_one_colour_gives_the_same_at_every_scale(height: int, width: int, scale: float) -> None:
    network = Pixelwise()
    flat = torch.tensor([0.2, 0.9, 0.4]).view(1, 3, 1, 1).expand(1, 3, height, width)
    found = mean_probabilities(network, flat, Inference(scales=(1.0, scale) if scale != 1 else (1.0,), flip=True))
    assert found.shape == (1, 4, height, width)
    assert torch.allclose(found, network(flat)[1].softmax(dim=1), atol=1e-6)


@given(width=st.integers(3, 20), data=st.data())
def test_a_mirrored_view_is_mirrored_back_to_the_pixel(width: int, data: st.DataObject) -> None:
    """A network that moves a bright pixel to the right moves it to the left in a mirror."""
    place = data.draw(st.integers(1, width - 2))
    dot = torch.zeros(1, 3, 2, width)
    dot[..., 1, place] = 1
    found = mean_probabilities(ShiftRight(), dot, Inference(flip=True))[0, 1]
    expected = torch.zeros(2, width)
    expected[1, place - 1] = expected[1, place + 1] = 0.5
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.bool])
def test_images_of_whole_numbers_are_refused(kind: torch.dtype) -> None:
    with pytest.raises(TypeError, match="images must be RGB in 0..1 in floating-point numbers, found torch"):
        most_probable(nn.Identity(), (images() * 255).to(kind), Inference())


@pytest.mark.parametrize("wrong", [lambda x: x * 255, lambda x: x - 1, lambda x: x / 0])
def test_images_beyond_0_to_1_are_refused(wrong: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"images must be RGB in 0\.\.1, found values from"):
        most_probable(nn.Identity(), wrong(images()), Inference())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_no_numbers_have_no_category(value: float) -> None:
    network = SmallNetwork(name="small", width=4, blocks=(1, 1, 1, 1), feature_channels=8).build(3).eval()
    with torch.no_grad():
        network.classifier.bias[1] = value
    with pytest.raises(UserError, match="the network's outputs must be finite numbers"):
        most_probable(network, torch.rand(1, 3, 16, 16), Inference())
