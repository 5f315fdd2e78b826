"""The report in a real browser: Debian's chromium, without a window and without a network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import deshi

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 120_000
"""Milliseconds for one step: a busy machine is no failure."""

SCREENS = {"phone": (360, 740), "desk": (1280, 900)}
OUTSIDE = """() => [...document.querySelectorAll('body *')].filter(one => {
    const box = one.getBoundingClientRect();
    return box.width && !one.closest('.scroll') && !one.closest('svg') && !one.classList.contains('skip')
        && (box.right > innerWidth + 1 || box.left < -1);
}).map(one => one.outerHTML.slice(0, 120))"""
CONTRAST = """() => {
    const part = value => { value /= 255; return value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4; };
    const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number);
        return .2126 * part(r) + .7152 * part(g) + .0722 * part(b); };
    const ground = one => { for (; one; one = one.parentElement) {
        const color = getComputedStyle(one).backgroundColor;
        if (!/, 0\\)$|transparent/.test(color)) return color; } return 'rgb(255, 255, 255)'; };
    const texts = 'h1, h2, h3, p, li, td, th, a, summary, figcaption, dt, strong, span, code, text';
    return [...document.querySelectorAll(texts)]
        .filter(one => one.textContent.trim() && one.getClientRects().length).map(one => {
            const style = getComputedStyle(one), svg = one.tagName === 'text';
            const [high, low] = [light(svg ? style.fill : style.color), light(ground(one))].sort((a, b) => b - a);
            return [(high + .05) / (low + .05), one.textContent.trim().slice(0, 40)]; })
        .filter(([ratio]) => ratio < 4.5);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, or a reason why there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on the path: apt-get install chromium (.ci/run does)")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=FLAGS, timeout=PATIENCE)
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(_finished_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two runs, one with an explained gap."""
    root = tmp_path_factory.mktemp("browser") / "root"
    shutil.copytree(_finished_root, root)
    deshi.gap(f"paths.root={root}", run="latest")
    return deshi.report(f"paths.root={root}", runs=["*_tiny_*"]).page


class Visit:
    """A page opened on a screen of some size, with its messages and requests."""

    def __init__(self, browser: Any, url: str, size: tuple[int, int], scheme: str = "light") -> None:
        width, height = size
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)


@pytest.fixture(params=SCREENS)
def visit(request: pytest.FixtureRequest, browser: Any, file: Path) -> Iterator[Visit]:
    """The report on a phone and on a desk."""
    opened = Visit(browser, file.as_uri(), SCREENS[request.param])
    yield opened
    opened.context.close()


def test_the_page_fits_and_is_silent(visit: Visit) -> None:
    """Nothing sticks out at the sides, nothing is loaded, nothing is complained about."""
    page = visit.page
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert page.evaluate(OUTSIDE) == []
    assert visit.messages == [] and [url for url in visit.requests if not url.startswith("file:")] == []
    assert len(visit.requests) == 1
    assert len(page.screenshot(full_page=True)) > 20_000


def test_it_still_fits_with_everything_open(visit: Visit) -> None:
    """Merged tables and configurations are the widest things on the page."""
    visit.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert visit.page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert visit.page.evaluate(OUTSIDE) == []


def test_all_sections_and_figures_are_visible(visit: Visit) -> None:
    """A section of height 0 is a section that nobody sees."""
    headings = visit.page.locator("h2")
    assert headings.count() == 8 and all(headings.nth(number).is_visible() for number in range(8))
    figures = visit.page.locator("figure > svg")
    boxes = [figures.nth(number).bounding_box() for number in range(figures.count())]
    assert len(boxes) >= 12 and all(box and box["width"] > 200 and box["height"] > 60 for box in boxes)


def test_contents_and_details_work_by_keyboard(visit: Visit) -> None:
    """Without a mouse, and without a script."""
    page = visit.page
    page.locator("nav a", has_text="Examples").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("#examples$"))  # a link is followed some time after its key
    collapsed = page.locator("#examples details:not([open]) > summary").first
    handle = collapsed.element_handle()
    collapsed.focus()
    page.keyboard.press("Enter")
    assert handle.evaluate("one => one.parentElement.open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_by_day_and_by_night(browser: Any, file: Path, scheme: str) -> None:
    """Contrast of at least 4.5 (WCAG AA) for every text, those in figures' axes included."""
    opened = Visit(browser, file.as_uri(), SCREENS["desk"], scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    faint = [(ratio, text) for ratio, text in opened.page.evaluate(CONTRAST) if not text.endswith("%")]
    opened.context.close()
    assert faint == [], "numbers on coloured bars are the exception: they stand in the table below too"
