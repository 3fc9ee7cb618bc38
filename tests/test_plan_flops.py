"""FLOPs of a plan against a count by hand, and against torch's counter on a network that is really run."""

import copy
import math
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from caguda import registry
from caguda.config import Compute
from caguda.config_run import Method, method_classes
from caguda.costs.arithmetic import NetworkPasses, bytes_of
from caguda.errors import UserError
from caguda.networks.deeplab_v2 import DeepLabV2
from caguda.networks.deeplab_v3plus import DeepLabV3Plus
from caguda.networks.small import SmallNetwork

CATEGORIES = 19
TEACHER = Path(__file__).with_name("mean_teacher_method.py")
Conv = tuple[int, int, int, int, int]
"""A convolution: the side of its kernel, its input and output channels, the height and width of its output."""


def flops(convolutions: list[Conv]) -> int:
    return sum(2 * k * k * inputs * outputs * h * w for k, inputs, outputs, h, w in convolutions)


def resnet101(height: int, width: int, strides: tuple[int, int, int, int]) -> list[Conv]:
    """The convolutions of a ResNet-101 whose layers begin with these strides; the sides are multiples of 32."""
    h, w = height // 2, width // 2
    found: list[Conv] = [(7, 3, 64, h, w)]
    h, w, inputs = h // 2, w // 2, 64  # the maximum pooling
    for blocks, width_of_layer, stride in zip((3, 4, 23, 3), (64, 128, 256, 512), strides, strict=True):
        outputs = 4 * width_of_layer
        for block in range(blocks):
            before = (h, w)
            if block == 0:
                h, w = h // stride, w // stride
                found.append((1, inputs, outputs, h, w))  # the shortcut
            found += [
                (1, inputs, width_of_layer, *before),
                (3, width_of_layer, width_of_layer, h, w),
                (1, width_of_layer, outputs, h, w),
            ]
            inputs = outputs
    return found


def deeplab_v2(height: int, width: int) -> list[Conv]:
    h, w = height // 8, width // 8
    return [*resnet101(height, width, (1, 2, 1, 1)), *[(3, 2048, 256, h, w)] * 4, (1, 256, CATEGORIES, h, w)]


