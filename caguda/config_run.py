"""The section `runs` of the YAML: the base classes of a run's settings, and the known methods. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from caguda.complaints import complaint
from caguda.config_frames import Augmentation
from caguda.config_rules import PseudoLabels
from caguda.config_training import Optimiser, SourceSampling, left_out_at
from caguda.config_types import UNKNOWN_NAMES_ALLOWED, Count, Positive, Section
from caguda.errors import did_you_mean, is_plain
from caguda.registry import NAME_PATTERN, classes_by_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    from caguda.stages.session import Batch, Session

MODEL_PATTERN = rf"{NAME_PATTERN}(?:/stage[1-9]\d*)?"
"""The name of a model as a regular expression: RUN, or RUN/stageK."""
STAGE = re.compile(r"(.+)/stage([1-9]\d*)")
Name = Annotated[str, Field(pattern=rf"^{NAME_PATTERN}$", max_length=100)]
ModelReference = Annotated[str, Field(pattern=rf"^{NAME_PATTERN}(/stage[1-9][0-9]*)?$", max_length=120)]
"""RUN/stageK is the model of one stage. RUN is the last model of that run in `start`, all of its stages in reports and tables."""
DomainName = Literal["source", "target"]
Read = Literal["images", "truth", "pseudo-labels"]
"""The frames that a training reads of a domain: images alone, with true labels, or with cached pseudo-labels."""


def run_name(model: str) -> str:
    """The name of a model's run; the model is RUN or RUN/stageK."""
    return model.partition("/")[0]


class Training(Section):
    """The settings of the training loop. `batch_size` is the number of images of all processes together, `accumulate` the
    number of batches per update.

    The source's images are the `original` ones, or those of the set `translated`, with the same labels. The target's frames
    have `target_augmentation`, or `augmentation` if it is absent. `reduction` makes a loss the mean or the sum over the pixels
    that count in a batch.
    """

    iterations: Positive
    batch_size: Count
    accumulate: Count = 1
    optimiser: Optimiser
    batch_norm: Literal["train", "frozen"]
    target_statistics: bool = False
    source_images: Literal["original", "translated"] = left_out_at("original")
    augmentation: Augmentation = Augmentation()
    target_augmentation: Augmentation | None = None
    reduction: Literal["mean", "sum"] = "mean"
    source_sampling: SourceSampling | None = left_out_at(None)

    @model_validator(mode="after")
    def _schedule_covers_the_training(self) -> Training:
        length = self.optimiser.poly_iterations
        if length is not None and length < self.iterations:
            raise ValueError(f"optimiser.poly_iterations: must reach the training's {self.iterations}, found {length}")
        if (warm := self.optimiser.warmup_iterations) >= self.iterations:
            raise ValueError(
                f"optimiser.warmup_iterations: must be less than the training's {self.iterations} iterations, found {warm}"
            )
        return self

    def augmentation_of(self, domain: str) -> Augmentation:
        """The augmentation of a domain's frames."""
        if domain == "target" and self.target_augmentation is not None:
            return self.target_augmentation
        return self.augmentation


class ExtraModule(NamedTuple):
    """A module beside the network. It is trained with this initial learning rate; None: it is not trained."""

    module: nn.Module
    learning_rate: float | None = None


class RunSettings(Section):
    """The keys of every entry of `runs`: its method, and its `title` and `note` in tables."""

    method: str
    title: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    note: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    about: ClassVar[str] = ""
    """A description of the run in a few words, for reports."""

    @model_validator(mode="after")
    def _texts_are_plain_lines(self) -> RunSettings:
        for key in ("title", "note"):
            if (text := getattr(self, key)) is not None and not is_plain(text):
                raise ValueError(f"{key}: must be one line without control characters, found {text!a:.60}")
        if self.title is not None and re.match(r"[=@-]|\+\S", self.title):
            raise ValueError(f"title: must not begin as a formula of a spreadsheet does, found {self.title!a:.60}")
        return self

    @property
    def adapts(self) -> bool:
        """Whether the run adapts its first weights to the target without target labels.

        A table may mark a model as best if some run behind it adapts and none has seen target labels.
        """
        return True

    @property
    def is_reference(self) -> bool:
        """Whether the run sees the target's labels."""
        return False


class Imported(RunSettings):
    """A model from elsewhere in place of a trained one: a checkpoint, or weights of the configured network.

    `has_seen` tells a table what the model was trained on: the source alone, the target too, or the target's labels.
    """

    method: Literal["imported"]
    file: Annotated[str, Field(min_length=1)]
    has_seen: Literal["source", "target", "target labels"] = "target"
    about: ClassVar[str] = "brought from elsewhere"

    @property
    def adapts(self) -> bool:
        return self.has_seen == "target"

    @property
    def is_reference(self) -> bool:
        return self.has_seen == "target labels"


