"""Nothing is read on trust: whatever was exchanged, edited or made otherwise is refused by the next verb that reads it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import Miniature
from numcodecs.zstd import compress
from PIL import Image

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.checkpoint import load_checkpoint, save_checkpoint
from caguda.artifacts.state import load_state, save_state
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.stages.anchors import sum_part
from caguda.stages.convert import import_checkpoint
from caguda.stages.evaluate import evaluate
from caguda.stages.labels import create_store, write_part
from caguda.stages.supervised import pretrain
from caguda.stages.verified_labels import verify_labels
from caguda.stages.warmup import warmup


def stage(own: Miniature, **changes: object) -> Path:
    """What `adapt` makes of the labels in the folder `labels`."""
    return own.stage(
        "again", own.configuration(**changes), own.weights("warmup"), own.folder / "labels" / "labels.json"
    )


def exchange(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def constant(own: Miniature, value: int) -> None:
    store = own.folder / "labels" / "labels.zarr"
    chunk = np.full((8, 16), value, np.uint8)
    for index in range(8):
        (store / "anchor_label" / f"c.{index}.0.0").write_bytes(compress(chunk, 1, True))


def test_the_copy_is_sound(own: Miniature, mini: Miniature) -> None:
    assert stage(own).read_bytes() == mini.weights("stage").read_bytes()


STORES: dict[str, Callable[[Miniature], object]] = {
    "chunks of two images exchanged": lambda own: [
        exchange(*(own.folder / "labels/labels.zarr" / name / f"c.{i}.0.0" for i in (1, 2)))
        for name in ("anchor_label", "probability_label")
    ],
    "a constant category": lambda own: constant(own, 3),
    "a constant that is no category": lambda own: constant(own, 200),
}


@pytest.mark.parametrize("name", STORES)
def test_a_label_store_that_its_json_does_not_vouch_for_trains_nothing(own: Miniature, name: str) -> None:
    STORES[name](own)
    with pytest.raises(UserError, match=r"labels\.zarr: image .*: anchor_label is damaged"):
        stage(own)
    assert not own.weights("again").exists()


def test_a_label_store_is_vouched_for_as_its_parts_have_written_it(own: Miniature) -> None:
    """Two images exchanged between `label-part` and `labels`, and a part that is missing."""
    folder = own.folder / "labels"
    store, parts = folder / "labels.zarr", [folder / "1.json"]
    verify_labels(store, parts, folder / "again.json")
    with pytest.raises(UserError, match="must make a whole, found 8 of 8"):
        verify_labels(store, [], folder / "none.json")
    for array in store.glob("*/c.0.0.0"):
        exchange(array, array.with_name("c.1.0.0"))
    with pytest.raises(UserError, match="must be those that `label-part` wrote"):
        verify_labels(store, parts, folder / "other.json")
    assert not (folder / "other.json").exists()


def test_labels_of_another_model_train_nothing(own: Miniature) -> None:
    own.label("other", own.configuration(), own.weights("pretrain"))
    shutil.rmtree(own.folder / "labels" / "labels.zarr")
    shutil.copytree(own.folder / "other" / "labels.zarr", own.folder / "labels" / "labels.zarr")
    with pytest.raises(UserError, match=r"must be the one that labels\.json vouches for"):
        stage(own)
    shutil.copy(own.folder / "other" / "labels.json", own.folder / "labels" / "labels.json")
    with pytest.raises(UserError, match="found labels of another"):
        stage(own)


def test_labels_of_other_thresholds_train_nothing(own: Miniature) -> None:
    with pytest.raises(UserError, match="must be made with the configured thresholds"):
        stage(own, labels__margin=0.2)


def test_anchors_of_another_model_make_no_labels_and_train_nothing(own: Miniature) -> None:
    settings, anchors = own.configuration(), own.folder / "labels" / "anchors.h5"
    own.anchors(own.folder / "others.h5", settings, own.weights("pretrain"))
    inputs = (own.manifest, own.weights("warmup"), own.folder / "others.h5")
    with pytest.raises(UserError, match="must be of the features of"):
        create_store(settings, *inputs, own.folder / "new.zarr", own.folder / "new.json")
    exchange(anchors, own.folder / "others.h5")
    with pytest.raises(UserError, match="the labels must be made with the anchors"):
        stage(own)


def test_a_store_that_was_created_for_another_checkpoint_gets_no_labels(own: Miniature) -> None:
    settings, store = own.configuration(), own.folder / "labels" / "labels.zarr"
    anchors = own.anchors(own.folder / "others.h5", settings, own.weights("pretrain"))
    with pytest.raises(UserError, match="must be created for this manifest, checkpoint and these anchors"):
        write_part(settings, own.manifest, own.weights("pretrain"), anchors, store, 1, 1, own.folder / "part.json")
    assert not (own.folder / "part.json").exists()


def test_an_edited_manifest_is_refused(own: Miniature) -> None:
    own.manifest.write_text(own.manifest.read_text().replace('"height": 32', '"height": 33', 1))
    with pytest.raises(UserError, match="must be as `check` wrote it"):
        read_manifest(own.manifest)


def files(own: Miniature, name: str, kind: str) -> list[Path]:
    found = [getattr(frame, kind) for frame in read_manifest(own.manifest).frames(name)]  # type: ignore[arg-type]
    assert all(found)
    return found


def blacken(path: Path) -> None:
    with Image.open(path) as image:
        black = Image.new(image.mode, image.size)
    black.save(path)


def turn(path: Path) -> None:
    with Image.open(path) as image:
        turned = image.transpose(Image.Transpose.ROTATE_180)
    turned.save(path)


def test_frames_that_were_changed_after_the_check_are_refused_by_whatever_decodes_them(own: Miniature) -> None:
    settings, part = own.configuration(), own.folder / "part.h5"
    exchange(*files(own, "source", "label")[:2])
    with pytest.raises(UserError, match="this file must be as it was when it was checked"):
        sum_part(settings, own.manifest, own.weights("warmup"), 1, 1, part)
    with pytest.raises(UserError, match="this file must be as it was when it was checked"):
        own.train(pretrain, "p", settings)
    exchange(*files(own, "source", "label")[:2])
    for path in files(own, "target", "image"):
        blacken(path)
    with pytest.raises(UserError, match="this file must be as it was when it was checked"):
        own.train(warmup, "w", settings, initial=own.weights("pretrain"))
    with pytest.raises(UserError, match="this file must be as it was when it was checked"):
        stage(own)
    for path in files(own, "evaluation", "label"):
        turn(path)
    with pytest.raises(UserError, match="this file must be as it was when it was checked"):
        evaluate(settings, own.manifest, own.weights("stage"), own.folder / "stage.json")


def described(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Another description of the same weights, sealed as the verb would."""
    side = path.with_suffix(".json")
    content = read_json(side)
    change(content)
    side.unlink()
    write_json(side, content)


