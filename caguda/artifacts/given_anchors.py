"""The folder of what is made with anchors from elsewhere, `anchors-DIGEST`. No torch.

It is named by the content of their file: other anchors never share a folder, nor do those of a model itself.
"""

import os
import re
from pathlib import Path

from caguda.artifacts.provenance import content_digest
from caguda.errors import UserError

CONVERTED = "anchors.h5"
"""The name of the converted file, in EXPERIMENT/anchors-DIGEST."""
_FOLDER = re.compile(r"anchors-[0-9a-f]{8}")


def folder_of(file: Path) -> str:
    """The name of the folder for a file of anchors. UserError if it cannot be read."""
    try:
        return folder_by(content_digest(file))
    except OSError as error:
        raise UserError(
            f"{file}: the anchors file must be readable, found: {os.strerror(error.errno or 0)}; put that right"
        ) from None


def folder_by(digest: str) -> str:
    """The name of the folder for a content digest."""
    return f"anchors-{digest[:8]}"


def folder_around(path: Path) -> str:
    """The name of such a folder that an artifact lies in, beside a model or, if it is the converted file, anywhere; or empty.

    A run and an experiment may have such a name too: their folders do not count.
    """
    seeds = [index for index, part in enumerate(path.parts) if re.fullmatch(r"seed\d+", part)]
    below_run = path.parts[seeds[-1] + 2 : -1] if seeds else ()
    folders = path.parts[-2:-1] if path.name == CONVERTED else below_run
    return next((part for part in folders if _FOLDER.fullmatch(part)), "")
