"""Nothing is read on trust: whatever was exchanged, edited or made otherwise is refused by the next verb that reads it."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import Miniature, label_files
from numcodecs.zstd import compress
from PIL import Image

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.checkpoint import load_checkpoint, save_checkpoint
from caguda.artifacts.evidence import EVIDENCE, evidence_faults
from caguda.artifacts.maps import encoded_shard, open_store, write_shard
from caguda.artifacts.maps_metadata import MapFormat
from caguda.artifacts.state import load_state, save_state
from caguda.artifacts.stores import kind_of_store
from caguda.artifacts.vouched import verify_store
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError
from caguda.runs import rules_of
from caguda.stages.anchors import sum_part
from caguda.stages.convert import import_checkpoint
from caguda.stages.diagnose import diagnose
from caguda.stages.evaluate import evaluate
from caguda.stages.evidence import write_part
from caguda.stages.evidence_store import create_evidence, verify_evidence
from caguda.stages.labels import make_labels

RULES = ("anchor", "probability")


def told_of(own: Miniature) -> Path:
    """What `diagnose` tells of the labels in the folder `labels`."""
    return own.folder / "labels" / "labels.json"


def labels_by(own: Miniature, rule: str) -> Path:
    """The JSON of the labels by a rule."""
    return dict(zip(RULES, label_files(told_of(own)), strict=True))[rule]


def stage(own: Miniature, anchors: Path | None = None, labels: list[Path] | None = None, **changes: object) -> Path:
    """What stage 1 makes of anchors and labels, of those in the folder `labels` where no others are given."""
    given = {"anchors": anchors or told_of(own).with_name("anchors.h5"), "labels": labels or label_files(told_of(own))}
    return own.train("again", "cag/stage1", own.configuration(**changes), start=own.weights("warmup"), **given)


def exchange(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def change_chunks(store: Path, name: str, chosen: Mapping[int, int | bytes]) -> None:
    """Gives images of an array the chunks of others, or other bytes, in whole and sound shards."""
    opened = open_store(store, kind_of_store(store)[0])
    before = [opened.chunk(index, name) or b"" for index in range(opened.count)]
    others = {index: before[chunk] if isinstance(chunk, int) else chunk for index, chunk in chosen.items()}
    for number, images in enumerate(opened.shards):
        chunks = [others.get(index, before[index]) for index in images]
        (store / name / f"c.{number}.0.0").write_bytes(encoded_shard(chunks, opened.per_shard))


def constant(store: Path, name: str, value: float, form: MapFormat) -> None:
    opened = open_store(store, form)
    chunk = bytes(compress(np.full(opened.shape, value, form.dtypes[name]), 1, True))
    change_chunks(store, name, dict.fromkeys(range(opened.count), chunk))


def test_the_copy_is_sound(own: Miniature, mini: Miniature) -> None:
    assert stage(own).read_bytes() == mini.weights("stage").read_bytes()


STORES: dict[str, Callable[[Miniature, Path], object]] = {
    "chunks of two images exchanged": lambda own, store: change_chunks(store, "label", {1: 2, 2: 1}),
    "a constant category": lambda own, store: constant(store, "label", 3, kind_of_store(store)[0]),
    "a constant that is no category": lambda own, store: constant(store, "label", 200, kind_of_store(store)[0]),
    "the mask in the place of the labels": lambda own, store: shutil.copy(
        store / "active/c.0.0.0", store / "label/c.0.0.0"
    ),
    "shards of both rules exchanged": lambda own, store: exchange(
        *(labels_by(own, rule).with_suffix(".zarr") / "label/c.0.0.0" for rule in RULES)
    ),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", STORES)
def test_a_label_store_that_its_json_does_not_vouch_for_trains_nothing(own: Miniature, name: str, rule: str) -> None:
    STORES[name](own, labels_by(own, rule).with_suffix(".zarr"))
    with pytest.raises(UserError, match=r"labels\.zarr: image .*: label is damaged"):
        stage(own)
    assert not own.weights("again").exists()
    with pytest.raises(UserError, match=r"labels\.zarr: image .*: label is damaged"):
        diagnose(own.configuration(), own.manifest, told_of(own).with_name("evidence.json"), label_files(told_of(own)),
                 own.folder / "again.json")  # fmt: skip
    assert not (own.folder / "again.json").exists()


def in_shards(own: Miniature, name: str, model: str = "warmup") -> Path:
    """The JSON of evidence in two shards, of which each part of two has one."""
    return own.evidence(name, own.configuration(compute__inference_batch_size=4), own.weights(model), 2)


EVIDENCES: dict[str, Callable[[Path, Path], object]] = {
    "chunks of two images exchanged": lambda store, other: [
        change_chunks(store, name, {1: 2, 2: 1}) for name in EVIDENCE.dtypes
    ],
    "a constant category": lambda store, other: [
        constant(store, name, 3, EVIDENCE) for name in ("nearest_anchor", "predicted")
    ],
    "numbers that make every pixel active": lambda store, other: [
        constant(store, name, 1, EVIDENCE) for name in ("margin", "confidence")
    ],
    "shards exchanged inside the store": lambda store, other: [
        exchange(store / name / "c.0.0.0", store / name / "c.1.0.0") for name in EVIDENCE.dtypes
    ],
    "shards of another model": lambda store, other: [
        shutil.copy(other / name / "c.1.0.0", store / name / "c.1.0.0") for name in EVIDENCE.dtypes
    ],
    "categories by anchors and by probability exchanged": lambda store, other: exchange(
        *(store / name / "c.1.0.0" for name in ("nearest_anchor", "predicted"))
    ),
    "both numbers exchanged": lambda store, other: exchange(
        *(store / name / "c.1.0.0" for name in ("margin", "confidence"))
    ),
}


@pytest.mark.parametrize("name", EVIDENCES)
def test_evidence_that_its_json_does_not_vouch_for_makes_no_labels(own: Miniature, name: str) -> None:
    evidence, other = in_shards(own, "two"), in_shards(own, "other", "pretrain")
    EVIDENCES[name](evidence.with_suffix(".zarr"), other.with_suffix(".zarr"))
    for rule in rules_of(own.configuration(), "cag/stage1").values():
        folder = evidence.parent / rule.folder
        with pytest.raises(UserError, match=rf"evidence\.zarr: image .*: ({'|'.join(rule.reads)}) is damaged"):
            make_labels(own.configuration(), evidence, rule.folder, folder / "labels.zarr", folder / "labels.json")
        assert not (folder / "labels.json").exists()


@pytest.mark.parametrize("name", EVIDENCES)
def test_evidence_is_vouched_for_as_its_parts_have_written_it(own: Miniature, name: str) -> None:
    """Whole and sound shards, but others than `evidence-part` wrote; and parts that are missing."""
    vouching, other = in_shards(own, "two"), in_shards(own, "other", "pretrain")
    store, parts = vouching.with_suffix(".zarr"), [vouching.with_name(f"{part}.json") for part in (1, 2)]
    verify_evidence(store, parts, vouching.with_name("again.json"))
    with pytest.raises(UserError, match="must make a whole, found 4 of 8"):
        verify_evidence(store, parts[:1], vouching.with_name("none.json"))
    with pytest.raises(UserError, match="must make a whole, found 8 of 8"):
        verify_evidence(store, [], vouching.with_name("none.json"))
    EVIDENCES[name](store, other.with_suffix(".zarr"))
    with pytest.raises(UserError, match="must be what `evidence-part` wrote|must be complete and consistent"):
        verify_evidence(store, parts, vouching.with_name("none.json"))
    assert not vouching.with_name("none.json").exists()


@pytest.mark.parametrize("rule", RULES)
def test_labels_of_another_model_train_nothing(own: Miniature, rule: str) -> None:
    theirs = label_files(own.label("other", own.configuration(), own.weights("pretrain")))
    found = "must be made with the model that the training starts from.*found labels of another"
    with pytest.raises(UserError, match=found):
        stage(own, own.folder / "other" / "anchors.h5", theirs)
    vouching, other = labels_by(own, rule), theirs[RULES.index(rule)]
    with pytest.raises(UserError, match=f"{other}.* {found}"):
        stage(own, labels=[other if file == vouching else file for file in label_files(told_of(own))])
    shutil.rmtree(vouching.with_suffix(".zarr"))
    shutil.copytree(other.with_suffix(".zarr"), vouching.with_suffix(".zarr"))
    with pytest.raises(UserError, match=r"must be the one that labels\.json vouches for"):
        stage(own)
    shutil.copy(other, vouching)
    with pytest.raises(UserError, match=rf"{vouching}.* found one for which .*evidence\.json was another file"):
        stage(own)


def margins(of_cag: float, swept: float) -> dict[str, object]:
    """The margin of the run cag, and one that another run has in its place."""
    other = {"like": "cag", "pseudo_labels": {"anchor": {"margin": swept}}}
    return {"runs__cag__pseudo_labels__anchor__margin": of_cag, "runs__swept": other}


OTHER_MARGINS = [margins(0.2, 0.1), margins(0.025, 0.05)]
"""The miniature's margin is 0.05: in no run of the first, in another run of the second."""


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (OTHER_MARGINS[0], r"settings of the configuration, found rule\.margin 0\.05, not 0\.2"),
        (OTHER_MARGINS[1], "must be made with the configured thresholds"),
    ],
)
def test_labels_of_other_thresholds_train_nothing(own: Miniature, changes: dict[str, object], found: str) -> None:
    with pytest.raises(UserError, match=found):
        stage(own, **changes)


