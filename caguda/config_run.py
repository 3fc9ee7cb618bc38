"""The section `runs` of the YAML: what the settings of every run have, and which methods there are. No torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from caguda.complaints import complaint
from caguda.config_frames import ONLY_LOOKED_AT, Augmentation, Few, Fraction, NonNegative, Positive, Section
from caguda.config_rules import PseudoLabels
from caguda.errors import UserError, is_plain
from caguda.kinds import known

if TYPE_CHECKING:
    from torch import Tensor, nn

    from caguda.stages.session import Batch, Session

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)]
Model = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*(/stage[1-9][0-9]*)?$", max_length=120)]
"""A run, whose last model is meant, or RUN/stageK, the model of one of its stages."""
DomainName = Literal["source", "target"]
Read = Literal["images", "truth", "pseudo-labels"]
"""What a training reads of a domain's frames beside their images: nothing, their labels, or cached pseudo-labels."""


class Optimiser(Section):
    """How weights are updated; the learning rate falls to 0 at `poly_iterations`, the end of the training if absent."""

    name: Literal["sgd", "adamw"]
    learning_rate: Annotated[float, Field(gt=0.0)]
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 1e-4
    poly_power: NonNegative = 0.9
    poly_iterations: Positive | None = None


class Training(Section):
    """One run of the training loop; `batch_size` counts the images of all processes, `accumulate` batches per update.

    `target_augmentation` is what is done to the target's frames, `augmentation` where it is absent. Losses are means over
    what counts in a batch, or sums, as `reduction` says.
    """

    iterations: Positive
    batch_size: Few
    accumulate: Few = 1
    optimiser: Optimiser
    batch_norm: Literal["train", "frozen"]
    target_statistics: bool = False
    augmentation: Augmentation = Augmentation()
    target_augmentation: Augmentation | None = None
    reduction: Literal["mean", "sum"] = "mean"

    @model_validator(mode="after")
    def _schedule_covers_the_training(self) -> Training:
        length = self.optimiser.poly_iterations
        if length is not None and length < self.iterations:
            raise ValueError(f"optimiser.poly_iterations: must reach the training's {self.iterations}, found {length}")
        return self

    def augmentation_of(self, domain: str) -> Augmentation:
        """What is done to the frames of a domain."""
        return self.target_augmentation or self.augmentation if domain == "target" else self.augmentation


class Part(NamedTuple):
    """A module beside the network: trained from this learning rate on, or only kept where it has none."""

    module: nn.Module
    learning_rate: float | None = None


class RunSettings(Section):
    """What every entry of `runs` has: the name of its method, and what tables call it (`title`) and say of it (`note`)."""

    method: str
    title: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    note: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    about: ClassVar[str] = ""
    """What the method does, in the few words that a report has for it."""

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
        """Whether the run adapts the model that it starts from to the target, without its labels.

        A model of which a run adapts, and none has seen those labels, is one that a table may call the best.
        """
        return True

    @property
    def is_reference(self) -> bool:
        """Whether the run sees the target's labels."""
        return False