def made_by_another_method(content: dict[str, object]) -> None:
    made = content["provenance"]
    assert isinstance(made, dict)
    made["method_version"] = "999"


def test_a_checkpoint_of_another_version_of_the_method_is_refused(own: Miniature) -> None:
    described(own.weights("warmup"), made_by_another_method)
    with pytest.raises(UserError, match="must be of version"):
        evaluate(own.configuration(), own.manifest, own.weights("warmup"), own.folder / "evaluation.json")
    with pytest.raises(UserError, match="must be of version"):
        stage(own)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"network__normalisation": "unit"}, "network.normalisation imagenet, not unit"),
        ({"warmup__iterations": 7}, "warmup.iterations 6, not 7"),
        ({"losses": {"reduction": "sum"}}, "losses.reduction mean, not sum"),
    ],
)
def test_a_model_of_other_settings_is_neither_trained_on_nor_evaluated(
    own: Miniature, change: dict[str, object], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        stage(own, **change)
    with pytest.raises(UserError, match=told):
        evaluate(own.configuration(**change), own.manifest, own.weights("warmup"), own.folder / "evaluation.json")


def test_models_of_two_seeds_or_runs_exchanged_are_refused(own: Miniature) -> None:
    settings = own.configuration(seeds=[0, 1])
    for seed, run, model in ((0, "pretrain", "pretrain"), (1, "warmup", "warmup"), (0, "warmup", "pretrain")):
        folder = own.folder / f"seed{seed}" / run
        shutil.copytree(own.folder / model, folder)
    evaluate(settings, own.manifest, own.weights("seed0/pretrain"), own.folder / "evaluation.json")
    with pytest.raises(UserError, match="the folder is of seed 1, found a file of seed 0"):
        evaluate(settings, own.manifest, own.weights("seed1/warmup"), own.folder / "e.json")
    with pytest.raises(UserError, match="the folder is of warmup, found a file of pretrain"):
        evaluate(settings, own.manifest, own.weights("seed0/warmup"), own.folder / "e.json")


# --- states


def test_no_flipped_bit_of_a_state_is_resumed_from(own: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    path = own.folder / "stage" / "state" / "state.pt"
    content, random = path.read_bytes(), np.random.default_rng(0)
    for number in range(40):
        damaged = bytearray(content)
        damaged[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        assert load_state(path) is None
        assert len(list(path.parent.glob("state.pt.damaged*"))) == number + 1, "each has a name of its own"
    assert capsys.readouterr().err.count("\n") == 40
    path.write_bytes(content)
    assert load_state(path) is not None


def test_a_state_that_cannot_be_read_is_one_line_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {"fingerprint": "a"})

    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(UserError, match="the training state must be loaded, found: MemoryError"):
        load_state(path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="must be a regular file"):
        load_state(tmp_path / "loop")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["loop", "state.pt"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state["progress"].update(iteration=99), "of iteration 0 to 12, found 99"),
        (lambda state: state.pop("optimisers"), "found none or a part of optimisers"),
        (lambda state: state["modules"].clear(), "found none or a part of modules"),
        (lambda state: state.pop("progress"), "found none or a part of progress"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_stays(
    own: Miniature, change: Callable[[dict[str, object]], object], told: str
) -> None:
    path = own.folder / "pretrain" / "state" / "state.pt"
    state = load_state(path)
    assert state is not None
    change(state)
    save_state(path, state)
    before = path.read_bytes()
    with pytest.raises(UserError, match=told):
        own.train(pretrain, "pretrain", own.configuration())
    assert path.read_bytes() == before


# --- weights


def test_weights_that_are_not_finite_are_never_published(own: Miniature, tmp_path: Path) -> None:
    weights, description = load_checkpoint(own.weights("pretrain"))
    name = next(name for name, weight in weights.items() if weight.is_floating_point())  # their order is no matter
    weights[name][...] = float("inf")
    with pytest.raises(UserError, match=f"every weight must be finite, found {name}"):
        save_checkpoint(tmp_path / "a.safetensors", weights, description)
    from safetensors.torch import save_file

    save_file(weights, tmp_path / "theirs.safetensors")
    with pytest.raises(UserError, match=r"theirs\.safetensors: every weight must be finite"):
        import_checkpoint(
            own.configuration(), "pretrain", 0, tmp_path / "theirs.safetensors", tmp_path / "b.safetensors"
        )
    settings = own.configuration(
        warmup__iterations=2, warmup__optimiser={"name": "sgd", "learning_rate": 1e6, "weight_decay": 0.0}
    )
    with pytest.raises(UserError, match="finite"):
        own.train(warmup, "w", settings, initial=own.weights("pretrain"))
    assert not list(tmp_path.glob("*a.safetensors")) and not own.weights("w").exists()
