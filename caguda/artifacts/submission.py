"""The zip of predictions for Cityscapes' test server, and the check of the server's rules on the zip itself."""

import io
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from PIL import Image

from caguda.classes import CITYSCAPES_19
from caguda.errors import first

SIZE = (1024, 2048)
"""Height and width of Cityscapes' frames."""
IMAGES = 1525
"""The number of frames in Cityscapes' test split."""
EVALUATED = frozenset(CITYSCAPES_19.label_ids.tolist())
"""The label ids that the server scores; a pixel with any other id counts as wrong."""

_NAME = re.compile(r"([^_/]+_\d{6}_\d{6}).*\.png")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(files: Sequence[Path], archive: Path) -> None:
    """Writes a zip of the files without their folders; equal files give equal bytes, whatever their dates and rights."""
    with ZipFile(archive, "w", ZIP_STORED) as target:  # PNG is compressed already
        for path in sorted(files, key=lambda path: path.name):
            info = ZipInfo(path.name, date_time=_EPOCH)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            target.writestr(info, path.read_bytes())


def faults(archive: Path, frames: Mapping[str, tuple[int, int]]) -> list[str]:
    """The faults that the server would refuse, a line for each file that begins with its name; none for a correct zip.

    `frames` are the expected ids with the height and width of their images.
    """
    lines: list[str] = []
    files: dict[str, str] = {}  # by frame
    with ZipFile(archive) as source:
        for name in sorted(source.namelist()):
            match = _NAME.fullmatch(name)
            if match is None:
                lines.append(f"{name}: a name must be CITY_SEQUENCE_FRAME*.png, with six digits twice, in no folder")
            elif (frame := match[1]) not in frames:
                lines.append(f"{name}: surplus, the set has no frame {frame}")
            elif frame in files:
                lines.append(f"{name}: surplus, {files[frame]} is of the same frame")
            else:
                files[frame] = name
                if fault := _fault_of_file(source.read(name), frames[frame]):
                    lines.append(f"{name}: {fault}")
    return lines + [f"{frame}.png: missing" for frame in sorted(frames.keys() - files.keys())]


def _fault_of_file(content: bytes, size: tuple[int, int]) -> str | None:
    """The fault of a PNG file for an image of this height and width; None if there is none."""
    if len(content) < 33 or not content.startswith(_SIGNATURE) or content[12:16] != b"IHDR":
        return "not a PNG file"
    width, height, bits, colour = struct.unpack(">IIBB", content[16:26])
    if (bits, colour) != (8, 0):
        kind = _COLOUR_TYPES.get(colour, "unknown")
        return f"must be 8-bit with a single channel, grey, found {kind} with {bits} bits"
    if (height, width) != size:
        return f"must be {size[1]}x{size[0]} as its image is, found {width}x{height}"
    try:
        if not content.endswith(b"IEND\xaeB`\x82"):
            raise OSError("the file is cut off")
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            pixels = np.bincount(np.asarray(image).ravel(), minlength=256)
    except (OSError, SyntaxError, ValueError) as error:
        return f"damaged ({' '.join(str(error).split())})"
    return _fault_of_ids({int(value): int(pixels[value]) for value in np.flatnonzero(pixels)})


def _fault_of_ids(pixels: Mapping[int, int]) -> str | None:
    """The fault of a file by the number of its pixels of each value; None if the server scores all of them."""
    if not (unscored := [f"{value} ({count} pixels)" for value, count in pixels.items() if value not in EVALUATED]):
        return None
    hint = "; are these train ids?" if max(pixels) < CITYSCAPES_19.count else ""
    scored = " ".join(str(value) for value in sorted(EVALUATED))
    return f"the server evaluates the label ids {scored}, found {first(unscored, 5)}{hint}"
