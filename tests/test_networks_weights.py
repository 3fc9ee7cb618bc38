"""Weights from elsewhere: ImageNet's, files', and files that hold something else."""

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from caguda.errors import UserError
from caguda.networks.deeplab_v2 import DeepLabV2
from caguda.networks.layers.weights import read_pickle
from caguda.networks.small import SmallNetwork

State = dict[str, Tensor]


def settings(weights: str | Path, **keys: str) -> DeepLabV2:
    return DeepLabV2.model_validate({"name": "deeplab_v2", "backbone": "resnet50", "weights": str(weights), **keys})


@pytest.fixture(scope="module")
def imagenet() -> State:
    torch.manual_seed(5)
    return torchvision.models.resnet50().state_dict()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return settings("none").build(5)


def encoder_of(network: nn.Module) -> Mapping[str, Tensor]:
    return network.get_submodule("encoder").state_dict()


def without(state: State, *endings: str) -> State:
    return {name: value for name, value in state.items() if not name.endswith(endings)}


@pytest.mark.parametrize("save", [torch.save, save_file])
@pytest.mark.parametrize("left_out", [(), ("fc.weight", "fc.bias"), ("num_batches_tracked",)])
def test_a_file_of_the_backbone_is_loaded(
    tmp_path: Path, imagenet: State, save: Callable[[State, Path], None], left_out: tuple[str, ...]
) -> None:
    path = tmp_path / ("weights.safetensors" if save is save_file else "weights.pth")
    save(without(imagenet, *left_out), path)
    network = settings(path).build(5)
    heads = [value.clone() for value in network.get_submodule("transformer").state_dict().values()]
    settings(path).load_pretrained(network)
    loaded = encoder_of(network)
    assert loaded.keys() == without(imagenet, "fc.weight", "fc.bias").keys()
    assert all(torch.equal(value, imagenet[name]) for name, value in loaded.items())
    assert all(torch.equal(a, b) for a, b in zip(heads, network.transformer.state_dict().values(), strict=True))