class Method(Training, RunSettings):
    """The settings of a run that is trained: those of its method and of its training, and its start.

    A method is a subclass in one file, registered by `@register("method", NAME)`, with a field `method: Literal[NAME]`. It
    declares what it reads, and computes the loss terms of a step.

    The run starts from the model `start`, or from fresh weights without it. `stages: K` makes a chain of models RUN/stage1
    to RUN/stageK, each from the one before. With `restart` each has the first weights of `start` again, and the one before
    gives its anchors and pseudo-labels alone.
    """

    start: ModelReference | None = None
    stages: Count | None = None
    restart: bool = left_out_at(False)
    pseudo_labels: PseudoLabels = Field(default_factory=dict)
    anchors: Annotated[str, Field(min_length=1)] | None = None
    """A file of anchors from elsewhere, for every stage; without it, the anchors are of the frozen model."""
    uses_anchors: ClassVar[bool] = False
    """Whether it reads category anchors: see `model_of_anchors` in runs.py for those of which model."""

    @model_validator(mode="after")
    def _declares_what_it_reads(self) -> Method:
        must = f"`reads` of {self.method} must map source or target to {', '.join(get_args(Read))}"
        try:
            reads: Any = self.reads
        except Exception as error:  # noqa: BLE001  the code of a plugin
            raise ValueError(f"method: {must}, found {type(error).__name__}: {error}; correct the method") from None
        choices = (get_args(DomainName), get_args(Read))
        is_mapping = isinstance(reads, Mapping) and len(reads) > 0
        if not is_mapping or any(key not in choices[0] or value not in choices[1] for key, value in reads.items()):
            raise ValueError(f"method: {must}, found {reads!r:.60}; correct the method")
        return self

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Method:
        if self.reads_pseudo_labels and not self.pseudo_labels:
            raise ValueError("pseudo_labels: at least one rule must be given")
        if self.pseudo_labels and not self.uses_frozen_model:
            raise ValueError(f"pseudo_labels: {self.method} uses none, leave the key out")
        if self.anchors is not None and not self.uses_anchors:
            raise ValueError(f"anchors: {self.method} uses none, leave the key out")
        if self.source_sampling is not None and self.reads.get("source") != "truth":
            raise ValueError(f"source_sampling: {self.method} reads no labels of the source here, set the key to null")
        if self.uses_frozen_model and self.start is None:
            raise ValueError(f"start: {self.method} must start from a run, whose model gives anchors and pseudo-labels")
        if self.stages is not None and self.start is None:
            raise ValueError("start: a run with stages must start from another run")
        if self.restart and (self.stages is None or not self.uses_frozen_model):
            raise ValueError(
                "restart: must be false unless the run has stages, and anchors or pseudo-labels, found true"
            )
        if self.source_images == "translated" and self.reads.get("source") != "truth":
            raise ValueError("source_images: must be original for a run that reads no source labels, found translated")
        return self

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        """The domains of a step's batches, in this order, each with what is read of its frames."""
        raise NotImplementedError

    @property
    def sets_read(self) -> tuple[str, ...]:
        """The sets of frames of its batches: the domains, and `translated` if the source's images are those of that set."""
        return (*self.reads, *(["translated"] if self.source_images == "translated" else []))

    @property
    def reads_pseudo_labels(self) -> bool:
        """Whether it reads cached pseudo-labels, made by the model that it starts from."""
        return "pseudo-labels" in self.reads.values()

    @property
    def uses_frozen_model(self) -> bool:
        """Whether it reads anchors or pseudo-labels of the frozen model that it starts from."""
        return self.uses_anchors or self.reads_pseudo_labels

    @property
    def reads_target_labels(self) -> bool:
        """Whether it reads the target's true labels."""
        return self.reads.get("target") == "truth"

    @property
    def is_reference(self) -> bool:
        return self.reads_target_labels

    def frame_order(self, adaptation: int) -> str:
        """A name that decides, with the seed, the order of the frames and their augmentation.

        Runs with the same name see the same frames in the same order, for a fair comparison. `adaptation` is the number of
        adaptations up to the model, this one included; see `runs.adaptation_number`.
        """
        return f"stage {adaptation}"

    def extra_modules(self, session: Session) -> Mapping[str, ExtraModule]:
        """New modules beside the network by name, such as a teacher. torch's seed is set before the call."""
        return {}

    def step(self, session: Session, batch: Batch) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """Yields the objectives of one batch, each with the loss terms to report.

        The loop calls backward() on each before it resumes the generator, which frees the memory of one objective before the
        next is computed. Gradients add up.
        """
        raise NotImplementedError

    def after_update(self, session: Session) -> None:
        """Called after every update of the weights, for instance to move those of a teacher."""

    def after_training(self, session: Session) -> None:
        """Called after the last update, before the network is saved as a checkpoint."""


class UnknownMethod(RunSettings, extra="allow"):
    """The unchecked settings of a plugin's method, for commands that look at artifacts and run no plugin."""

    start: ModelReference | None = None
    stages: Count | None = None
    pseudo_labels: PseudoLabels = Field(default_factory=dict)


def method_classes() -> dict[str, type[RunSettings]]:
    """The settings of every known method by its name. UserError if one has another name than it is registered by."""
    return {"imported": Imported, **classes_by_name("method", Method, "method", ["reads", "step"])}


def _run(values: Any, info: ValidationInfo) -> Any:
    """An entry of `runs`; ValueError names the first fault."""
    if values is None or isinstance(values, RunSettings):
        return values
    if not isinstance(values, Mapping):
        raise PydanticCustomError("dict_type", "Input should be the settings of a run")
    if "method" not in values:
        raise ValueError("method: this key is required")
    classes, method = method_classes(), values["method"]
    cls: type[RunSettings] | None = classes.get(method) if isinstance(method, str) else None
    if cls is None and isinstance(method, str) and info.context == UNKNOWN_NAMES_ALLOWED:
        cls = UnknownMethod
    if cls is None:
        raise ValueError(
            f"method: must be one of {', '.join(classes)}, found {method!r:.60}{did_you_mean(method, classes)} (the key "
            "plugins brings others)"
        )
    try:
        return cls.model_validate(values, context=info.context)
    except ValidationError as error:
        raise ValueError(complaint(error.errors()[0])) from None


Run = Annotated[SerializeAsAny[RunSettings] | None, BeforeValidator(_run)]
"""An entry of `runs`: the settings of its method, or None for a run of a base that is left out."""
