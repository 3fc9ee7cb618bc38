"""DAFormer and MIC: their losses beside those of DACS, their frozen encoder, and an interruption that changes no byte."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from interruptions import interruptible
from test_methods_dacs import batch as batch_of_dacs
from torch import Tensor
from torch.nn.functional import cross_entropy

from caguda.artifacts.state import load_state
from caguda.config import Compute
from caguda.config_run import method_classes
from caguda.costs.arithmetic import NetworkPasses, bytes_of
from caguda.datasets.transforms import recoloured
from caguda.equations.grid import enlarged_logits
from caguda.errors import UserError
from caguda.methods.dacs import STRONG, Dacs
from caguda.methods.daformer import THINGS, DaFormer
from caguda.methods.mic import Mic
from caguda.networks.layers.network import coarsest, coarsest_maps_of
from caguda.networks.small import SmallNetwork
from caguda.stages import parallel
from caguda.stages.session import Batch, Session
from caguda.stages.training import TrainingSetup, train

NAMES = ("road", "person", "sky", "train", "tree")
HEIGHT, WIDTH, CELL, IGNORE = 32, 48, 8, 255
SMALL = SmallNetwork(name="small", width=4, blocks=(1, 1, 1, 1), feature_channels=8)
TRAINING: dict[str, Any] = {
    "iterations": 6, "batch_size": 2, "batch_norm": "train", "threshold": 0.25,
    "optimiser": {"name": "adamw", "learning_rate": 1e-2},
}  # fmt: skip
MASKED = {"block": 8, "mask_ratio": 0.5}


def method(name: str, **keys: Any) -> Any:
    return method_classes()[name].model_validate({"method": name, **TRAINING, **keys})


def session(made: Dacs, names: tuple[str, ...] = NAMES, network: SmallNetwork = SMALL) -> Session:
    """A new training on the CPU; all start from the same weights."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Session(made, Compute(), network.build(len(NAMES)), torch.device("cpu"), None, 0, names)


