"""Whose generated scenes lie below `data_root`: a JSON among them says so. No torch."""

from caguda.artifacts.atomic import write_json
from caguda.artifacts.identity import KINDS, read_artifact
from caguda.artifacts.provenance import provenance
from caguda.config import Configuration
from caguda.errors import UserError

MARKER = "street.json"


def other_scenes(configuration: Configuration) -> str | None:
    """The name of the experiment whose scenes lie below `data_root`, if they were made with other settings; else None."""
    marker = configuration.root / MARKER
    if configuration.street is None or not marker.exists():
        return None
    told = read_artifact(marker, KINDS["generate"])
    if not {"street", "experiment"} <= told.keys():
        raise UserError(
            f"{marker}: this file must say whose scenes lie here, found another one; move it away, and generate again"
        )
    return None if told["street"] == configuration.street.model_dump(mode="json") else str(told["experiment"])


def mark_scenes(configuration: Configuration, started: float) -> None:
    """Writes whose scenes are to lie below `data_root`; UserError where another experiment has other ones there."""
    assert configuration.street is not None
    if (owner := other_scenes(configuration)) not in (None, configuration.experiment):
        raise UserError(
            f"{configuration.root}: data_root must be of this experiment's scenes, found those of {owner} with other settings; "
            "choose another data_root"
        )
    settings, path = configuration.street.model_dump(mode="json"), configuration.root / MARKER
    made = provenance("generate", {"street": settings}, [], None, started, path)
    write_json(path, {"experiment": configuration.experiment, "street": settings, "provenance": made})


def refuse_other_scenes(configuration: Configuration) -> None:
    """UserError where the scenes below `data_root` were made with other settings than the configuration's."""
    if owner := other_scenes(configuration):
        raise UserError(
            f"{configuration.root}: the scenes must be those of the section street, found those of {owner} with other settings; "
            "generate them again, or choose another data_root"
        )
