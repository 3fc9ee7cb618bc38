"""A network that is added: what every network must give, and one of a file outside the package from YAML to labels."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from miniature import Miniature
from torch import Tensor, nn

from caguda import registry
from caguda.artifacts.anchors import load_anchors
from caguda.artifacts.atomic import read_json
from caguda.artifacts.chain import provenance_of
from caguda.artifacts.state import load_state
from caguda.classes import class_table
from caguda.cli import main
from caguda.config import configuration_model
from caguda.config_network import NetworkSettings, network_classes
from caguda.configfile import network_settings
from caguda.errors import UserError
from caguda.files import sha256
from caguda.networks.layers.batch_norm import batch_norms
from caguda.networks.layers.checkpointing import recompute_activations
from caguda.networks.layers.network import SegmentationNetwork
from caguda.runs import method_of
from caguda.stages.convert import import_checkpoint
from caguda.stages.labelling import open_labelling
from caguda.stages.optimisers import build_optimiser
from caguda.stages.parts import prediction_settings
from caguda.stages.runtime import restore_network

TESTS = Path(__file__).parent
FILE = TESTS / "depthwise_network.py"
DOCS = TESTS.parent / "docs" / "networks.md"
SETTINGS: dict[str, dict[str, Any]] = {
    "small": {"width": 4, "blocks": [1, 2, 1, 1], "feature_channels": 8},
    "deeplab_v2": {"backbone": "resnet50", "weights": "none"},
    "deeplab_v3plus": {"backbone": "resnet50", "weights": "none"},
    "depthwise": {"width": 4, "feature_channels": 12},
}
FACTORS = {"depthwise": [1.0, 10.0, 10.0]}  # of the parameter groups; those of other networks are 1
BLOCKS = {"small": 5, "depthwise": 4, "deeplab_v2": 16, "deeplab_v3plus": 16}  # recomputable ones
each_network = pytest.mark.parametrize("name", SETTINGS)


@contextmanager
def plugin() -> Iterator[None]:
    """The networks of the package and that of the file; afterwards those of the package alone."""
    before = dict(registry.registered("network"))
    registry.load_plugins([FILE])
    try:
        yield
    finally:
        cls = registry.registered("network")["depthwise"]
        del sys.modules[cls.__module__]
        registry._REGISTERED["network"] = before


@pytest.fixture
def loaded() -> Iterator[None]:
    with plugin():
        yield


def settings(name: str, **changes: Any) -> NetworkSettings:
    return network_settings({"name": name, **SETTINGS[name], **changes}, Path("test.json"))


def test_these_are_all_networks(loaded: None) -> None:
    assert set(SETTINGS) == set(registry.registered("network"))


@each_network
def test_the_same_seed_gives_the_same_weights(loaded: None, name: str) -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(7)
        networks.append(settings(name).build(5).state_dict())
    assert all(torch.equal(value, networks[1][key]) for key, value in networks[0].items())


@each_network
@torch.no_grad()
def test_features_are_not_negative_and_classified_by_a_1x1_convolution(loaded: None, name: str) -> None:
    torch.manual_seed(0)
    network = settings(name).build(5).eval()
    for size in ((64, 96), (65, 97), (33, 47)):
        features, logits, auxiliary = network(torch.rand(2, 3, *size))
        channels, at = network.classifier.in_channels, settings(name).feature_size(size)
        assert features.shape == (2, channels, *at) and logits.shape == (2, 5, *at) and auxiliary == ()
        assert float(features.min()) == 0 < float(features.max())
        assert (network.classifier.kernel_size, network.classifier.out_channels) == ((1, 1), 5)
        torch.testing.assert_close(logits, network.classifier(features))


@each_network
def test_every_weight_is_in_one_group(loaded: None, name: str) -> None:
    network = settings(name).build(5)
    groups = network.parameter_groups()
    assert [weight for group in groups for weight in group.weights] == list(network.parameters())
    factors = [group.factor for group in groups if group.weights]
    assert factors == FACTORS.get(name, [1.0])


def gradients(network: SegmentationNetwork, images: Tensor) -> dict[str, Tensor | None]:
    torch.manual_seed(1)
    network.zero_grad()
    features, logits, _ = network.train()(images)
    (features.square().mean() + logits.square().mean()).backward()
    return {key: weight.grad for key, weight in network.named_parameters()}


@each_network
def test_blocks_computed_again_give_the_same_gradients(loaded: None, name: str) -> None:
    torch.manual_seed(0)
    network = settings(name).build(5)
    blocks = network.recomputable_blocks()
    assert len(blocks) == BLOCKS.get(name, len(blocks))
    if not blocks:
        pytest.skip("the network has no recomputable blocks")
    inside = [part for block in blocks for part in block.modules() if part is not block]
    assert not any(block is part for block in blocks for part in inside)
    passes, images = [], torch.rand(2, 3, 33, 47)
    for block in blocks:
        next(block.children()).register_forward_pre_hook(lambda *_: passes.append(1))
    plain = gradients(network, images)
    assert len(passes) == len(blocks)
    recompute_activations(network)
    spared = gradients(network, images)
    assert len(passes) == 3 * len(blocks)
    for key, value in plain.items():
        assert value is not None and torch.equal(value, spared[key]), key  # type: ignore[arg-type]


def test_a_network_without_such_blocks_says_so() -> None:
    layers = (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))
    with pytest.raises(UserError, match=r"^compute\.recompute_activations: .* found none; leave the key out$"):
        recompute_activations(SegmentationNetwork("unit", *layers))


class Tuple(nn.Module):
    """An encoder of one map."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.layer(images).relu(),)


