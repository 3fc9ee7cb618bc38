"""The page of pseudo-labels in a real browser, from the file system: clicks, keys, and what it reads and loads."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caguda.artifacts.label_statistics import ImageLabels
from caguda.classes import CITYSCAPES_19, IGNORE
from caguda.viewer.columns import DISAGREEMENTS, ComparedFrame, disagreement
from caguda.viewer.columns_page import ColumnHead, write_columns_page
from caguda.viewer.overlays import DIFFERENCES, ViewedFrame, difference
from caguda.viewer.page import LabellingHead, Page, write_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]
SIZES = ((6, 10), (12, 20))
COUNT, GONE = 60, 2
FIELDS = {"nearest anchor": "nearest_anchor", "predicted": "predicted", "d2 − d1": "margin",
          "confidence": "confidence", "active": "active"}  # fmt: skip


def arrays(random: np.random.Generator, size: tuple[int, int]) -> ImageLabels:
    """Consistent arrays of one image in which every kind of pixel occurs, with margins infinite and subnormal in float16."""
    nearest, predicted = random.integers(0, 19, (2, *size)).astype(np.uint8)
    predicted = np.where(random.random(size) < 0.6, nearest, predicted)
    active = random.integers(0, 4, size).astype(np.uint8)
    labels = [np.where(active & bit, of, IGNORE).astype(np.uint8) for bit, of in ((1, nearest), (2, predicted))]
    margin = (5 * random.random(size)).astype(np.float32)
    margin[0, 0], margin[-1, -1] = np.inf, 3e-7
    return ImageLabels(active, *labels, nearest, predicted, margin, random.random(size).astype(np.float32))


def made(count: int, sizes: tuple[tuple[int, int], ...], *, known: bool = True) -> list[ViewedFrame]:
    """Random frames; the image of the frame number GONE is missing."""
    random = np.random.default_rng(count)
    frames = []
    for number in range(count):
        image = random.integers(0, 256, (24, 40, 3)).astype(np.uint8)
        truth = [random.choice(np.array([0, 1, 2, IGNORE], np.uint8), size) for size in sizes] if known else None
        missing = "frame.png: this file cannot be read" if number == GONE else ""
        maps = [arrays(random, size) for size in sizes]
        frames.append(ViewedFrame(f"town_{number:03}", None if missing else image, missing, truth, maps))
    return frames


def written(folder: Path, frames: list[ViewedFrame], sizes: tuple[tuple[int, int], ...]) -> str:
    """The address of a page of some frames."""
    stages = [LabellingHead(f"stage {i}", f"stage{i}", *size, 1.5, 0.95) for i, size in enumerate(sizes, 1)]
    return write_page(Page("in their order", CITYSCAPES_19, stages), frames, folder).as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@dataclass
class Tab:
    """A page in the browser, with all that it asked for and complained about."""

    page: Any
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, address: str) -> "Tab":
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("#frame b")
        return self

    def is_at(self, name: str) -> None:
        """Waits until this frame is shown."""
        self.page.wait_for_function("name => document.querySelector('#frame b').textContent === name", arg=name)

    def scripts(self) -> list[int]:
        """The numbers of the frames that were loaded, in order."""
        return [int(match[1]) for url in self.asked if (match := re.search(r"/frames/(\d+)\.js$", url))]

    def layers(self) -> list[tuple[str, str]]:
        """The panels on the screen: layer and stage."""
        found = self.page.eval_on_selector_all("figure", "all => all.map(f => [f.dataset.layer, f.dataset.stage])")
        return [tuple(pair) for pair in found]

    def hover(self, layer: str, stage: int, x: float, y: float) -> dict[str, list[str]]:
        """What the readout says of a place of a panel, as exact values, a column for each stage."""
        box = self.page.locator(f"figure[data-layer={layer}][data-stage='{stage}'] .stack").bounding_box()
        self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        rows = self.page.eval_on_selector_all(
            "#pixel tbody tr",
            "rows => rows.map(r => [r.cells[0].textContent, [...r.cells].slice(1).map(c => c.dataset.value)])",
        )
        return dict(rows)

    def pixels(self, layer: str, stage: int) -> np.ndarray:
        """The RGBA values of a panel's canvas."""
        script = """f => { const c = f.querySelector('canvas');
            return [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]; }"""
        height, width, data = self.page.eval_on_selector(f"figure[data-layer={layer}][data-stage='{stage}']", script)
        return np.array(data, np.uint8).reshape(height, width, 4)


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    yield Tab(page)
    page.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[ViewedFrame]]:
    """A page that compares two stages of different resolution."""
    frames = made(COUNT, SIZES)
    return written(tmp_path_factory.mktemp("two"), frames, SIZES), frames


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[ViewedFrame]]:
    """A page of one store whose truth is not known."""
    frames = made(5, SIZES[:1], known=False)
    return written(tmp_path_factory.mktemp("one"), frames, SIZES[:1]), frames


