"""The verb `generate`: synthetic street scenes in the layouts of GTA5 and Cityscapes."""

import hashlib
import time
from pathlib import Path

from caguda.artifacts.atomic import write_json
from caguda.artifacts.provenance import new_provenance
from caguda.config import Configuration
from caguda.datasets.scenes import mark_scenes
from caguda.errors import UserError
from caguda.street import jobs, write_street


def generate(configuration: Configuration, output: Path) -> None:
    """Write all frames below `data_root`, and a JSON with their number and a SHA-256 of their contents.

    UserError if `data_root` has other frames, which would be taken for these; nothing is deleted.
    """
    started = time.time()
    if configuration.street is None:
        raise UserError("generate: the configuration must have a `street` section, found none; real data are only read")
    expected = {path for job in jobs(configuration.root, configuration.street) for path in job[:2]}
    if foreign := sorted(set(configuration.root.glob("*/**/*.png")) - expected):
        raise UserError(
            f"{foreign[0]}: data_root must hold the generated frames alone, found {len(foreign)} other file(s), perhaps "
            "of an earlier configuration; move them away, or choose another data_root"
        )
    mark_scenes(configuration, started)
    write_street(configuration.root, configuration.street)
    files = sorted(configuration.root.glob("*/**/*.png"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(configuration.root).as_posix()}\n".encode() + path.read_bytes())
    settings = configuration.street.model_dump(mode="json")
    provenance = new_provenance("generate", {"street": settings}, [], None, started, output)
    write_json(
        output, {"street": settings, "files": len(files), "digest": digest.hexdigest(), "provenance": provenance}
    )
    print(f"generate: {len(files)} files below {configuration.root} -> {output}")