def deeplab_v3plus(height: int, width: int) -> list[Conv]:
    coarse, fine = (height // 16, width // 16), (height // 4, width // 4)
    pyramid = [
        (1, 2048, 256, *coarse),
        *[(3, 2048, 256, *coarse)] * 3,
        (1, 2048, 256, 1, 1),
        (1, 5 * 256, 256, *coarse),
    ]
    decoder = [(1, 256, 48, *fine), (3, 256 + 48, 256, *fine), (3, 256, 256, *fine), (1, 256, CATEGORIES, *fine)]
    return [*resnet101(height, width, (1, 2, 2, 1)), *pyramid, *decoder]


DEEPLABS: dict[str, Any] = {
    "deeplab_v2": (DeepLabV2(name="deeplab_v2"), deeplab_v2, (640, 1280)),
    "deeplab_v3plus": (DeepLabV3Plus(name="deeplab_v3plus"), deeplab_v3plus, (512, 896)),
}


@pytest.fixture(scope="module", params=DEEPLABS)
def deeplab(request: pytest.FixtureRequest) -> tuple[NetworkPasses, list[Conv], tuple[int, int]]:
    settings, by_hand, size = DEEPLABS[request.param]
    return NetworkPasses(settings, CATEGORIES, Compute()), by_hand(*size), size


def test_a_forward_pass_of_a_deeplab_is_that_by_hand(
    deeplab: tuple[NetworkPasses, list[Conv], tuple[int, int]],
) -> None:
    passes, convolutions, size = deeplab
    assert passes.of_frame(size) == pytest.approx(flops(convolutions), rel=0.01)
    assert passes.of_batch((2, 3, *size)).forward == pytest.approx(2 * flops(convolutions), rel=0.01)


def test_a_backward_pass_of_a_deeplab_is_that_by_hand(
    deeplab: tuple[NetworkPasses, list[Conv], tuple[int, int]],
) -> None:
    """It has the gradient of the weights and that of the input of every convolution, but not of the image."""
    passes, convolutions, size = deeplab
    assert passes.of_batch((1, 3, *size)).backward == pytest.approx(
        2 * flops(convolutions) - flops(convolutions[:1]), rel=0.01
    )


SMALL = SmallNetwork(name="small", width=4, blocks=(1, 1, 1, 1), feature_channels=8)
SIZES: Any = {"source": (32, 64), "target": (32, 48)}
TRAINING: dict[str, Any] = {
    "iterations": 3, "batch_size": 2, "batch_norm": "train", "optimiser": {"name": "adamw", "learning_rate": 1e-3},
}  # fmt: skip
RULES = {"anchor": {"margin": 0.1, "unit": "absolute"}, "probability": {"p0": 0.5}}
CAG: dict[str, Any] = {
    "start": "a", "pseudo_labels": RULES, "weights": {"distance": 0, "anchor_cross_entropy": 1, "probability_cross_entropy": 1},
}  # fmt: skip


def method(name: str, **keys: Any) -> Method:
    return method_classes()[name].model_validate({"method": name, **TRAINING, **keys})  # type: ignore[return-value]


@pytest.fixture
def small() -> NetworkPasses:
    return NetworkPasses(SMALL, CATEGORIES, Compute())


def passes_over(small: NetworkPasses, *domains: str) -> int:
    """The FLOPs of a forward and a backward pass over a batch of each of these domains."""
    costs = [small.of_batch((2, 3, *SIZES[domain])) for domain in domains]
    return sum(cost.forward + cost.backward for cost in costs)


@pytest.mark.parametrize(
    ("made", "domains"),
    [
        (method("supervised"), ["source"]),
        (method("supervised", frames="target"), ["target"]),
        (method("self_training", start="a", pseudo_labels=RULES), ["source", "target"]),
        (method("cag", **CAG), ["source", "target"]),
        (method("cag", **CAG, distance={"norm": "squared_l2", "pixels": "correct"}), ["source", "target"]),
        (method("cag", **CAG, distance={"norm": "class_mean"}, target_resolution="image"), ["source", "target"]),
        (method("cag_every_iteration", **CAG), ["source", "target"]),
    ],
    ids=lambda value: getattr(value, "method", None),
)
def test_a_step_is_the_passes_over_the_domains_that_it_reads(
    small: NetworkPasses, made: Method, domains: list[str]
) -> None:
    step = small.of_step(made, SIZES)
    assert (step.flops, step.note) == (passes_over(small, *domains), "")
    assert step.module_bytes == bytes_of(SMALL.build(CATEGORIES))
    twice = made.model_copy(update={"accumulate": 2})
    assert small.of_step(twice, SIZES).flops == 2 * step.flops


def test_the_discriminator_of_the_warm_up_is_counted(small: NetworkPasses) -> None:
    """Forward on the target, back to its input; forward and back on both domains, without the gradient of its input."""
    width, made = 4, method("adversarial", start="a", weight=0.1, discriminator={"learning_rate": 0.1, "width": 4})
    channels = [CATEGORIES, width, 2 * width, 4 * width, 8 * width, 1]

    def layers(domain: str) -> list[Conv]:
        h, w = SIZES[domain][0] // 4, SIZES[domain][1] // 4
        found: list[Conv] = []
        for inputs, outputs in pairwise(channels):
            h, w = -(-h // 2), -(-w // 2)
            found.append((3, inputs, outputs, h, w))
        return found

    source, target = 2 * flops(layers("source")), 2 * flops(layers("target"))  # of a batch of 2
    first = 2 * flops([layers("source")[0], layers("target")[0]])
    beside = 2 * target + 3 * (source + target) - first
    step = small.of_step(made, SIZES)
    assert step.flops - passes_over(small, "source", "target") == beside and step.note == ""
    alone = small.of_step(method("supervised"), SIZES)
    assert step.trained_weights > alone.trained_weights and step.module_bytes > alone.module_bytes


def test_the_teacher_of_a_plugin_is_counted_and_not_trained(
    small: NetworkPasses, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = dict(registry.registered("method"))
    monkeypatch.setattr(registry, "_REGISTERED", registry._REGISTERED | {"method": methods})
    monkeypatch.setattr(registry, "_LOADED", {})
    registry.load_plugins([TEACHER])
    del sys.modules[f"caguda_plugin_{TEACHER.stem}"]  # another test loads it anew
    made = method("mean_teacher", start="a")
    step = small.of_step(made, SIZES)
    teacher = small.of_batch((2, 3, *SIZES["target"])).forward
    assert (step.flops, step.note) == (passes_over(small, "source", "target") + teacher, "")
    assert step.module_bytes == 2 * bytes_of(small.network)
    assert step.trained_weights == sum(weight.numel() for weight in small.network.parameters())


class Curious(Method):
    """A method whose step looks at values."""

    method: Literal["curious"]
    reads: ClassVar[Any] = {"source": "truth", "target": "images"}

    def step(self, session: Any, batch: Any) -> Iterator[Any]:
        loss = session.outputs(batch["source"]["image"]).logits.mean()
        if loss > 0:
            yield loss, {"loss": loss}


def test_a_step_that_needs_values_is_counted_by_what_it_reads_and_the_plan_says_so(small: NetworkPasses) -> None:
    step = small.of_step(Curious.model_validate({"method": "curious", **TRAINING}), SIZES)
    assert step.flops == passes_over(small, "source", "target")
    assert "curious needs values" in step.note and "no other module" in step.note


def test_frozen_batch_normalisation_is_not_trained_and_leaves_no_trace(small: NetworkPasses) -> None:
    every, frozen = (small.of_step(method("supervised", batch_norm=kind), SIZES) for kind in ("train", "frozen"))
    norms = [module for module in small.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert every.trained_weights - frozen.trained_weights == sum(2 * norm.num_features for norm in norms) > 0
    again = small.of_step(method("supervised", batch_norm="train", accumulate=2), SIZES)
    assert again.trained_weights == every.trained_weights


def test_the_count_is_that_of_the_same_network_with_values() -> None:
    network = SMALL.build(CATEGORIES)
    with FlopCounterMode(display=False) as counter:
        outputs = network(torch.rand(2, 3, 32, 64))
        (outputs.logits.sum() + outputs.features.sum()).backward()
    cost = NetworkPasses(SMALL, CATEGORIES, Compute()).of_batch((2, 3, 32, 64))
    assert cost.forward + cost.backward == counter.get_total_flops()


def test_activations_that_are_computed_again_cost_more() -> None:
    kept, again = (NetworkPasses(SMALL, CATEGORIES, Compute(recompute_activations=again)) for again in (False, True))
    shape = (2, 3, 32, 64)
    assert kept.of_batch(shape).forward == again.of_batch(shape).forward
    assert (
        kept.of_batch(shape).backward
        < again.of_batch(shape).backward
        < kept.of_batch(shape).backward + kept.of_batch(shape).forward
    )


def by_the_mean(features: Tensor) -> Tensor:
    return features * float(features.detach().mean())


def by_numpy(features: Tensor) -> Tensor:
    return features + torch.from_numpy(features.detach().numpy()).mean()


def with_a_tensor_on_the_cpu(features: Tensor) -> Tensor:
    return features + torch.zeros(1)


def with_a_check(features: Tensor) -> Tensor:
    if features.amax() > 1e4:
        raise ArithmeticError("the features explode")
    return features


class NeedsValues(SmallNetwork):
    """A network, as of a plugin, whose features go through a function that needs values."""

    name: Literal["needs_values"]  # type: ignore[assignment]
    through: ClassVar[Callable[[Tensor], Tensor]]

    def build(self, categories: int) -> Any:
        network, through = super().build(categories), type(self).through
        network.transformer.register_forward_hook(lambda _, __, features: through(features))
        return network


@pytest.mark.parametrize("through", [by_the_mean, by_numpy, with_a_tensor_on_the_cpu, with_a_check])
@pytest.mark.parametrize("count", ["a frame", "a batch", "a step"])
def test_a_network_that_needs_values_is_refused_in_one_line_that_names_it(
    through: Callable[[Tensor], Tensor], count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NeedsValues, "through", staticmethod(through), raising=False)
    settings = NeedsValues.model_validate(SMALL.model_dump() | {"name": "needs_values"})
    assert settings.build(CATEGORIES)(torch.rand(1, 3, 32, 64)).logits.isfinite().all(), "it can be trained"
    passes = NetworkPasses(settings, CATEGORIES, Compute())
    with pytest.raises(
        UserError, match=r"^network\.name: needs_values must do without values: .*meta device"
    ) as refused:
        if count == "a frame":
            passes.of_frame((32, 64))
        elif count == "a batch":
            passes.of_batch((2, 3, 32, 64))
        else:
            passes.of_step(method("supervised"), SIZES)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


class BuiltWithValues(SmallNetwork):
    def build(self, categories: int) -> Any:
        rates = [rate.item() for rate in torch.linspace(0, 1, 3)]
        assert math.isclose(rates[1], 0.5)
        return super().build(categories)


def test_a_network_that_needs_values_while_it_is_built_is_counted(small: NetworkPasses) -> None:
    passes = NetworkPasses(BuiltWithValues.model_validate(SMALL.model_dump()), CATEGORIES, Compute())
    assert passes.of_frame((32, 64)) == small.of_frame((32, 64))
    assert copy.deepcopy(passes.network).classifier.weight.device.type == "meta"
