"""The marker of generated scenes: a JSON below `data_root` names their experiment and settings. No torch."""

from caguda.artifacts.atomic import write_json
from caguda.artifacts.identity import KIND_BY_VERB, read_artifact
from caguda.artifacts.provenance import new_provenance
from caguda.config import Configuration
from caguda.errors import UserError

MARKER = "street.json"


def other_scenes(configuration: Configuration) -> str | None:
    """The experiment of the scenes below `data_root` if they were made with other settings, else None."""
    marker = configuration.root / MARKER
    if configuration.street is None or not marker.exists():
        return None
    content = read_artifact(marker, KIND_BY_VERB["generate"])
    if not {"street", "experiment"} <= content.keys():
        raise UserError(
            f"{marker}: this file must say whose scenes lie here, found another one; move it away, and generate again"
        )
    same_settings = content["street"] == configuration.street.model_dump(mode="json")
    return None if same_settings else str(content["experiment"])


def mark_scenes(configuration: Configuration, started: float) -> None:
    """Marks `data_root` as that of this experiment's scenes; UserError if another experiment has different ones there."""
    assert configuration.street is not None
    if (owner := other_scenes(configuration)) not in (None, configuration.experiment):
        raise UserError(
            f"{configuration.root}: data_root must be of this experiment's scenes, found those of {owner} with other settings; "
            "choose another data_root"
        )
    settings, path = configuration.street.model_dump(mode="json"), configuration.root / MARKER
    provenance = new_provenance("generate", {"street": settings}, [], None, started, path)
    write_json(path, {"experiment": configuration.experiment, "street": settings, "provenance": provenance})


def refuse_other_scenes(configuration: Configuration) -> None:
    """UserError if the scenes below `data_root` were made with other settings than those of the configuration."""
    if owner := other_scenes(configuration):
        raise UserError(
            f"{configuration.root}: the scenes must be those of the section street, found those of {owner} with other settings; "
            "generate them again, or choose another data_root"
        )