class TwoHeads(SegmentationNetwork):
    """A network with a head beside the classifier, as in multi-level adaptation."""

    def __init__(self) -> None:
        super().__init__("unit", Tuple(), nn.ReLU(), nn.Conv2d(4, 2, 1))
        self.head = nn.Conv2d(4, 2, 1)

    def auxiliary_logits(self, *maps: Tensor) -> tuple[Tensor, ...]:
        return (self.head(maps[0]),)


def test_an_auxiliary_head_is_one_method_of_a_subclass() -> None:
    network, images = TwoHeads(), torch.rand(1, 3, 5, 6)
    features, logits, (auxiliary,) = network(images)
    torch.testing.assert_close(auxiliary, network.head(features))
    assert logits.shape == auxiliary.shape and not torch.equal(logits, auxiliary)
    (group,) = network.parameter_groups()
    assert any(weight is network.head.weight for weight in group.weights)


def test_factors_of_no_part_and_weights_in_no_group_are_refused(mini: Miniature) -> None:
    with pytest.raises(ValueError, match="factors must be of encoder, transformer or classifier, found head"):
        SegmentationNetwork("unit", Tuple(), nn.ReLU(), nn.Conv2d(4, 2, 1), factors={"head": 2.0})
    network = TwoHeads()
    network.parameter_groups = lambda: SegmentationNetwork.parameter_groups(network)[:0]  # type: ignore[method-assign]
    with pytest.raises(
        ValueError, match=r"must have every weight of the network, found none with encoder\.layer\.weight"
    ):
        build_optimiser(network, method_of(mini.configuration(), "pretrain").optimiser, 0.1)


# The registry


def test_only_a_loaded_network_is_known(mini: Miniature) -> None:
    keys = {"name": "depthwise", **SETTINGS["depthwise"]}
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"network\.name: must be one of 'deeplab_v2', .*'small', found 'depthwise'"
        ):
            mini.configuration(network=keys)
        with plugin():
            found = mini.configuration(network=keys)
            assert found.network.model_dump() == {
                "normalisation": "imagenet",
                "align_corners": False,
                **keys,
            }
            assert configuration_model() is configuration_model() and type(found) is configuration_model()
            with pytest.raises(UserError, match=r"network\.widht: unknown key, did you mean width\?"):
                mini.configuration(network={**keys, "widht": 3})
            with pytest.raises(UserError, match=r"network\.width: must be at least 1, found 0"):
                mini.configuration(network={**keys, "width": 0})
            choices = configuration_model().model_json_schema()["properties"]["network"]["discriminator"]["mapping"]
            assert choices.keys() == SETTINGS.keys()


