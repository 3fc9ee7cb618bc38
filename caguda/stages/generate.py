"""The verb `generate`: the street scenes of the embedded scenario, in the layouts of GTA5 and Cityscapes."""

import hashlib
import time
from pathlib import Path

from caguda.artifacts.atomic import write_json
from caguda.artifacts.provenance import provenance
from caguda.config import Configuration
from caguda.datasets.scenes import mark_scenes
from caguda.errors import UserError
from caguda.street import jobs, write_street


def generate(configuration: Configuration, output: Path) -> None:
    """Write all frames below `data_root`, and a JSON with their number and a digest over their contents.

    Frames of other settings below `data_root` would be taken for these: they are a UserError, nothing is deleted.
    """
    started = time.time()
    if configuration.street is None:
        raise UserError("generate: the configuration must have a `street` section, found none; real data are only read")
    ours = {path for job in jobs(configuration.root, configuration.street) for path in job[:2]}
    if others := sorted(set(configuration.root.glob("*/**/*.png")) - ours):
        raise UserError(
            f"{others[0]}: data_root must hold the generated frames alone, found {len(others)} other file(s), perhaps "
            "of an earlier configuration; move them away, or choose another data_root"
        )
    mark_scenes(configuration, started)
    write_street(configuration.root, configuration.street)
    files = sorted(configuration.root.glob("*/**/*.png"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(configuration.root).as_posix()}\n".encode() + path.read_bytes())
    settings = configuration.street.model_dump(mode="json")
    made = provenance("generate", {"street": settings}, [], None, started, output)
    write_json(output, {"street": settings, "files": len(files), "digest": digest.hexdigest(), "provenance": made})
    print(f"generate: {len(files)} files below {configuration.root} -> {output}")