def test_a_model_of_other_thresholds_is_not_evaluated(own: Miniature) -> None:
    """Also where another run has those that it was made with."""
    for changes, margin in zip(OTHER_MARGINS, ("0.2", "0.025"), strict=True):
        with pytest.raises(UserError, match=rf"found runs\.cag\.pseudo_labels\.anchor\.margin 0\.05, not {margin}"):
            evaluate(own.configuration(**changes), own.manifest, own.weights("stage"), own.folder / "e.json")


def by_rule(own: Miniature, rule: str, evidence: Path, **changes: object) -> Path:
    """The JSON of labels by a rule, one of those that the configuration knows, made of evidence."""
    folder = evidence.parent / rule
    make_labels(own.configuration(**changes), evidence, rule, folder / "labels.zarr", folder / "labels.json")
    return folder / "labels.json"


def test_a_stage_takes_one_label_store_of_each_rule(own: Miniature) -> None:
    """Labels of one rule alone are told of, but train nothing."""
    anchor, probability = label_files(told_of(own))
    copy = Path(shutil.copytree(anchor.parent, anchor.parents[1] / "copy")) / "labels.json"
    evidence, settings = told_of(own).with_name("evidence.json"), margins(0.05, 0.1)
    swept = by_rule(own, "anchor-0.1-mean_anchor_distance", evidence, **settings)
    for given in ([anchor], [anchor, anchor], [anchor, copy], [probability], [anchor, copy, probability]):
        with pytest.raises(
            UserError, match="labels by anchor and by probability must be given, .* name one store of each"
        ):
            stage(own, labels=given)
    for given in ([anchor, swept], [swept, probability]):
        with pytest.raises(UserError, match="must be made with the configured thresholds"):
            stage(own, labels=given, **settings)
        with pytest.raises(UserError, match=r"found rule\.margin 0\.1, not 0\.05"):
            stage(own, labels=given)
    for given in ([evidence, probability], [anchor, told_of(own)]):
        with pytest.raises(UserError, match="must vouch for a whole label store|must name it"):
            stage(own, labels=given)
    for given in ([], [anchor, copy], [anchor, swept], [anchor, probability, swept]):
        with pytest.raises(UserError, match="labels of (different rules|at least one rule) must be given, found "):
            diagnose(own.configuration(**settings), own.manifest, evidence, given, own.folder / "again.json")
    with pytest.raises(UserError, match=r"found rule\.margin 0\.1, not 0\.05"):
        diagnose(own.configuration(), own.manifest, evidence, [swept], own.folder / "again.json")
    with pytest.raises(UserError, match="must vouch for a whole evidence store"):
        diagnose(own.configuration(), own.manifest, anchor, [anchor, probability], own.folder / "again.json")
    assert not own.weights("again").exists() and not (own.folder / "again.json").exists()
    diagnose(own.configuration(), own.manifest, evidence, [anchor], own.folder / "again.json")
    assert read_json(own.folder / "again.json")["labels"].keys() == {"anchor"}