def test_what_a_checkpoint_says_of_a_network_that_is_not_its_own(mini: Miniature) -> None:
    place = Path("checkpoint.json")
    for values, said in (
        ({"name": "depthwise"}, "the network 'depthwise' must be one of .*'small'; load the plugin that defines it"),
        ({"name": "small"}, "network.width: this key is required"),
        ({}, "network.name: this key is required"),
        ([], "network: must be keys with values, found .*"),
    ):
        with pytest.raises(UserError, match=rf"^checkpoint\.json: {said}$"):
            network_settings(values, place)


def test_a_class_without_its_name_is_one_line() -> None:
    before = dict(registry.registered("network"))
    try:

        @registry.register("network", "misnamed")
        class Misnamed(NetworkSettings):
            name: Literal["other"]

        with pytest.raises(
            UserError, match=r'the network misnamed must be .* name: Literal\["misnamed"\], found .*Misnamed'
        ):
            network_classes()
    finally:
        registry._REGISTERED["network"] = before


def test_the_package_knows_its_networks_without_torch() -> None:
    program = (
        "import sys; from caguda.registry import registered\n"
        "print(list(registered('network')), {'torch', 'torchvision', 'safetensors'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=TESTS.parent)
    assert done.stdout == "['deeplab_v2', 'deeplab_v3plus', 'small'] set()\n"


# From YAML to labels


def test_the_documentation_shows_the_file() -> None:
    assert f"```python\n{FILE.read_text(encoding='utf-8')}```\n" in DOCS.read_text(encoding="utf-8")


def test_a_network_of_another_family_is_trained_scored_and_labels(loaded: None, elsewhere: Miniature) -> None:
    keys = {
        "network": {"name": "depthwise", "width": 4},
        "compute": {"save_every": 3, "recompute_activations": True},
        "plugins": [str(FILE)],
    }
    configuration, config, weights = (
        elsewhere.configuration(**keys),
        elsewhere.yaml(**keys),
        elsewhere.weights("pretrain"),
    )
    inputs = ["--config", config, "--manifest", elsewhere.manifest]
    outputs = ["--output", weights, "--state", elsewhere.folder / "pretrain" / "state"]
    assert main([*map(str, ["train", *inputs, "--seed", 0, "--model", "pretrain", *outputs])]) == 0
    scores = weights.with_name("evaluation.json")
    assert main([*map(str, ["evaluate", *inputs, "--checkpoint", weights, "--output", scores])]) == 0
    assert read_json(scores)["frames"] == 9
    state = load_state(elsewhere.folder / "pretrain" / "state" / "state.pt")
    assert state is not None
    rates = [group["lr"] for group in state["optimisers"]["network"]["param_groups"] if group["params"]]
    assert rates == pytest.approx([0.05 * factor * (1 - 11 / 12) ** 0.9 for factor in (1, 10, 10)])

    sees_features = elsewhere.configuration(**keys, runs__warmup__discriminator__input="features")
    warm = elsewhere.train("warmup", "warmup", sees_features, start=weights)
    labels = elsewhere.label("labels", sees_features, warm)
    anchors, _ = load_anchors(labels.with_name("anchors.h5"))
    assert anchors.vectors.shape == (20, 64) and anchors.vectors[anchors.present].min() >= 0
    assert open_labelling(labels).read(0).anchor_label.shape == (8, 16)
    stage = elsewhere.stage("stage", sees_features, warm, labels)
    network, description = restore_network(stage, torch.device("cpu"), class_table(configuration), sees_features)
    assert description["architecture"] == configuration.network.model_dump(mode="json") and batch_norms(network)

    brought = {**keys, "runs__brought": {"method": "imported", "file": str(weights)}}
    import_checkpoint(elsewhere.configuration(**brought), "brought", 0, weights, elsewhere.weights("brought"))
    made = [scores, labels.with_name("anchors.h5"), labels.with_name("evidence.json")]
    made += [elsewhere.weights(name) for name in ("pretrain", "brought")]
    for path in made:
        recorded = provenance_of(path)["settings"]["plugins"]
        assert recorded == {FILE.name: sha256(FILE)}, (
            f"{path}: a change of the plugin may leave the weights as they are"
        )
    assert prediction_settings(configuration)["plugins"] == recorded