def batch(number: int) -> Batch:
    """Random frames, the source's labels constant in most cells of the encoder's map; a tenth of their pixels void."""
    made = batch_of_dacs(number, 2, HEIGHT, WIDTH)
    generator = torch.Generator().manual_seed(number)
    cells = torch.randint(0, len(NAMES), (2, HEIGHT // CELL, WIDTH // CELL), generator=generator, dtype=torch.uint8)
    label = cells.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
    label[torch.rand(label.shape, generator=generator) < 0.1] = IGNORE
    label[:, : 2 * CELL, :CELL] = made["source"]["label"][:, : 2 * CELL, :CELL]
    return made | {"source": made["source"] | {"label": label}}


def step(made: Dacs, given: Batch, training: Session | None = None) -> dict[str, float]:
    """The losses of one step by name, and their sum as `total`."""
    found = {"total": 0.0}
    for loss, terms in (training or session(made)).step(given, 0):
        found["total"] += loss.item()
        found |= {name: value.item() for name, value in terms.items()}
    return found


def test_the_published_constants_are_the_defaults() -> None:
    keys = {key: value for key, value in TRAINING.items() if key != "threshold"}
    made = method_classes()["mic"].model_validate({"method": "mic", **keys})
    assert isinstance(made, Mic) and isinstance(made, DaFormer) and made.things is None
    assert (made.weight, made.teacher_decay, made.threshold) == (1.0, 0.999, 0.968)
    assert (made.feature_weight, made.cell_share) == (0.005, 0.75)
    assert (made.mask_weight, made.mask_ratio, made.block) == (1.0, 0.7, 64)
    assert made.reads == {"source": "truth", "target": "images"} and made.adapts and not made.is_reference


def brute_distance(training: Session, given: Batch, things: tuple[int, ...]) -> float:
    """The mean distance of both encoders' maps, cell by cell."""
    source, network = given["source"], training.network
    with torch.no_grad():
        first = network.eval().encoder(network.normalisation(source["image"] / 255))[0]
        encoded = network.train().encoder(network.normalisation(source["image"] / 255))[0]
    assert encoded.shape[-2:] == (HEIGHT // CELL, WIDTH // CELL)
    found = []
    for n in range(2):
        for y in range(HEIGHT // CELL):
            for x in range(WIDTH // CELL):
                cell = source["label"][n, y * CELL : (y + 1) * CELL, x * CELL : (x + 1) * CELL].flatten().tolist()
                if max(cell.count(thing) for thing in things) / len(cell) >= 0.75:
                    found.append(math.dist(encoded[n, :, y, x].tolist(), first[n, :, y, x].tolist()))
    assert 3 < len(found) < 30, "some cells count, some do not"
    return sum(found) / len(found)


def test_the_distance_is_that_of_things_to_the_encoder_that_the_run_starts_from() -> None:
    """The network of a new session is the first one: in evaluation it is the frozen encoder."""
    given = batch(1)
    for keys, things in (({}, (1, 3)), ({"things": ["sky"]}, (2,))):
        found = step(method("daformer", feature_weight=2.0, **keys), given)
        expected = brute_distance(session(method("dacs")), given, things)
        assert found["feature_distance"] == pytest.approx(expected, rel=1e-4) and expected > 0.01
        parts = found["source_cross_entropy"] + 2 * found["feature_distance"] + found["mixed_cross_entropy"]
        assert found["total"] == pytest.approx(parts, rel=1e-6)


def test_an_encoder_that_has_not_moved_has_no_distance_and_one_that_has_is_drawn_back() -> None:
    made, given = method("daformer", batch_norm="frozen", feature_weight=1.0), batch(2)
    training = session(made)
    assert step(made, given, training)["feature_distance"] == 0
    with torch.no_grad():
        for weight in training.network.encoder.parameters():
            weight.mul_(1.1)
    _, encoded = training.outputs_with_map(given["source"]["image"])
    distance = made.distance_to_first_features(training, encoded, given["source"])
    distance.backward()
    assert distance.item() > 0
    for name, weight in training.network.named_parameters():
        assert (weight.grad is not None and bool(weight.grad.any())) == (
            name.startswith("encoder.") and weight.requires_grad
        ), name


def test_the_other_losses_are_those_of_dacs() -> None:
    given = batch(3)
    plain, found = step(method("dacs"), given), step(method("daformer"), given)
    masked = step(method("mic", feature_weight=0, **MASKED), given)
    for name in ("source_cross_entropy", "mixed_cross_entropy"):
        assert plain[name] == found[name] == masked[name]
    assert plain.keys() == masked.keys() - {"masked_cross_entropy"} == found.keys() - {"feature_distance"}
    assert set(session(method("mic", feature_weight=0, **MASKED)).modules) == {"network", "teacher"}


# Masked images


@pytest.mark.parametrize("normalisation", ["imagenet", "unit"])
def test_hidden_blocks_have_the_colour_that_the_network_sees_as_0(normalisation: str) -> None:
    made, target = method("mic", **MASKED), batch(4)["target"]["image"]
    training = session(made, network=SMALL.model_copy(update={"normalisation": normalisation}))
    training.step(batch(4), 0)
    images = made.masked(training, target)
    seen = training.network.normalisation(images / 255).abs().amax(dim=1) < 1e-5
    generators = begun(made).generators("mask", 2)
    noise = torch.stack([torch.rand(HEIGHT // 8, WIDTH // 8, generator=generator) for generator in generators])
    hidden = (noise <= 0.5).repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert 0 < hidden.float().mean() < 1 and seen[hidden].all()
    changed = recoloured(target, STRONG, generators).float()
    assert torch.equal(images.movedim(1, -1)[~hidden], changed.movedim(1, -1)[~hidden])


def begun(made: Dacs, iteration: int = 0) -> Session:
    training = session(made)
    training.step(batch(0), iteration)
    return training


def test_masked_images_are_learnt_with_the_teachers_labels_of_whole_ones() -> None:
    made, given = method("mic", mask_weight=0.5, **MASKED), batch(5)
    found = step(made, given)
    teacher, target = session(made).extra_modules["teacher"], given["target"]["image"]
    with torch.no_grad():
        probability = enlarged_logits(teacher(target / 255).logits, (HEIGHT, WIDTH)).softmax(dim=1)
        images = made.masked(begun(made), target)
        logits = enlarged_logits(session(made).outputs(images).logits, (HEIGHT, WIDTH))
    share = (probability.amax(dim=1) >= 0.25).double().mean()
    assert 0 < share < 1
    expected = share * cross_entropy(logits, probability.argmax(dim=1))
    assert found["masked_cross_entropy"] == pytest.approx(expected.item(), rel=1e-4)
    parts = found["source_cross_entropy"] + 0.005 * found["feature_distance"] + found["mixed_cross_entropy"]
    assert found["total"] == pytest.approx(parts + 0.5 * found["masked_cross_entropy"], rel=1e-6)


def test_the_processes_of_a_batch_mask_what_one_process_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    made, target = method("mic", **MASKED), batch(6)["target"]["image"]
    whole, parts = made.masked(begun(made), target), []
    for rank in (0, 1):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        parts.append(made.masked(begun(made), target[rank : rank + 1]))
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(made.masked(begun(made, 1), target), whole), "anew in every iteration"


def test_blocks_larger_than_an_image_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^method mic: block: must be at most .* 32 pixels, found 64; lower it$"):
        step(method("mic"), batch(0))


# Things


def test_things_are_the_published_ones_that_the_table_has_or_those_that_are_named() -> None:
    from caguda.classes import CITYSCAPES_19

    made = method("daformer")
    assert made.thing_ids(CITYSCAPES_19.names) == [6, 7, *range(11, 19)]
    assert made.thing_ids([name for name in CITYSCAPES_19.names if name not in ("truck", "train")])[-1] == 18 - 2
    assert len(THINGS) == 10 and made.thing_ids(()) == [] == method("daformer", things=["x"]).thing_ids(())
    assert method("daformer", things=["tree", "road"]).thing_ids(NAMES) == [4, 0]


@pytest.mark.parametrize(
    ("keys", "names", "said"),
    [
        ({"things": ["tre"]}, NAMES, r"things: must be categories .*, found tre, did you mean tree\?; give the key"),
        ({}, ("road", "sky", "a", "b", "c"), r"things: .* found none of those published; give the key things, or set"),
    ],
)
def test_things_that_no_category_is_are_refused_in_one_line(keys: Any, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        session(method("daformer", **keys), names)
    assert "\n" not in str(refused.value)
    session(method("daformer", feature_weight=0, **keys), names)


# The whole training


def setup(name: str, stop_after: int | None = None) -> TrainingSetup:
    """A training that Ctrl-C or the like ends after an update."""
    return interruptible(session(method(name, **(MASKED if name == "mic" else {}))), batch, 6, stop_after)


def weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The weights in a saved state, by part and name."""
    state = load_state(folder / "state.pt")
    assert state is not None and set(state["optimisers"]) == {"network"}
    for part, module in state["modules"].items():
        for name, value in module.items():
            yield f"{part}.{name}", value


@pytest.mark.parametrize("name", ["daformer", "mic"])
def test_an_interrupted_training_ends_with_the_same_bytes_and_the_frozen_encoder_stays(
    tmp_path: Path, name: str
) -> None:
    undisturbed = train(setup(name), tmp_path / "a", "f", 2)
    with pytest.raises(KeyboardInterrupt):
        train(setup(name, 4), tmp_path / "b", "f", 2)
    torch.rand(7)  # whatever was drawn meanwhile
    resumed = train(setup(name), tmp_path / "b", "f", 2)
    assert resumed.history == undisturbed.history
    first, second = (dict(weights(tmp_path / folder)) for folder in "ab")
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())
    parts = {
        part: {key for key in first if key.startswith(f"{part}.")} for part in ("network", "teacher", "first_encoder")
    }
    assert sum(map(len, parts.values())) == len(first) and all(parts.values())
    begin = session(method(name)).modules["network"].state_dict()
    frozen = {key.removeprefix("first_encoder.1."): first[key] for key in parts["first_encoder"]}
    assert all(torch.equal(value, begin[f"encoder.{key}"]) for key, value in frozen.items())
    assert not any(torch.equal(first[f"network.encoder.{key}"], value) for key, value in frozen.items())


def test_the_coarsest_map_has_the_fewest_pixels_and_is_the_deepest_of_several() -> None:
    maps = [torch.zeros(1, channels, *size) for channels, size in enumerate([(4, 4), (2, 3), (3, 2), (4, 5)], start=1)]
    assert coarsest(maps) is maps[2] and coarsest(maps[:2]) is maps[1]
    network = SMALL.build(3)
    images = torch.rand(2, 3, HEIGHT, WIDTH)
    with coarsest_maps_of(network.encoder) as seen:
        network(images)
    network(images)
    (encoded,) = seen
    assert encoded.shape[-2:] == (HEIGHT // CELL, WIDTH // CELL)


def test_a_plan_follows_the_step_and_counts_the_frozen_encoder() -> None:
    passes, sizes = NetworkPasses(SMALL, len(NAMES), Compute()), {"source": (32, 64), "target": (32, 64)}
    steps = {name: passes.of_step(method(name, **keys), sizes)  # type: ignore[arg-type]
             for name, keys in (("dacs", {}), ("daformer", {}), ("mic", MASKED))}  # fmt: skip
    assert {step.note for step in steps.values()} == {""}
    encoder = bytes_of(passes.network.encoder)
    assert steps["daformer"].module_bytes == steps["mic"].module_bytes == steps["dacs"].module_bytes + encoder
    cost = passes.of_batch((2, 3, 32, 64))
    blur = 2 * 2 * 3 * 25 * (32 * 64)  # of no image, of one or of both
    beside = steps["daformer"].flops - steps["dacs"].flops
    assert 0 < beside < cost.forward + blur
    assert steps["mic"].flops - steps["daformer"].flops > cost.forward + cost.backward - blur