def test_labels_in_the_folder_of_another_rule_are_refused(own: Miniature) -> None:
    given = label_files(told_of(own))
    exchange(given[0].parent, given[1].parent)
    with pytest.raises(UserError, match=r"found rule\.name probability, not anchor"):
        stage(own, labels=given)
    with pytest.raises(UserError, match=r"found rule\.name probability, not anchor"):
        diagnose(own.configuration(), own.manifest, told_of(own).with_name("evidence.json"), given,
                 own.folder / "again.json")  # fmt: skip
    exchange(given[0].parent, given[1].parent)
    store = given[0].parent / "new.zarr"
    with pytest.raises(UserError, match=r"new\.zarr: .* found rule\.name probability, not anchor"):
        make_labels(own.configuration(), told_of(own).with_name("evidence.json"), "probability-0.3", store,
                    store.with_suffix(".json"))  # fmt: skip
    assert not store.exists()


def other_evidence(own: Miniature) -> Path:
    """The JSON of sound evidence of the same model and anchors with other last bits, as another machine may make it."""
    vouching = Path(shutil.copytree(told_of(own).parent, own.folder / "theirs")) / "evidence.json"
    store = open_store(vouching.with_suffix(".zarr"), EVIDENCE)
    for number, images in enumerate(store.shards):
        maps = {name: np.stack([store.read(index, name) for index in images]) for name in EVIDENCE.dtypes}
        maps["margin"] = np.nextafter(maps["margin"], np.float32(np.inf))
        write_shard(store, number, maps)
    write_json(vouching, read_json(vouching) | verify_store(store, evidence_faults))
    return vouching