def test_it_loads_what_is_on_the_screen(tab: Tab, two: tuple[str, list[ViewedFrame]]) -> None:
    tab.open(two[0]).is_at("town_000")
    assert tab.scripts() == [0]
    for key, name in (("ArrowRight", "town_001"), ("ArrowRight", "town_002"), ("ArrowLeft", "town_001"),
                      ("End", "town_059"), ("ArrowRight", "town_059"), ("Home", "town_000")):  # fmt: skip
        tab.page.keyboard.press(key)
        tab.is_at(name)
    assert tab.page.locator("#previous").is_disabled()
    tab.page.click("#next")
    tab.is_at("town_001")
    tab.page.fill("#place", "31")
    tab.page.press("#place", "Enter")
    tab.is_at("town_030")
    tab.page.fill("#find", "017")
    tab.page.press("#find", "Enter")
    tab.is_at("town_017")
    tab.page.keyboard.press("ArrowLeft")
    tab.is_at("town_016")
    assert tab.scripts() == [0, 1, 2, 59, 30, 17, 16], "a frame is loaded once, when it is shown"
    assert all(url.startswith(("file:", "data:")) for url in tab.asked) and tab.complaints == []
    assert tab.page.url.endswith("#town_016")
    tab.page.reload()
    tab.is_at("town_016")


def test_frames_that_were_seen_long_ago_are_let_go(tab: Tab, two: tuple[str, list[ViewedFrame]]) -> None:
    tab.open(two[0])
    for number in range(1, 30):
        tab.page.keyboard.press("ArrowRight")
        tab.is_at(f"town_{number:03}")
    assert tab.page.evaluate("kept.size") == 12 and tab.page.locator("script[src]").count() == 0
    tab.page.keyboard.press("Home")
    tab.is_at("town_000")
    assert tab.scripts() == [*range(30), 0]


def test_a_pixel_reads_as_the_store_says_in_both_stages(tab: Tab, two: tuple[str, list[ViewedFrame]]) -> None:
    tab.open(two[0] + "#town_007").is_at("town_007")
    frame = two[1][7]
    assert frame.truth is not None
    for layer, stage, x, y in (("anchor", 0, 0.02, 0.02), ("anchor", 1, 0.51, 0.7), ("image", 0, 0.98, 0.96),
                               ("difference", 1, 0.33, 0.12), ("truth", 0, 0.77, 0.43)):  # fmt: skip
        read = tab.hover(layer, stage, x, y)
        for column, (height, width) in enumerate(SIZES):
            place = int(y * height), int(x * width)
            assert int(read["truth"][column]) == frame.truth[column][place]
            for title, name in FIELDS.items():
                expected = float(np.float16(getattr(frame.labels[column], name)[place]))
                assert float(read[title][column].replace("Infinity", "inf")) == expected, (title, column)
    tab.page.keyboard.press("Shift+ArrowDown")
    tab.page.keyboard.press("Shift+ArrowLeft")
    assert tab.page.inner_text("#where").lower() == "x 6, y 3"
    assert tab.page.inner_text("#frame b") == "town_007"


def test_layers_come_and_go_by_button_and_key(tab: Tab, two: tuple[str, list[ViewedFrame]]) -> None:
    tab.open(two[0])
    both = [("anchor", "0"), ("anchor", "1"), ("difference", "0"), ("difference", "1")]
    assert tab.layers() == [("image", "0"), ("truth", "0"), *both]
    for key in "125":
        tab.page.keyboard.press(key)
    assert tab.layers() == both[:2]
    tab.page.click("button[data-layer=confidence]")
    assert tab.layers() == [*both[:2], ("confidence", "0"), ("confidence", "1")]
    assert tab.page.get_attribute("button[data-layer=confidence]", "aria-pressed") == "true"
    left, right = (tab.page.locator(f"figure[data-layer=anchor][data-stage='{i}']").bounding_box() for i in (0, 1))
    assert abs(left["y"] - right["y"]) < 1 and left["x"] + left["width"] < right["x"], "the stages are side by side"
    tab.page.focus("#find")
    tab.page.keyboard.press("9")
    assert ("confidence", "0") in tab.layers(), "a figure that is typed is no key"
    tab.page.press("#find", "Escape")
    tab.page.click("#help")
    assert tab.page.is_visible("#dialog")
    tab.page.keyboard.press("Escape")
    assert not tab.page.is_visible("#dialog") and tab.complaints == []