class Imported(RunSettings):
    """A model from elsewhere in place of one that is trained: a checkpoint, or the weights of the configured network.

    `has_seen` says how a table takes it: trained on the source alone, on the target too, or on the target's labels.
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
    """The settings of a run that is trained: those of its method, of its training, and where it starts.

    A method is a subclass in one file, registered by `@register("method", NAME)`, with a field `method: Literal[NAME]`. It says
    what it reads, and gives the loss terms of a step.

    `start` is the run whose last model it starts from; fresh weights without one. `stages: K` makes a chain of models
    RUN/stage1 to RUN/stageK, each from the one before.
    """

    start: Model | None = None
    stages: Few | None = None
    pseudo_labels: PseudoLabels = Field(default_factory=dict)
    uses_anchors: ClassVar[bool] = False
    """Whether it needs the category anchors of the model that it starts from."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Method:
        labelled = "pseudo-labels" in self.reads.values()
        if labelled and not self.pseudo_labels:
            raise ValueError("pseudo_labels: at least one rule must be given")
        if self.pseudo_labels and not (labelled or self.uses_anchors):
            raise ValueError(f"pseudo_labels: {self.method} uses none, leave the key out")
        if (labelled or self.uses_anchors) and self.start is None:
            raise ValueError(f"start: {self.method} must start from a run, whose model gives anchors and pseudo-labels")
        if self.stages is not None and self.start is None:
            raise ValueError("start: a run with stages must start from another run")
        return self

    @property
    def reads(self) -> Mapping[DomainName, Read]:
        """The domains of which a step gets a batch, in this order, and what it reads of their frames beside images."""
        raise NotImplementedError

    @property
    def reads_pseudo_labels(self) -> bool:
        """Whether cached pseudo-labels of the model that it starts from are among its inputs."""
        return "pseudo-labels" in self.reads.values()

    @property
    def reads_target_labels(self) -> bool:
        """Whether the target's labels are among its inputs."""
        return self.reads.get("target") == "truth"

    @property
    def is_reference(self) -> bool:
        """Whether the run sees the target's labels."""
        return self.reads_target_labels

    def frame_order(self, stage: int) -> str:
        """The name that, with the seed, decides the order of frames and their augmentation.

        Runs with the same name see the same frames, so that they are compared on equal data. `stage` is 1 and one more for
        each model before it of the same chain, or that was trained with anchors or pseudo-labels.
        """
        return f"stage {stage}"

    def parts(self, session: Session) -> Mapping[str, Part]:
        """The modules that it trains or keeps beside the network, by name; torch's random numbers are seeded before."""
        return {}

    def step(self, session: Session, batch: Batch) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """The objectives of one batch, each with the loss terms to report.

        Each is differentiated before the next is asked for, so that what one needed in memory is free for the next.
        Gradients add up.
        """
        raise NotImplementedError

    def after_update(self, session: Session) -> None:
        """Called after every update of the weights: a place to move a teacher's."""


class UnknownMethod(RunSettings, extra="allow"):
    """The settings of a method that only a plugin knows, as who looks at artifacts and runs no plugin reads them."""

    start: Model | None = None
    stages: Few | None = None
    pseudo_labels: dict[str, Any] = Field(default_factory=dict)


def method_classes() -> dict[str, type[RunSettings]]:
    """The settings of every known method by its name; a UserError where one cannot be chosen by it."""
    found = known("method")
    for name, cls in found.items():
        field = cls.model_fields.get("method") if issubclass(cls, Method) else None
        if field is None or name not in get_args(field.annotation):
            raise UserError(
                f'{cls.__module__}: the method {name} must be a Method with the field method: Literal["{name}"], found '
                f"{cls.__qualname__} without it; add it"
            )
    return {"imported": Imported, **found}


def _run(values: Any, info: ValidationInfo) -> Any:
    """An entry of `runs`; ValueError names the first fault."""
    if values is None or isinstance(values, RunSettings):
        return values
    if not isinstance(values, Mapping):
        raise PydanticCustomError("dict_type", "Input should be the settings of a run")
    if "method" not in values:
        raise ValueError("method: this key is required")
    methods, name = method_classes(), values["method"]
    if not isinstance(name, str) or name not in methods:
        if isinstance(name, str) and info.context == ONLY_LOOKED_AT:
            return _of_method(UnknownMethod, values, info)
        near = difflib.get_close_matches(str(name), methods, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"method: must be one of {', '.join(methods)}, found {name!r:.60}{hint} (the key plugins brings others)"
        )
    return _of_method(methods[name], values, info)


def _of_method(cls: type[RunSettings], values: Mapping[str, Any], info: ValidationInfo) -> RunSettings:
    """The settings of a run by its method; ValueError names the first fault."""
    try:
        return cls.model_validate(values, context=info.context)
    except ValidationError as error:
        raise ValueError(complaint(error.errors()[0])) from None


Run = Annotated[SerializeAsAny[RunSettings] | None, BeforeValidator(_run)]
"""An entry of `runs`: the settings of its method; None for a run of a base that is left out."""