def test_labels_of_two_evidence_stores_are_neither_trained_on_nor_diagnosed(own: Miniature) -> None:
    evidence, theirs = told_of(own).with_name("evidence.json"), other_evidence(own)
    anchor, probability = label_files(told_of(own))
    shutil.rmtree(theirs.parent / anchor.parent.name)
    others = by_rule(own, anchor.parent.name, theirs)
    with pytest.raises(UserError, match="labels of all rules must be made of the same evidence"):
        stage(own, labels=[others, probability])
    for of in (evidence, theirs):
        with pytest.raises(UserError, match="must be made of .*, found those of other evidence"):
            diagnose(own.configuration(), own.manifest, of, [others, probability], own.folder / "again.json")
    assert not own.weights("again").exists() and not (own.folder / "again.json").exists()


def test_labels_of_evidence_that_was_made_again_are_refused(own: Miniature) -> None:
    evidence, theirs = told_of(own).with_name("evidence.json"), other_evidence(own)
    exchange(evidence, theirs)
    exchange(evidence.with_suffix(".zarr"), theirs.with_suffix(".zarr"))
    with pytest.raises(UserError, match=r"labels\.json: .* found one for which .*evidence\.json was another file"):
        stage(own)
    with pytest.raises(UserError, match="found those of other evidence"):
        diagnose(own.configuration(), own.manifest, evidence, label_files(told_of(own)), own.folder / "again.json")


def test_anchors_of_another_model_make_no_evidence_and_train_nothing(own: Miniature) -> None:
    settings, anchors = own.configuration(), own.folder / "labels" / "anchors.h5"
    own.anchors(own.folder / "others.h5", settings, own.weights("pretrain"))
    inputs = (own.manifest, own.weights("warmup"), own.folder / "others.h5")
    with pytest.raises(UserError, match="must be of the features of"):
        create_evidence(settings, *inputs, own.folder / "new.zarr", own.folder / "new.json")
    with pytest.raises(UserError, match="the labels must be made with the anchors"):
        stage(own, own.folder / "others.h5")
    exchange(anchors, own.folder / "others.h5")
    with pytest.raises(UserError, match=r"evidence\.json: .* found one for which .*anchors\.h5 was another file"):
        stage(own)


def test_a_store_that_was_created_for_another_checkpoint_gets_no_evidence(own: Miniature) -> None:
    settings, store = own.configuration(), own.folder / "labels" / "evidence.zarr"
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
        own.train("p", "pretrain", settings)
    exchange(*files(own, "source", "label")[:2])
    for path in files(own, "target", "image"):
        blacken(path)
    with pytest.raises(UserError, match="this file must be as it was when it was checked"):
        own.train("w", "warmup", settings, start=own.weights("pretrain"))
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
        ({"runs__warmup__iterations": 7}, "runs.warmup.iterations 6, not 7"),
        ({"training__reduction": "sum"}, "runs.warmup.reduction mean, not sum"),
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
        own.train("pretrain", "pretrain", own.configuration())
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
        brought = own.configuration(runs__mine={"method": "imported", "file": "theirs.safetensors"})
        import_checkpoint(brought, "mine", 0, tmp_path / "theirs.safetensors", tmp_path / "b.safetensors")
    settings = own.configuration(
        runs__warmup__iterations=2, runs__warmup__optimiser={"learning_rate": 1e6, "weight_decay": 0.0}
    )
    with pytest.raises(UserError, match="finite"):
        own.train("w", "warmup", settings, start=own.weights("pretrain"))
    assert not list(tmp_path.glob("*a.safetensors")) and not own.weights("w").exists()
