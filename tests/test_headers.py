"""Which kinds of PNG and JPEG are read as Pillow reads them, and which are refused by name before anything trains."""

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from frame_trees import HEIGHT, WIDTH, configuration, make_root, problems, write_image, write_label
from PIL import Image

from caguda.classes import CITYSCAPES_19
from caguda.datasets.header import LARGEST
from caguda.datasets.io import decode_image, read_image, read_label
from caguda.errors import UserError
from caguda.stages.check import check

PATH = Path("frame")
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (2, 8), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (6, 8)]


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(kind: int, bits: int, *extra: bytes, size: tuple[int, int] = (WIDTH, HEIGHT), late: bytes = b"") -> bytes:
    """A PNG of random pixels of a colour type; `extra` chunks come before the pixels, `late` behind them."""
    random = np.random.default_rng(bits)
    header = struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0)
    palette = chunk(b"PLTE", random.bytes(3 * 2**bits)) if kind == 3 else b""
    rows = b"".join(b"\0" + random.bytes(WIDTH * CHANNELS[kind] * bits // 8) for _ in range(HEIGHT))
    chunks = [chunk(b"IHDR", header), palette, *extra, chunk(b"IDAT", zlib.compress(rows)), late, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def picture(mode: str = "RGB") -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((WIDTH, HEIGHT)).convert(mode)


def encoded(image: Image.Image, suffix: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, suffix, **settings)  # type: ignore[arg-type]
    return file.getvalue()


def as_pillow(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def decoded(content: bytes) -> np.ndarray:
    image = decode_image(content, PATH)
    return image.permute(1, 2, 0).numpy()


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


@pytest.mark.parametrize(("kind", "bits"), KINDS)
@pytest.mark.parametrize("transparent", [False, True])
def test_png_of_up_to_8_bits_is_read_as_pillow_does(kind: int, bits: int, transparent: bool) -> None:
    known = {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: bytes(2**bits)}
    extra = [chunk(b"tRNS", known[kind])] if transparent and kind in known else []
    content = png(kind, bits, *extra)
    found = decoded(content)
    assert found.dtype == np.uint8
    assert np.array_equal(found, as_pillow(content))


@pytest.mark.parametrize("kind", [0, 2, 4, 6])
def test_png_of_16_bits_is_refused_as_an_image(kind: int) -> None:
    with pytest.raises(UserError, match="frame: an image must have 8 bits a channel, found 16; "):
        decode_image(png(kind, 16), PATH)


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("RGB", {}), ("L", {}), ("RGB", {"progressive": True}), ("L", {"progressive": True}), ("RGB", {"subsampling": 0}),
        ("RGB", {"subsampling": 1}), ("RGB", {"keep_rgb": True}), ("RGB", {"optimize": True, "comment": "hello"}),
    ],
)  # fmt: skip
def test_baseline_and_progressive_jpeg_is_read_as_pillow_does(mode: str, settings: dict[str, object]) -> None:
    content = encoded(picture(mode), "jpeg", **settings)
    assert np.array_equal(decoded(content), as_pillow(content))


def test_jpeg_for_print_is_refused() -> None:
    with pytest.raises(UserError, match=r"frame: a JPEG must be grey or in colour of 3 channels, found 4 channels"):
        decode_image(encoded(picture("CMYK"), "jpeg"), PATH)


@pytest.mark.parametrize("marker", [0xC3, 0xC9, 0xCA])
def test_lossless_and_arithmetic_jpeg_is_refused(marker: int) -> None:
    content = encoded(picture(), "jpeg").replace(b"\xff\xc0", bytes([0xFF, marker]), 1)
    with pytest.raises(UserError, match="frame: a JPEG must be baseline or progressive with 8 bits"):
        decode_image(content, PATH)


def test_jpeg_of_12_bits_is_refused() -> None:
    content = encoded(picture(), "jpeg").replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c", 1)
    with pytest.raises(UserError, match="frame: a JPEG must be baseline or progressive with 8 bits"):
        decode_image(content, PATH)


def test_animated_png_is_refused_as_image_and_label(tmp_path: Path) -> None:
    path = tmp_path / "moving.png"
    pictures = [Image.new("L", (4, 4), value) for value in (7, 8)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    for read in (read_image, lambda path: read_label(path, CITYSCAPES_19)):
        with pytest.raises(UserError, match=r"moving\.png: a PNG must hold one picture, and this one is animated"):
            read(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpeg"])
def test_only_upright_images_are_read(orientation: int, suffix: str) -> None:
    content = encoded(picture(), suffix, exif=exif(orientation))
    if orientation == 1:
        assert np.array_equal(decoded(content), as_pillow(content))
        return
    with pytest.raises(UserError) as caught:
        decode_image(content, PATH)
    told = str(caught.value)
    assert told.startswith(f"frame: this image must be stored upright, and it has the EXIF orientation {orientation},")
    assert "mogrify -auto-orient" in told and "skip" in told and "\n" not in told


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
NOTES = {
    "eXIf": chunk(b"eXIf", exif(6)[6:]),
    "xmp": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "text": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n" + str(len(exif(6))).encode() + b"\n" + exif(6).hex().encode()),
}  # fmt: skip


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize("late", [False, True])
def test_every_note_of_a_png_is_looked_at(note: str, late: bool) -> None:
    content = png(2, 8, late=NOTES[note]) if late else png(2, 8, NOTES[note])
    with pytest.raises(UserError, match="EXIF orientation 6"):
        decode_image(content, PATH)


def test_notes_that_say_no_orientation_change_nothing() -> None:
    others = [
        chunk(b"tEXt", b"Software\0gimp"),
        chunk(b"eXIf", b"nonsense"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0"),
    ]
    assert np.array_equal(decoded(png(2, 8, *others)), decoded(png(2, 8)))
    turned = encoded(picture(), "jpeg", exif=exif(0))
    assert np.array_equal(decoded(turned), as_pillow(turned))


def test_a_turned_label_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    Image.new("L", (4, 4), 7).save(path, exif=exif(3))
    with pytest.raises(UserError, match=r"label\.png: this label must be stored upright"):
        read_label(path, CITYSCAPES_19)


def test_an_image_of_more_pixels_than_can_be_held_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(2, 8, size=(30_000, 30_000)))
    for what, read in (("image", read_image), ("label", lambda path: read_label(path, CITYSCAPES_19))):
        with pytest.raises(
            UserError, match=rf"bomb\.png: this {what} must have at most {LARGEST} pixels, found 30000x3"
        ):
            read(path)
    jpeg = encoded(picture(), "jpeg").replace(struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 60_000, 60_000), 1)
    with pytest.raises(UserError, match="found 60000x60000"):
        decode_image(jpeg, PATH)


@pytest.mark.parametrize("suffix", ["png", "jpeg"])
def test_every_truncation_is_one_line(suffix: str) -> None:
    content = encoded(picture(), suffix, exif=exif(1))
    for end in [*range(3, 160), len(content) // 2, len(content) - 30]:
        with pytest.raises(UserError, match=r"^frame: (this image is damaged|an image must be a PNG or JPEG)"):
            decode_image(content[:end], PATH)


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="this image is damaged"):
        decode_image(png(2, 8, size=size), PATH)


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    for suffix, name in (("png", "a.jpg"), ("jpeg", "b.png")):
        (tmp_path / name).write_bytes(content := encoded(picture(), suffix))
        assert np.array_equal(read_image(tmp_path / name).permute(1, 2, 0).numpy(), as_pillow(content))
    (tmp_path / "c.png").write_bytes(encoded(picture(), "webp"))
    with pytest.raises(UserError, match=r"c\.png: an image must be a PNG or JPEG file, and this is neither"):
        read_image(tmp_path / "c.png")


# What the check says of them


def test_the_check_refuses_every_such_file_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_root(tmp_path / "data")
    images, labels = root / "gta/images", root / "gta/labels"
    (images / "00001.png").write_bytes(png(2, 16))
    (images / "00002.png").write_bytes(encoded(picture(), "jpeg", exif=exif(6)))
    Image.new("L", (WIDTH, HEIGHT), 7).save(labels / "00003.png", exif=exif(8))
    found = problems(root, capsys)
    assert [line.split(": ")[1] for line in found] == [
        str(images / "00001.png"), str(images / "00002.png"), str(labels / "00003.png")
    ]  # fmt: skip
    skip = {"layout": "gta5", "root": "gta", "skip": ["00001", "00002", "00003"]}
    write_image(images / "00004.png")
    write_label(labels / "00004.png")
    check(configuration(root, source=skip), tmp_path / "manifest.json")


@pytest.mark.parametrize("place", ["images", "labels"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file_is_named_and_never_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_root(tmp_path / "data")
    path = root / "gta" / place / "00002.png"
    path.unlink()
    monkeypatch.chdir(path.parent)  # the name of a socket must be short
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(path.name)
    else:
        path.symlink_to("/dev/zero")
    (found,) = problems(root, capsys)
    assert found == f"source: {path}: this must be a regular file, found a pipe, socket or device; put a file there"