def test_weights_of_imagenet_come_from_where_torch_keeps_them(
    tmp_path: Path, imagenet: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(imagenet, tmp_path / "checkpoints" / "resnet50-0676ba61.pth")
    network = settings("imagenet").build(5)
    settings("imagenet").load_pretrained(network)
    assert all(torch.equal(value, imagenet[name]) for name, value in encoder_of(network).items())


def test_a_download_that_fails_is_said_in_one_line(
    tmp_path: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise URLError("no route\nto host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError) as caught:
        settings("imagenet").load_pretrained(network)
    message = str(caught.value)
    for part in ("network.weights", "no route to host", "https://", "resnet50-0676ba61.pth", str(tmp_path)):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("chosen", [settings("none"), "small"])
def test_no_weights_are_loaded_where_none_are_asked_for(chosen: DeepLabV2 | str) -> None:
    small = SmallNetwork(name="small", width=4, blocks=(1, 1, 1, 1), feature_channels=8)
    configured = small if isinstance(chosen, str) else chosen
    network = configured.build(5)
    before = [value.clone() for value in network.state_dict().values()]
    configured.load_pretrained(network)
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))


def stub(state: State) -> State:
    """A state dict of the same names and shapes that takes no room in a file."""
    return {name: torch.zeros(()).expand(value.shape) for name, value in state.items()}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda state: without(state, "layer3.2.conv1.weight"), "found no layer3.2.conv1.weight;"),
        (lambda state: state | {"layer5.weight": torch.ones(2)}, "found an unknown layer5.weight;"),
        (
            lambda state: state | {"bn1.weight": torch.ones(3)},
            "found bn1.weight of shape (3,) instead of (64,);",
        ),
        (lambda state: state | {"bn1.weight": 1.0}, "found bn1.weight that is no tensor;"),
        (
            lambda state: state | {"bn1.weight": torch.ones(64, dtype=torch.int8)},
            "found bn1.weight of torch.int8 instead of torch.float32;",
        ),
        (lambda state: without(state, "bn3.bias"), "no layer1.0.bn3.bias, no layer1.1.bn3.bias, no layer1.2.bn3.bias"),
        (lambda state: without(state, "bn3.bias"), "and 13 more"),
        (lambda state: {"state_dict": state}, "found no conv1.weight,"),
        (lambda state: [state], "must be a state dict, found list"),
    ],
)
def test_a_file_of_another_network_is_refused(
    tmp_path: Path, imagenet: State, network: nn.Module, change: Callable[[State], object], found: str
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(change(stub(imagenet)), path)
    before = encoder_of(network)["conv1.weight"].clone()
    with pytest.raises(UserError) as caught:
        settings(path).load_pretrained(network)
    assert str(caught.value).startswith(f"{path}: network.weights must be") and found in str(caught.value)
    assert torch.equal(before, encoder_of(network)["conv1.weight"])


def test_weights_of_another_depth_are_refused_by_name(tmp_path: Path, imagenet: State) -> None:
    path = tmp_path / "weights.pth"
    torch.save(stub(imagenet), path)
    with torch.device("meta"):
        deeper = settings(path, backbone="resnet101").build(5)
    with pytest.raises(UserError, match=r"of a resnet101 of torchvision, found no layer3\.6\.conv1\.weight"):
        settings(path, backbone="resnet101").load_pretrained(deeper)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_missing_and_damaged_files_are_refused(tmp_path: Path, network: nn.Module, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(UserError, match="found no such file"):
        settings(path).load_pretrained(network)
    path.write_bytes(b"no weights at all")
    with pytest.raises(UserError) as caught:
        settings(path).load_pretrained(network)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


PLAIN = {"vectors": np.arange(6.0).reshape(2, 3), "counts": np.array([1, 3000]), "best": np.float64(0.5), "n": [1, "a"]}


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(np.all(one == other))


@pytest.mark.parametrize("zipped", [True, False])
def test_arrays_and_plain_values_are_read_in_both_formats(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "file"
    torch.save(PLAIN, path, _use_new_zipfile_serialization=zipped)
    content = read_pickle(path)
    assert content.keys() == PLAIN.keys() and all(same(content[name], value) for name, value in PLAIN.items())


def test_the_names_of_older_numpy_are_known(tmp_path: Path) -> None:
    path = tmp_path / "file"
    torch.save(PLAIN, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    older = written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert older != written
    path.write_bytes(older)
    assert all(same(value, PLAIN[name]) for name, value in read_pickle(path).items())


class Command:
    """What a hostile file holds: it would run a command as it is unpickled."""

    def __init__(self, run: Callable[[str], Any], command: str) -> None:
        self.call = (run, (command,))

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("run", "name"), [(os.system, "posix.system"), (eval, "eval")])
def test_code_in_a_file_is_refused_and_not_run(
    tmp_path: Path, run: Callable[[str], Any], name: str, zipped: bool
) -> None:
    trace, path = tmp_path / "trace", tmp_path / "file"
    command = f"touch {trace}" if run is os.system else f"open({str(trace)!r}, 'w')"
    torch.save({"vectors": Command(run, command)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=rf"^{path}: .* found a reference to {name}; "):
        read_pickle(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file would have done harm"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_refused(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "file"
    torch.save(PLAIN, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in (0, 1, 2, 10, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError) as caught:
            read_pickle(path)
        assert str(caught.value).startswith(f"{path}: the file must hold tensors") and "\n" not in str(caught.value)


def test_what_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for refused in (path, tmp_path):
        with pytest.raises(UserError, match="found none"):
            read_pickle(refused)
    path.write_bytes(pickle.dumps(PLAIN, protocol=2))
    with pytest.raises(UserError, match="damage or another format"):
        read_pickle(path)