def test_panels_have_the_colours_of_the_labels(tab: Tab, two: tuple[str, list[ViewedFrame]]) -> None:
    tab.open(two[0] + "#town_004").is_at("town_004")
    for key in "467":
        tab.page.keyboard.press(key)
    frame, palette = two[1][4], CITYSCAPES_19.palette()
    names = {"anchor": "anchor_label", "probability": "probability_label", "nearest": "nearest_anchor"}
    for stage, maps in enumerate(frame.labels):
        for layer, name in (names | {"predicted": "predicted"}).items():
            np.testing.assert_array_equal(tab.pixels(layer, stage)[..., :3], palette[getattr(maps, name)])
        colors = np.array([list(bytes.fromhex(color[1:])) for color in DIFFERENCES.values()], np.uint8)
        np.testing.assert_array_equal(tab.pixels("difference", stage)[..., :3], colors[difference(maps)])
    label = frame.labels[0].anchor_label
    caption = tab.page.inner_text("figure[data-layer=anchor][data-stage='0'] .end")
    assert caption.startswith(f"{100 * (label != IGNORE).mean():.1f} % of pixels")


def test_a_category_is_seen_alone(tab: Tab, one: tuple[str, list[ViewedFrame]]) -> None:
    tab.open(one[0])
    label = one[1][0].labels[0].anchor_label
    category = int(np.bincount(label[label != IGNORE]).argmax())
    button = tab.page.locator("#legend button").nth(category)
    assert f"{100 * (label == category).mean():.1f} %" in button.inner_text()
    button.click()
    tab.page.mouse.move(5, 5)
    np.testing.assert_array_equal(tab.pixels("anchor", 0)[..., 3] == 255, label == category)
    assert button.get_attribute("aria-pressed") == "true"
    tab.page.keyboard.press("Escape")
    assert (tab.pixels("anchor", 0)[..., 3] == 255).all()
    button.hover()
    np.testing.assert_array_equal(tab.pixels("anchor", 0)[..., 3] == 255, label == category)


def test_what_is_gone_is_said_and_the_rest_is_shown(tab: Tab, one: tuple[str, list[ViewedFrame]]) -> None:
    tab.open(one[0] + f"#town_{GONE:03}").is_at(f"town_{GONE:03}")
    assert tab.page.locator("button[data-layer=truth]").is_disabled() and ("truth", "0") not in tab.layers()
    assert "frame.png: this file cannot be read" in tab.page.inner_text("figure[data-layer=image] p")
    assert tab.page.is_visible("figure[data-layer=anchor] canvas")
    assert tab.hover("image", 0, 0.5, 0.5)["truth"] == [None]
    assert tab.complaints == []


def test_a_frame_whose_script_is_gone_stops_nothing(tab: Tab, tmp_path: Path) -> None:
    address = written(tmp_path, made(3, SIZES[:1]), SIZES[:1])
    (tmp_path / "frames" / "1.js").unlink()
    tab.open(address)
    tab.page.keyboard.press("ArrowRight")
    tab.is_at("town_001")
    assert "frames/1.js is gone or damaged" in tab.page.inner_text("#fault")
    tab.page.keyboard.press("ArrowRight")
    tab.is_at("town_002")
    assert not tab.page.is_visible("#fault") and tab.page.is_visible("figure[data-layer=anchor] canvas")


def test_frames_come_in_another_order(tab: Tab, two: tuple[str, list[ViewedFrame]]) -> None:
    tab.open(two[0])
    active = [(frame.labels[0].anchor_label != IGNORE).mean() for frame in two[1]]
    tab.page.select_option("#order", "fewest active first")
    tab.is_at(two[1][int(np.argmin(active))].name)
    tab.page.select_option("#order", "by name")
    tab.is_at("town_000")


def test_columns_have_the_colours_of_their_labels_and_differences(tab: Tab, tmp_path: Path) -> None:
    """Two columns, whose frames have two sizes."""
    random = np.random.default_rng(0)
    frames = []
    for number, size in enumerate(SIZES):
        first, second, truth = random.choice([0, 3, 7, IGNORE], (3, *size)).astype(np.uint8)
        frames.append(ComparedFrame(f"town_{number:03}", None, "gone", truth, [first, second]))
    heads = [ColumnHead("one", "a.json"), ColumnHead("two", "b.json")]
    tab.open(write_columns_page("in their order", CITYSCAPES_19, heads, frames, tmp_path).as_uri())
    colors = np.array([list(bytes.fromhex(color[1:])) for color in DISAGREEMENTS.values()], np.uint8)
    for frame in frames:
        tab.is_at(frame.name)
        assert tab.layers() == [("image", "0"), ("truth", "0"), ("label", "0"), ("label", "1"), ("difference", "0")]
        for column, label in enumerate(frame.labels):
            np.testing.assert_array_equal(tab.pixels("label", column)[..., :3], CITYSCAPES_19.palette()[label])
        different = disagreement(*frame.labels, frame.truth)
        np.testing.assert_array_equal(tab.pixels("difference", 0)[..., :3], colors[different])
        assert f"{100 * (different > 0).mean():.1f} % differ" in tab.page.inner_text("#frame")
        tab.page.keyboard.press("ArrowRight")
    assert tab.complaints == []
